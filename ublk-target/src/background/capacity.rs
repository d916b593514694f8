//! What others ask of the background thread: it alone holds the capacity tier.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forerun::change_vector::{Change, ChangeVector};
use forerun::config::SnapshotName;
use forerun::geometry::{BlockIndex, Epoch, Geometry};
use tokio::sync::oneshot;

use super::kept::note_kept;
use super::{Shared, TICK, Tasks, World};
use crate::aligned::AlignedBuffer;
pub use crate::capacity_tier::CapacityError;
use crate::capacity_tier::{Garbage, MAX_DIFF_PAGE, Maintained, Pin, Relocation, SharedData, Urgency};
use crate::volume::lock;

/// Steps of upkeep after a layer was written back, at most: the rest follows with the next.
const MAINTENANCE_STEPS: usize = 16;
/// With less than this free on the capacity tier its upkeep presses for space, in bytes.
const SPACE_SHORT_BYTES: u64 = 1 << 30;

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
            maintain(tasks).await;
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
            maintain(tasks).await;
        }
        Ask::Garbage { reply } => {
            let _ = reply.send(Ok(tasks.capacity.garbage()));
        }
        Ask::Collect { reply } => {
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

/// Steps of merging, compaction and deletion, as long as there is something to do; the map follows what moved.
///
/// One call at a time: others are answered at once, since the one under way does what there is. It gives way to
/// write-back that somebody waits for, unless it is space that is wanted.
pub(super) async fn maintain(tasks: &Tasks<impl World>) {
    let shared = &tasks.shared;
    let Ok(_one) = tasks.maintaining.try_lock() else { return };
    for _ in 0..MAINTENANCE_STEPS {
        let short = is_space_short(shared);
        if shared.urgent.load(Ordering::Relaxed) && !short {
            return;
        }
        let urgency = if short { Urgency::SpaceShort } else { Urgency::Relaxed };
        match step(tasks, urgency).await {
            Ok(maintained) => {
                if !maintained.more || shared.stopping() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the capacity tier's upkeep failed; it is tried again later");
                return;
            }
        }
    }
}

/// Whether the capacity tier is nearly full: upkeep comes first then.
fn is_space_short(shared: &Shared) -> bool {
    lock(&shared.progress).free_bytes < SPACE_SHORT_BYTES
}

/// One step of upkeep; the map follows what moved.
async fn step(tasks: &Tasks<impl World>, urgency: Urgency) -> Result<Maintained, CapacityError> {
    let done = tasks.capacity.maintain(urgency).await?;
    for Relocation { block, old, new } in &done.relocations {
        tasks.shared.volume.relocated(*block, old.word(), new.word());
    }
    Ok(done)
}

/// What was given back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Collected {
    /// Layers that were merged.
    pub merged_layers: u64,
    /// Segments whose live records were copied.
    pub compacted_segments: u64,
    /// Objects that were deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
}

/// Merges and compacts whatever gives space back; what nothing refers to any more is deleted when its delay has passed. Between
/// two steps it gives way to write-back that somebody waits for, unless space is short.
async fn collect(tasks: &Tasks<impl World>) -> Result<Collected, CapacityError> {
    let _one = tasks.maintaining.lock().await;
    let shared = &tasks.shared;
    let mut collected = Collected::default();
    loop {
        while shared.urgent.load(Ordering::Relaxed) && !is_space_short(shared) && !shared.stopping() {
            tokio::time::sleep(TICK).await;
        }
        let done = step(tasks, Urgency::SpaceShort).await?;
        collected.merged_layers += u64::from(done.merged_layers);
        collected.compacted_segments += u64::from(done.compacted_segments);
        collected.deleted_objects += u64::from(done.deleted.objects);
        collected.deleted_bytes += done.deleted.bytes;
        if !done.more || shared.stopping() {
            return Ok(collected);
        }
    }
}

/// Looks at the fill of the capacity tier, for the status.
pub(super) async fn look_at_space(tasks: &Tasks<impl World>) {
    match tasks.capacity.space().await {
        Ok(space) => {
            let mut progress = lock(&tasks.shared.progress);
            progress.used_bytes = space.used_bytes;
            progress.free_bytes = space.free_bytes;
            progress.shared = tasks.capacity.shared();
        }
        Err(error) => tracing::warn!(%error, "the capacity tier's space is not known"),
    }
}
