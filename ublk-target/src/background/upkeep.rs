//! When the capacity tier is kept up: after each layer that was written back, and now and then, as deleted objects go after a delay.
//!
//! Beside write-back, and not between two layers of it: on a slow store a step may take minutes, and somebody may wait for the
//! next layer.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::{Shared, TICK, Tasks, World};
use crate::capacity_tier::{CapacityError, Maintained, Relocation, Urgency};
use crate::volume::lock;

/// Steps of upkeep in a row, at most: then others that ask for it get their turn.
const MAINTENANCE_STEPS: usize = 16;
/// Layers without a name from which upkeep counts as behind: many times what merging leaves alone.
const LAYERS_BEHIND: usize = 512;
/// With less than this free on the capacity tier its upkeep presses for space, in bytes.
const SPACE_SHORT_BYTES: u64 = 1 << 30;
/// How often it is kept up while nothing is written back.
const IDLE: Duration = Duration::from_secs(10);

/// Keeps it up, for ever, until it is aborted: a step may be long, and a volume that is being closed does not wait for it.
pub(super) async fn keep_up(tasks: Rc<Tasks<impl World>>) {
    let mut failing = false;
    loop {
        // Woken, or it is time.
        let _ = timeout(IDLE, tasks.wake_upkeep.notified()).await;
        match maintain(&tasks).await {
            Ok(()) => failing = false,
            // A store that is gone is told of once.
            Err(error) if failing => tracing::debug!(%error, "the capacity tier's upkeep still fails"),
            Err(error) => {
                tracing::warn!(%error, "the capacity tier's upkeep failed; it is tried again every now and then");
                failing = true;
            }
        }
    }
}

/// Steps of merging, compaction and deletion, as long as there is something to do, unless `gc` is at it.
async fn maintain(tasks: &Tasks<impl World>) -> Result<(), CapacityError> {
    let Ok(_one) = tasks.maintaining.try_lock() else { return Ok(()) };
    for _ in 0..MAINTENANCE_STEPS {
        if gives_way(tasks) {
            break;
        }
        let urgency = if is_space_short(&tasks.shared) { Urgency::SpaceShort } else { Urgency::Relaxed };
        if !step(tasks, urgency).await?.more {
            break;
        }
    }
    Ok(())
}

/// Whether upkeep gives way, between two steps, to write-back that somebody waits for. Not where write-back does not get on (what
/// it needs may be what upkeep gives back), nor where space is short or upkeep is behind.
fn gives_way(tasks: &Tasks<impl World>) -> bool {
    let shared = &tasks.shared;
    let urgent = shared.urgent.load(Ordering::Relaxed) && shared.write_back().borrow().error.is_empty();
    urgent && !is_space_short(shared) && !is_behind(tasks)
}

/// Whether there are many more layers than upkeep leaves in peace: write-back waits for it then.
pub(super) fn is_behind(tasks: &Tasks<impl World>) -> bool {
    let head = tasks.capacity.head();
    head.layers().iter().filter(|layer| layer.snapshot.is_none()).count() >= LAYERS_BEHIND
}

/// Whether the capacity tier is nearly full: upkeep comes first then.
fn is_space_short(shared: &Shared) -> bool {
    lock(&shared.progress).free_bytes < SPACE_SHORT_BYTES
}

/// One step of upkeep; the map follows what moved.
async fn step(tasks: &Tasks<impl World>, urgency: Urgency) -> Result<Maintained, CapacityError> {
    let done = tasks.capacity.maintain(urgency).await?;
    look_at_space(tasks).await;
    let _noting = tasks.noting.lock().await;
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

/// Looks for what earlier writers left, so that it is counted, unless upkeep has done so or is at it.
pub(super) async fn look_for_left(tasks: &Tasks<impl World>) {
    if let Ok(_one) = tasks.maintaining.try_lock() {
        tasks.capacity.survey().await;
    }
}

/// Merges and compacts whatever gives space back; what nothing refers to any more is deleted when its delay has passed.
pub(super) async fn collect(tasks: &Tasks<impl World>) -> Result<Collected, CapacityError> {
    let _one = tasks.maintaining.lock().await;
    let shared = &tasks.shared;
    let mut collected = Collected::default();
    loop {
        while gives_way(tasks) && !shared.stopping() {
            tokio::time::sleep(TICK).await;
        }
        if shared.stopping() {
            return Ok(collected);
        }
        let done = step(tasks, Urgency::SpaceShort).await?;
        collected.merged_layers += u64::from(done.merged_layers);
        collected.compacted_segments += u64::from(done.compacted_segments);
        collected.deleted_objects += u64::from(done.deleted.objects);
        collected.deleted_bytes += done.deleted.bytes;
        if !done.more {
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
