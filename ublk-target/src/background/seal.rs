//! Ending epochs: every `sync_interval`, at each snapshot, and early when a layer grows too large or slots
//! run short.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forerun::geometry::Epoch;
use tokio::time::Instant;

use super::shared::Shared;
use super::{TICK, Tasks, World};
use crate::volume::layers::LIVE_LAYERS_MAX;
use crate::volume::{SealError, lock};

/// A layer of this many blocks is sealed early (16 GiB of blocks), so that writing it back needs a bounded
/// amount of memory.
const LAYER_BLOCKS_MAX: u64 = 262_144;
/// Live layers from which sealing that nobody asked for waits, so that snapshots still find room.
pub(super) const PERIODIC_LAYERS_MAX: usize = LIVE_LAYERS_MAX / 2;

/// Slots that have to be available for an epoch to end for its own sake while others wait for write-back.
fn least_for_epoch(slots: u32) -> u32 {
    super::evict::reserve(slots) / 2
}

/// The same while write-back fails: half of them. The blocks of an epoch that has ended take other slots when they are written
/// again, and none comes back; what is written again and again within the open epoch takes none.
fn least_while_failing(slots: u32) -> u32 {
    slots / 2
}

/// Tells the time of day in microseconds since 1970 (UTC).
pub type WallClock = fn() -> u64;

/// Ends epochs, one at a time, whoever asks.
pub struct Sealer {
    clock: WallClock,
    state: Mutex<Since>,
    /// The open epoch began at this many redirects.
    redirects: AtomicU64,
}

#[derive(Clone, Copy)]
struct Since {
    opened: Instant,
}

impl Sealer {
    /// The open epoch counts as opened now.
    pub fn new(clock: WallClock) -> Self {
        Self { clock, state: Mutex::new(Since { opened: Instant::now() }), redirects: AtomicU64::new(0) }
    }

    /// Seals the open epoch now, under a name if one is given. Durable once the journal has committed.
    ///
    /// # Errors
    /// Too many sealed layers wait for write-back; for a snapshot also a fast tier that is full of them.
    pub fn seal(&self, shared: &Shared, snapshot: Option<&str>) -> Result<Epoch, SealError> {
        let slots = shared.volume.slot_count();
        let least = least_for_epoch(slots);
        if snapshot.is_some() && !shared.volume.has_room_for_epoch(least) {
            let available = shared.volume.available_slots();
            return Err(SealError::NoRoom { available, slots, least });
        }
        let mut since = lock(&self.state);
        let (_, epoch) = shared.volume.seal((self.clock)(), snapshot)?;
        since.opened = Instant::now();
        self.redirects.store(shared.volume.stats().redirects.get(), Ordering::Relaxed);
        shared.wake_publisher.notify_one();
        Ok(epoch)
    }

    /// How long the open epoch has been open.
    pub fn open_for(&self) -> Duration {
        lock(&self.state).opened.elapsed()
    }

    /// Blocks that the open epoch has redirected so far.
    pub(super) fn blocks(&self, shared: &Shared) -> u64 {
        shared.volume.stats().redirects.get() - self.redirects.load(Ordering::Relaxed)
    }
}

/// Microseconds since 1970 (UTC).
pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Seals whenever it is time to.
pub(super) async fn keep_sealing(tasks: Rc<Tasks<impl World>>) {
    let shared = &tasks.shared;
    let interval = Duration::from_secs(u64::from(shared.settings.sync_interval_seconds));
    while !shared.stopping() {
        tokio::time::sleep(TICK).await;
        let due = shared.sealer.open_for() >= interval;
        let large = shared.sealer.blocks(shared) >= LAYER_BLOCKS_MAX;
        if !(due || large) || shared.volume.layers().live_count() >= PERIODIC_LAYERS_MAX {
            continue;
        }
        // Overwriting in place goes on without a slot; after the epoch's end it would have to wait for one.
        let slots = shared.volume.slot_count();
        let failing = !shared.write_back().borrow().error.is_empty();
        let least = if failing { least_while_failing(slots) } else { least_for_epoch(slots) };
        if !shared.volume.has_room_for_epoch(least) {
            continue;
        }
        if !shared.volume.open_epoch_changed() {
            // Nothing was written: the epoch goes on.
            lock(&shared.sealer.state).opened = Instant::now();
            continue;
        }
        if let Err(error) = shared.sealer.seal(shared, None) {
            tracing::warn!(%error, "the epoch cannot be sealed yet");
        }
    }
}
