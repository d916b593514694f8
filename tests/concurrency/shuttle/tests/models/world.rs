//! A volume over a fast tier and a capacity tier in memory, and the steps that requests and the background do on it.
//!
//! Requests go through the engine's own handler. A block's first two sub-blocks are used, as four cells of 2 KiB, so
//! that there are writes smaller than a sub-block; a cell holds one number.
//!
//! A step of I/O on a slot says which block it is for; two blocks on one slot at a time are the failure that the
//! pins are there to prevent. The bookkeeping is behind `std`'s locks, which are no step of a schedule: only
//! [`World::step`] is, between the cells of an I/O.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard};

use forerun::change_vector::ChangeKind;
use forerun::geometry::{
    BLOCK_BYTES, BlockIndex, Epoch, Geometry, MIN_VOLUME_BYTES, SUB_BLOCK_BYTES, SlotId, SubBlockMask,
};
use forerun_interleavings::fast_tier::log::DeltaLog;
use forerun_interleavings::memory_log::{MemoryLog, replay};
use forerun_interleavings::request::{Operation, Request};
use forerun_interleavings::sync::atomic::{AtomicU32, Ordering};
use forerun_interleavings::volume::handle::Handler;
use forerun_interleavings::volume::layers::LayerNumber;
use forerun_interleavings::volume::{
    Effort, Evicted, Flushes, LayerContent, Piece, ReadPlan, Recovery, Source, Span, Volume,
};

use crate::io::Data;
use crate::truth::{Place, Truth};

/// Cells of each block that the models use.
pub const CELLS: usize = 4;
/// Bytes of a cell: half a sub-block.
pub const CELL_BYTES: u32 = SUB_BLOCK_BYTES as u32 / 2;
/// Blocks that the models use.
pub const BLOCKS: u32 = 4;

/// What a block's cells hold.
pub type Cells = [u64; CELLS];

#[derive(Clone, Default)]
struct Slot {
    cells: Cells,
    users: Vec<BlockIndex>,
}

type Places = Vec<(BlockIndex, Option<NonZeroU64>)>;

#[derive(Clone, Default)]
struct Capacity {
    records: Vec<(BlockIndex, Cells)>,
    layers: Vec<(Epoch, Places)>,
}

/// When an epoch was sealed: before and after the call.
#[derive(Clone, Copy)]
struct Sealed {
    before: u64,
    after: u64,
}

/// All of it.
pub struct World {
    /// What is under test.
    pub volume: Volume,
    /// Its log.
    pub log: Arc<MemoryLog>,
    slots: u32,
    fast: Mutex<Vec<Slot>>,
    capacity: Mutex<Capacity>,
    truth: Mutex<Truth>,
    sealed: Mutex<HashMap<Epoch, Sealed>>,
    /// Blocks that the last written-back epoch ended with.
    mapped: Mutex<HashSet<BlockIndex>>,
    stepped: AtomicU32,
    /// None is ever on its way for long: a flush is one step.
    pub flushes: Flushes,
}

/// Takes one of the bookkeeping's locks, which nobody ever holds over a step.
pub fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic is caught here")
}

/// A request for `count` cells of a block from the cell `first` on.
fn request(operation: Operation, block: u32, first: u32, count: u32) -> Request {
    let offset_bytes = u64::from(block) * BLOCK_BYTES + u64::from(first * CELL_BYTES);
    Request { operation, offset_bytes, len_bytes: count * CELL_BYTES }
}

/// The cells in `len` bytes of a block from `start` on.
pub fn cells(start: u32, len: u32) -> impl Iterator<Item = usize> {
    assert!(start.is_multiple_of(CELL_BYTES) && len.is_multiple_of(CELL_BYTES), "whole cells only");
    (start / CELL_BYTES..(start + len) / CELL_BYTES).map(|cell| cell as usize).filter(|cell| *cell < CELLS)
}

fn runs(mask: SubBlockMask) -> impl Iterator<Item = (u32, u32)> {
    mask.runs().map(|(first, count)| (first * SUB_BLOCK_BYTES as u32, count * SUB_BLOCK_BYTES as u32))
}

fn geometry() -> Geometry {
    Geometry::new(MIN_VOLUME_BYTES, 512).expect("the smallest volume")
}

impl World {
    /// An empty volume over `slots` free slots.
    pub fn new(slots: u32) -> Self {
        let log = Arc::new(MemoryLog::default());
        Self {
            volume: Volume::new(geometry(), slots, log.clone(), 1),
            log,
            slots,
            fast: Mutex::new(vec![Slot::default(); slots as usize]),
            capacity: Mutex::default(),
            truth: Mutex::default(),
            sealed: Mutex::default(),
            mapped: Mutex::default(),
            stepped: AtomicU32::new(0),
            flushes: Flushes::default(),
        }
    }

