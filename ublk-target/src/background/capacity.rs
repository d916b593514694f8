//! What others ask of the background thread: it alone holds the capacity tier.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use forerun::change_vector::{Change, ChangeVector};
use forerun::config::SnapshotName;
use forerun::geometry::{BlockIndex, Epoch, Geometry};
use tokio::sync::oneshot;

use super::kept::note_kept;
use super::upkeep::{Collected, collect, look_at_space, look_for_left};
use super::{Tasks, World};
use crate::aligned::AlignedBuffer;
pub use crate::capacity_tier::CapacityError;
use crate::capacity_tier::{Garbage, MAX_DIFF_PAGE, Pin, SharedData};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<io::Result<T>>;
/// Where an answer goes whose failure is the capacity tier's.
pub type CapacityReply<T> = oneshot::Sender<Result<T, CapacityError>>;

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
    /// The clones of the volume.
    Clones {
        /// Who waits.
        reply: CapacityReply<Vec<Pin>>,
    },
    /// Copy what a clone shares with its origins.
    Promote {
        /// Who waits; told what that is.
        reply: CapacityReply<Vec<SharedData>>,
    },
    /// What the capacity tier holds that is not needed any more.
    Garbage {
        /// Who waits.
        reply: CapacityReply<Garbage>,
    },
    /// Give it back at once, as if space were short.
    Collect {
        /// Who waits; told of what was there before, and of what came of it.
        reply: CapacityReply<(Garbage, Collected)>,
    },
    /// The volume has grown.
    Grow {
        /// Its shape from now on.
        geometry: Geometry,
        /// Told once no HEAD is written any more that does not know.
        reply: CapacityReply<()>,
    },
    /// End the thread, once nothing is under way.
    Stop,
}

/// Answers everything but fetches.
pub(super) async fn answer(tasks: &Tasks<impl World>, ask: Ask) {
    // Whoever asked may have gone away: then nobody wants the answer.
    match ask {
        Ask::Delete { name, reply } => {
            let deleted = match crate::capacity_tier::SnapshotName::new(name.as_str()) {
                Ok(name) => tasks.capacity.delete_snapshot(&name).await,
                Err(error) => Err(CapacityError::Misuse(error.to_string())),
            };
            note_kept(tasks);
            let _ = reply.send(deleted);
            tasks.wake_upkeep.notify_one();
        }
        Ask::Diff { from, to, after, limit, reply } => {
            let _ = reply.send(diff(tasks, from, to, after, limit).await);
        }
        Ask::Vector { from, reply } => {
            let _ = reply.send(vector(tasks, from).await);
        }
        Ask::Clones { reply } => {
            let _ = reply.send(tasks.capacity.clones().await);
        }
        Ask::Promote { reply } => {
            let promoting = tasks.capacity.promote().await;
            let _ = reply.send(promoting.map(|()| tasks.capacity.shared()));
            look_at_space(tasks).await;
            tasks.wake_upkeep.notify_one();
        }
        Ask::Garbage { reply } => {
            look_for_left(tasks).await;
            let _ = reply.send(Ok(tasks.capacity.garbage()));
        }
        Ask::Collect { reply } => {
            look_for_left(tasks).await;
            let before = tasks.capacity.garbage();
            let collected = collect(tasks).await;
            look_at_space(tasks).await;
            let _ = reply.send(collected.map(|collected| (before, collected)));
        }
        Ask::Grow { geometry, reply } => {
            let grown = tasks.capacity.grow(geometry);
            let may = grown.is_ok();
            let _ = reply.send(grown);
            // Nobody waits for a store that is slow or gone.
            if may && let Err(error) = tasks.capacity.tell_size().await {
                tracing::warn!(%error, "the capacity tier is not told of the volume's growth yet; its next HEAD has it");
            }
        }
        Ask::Fetch { .. } | Ask::Room | Ask::Stop => {}
    }
}

/// The tier's pages are smaller than the API's.
async fn diff(
    tasks: &Tasks<impl World>,
    from: Option<Epoch>,
    to: Epoch,
    mut after: Option<BlockIndex>,
    limit: usize,
) -> Result<Vec<Change>, CapacityError> {
    let mut changes: Vec<Change> = Vec::new();
    while changes.len() < limit {
        let wanted = (limit - changes.len()).min(MAX_DIFF_PAGE);
        let page = tasks.capacity.diff(from, to, after, wanted).await?;
        let last = page.len() < wanted;
        changes.extend(page);
        after = changes.last().map(|change| change.block);
        if last {
            break;
        }
    }
    Ok(changes)
}

async fn vector(
    tasks: &Tasks<impl World>,
    from: Epoch,
) -> Result<Option<(ChangeVector, Option<SnapshotName>)>, CapacityError> {
    let before = Epoch(from.0.saturating_sub(1));
    let vectors = tasks.capacity.change_vectors(before, 1).await?;
    let Some(vector) = vectors.into_iter().next() else { return Ok(None) };
    let head = tasks.capacity.head();
    let name = head
        .layers()
        .iter()
        .find(|layer| layer.last_epoch == vector.epoch)
        .and_then(|layer| layer.snapshot.as_ref())
        .and_then(|name| SnapshotName::new(name.as_str()).ok());
    Ok(Some((vector, name)))
}
