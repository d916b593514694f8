//! What others ask of the background thread: it alone holds the capacity tier.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use forerun::change_vector::{Change, ChangeVector};
use forerun::config::SnapshotName;
use forerun::geometry::{BlockIndex, Epoch};
use tokio::sync::oneshot;

use super::Tasks;
use crate::aligned::AlignedBuffer;
pub use crate::capacity_tier::CapacityError;
use crate::capacity_tier::Place;
use crate::volume::lock;

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<io::Result<T>>;
/// Where an answer goes whose failure is the capacity tier's.
pub type CapacityReply<T> = oneshot::Sender<Result<T, CapacityError>>;

/// A kept epoch on the capacity tier, as HEAD tells it.
#[derive(Clone, Debug)]
pub struct KeptLayer {
    /// Its name.
    pub name: SnapshotName,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was sealed, in microseconds since 1970.
    pub sealed_us: u64,
    /// Bytes the volume held.
    pub data_bytes: u64,
    /// Changes since the snapshot before it, summed over the layers in between.
    pub added: u64,
    /// As `added`.
    pub modified: u64,
    /// As `added`.
    pub deleted: u64,
    /// When the first of those layers began.
    pub since_us: u64,
}

/// Something to be done by the background thread.
pub enum Ask {
    /// Read a block for a request that missed it.
    Fetch {
        /// Which block.
        block: BlockIndex,
        /// Where it lies.
        place: NonZeroU64,
        /// Who waits.
        reply: Reply<Arc<AlignedBuffer>>,
    },
    /// Free slots: a request waits.
    Room,
    /// The snapshots on the capacity tier.
    Kept {
        /// Who waits.
        reply: CapacityReply<Vec<KeptLayer>>,
    },
    /// Take a snapshot's name off.
    Delete {
        /// Which.
        name: SnapshotName,
        /// Who waits.
        reply: CapacityReply<()>,
    },
    /// The changes between two epochs on the capacity tier.
    Diff {
        /// The older one; `None` is the empty volume.
        from: Option<Epoch>,
        /// The newer one.
        to: Epoch,
        /// Only blocks after this one.
        after: Option<BlockIndex>,
        /// At most so many.
        limit: usize,
        /// Who waits.
        reply: CapacityReply<Vec<Change>>,
    },
    /// The first change vector from an epoch on, as the layers tell it.
    Vector {
        /// The first epoch wanted.
        from: Epoch,
        /// Who waits.
        reply: CapacityReply<Option<(ChangeVector, Option<SnapshotName>)>>,
    },
    /// End the thread, once nothing is under way.
    Stop,
}

/// Answers everything but fetches.
pub(super) async fn answer(tasks: &Tasks, ask: Ask) {
    // Whoever asked may have gone away: then nobody wants the answer.
    match ask {
        Ask::Kept { reply } => {
            let _ = reply.send(Ok(kept(tasks)));
        }
        Ask::Delete { name, reply } => {
            let deleted = match crate::capacity_tier::SnapshotName::new(name.as_str()) {
                Ok(name) => tasks.capacity.delete_snapshot(&name).await,
                Err(error) => Err(CapacityError::Misuse(error.to_string())),
            };
            let _ = reply.send(deleted);
            maintain(tasks).await;
        }
        Ask::Diff { from, to, after, limit, reply } => {
            let _ = reply.send(tasks.capacity.diff(from, to, after, limit).await);
        }
        Ask::Vector { from, reply } => {
            let _ = reply.send(vector(tasks, from).await);
        }
        Ask::Fetch { .. } | Ask::Room | Ask::Stop => {}
    }
}

/// HEAD's snapshots, each with the changes since the one before.
fn kept(tasks: &Tasks) -> Vec<KeptLayer> {
    let head = tasks.capacity.head();
    let mut kept = Vec::new();
    let (mut added, mut modified, mut deleted, mut since_us) = (0, 0, 0, 0);
    for layer in head.layers() {
        if since_us == 0 {
            since_us = layer.opened_us;
        }
        added += u64::from(layer.counts.added);
        modified += u64::from(layer.counts.modified);
        deleted += u64::from(layer.counts.deleted);
        let Some(name) = &layer.snapshot else { continue };
        let Ok(name) = SnapshotName::new(name.as_str()) else { continue };
        let (epoch, sealed_us, data_bytes) = (layer.last_epoch, layer.sealed_us, layer.mapped_bytes());
        kept.push(KeptLayer { name, epoch, sealed_us, data_bytes, added, modified, deleted, since_us });
        (added, modified, deleted, since_us) = (0, 0, 0, 0);
    }
    kept
}

async fn vector(
    tasks: &Tasks,
    from: Epoch,
) -> Result<Option<(ChangeVector, Option<SnapshotName>)>, CapacityError> {
    let Some(vector) = tasks.capacity.change_vector(from).await? else { return Ok(None) };
    let head = tasks.capacity.head();
    let name = head
        .layers()
        .iter()
        .find(|layer| layer.last_epoch == vector.epoch)
        .and_then(|layer| layer.snapshot.as_ref())
        .and_then(|name| SnapshotName::new(name.as_str()).ok());
    Ok(Some((vector, name)))
}

/// One step of merging, compaction and deletion; the map follows what moved.
pub(super) async fn maintain(tasks: &Tasks) {
    let volume = &tasks.shared.volume;
    let current = |block: BlockIndex| volume.place(block).and_then(|place| Place::from_word(place.get()));
    match tasks.capacity.maintain(&current).await {
        Ok(maintained) => {
            let mut moved = BTreeMap::new();
            for (block, from, to) in maintained.relocations {
                moved.insert(block, (from, to));
            }
            for (block, (from, to)) in moved {
                volume.relocated(block, from.word(), to.word());
            }
        }
        Err(error) => tracing::warn!(%error, "the capacity tier's upkeep failed; it is tried again"),
    }
}

/// Looks at the fill of the capacity tier, for the status.
pub(super) async fn look_at_space(tasks: &Tasks) {
    match tasks.capacity.space().await {
        Ok(space) => {
            let mut progress = lock(&tasks.shared.progress);
            progress.used_bytes = space.used_bytes;
            progress.free_bytes = space.free_bytes;
        }
        Err(error) => tracing::warn!(%error, "the capacity tier's space is not known"),
    }
}