    /// A step of the schedule.
    pub fn step(&self) {
        self.stepped.fetch_add(1, Ordering::SeqCst);
    }

    fn io(&self, slot: SlotId, block: BlockIndex) -> Io<'_> {
        let mut fast = held(&self.fast);
        let users = &mut fast[slot.0 as usize].users;
        assert!(
            users.iter().all(|user| *user == block),
            "I/O of blocks {users:?} and {block} on slot {slot}"
        );
        users.push(block);
        Io { world: self, slot, block }
    }

    /// Writes cells of a slot.
    pub fn store(
        &self,
        slot: SlotId,
        block: BlockIndex,
        (start, len): (u32, u32),
        value: impl Fn(usize) -> u64,
    ) {
        let _io = self.io(slot, block);
        for cell in cells(start, len) {
            self.step();
            held(&self.fast)[slot.0 as usize].cells[cell] = value(cell);
        }
        self.step();
    }

    /// Reads cells of a slot.
    pub fn load(&self, slot: SlotId, block: BlockIndex, (start, len): (u32, u32)) -> Cells {
        let _io = self.io(slot, block);
        let mut values = Cells::default();
        for cell in cells(start, len) {
            self.step();
            values[cell] = held(&self.fast)[slot.0 as usize].cells[cell];
        }
        values
    }

    /// A record of the capacity tier.
    pub fn record(&self, block: BlockIndex, place: NonZeroU64) -> Cells {
        let (of, values) = held(&self.capacity).records[place.get() as usize - 1];
        assert_eq!(of, block, "a place belongs to its block");
        values
    }

    fn handle(&self, request: Request, value: u64) -> Cells {
        let handler = Handler { volume: &self.volume, services: self, slots_offset: 0 };
        let data = Data::new(self, request, value);
        shuttle::future::block_on(handler.handle(request, &data)).expect("nothing fails here");
        data.into_cells()
    }

    /// Writes `count` cells from the cell `first` on.
    pub fn write(&self, block: u32, first: u32, count: u32) {
        let value = held(&self.truth).now();
        self.change(request(Operation::Write { fua: false }, block, first, count), value);
    }

    /// Writes a whole block, if that is a hit.
    pub fn write_if_hit(&self, block: u32) {
        let span = Span { block: BlockIndex(block), start: 0, len: CELLS as u32 * CELL_BYTES };
        let places = (0..CELLS).map(|cell| (span.block, cell));
        let value = held(&self.truth).now();
        // Begun before it looks, and for good if it is none: as if it had not been written to the slot yet.
        let ids: Vec<_> = places.clone().map(|place| held(&self.truth).begin(place, value)).collect();
        if let Some(hit) = self.volume.write_hit(1, span) {
            self.store(hit.slot(), span.block, (span.start, span.len), |_| value);
            drop(hit);
            places.zip(ids).for_each(|(place, id)| held(&self.truth).end(place, id));
        }
    }

    /// Discards a block.
    pub fn discard(&self, block: u32) {
        let whole = Request { len_bytes: BLOCK_BYTES as u32, ..request(Operation::Discard, block, 0, 0) };
        self.change(whole, 0);
    }

    fn change(&self, request: Request, value: u64) {
        let block = BlockIndex((request.offset_bytes / BLOCK_BYTES) as u32);
        let touched = cells((request.offset_bytes % BLOCK_BYTES) as u32, request.len_bytes);
        let places: Vec<Place> = touched.map(|cell| (block, cell)).collect();
        let ids: Vec<_> = places.iter().map(|place| held(&self.truth).begin(*place, value)).collect();
        self.handle(request, value);
        places.iter().zip(ids).for_each(|(place, id)| held(&self.truth).end(*place, id));
    }

    /// Reads `count` cells from the cell `first` on, and sees that they are what they may be.
    pub fn read(&self, block: u32, first: u32, count: u32) {
        let request = request(Operation::Read, block, first, count);
        let from = held(&self.truth).now();
        let values = self.handle(request, u64::MAX);
        let mut truth = held(&self.truth);
        let to = truth.now();
        for cell in cells(first * CELL_BYTES, request.len_bytes) {
            truth.check((BlockIndex(block), cell), values[cell], from, to, "a read");
        }
    }

    fn load_plan(&self, block: BlockIndex, plan: &ReadPlan<'_>) -> Cells {
        let mut values = Cells::default();
        for Piece { source, start, len } in &plan.pieces {
            let found = match source {
                Source::Fast(slot) => self.load(*slot, block, (*start, *len)),
                Source::Zero => Cells::default(),
                Source::Capacity(place) => self.record(block, *place),
            };
            cells(*start, *len).for_each(|cell| values[cell] = found[cell]);
        }
        values
    }

    /// Ends the open epoch.
    pub fn seal(&self) -> Epoch {
        let before = held(&self.truth).now();
        let (_, epoch) = self.volume.seal(1, None).expect("few layers are live");
        let after = held(&self.truth).now();
        held(&self.sealed).insert(epoch, Sealed { before, after });
        epoch
    }

    /// Ends the open epoch, if few sealed ones wait.
    pub fn seal_if_few(&self) {
        if self.volume.layers().live_count() < 4 {
            self.seal();
        }
    }

    fn drain(&self, layer: LayerNumber) {
        while !self.volume.layers().drained(layer) {
            shuttle::thread::yield_now();
        }
    }

    /// Writes the oldest sealed layer back, as the background does; false where none is sealed. Sees that it is what the
    /// volume was at its end, and that its change vector says so.
    pub fn write_back(&self) -> bool {
        let live = self.volume.layers().live();
        let [layer, _, ..] = live.as_slice() else { return false };
        self.drain(*layer);
        let epoch = self.volume.layers().epoch(*layer);
        let content = self.volume.layer_content(*layer);
        self.check_vector(*layer, epoch, &content);
        let mut places = Vec::new();
        for entry in &content.blocks {
            let block = entry.change.block;
            let place = entry.slot.map(|slot| {
                let values = self.load_plan(block, &self.volume.plan_layer_block(block, slot));
                self.complete_sealed(block, slot, values);
                self.check_layer(epoch, block, values);
                self.keep(block, values)
            });
            places.push((block, place));
        }
        let _ = self.volume.begin_leaving(*layer);
        held(&self.capacity).layers.push((epoch, places.clone()));
        for (entry, (_, place)) in content.blocks.iter().zip(&places) {
            self.volume.block_written_back(*layer, entry, *place).expect("the log has room");
            self.step();
        }
        self.volume.layer_written_back(*layer, &content).expect("the log has room");
        self.volume.room().wake_all();
        true
    }

    fn complete_sealed(&self, block: BlockIndex, slot: SlotId, values: Cells) {
        let Some(fill) = self.volume.begin_fill_sealed(block, slot) else { return };
        runs(fill.missing()).for_each(|range| self.store(fill.slot(), block, range, |cell| values[cell]));
        fill.finish();
    }

    fn keep(&self, block: BlockIndex, values: Cells) -> NonZeroU64 {
        let mut capacity = held(&self.capacity);
        capacity.records.push((block, values));
        NonZeroU64::new(capacity.records.len() as u64).expect("one at least")
    }

    fn check_layer(&self, epoch: Epoch, block: BlockIndex, values: Cells) {
        let Sealed { before, after } = held(&self.sealed)[&epoch];
        for (cell, value) in values.into_iter().enumerate() {
            let what = format!("epoch {epoch}, written back");
            held(&self.truth).check((block, cell), value, before, after, &what);
        }
    }

    /// The change vector names every block whose writes lay within the epoch, and none that was not touched in it; what
    /// it says of each follows from the epoch before.
    fn check_vector(&self, layer: LayerNumber, epoch: Epoch, content: &LayerContent) {
        let vector = self.volume.change_vector(layer, &content.blocks).expect("a sound vector");
        assert_eq!(vector.changes().len(), content.blocks.len());
        let (sealed, truth) = (held(&self.sealed), held(&self.truth));
        let begun = sealed.get(&Epoch(epoch.0 - 1)).copied().unwrap_or(Sealed { before: 0, after: 0 });
        let ended = sealed[&epoch];
        let mut mapped = held(&self.mapped);
        for block in (0..BLOCKS).map(BlockIndex) {
            let change = vector.changes().iter().find(|change| change.block == block);
            let was_there = mapped.contains(&block);
            match change.map(|change| change.kind) {
                None => {
                    let within = truth.written_between(block, begun.after, ended.before);
                    let undone = !was_there && truth.discarded_near(block, begun.before, ended.after);
                    assert!(!within || undone, "a write of block {block} is not in epoch {epoch}");
                }
                Some(kind) => {
                    let near = truth.touched_between(block, begun.before, ended.after);
                    assert!(near, "block {block} is in epoch {epoch}, in which nothing touched it");
                    assert_eq!(
                        kind == ChangeKind::Added,
                        !was_there,
                        "block {block} in epoch {epoch}: {kind:?}"
                    );
                    if kind == ChangeKind::Deleted {
                        mapped.remove(&block);
                    } else {
                        mapped.insert(block);
                    }
                }
            }
        }
    }

    /// Makes the log durable and slots free.
    pub fn commit(&self) {
        self.log.make_durable();
        self.volume.reclaim();
    }

    /// Gives up one clean slot; whether there was one.
    pub fn evict(&self) -> bool {
        let mut effort = Effort::default();
        loop {
            match self.volume.evict(&|_| false, &mut effort) {
                Evicted::One(_) => return true,
                Evicted::Nothing => return false,
                Evicted::NotYet => {}
            }
        }
    }

    /// Fetches a block that only the capacity tier has.
    pub fn promote(&self, block: u32) -> bool {
        let block = BlockIndex(block);
        let Some(place) = self.volume.place(block) else { return false };
        let values = self.record(block, place);
        let Some(ticket) = self.volume.begin_promote(block, place, 0) else { return false };
        self.store(ticket.slot(), block, (0, BLOCK_BYTES as u32), |cell| values[cell]);
        ticket.finish(false)
    }

    /// Completes a clean slot from the capacity tier.
    pub fn fill(&self, block: u32) -> bool {
        let block = BlockIndex(block);
        let Some(place) = self.volume.place(block) else { return false };
        let values = self.record(block, place);
        let Some(fill) = self.volume.begin_fill(block, place) else { return false };
        runs(fill.missing()).for_each(|range| self.store(fill.slot(), block, range, |cell| values[cell]));
        fill.finish()
    }

    /// Kills the target here and now, recovers another volume from what is left, and sees that everything acknowledged is
    /// there. This one goes on.
    pub fn kill(&self) {
        let (deltas, fast, capacity, mut truth) = loop {
            let appended = self.log.appended().0 as usize;
            let deltas = self.log.left_by_crash(appended);
            // No step of the schedule is between these, so they are of one moment; so is the log, if nobody has
            // appended to it since.
            let rest = (held(&self.fast).clone(), held(&self.capacity).clone(), held(&self.truth).clone());
            if self.log.appended().0 as usize == appended {
                break (deltas, rest.0, rest.1, rest.2);
            }
        };
        let now = truth.now();
        let log = Arc::new(MemoryLog::beginning_with(deltas.clone()));
        let recovered = replay(&deltas);
        let written_back = capacity.layers.last().map_or(Epoch(0), |(epoch, _)| *epoch);
        let mut recovery = Recovery::begin(geometry(), self.slots, log, &recovered, written_back, 1)
            .unwrap_or_else(|error| panic!("what is left makes no map: {error}; {deltas:?}"));
        for (epoch, places) in &capacity.layers {
            places.iter().for_each(|(block, place)| recovery.place(*block, *epoch, *place));
        }
        let volume = recovery.finish();
        for block in (0..BLOCKS).map(BlockIndex) {
            let whole = Span { block, start: 0, len: CELLS as u32 * CELL_BYTES };
            for Piece { source, start, len } in &volume.plan_read(whole).pieces {
                let found = match source {
                    Source::Fast(slot) => fast[slot.0 as usize].cells,
                    Source::Zero => Cells::default(),
                    Source::Capacity(place) => capacity.records[place.get() as usize - 1].1,
                };
                for cell in cells(*start, *len) {
                    truth.check((block, cell), found[cell], now, now, "after a kill");
                }
            }
        }
    }

    /// With no request under way: seals and writes back all there is, reads every block, and counts the slots.
    pub fn settle(&self) {
        self.seal();
        while self.write_back() {}
        for block in 0..BLOCKS {
            self.read(block, 0, CELLS as u32);
        }
        self.kill();
        self.commit();
        assert_eq!(
            self.volume.mapped_blocks(),
            held(&self.mapped).len() as u64,
            "blocks that hold something"
        );
        let counts = self.volume.slot_counts();
        assert_eq!((counts.sealed, counts.open, counts.dirty_sub_blocks), (0, 0, 0), "all is written back");
        while self.evict() {}
        self.commit();
        let volume = &self.volume;
        let (free, reserved) = (volume.free_slots(), volume.reserved_slots());
        let limbo = volume.limbo_slots();
        assert_eq!(free + reserved, self.slots, "{free} slots free, {reserved} held, {limbo} in limbo");
        let recovered = replay(&self.log.left_by_crash(self.log.appended().0 as usize));
        assert_eq!(recovered.holds, vec![], "what the log says of slots that are all free");
    }
}

/// I/O on a slot, while it lives.
struct Io<'a> {
    world: &'a World,
    slot: SlotId,
    block: BlockIndex,
}

impl Drop for Io<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut fast = held(&self.world.fast);
        let users = &mut fast[self.slot.0 as usize].users;
        let at = users.iter().position(|user| *user == self.block).expect("it began");
        users.remove(at);
    }
}
