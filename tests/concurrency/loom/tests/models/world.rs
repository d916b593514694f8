//! A volume whose slots' data lie in cells that loom watches: an access that is not ordered after the one before, by
//! what the engine does, is a data race and fails the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Geometry, MIN_VOLUME_BYTES, SlotId};
use forerun_orderings::fast_tier::delta::Delta;
use forerun_orderings::fast_tier::log::{DeltaLog, LogPosition};
use forerun_orderings::volume::{Effort, Evicted, Source, Span, Volume, WriteHit};
use loom::cell::UnsafeCell;

/// A log in which everything is durable at once. Its count is not loom's, so it orders nothing.
#[derive(Default)]
struct Log(AtomicU64);

impl DeltaLog for Log {
    fn append(&self, _: &Delta) -> LogPosition {
        LogPosition(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn appended(&self) -> LogPosition {
        LogPosition(self.0.load(Ordering::Relaxed))
    }

    fn durable(&self) -> LogPosition {
        self.appended()
    }

    fn has_room(&self, _: u32) -> bool {
        true
    }

    fn has_failed(&self) -> bool {
        false
    }
}

/// The volume and its slots' data.
pub struct World {
    /// What is under test.
    pub volume: Volume,
    slots: Vec<UnsafeCell<u64>>,
    capacity: std::sync::Mutex<Vec<u64>>,
}

// SAFETY: the cells are loom's: it fails the model where two threads use one at a time.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

/// A whole block.
pub fn whole(block: u32) -> Span {
    Span { block: BlockIndex(block), start: 0, len: BLOCK_BYTES as u32 }
}

impl World {
    /// An empty volume over `slots` free slots.
    pub fn new(slots: u32) -> Arc<Self> {
        let geometry = Geometry::new(MIN_VOLUME_BYTES, 512).expect("the smallest volume");
        Arc::new(Self {
            volume: Volume::new(geometry, slots, Arc::new(Log::default()), 1),
            slots: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
            capacity: std::sync::Mutex::default(),
        })
    }

    fn store(&self, slot: SlotId, value: u64) {
        // SAFETY: loom checks that nobody else uses the cell.
        self.slots[slot.0 as usize].with_mut(|cell| unsafe { *cell = value });
    }

    fn load(&self, slot: SlotId) -> u64 {
        // SAFETY: loom checks that nobody changes the cell.
        self.slots[slot.0 as usize].with(|cell| unsafe { *cell })
    }

    /// Writes a whole block, of which no write is under way; false where no slot is free.
    pub fn write(&self, block: u32, value: u64) -> bool {
        if let Some(hit) = self.volume.write_hit(0, whole(block)) {
            self.store(hit.slot(), value);
            return true;
        }
        let Ok(ticket) = self.volume.plan_write(0, whole(block)) else { return false };
        self.store(ticket.slot(), value);
        ticket.commit().expect("the log is sound");
        true
    }

    /// Writes where a hit says.
    pub fn write_to(&self, hit: &WriteHit<'_>, value: u64) {
        self.store(hit.slot(), value);
    }

    /// Reads a block as a hit; `None` where it is none.
    pub fn read_hit(&self, block: u32) -> Option<u64> {
        let hit = self.volume.read_hit(whole(block))?;
        Some(self.load(hit.slot()))
    }

    /// Reads a block.
    pub fn read(&self, block: u32) -> u64 {
        if let Some(value) = self.read_hit(block) {
            return value;
        }
        let plan = self.volume.plan_read(whole(block));
        match plan.pieces.as_slice() {
            [piece] => match piece.source {
                Source::Fast(slot) => self.load(slot),
                Source::Capacity(place) => self.record(place.get()),
                Source::Zero => 0,
            },
            _ => panic!("blocks are written whole: {:?}", plan.pieces),
        }
    }

    fn record(&self, place: u64) -> u64 {
        self.capacity.lock().expect("no panic is caught here")[place as usize - 1]
    }

    /// Writes the oldest layer back, if it is sealed and drained; its blocks' data.
    pub fn write_back(&self) -> Option<Vec<u64>> {
        let live = self.volume.layers().live();
        let [layer, _, ..] = live.as_slice() else { return None };
        if !self.volume.layers().drained(*layer) {
            return None;
        }
        let content = self.volume.layer_content(*layer);
        let mut values = Vec::new();
        for entry in &content.blocks {
            let slot = entry.slot.expect("nothing is deleted here");
            let value = self.load(slot);
            values.push(value);
            let place = {
                let mut capacity = self.capacity.lock().expect("no panic is caught here");
                capacity.push(value);
                std::num::NonZeroU64::new(capacity.len() as u64)
            };
            self.volume.block_written_back(*layer, entry, place).expect("the log has room");
        }
        self.volume.layer_written_back(*layer, &content).expect("the log has room");
        Some(values)
    }

    /// Gives up a clean slot and makes it free; whether there was one.
    pub fn evict(&self) -> bool {
        let mut effort = Effort::default();
        let evicted = matches!(self.volume.evict(&|_| false, &mut effort), Evicted::One(_));
        self.volume.reclaim();
        evicted
    }

    /// Fetches a block that only the capacity tier has.
    pub fn promote(&self, block: u32) -> bool {
        let block = BlockIndex(block);
        let Some(place) = self.volume.place(block) else { return false };
        let Some(ticket) = self.volume.begin_promote(block, place, 0) else { return false };
        self.store(ticket.slot(), self.record(place.get()));
        ticket.finish(false)
    }
}
