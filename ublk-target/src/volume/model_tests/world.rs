//! Engine, disk, capacity tier and truth together: runs requests with the background's help, and crashes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Geometry, MIN_VOLUME_BYTES};

use super::disk::{Disk, TestIo, turn};
use super::log::{MemoryLog, replay};
use super::tiers::{Capacity, TestServices};
use super::{BLOCK_SECTORS, BLOCKS, SECTOR, SECTORS, SLOTS};
use crate::aligned::AlignedBuffer;
use crate::fast_tier::log::DeltaLog;
use crate::request::{Operation, Request};
use crate::simulation::truth::{self, Truth};
use crate::volume::Flushes;
use crate::volume::handle::Handler;
use crate::volume::{Effort, Evicted, Source, Volume, lock, slots};
use crate::volume::{Recovery, Span};

/// A request of a batch.
#[derive(Clone, Debug)]
pub struct Ask {
    pub operation: Operation,
    pub sector: usize,
    pub sectors: usize,
    /// The round in which it begins.
    pub start: u8,
    /// Turns of each of its I/Os.
    pub turns: u8,
    pub fails: bool,
}

/// Something the background does; numbers say which block.
#[derive(Clone, Debug)]
pub enum Act {
    Seal,
    /// Writes the oldest sealed layer back, with a turn between its steps.
    WriteBack,
    /// Gives slots up, but not this block's if there are others.
    Evict(u8),
    /// Brings a block up, with a turn in the middle.
    Promote(u8),
    /// Completes a block's clean slot, with a turn in the middle.
    Fill(u8),
    Reserve(u8),
    GiveBack(u8),
    Reclaim,
    Commit,
    Checkpoint,
}

/// How it ends.
#[derive(Clone, Debug)]
pub enum Crash {
    /// kill -9: the log is whole, the disk keeps all that was written.
    Kill,
    /// Power cut. Unflushed writes survive where a bit is set. With `more`, a commit was under way, and so many of its
    /// deltas are durable, and all data before them.
    Cut { bits: u64, more: u8 },
}

pub struct World {
    disk: RefCell<Disk>,
    capacity: Arc<Mutex<Capacity>>,
    log: Arc<MemoryLog>,
    pub volume: Volume,
    services: TestServices,
    pub truth: RefCell<Truth>,
    geometry: Geometry,
    /// Layers are written back one at a time.
    writing_back: Cell<bool>,
}

type Running<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;
type Beside<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl World {
    pub fn new() -> Self {
        let geometry = Geometry::new(MIN_VOLUME_BYTES, 512).expect("a sound geometry");
        let log = Arc::new(MemoryLog::default());
        let capacity = Arc::new(Mutex::new(Capacity::default()));
        Self {
            disk: RefCell::new(Disk::new(SLOTS as usize * BLOCK_BYTES as usize)),
            volume: Volume::new(geometry, SLOTS, log.clone(), 1),
            services: TestServices {
                capacity: capacity.clone(),
                log: log.clone(),
                room_wanted: Mutex::new(false),
                flush_wanted: Mutex::new(false),
                flushes: Flushes::default(),
            },
            capacity,
            log,
            truth: RefCell::new(Truth::new(SECTORS)),
            geometry,
            writing_back: Cell::new(false),
        }
    }

    /// Runs requests, which are disjoint but for reads, with background work in its rounds; to their end, or to a
    /// crash in the round that is given.
    pub fn batch(&mut self, asks: &[Ask], acts: &[(u8, Act)], crash: Option<(u8, &Crash)>) {
        let mut failed = Vec::new();
        let whole = self.run(asks, acts, crash.map(|(round, _)| round), &mut failed);
        if let (false, Some((_, crash))) = (whole, crash) {
            self.crash(crash);
            return;
        }
        for (sector, sectors) in failed {
            let read = self.read(sector, sectors);
            for (at, found) in (sector..).zip(read) {
                self.truth.borrow_mut().fail(at, found);
            }
        }
        self.check_slots();
    }

    /// Runs a batch; false where the crash came first. Notes what failed.
    fn run(
        &self,
        asks: &[Ask],
        acts: &[(u8, Act)],
        crash: Option<u8>,
        failed: &mut Vec<(usize, usize)>,
    ) -> bool {
        let handler = self.handler();
        let ios: Vec<TestIo<'_>> = asks.iter().map(|ask| self.data_of(ask)).collect();
        let mut running: Vec<(usize, Running<'_>, Begun)> = Vec::new();
        let mut beside: Vec<Beside<'_>> = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        let last_start = asks.iter().map(|ask| ask.start).max().unwrap_or(0);
        let last_act = acts.iter().map(|(round, _)| *round).max().unwrap_or(0);
        let mut round = 0u32;
        loop {
            if crash.is_some_and(|crash| round == u32::from(crash)) {
                return false;
            }
            for (_, act) in acts.iter().filter(|(at, _)| round == u32::from(*at)) {
                beside.extend(self.act(act));
            }
            for (number, ask) in asks.iter().enumerate().filter(|(_, ask)| round == u32::from(ask.start)) {
                let begun = self.begin(ask, &ios[number]);
                running.push((number, Box::pin(handler.handle(request(ask), &ios[number])), begun));
            }
            running.retain_mut(|(number, future, begun)| match future.as_mut().poll(&mut context) {
                Poll::Ready(Ok(())) => {
                    self.end(&asks[*number], begun, &ios[*number]);
                    false
                }
                Poll::Ready(Err(error)) => {
                    assert!(asks[*number].fails, "{error}");
                    failed.extend(changed(&asks[*number]));
                    false
                }
                Poll::Pending => true,
            });
            beside.extend(self.help());
            beside.retain_mut(|work| work.as_mut().poll(&mut context).is_pending());
            round += 1;
            assert!(round < 10_000, "requests wait for ever");
            let begun = round > u32::from(last_start.max(last_act));
            if running.is_empty() && beside.is_empty() && begun {
                // A crash in a later round comes after the end.
                return crash.is_none();
            }
        }
    }

    pub fn handler(&self) -> Handler<'_, TestServices> {
        Handler { volume: &self.volume, services: &self.services, slots_offset: 0 }
    }

    pub fn log(&self) -> &MemoryLog {
        &self.log
    }

    pub fn data_of(&self, ask: &Ask) -> TestIo<'_> {
        let bytes = if ask.operation == Operation::Flush { 0 } else { ask.sectors * SECTOR };
        TestIo {
            disk: &self.disk,
            data: RefCell::new(vec![0xDD; bytes]),
            turns: ask.turns.max(1),
            fails: ask.fails,
        }
    }

    fn begin(&self, ask: &Ask, io: &TestIo<'_>) -> Begun {
        let mut truth = self.truth.borrow_mut();
        match ask.operation {
            Operation::Flush => return Begun::Flush(truth.begins()),
            Operation::Read => return Begun::Read(truth.now[ask.sector..][..ask.sectors].to_vec()),
            Operation::Write { .. } => {
                for (n, bytes) in io.data.borrow_mut().chunks_mut(SECTOR).enumerate() {
                    let stamp = truth.next_stamp();
                    bytes[..8].copy_from_slice(&stamp.to_le_bytes());
                    truth.begin(ask.sector + n, stamp);
                }
            }
            Operation::Discard | Operation::WriteZeroes { .. } => {
                for (sector, sectors) in changed(ask) {
                    (sector..sector + sectors).for_each(|sector| truth.begin(sector, 0));
                }
            }
        }
        Begun::Change
    }

    fn end(&self, ask: &Ask, begun: &Begun, io: &TestIo<'_>) {
        let mut truth = self.truth.borrow_mut();
        match begun {
            Begun::Flush(begun) => truth.flush_ends(begun),
            Begun::Read(before) => {
                for (n, (bytes, before)) in io.data.borrow().chunks(SECTOR).zip(before).enumerate() {
                    let read = stamp_of(bytes);
                    if read != *before {
                        truth.check(ask.sector + n, read);
                    }
                }
            }
            Begun::Change => {
                let durable = matches!(
                    ask.operation,
                    Operation::Write { fua: true } | Operation::WriteZeroes { fua: true, .. }
                );
                for (sector, sectors) in changed(ask) {
                    (sector..sector + sectors).for_each(|sector| truth.end(sector, durable));
                }
            }
        }
    }

    /// What the background does for requests that wait.
    fn help(&self) -> Option<Beside<'_>> {
        if std::mem::take(&mut *lock(&self.services.flush_wanted)) {
            self.commit();
        }
        if !std::mem::take(&mut *lock(&self.services.room_wanted)) {
            return None;
        }
        let mut effort = Effort::default();
        while self.volume.free_slots() == 0 && self.volume.evict(&|_| false, &mut effort) != Evicted::Nothing
        {
            self.commit();
        }
        self.commit();
        let stuck = self.volume.free_slots() == 0;
        if stuck && self.volume.layers().live_count() == 1 {
            self.seal();
        }
        self.volume.room().wake_all();
        stuck.then(|| Box::pin(self.write_back()) as Beside<'_>)
    }

    /// Does it, or begins it.
    fn act(&self, act: &Act) -> Option<Beside<'_>> {
        let block = |number: u8| BlockIndex(u32::from(number) % BLOCKS);
        match *act {
            Act::Seal => self.seal(),
            Act::WriteBack => return Some(Box::pin(self.write_back())),
            Act::Evict(keep) => {
                let mut effort = Effort::default();
                for _ in 0..4 {
                    self.volume.evict(&|of| of == block(keep), &mut effort);
                }
            }
            Act::Promote(of) => return Some(Box::pin(self.promote(block(of)))),
            Act::Fill(of) => return Some(Box::pin(self.fill(block(of)))),
            Act::Reserve(of) => {
                self.volume.reserve(block(of), 4);
            }
            Act::GiveBack(of) => {
                self.volume.give_back_reservation(block(of));
            }
            Act::Reclaim => {
                self.volume.reclaim();
            }
            Act::Commit => self.commit(),
            Act::Checkpoint => self.checkpoint(),
        }
        None
    }

    fn commit(&self) {
        self.disk.borrow_mut().flush();
        self.log.make_durable();
        self.volume.reclaim();
    }

    fn checkpoint(&self) {
        self.disk.borrow_mut().flush();
        self.log.take_checkpoint(self.volume.facts());
    }

    pub fn seal(&self) {
        if let Ok((_, epoch)) = self.volume.seal(1, Some("s")) {
            self.truth.borrow_mut().seal(epoch);
        }
    }

    /// Writes all sealed layers back.
    pub fn write_back_all(&mut self) {
        while self.volume.layers().live_count() > 1 {
            self.batch(&[], &[(0, Act::WriteBack)], None);
        }
    }

    /// Writes the oldest sealed layer back, as the background does.
    async fn write_back(&self) {
        let live = self.volume.layers().live();
        let layer = live[0];
        if live.len() < 2 || self.writing_back.replace(true) {
            return;
        }
        while !self.volume.layers().drained(layer) {
            turn().await;
        }
        // The seal and all of the layer's mappings are durable before the capacity tier has the layer.
        self.commit();
        let content = self.volume.layer_content(layer);
        self.volume.change_vector(layer, &content.blocks).expect("a sound change vector");
        let mut placed = Vec::new();
        for entry in &content.blocks {
            turn().await;
            let block = entry.change.block;
            let data = entry.slot.map(|slot| self.compose(block, slot));
            let place = data.map(|data| lock(&self.capacity).store(block, data));
            placed.push((block, place));
        }
        self.volume.begin_leaving(layer);
        turn().await;
        lock(&self.capacity).layers.push((self.volume.layers().epoch(layer), placed.clone()));
        for (entry, (_, place)) in content.blocks.iter().zip(&placed) {
            turn().await;
            self.volume.block_written_back(layer, entry, *place).expect("the log has room");
        }
        turn().await;
        self.volume.layer_written_back(layer, &content).expect("the log has room");
        self.writing_back.set(false);
    }

    fn compose(&self, block: BlockIndex, slot: forerun::geometry::SlotId) -> AlignedBuffer {
        let plan = self.volume.plan_layer_block(block, slot);
        let mut data = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
        for piece in &plan.pieces {
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            match piece.source {
                Source::Fast(slot) => {
                    let at = slot.offset_bytes() as usize;
                    data[range.clone()]
                        .copy_from_slice(&self.disk.borrow().live[at + range.start..at + range.end]);
                }
                Source::Capacity(place) => {
                    let below = lock(&self.capacity).read(block, place);
                    data[range.clone()].copy_from_slice(&below[range]);
                }
                Source::Zero => {}
            }
        }
        drop(plan);
        if let Some(ticket) = self.volume.begin_fill_sealed(block, slot) {
            self.fill_with(&ticket, &data);
            assert!(ticket.finish());
        }
        data
    }

    /// Every sealed epoch on the capacity tier reads back as it was.
    pub fn check_snapshots(&self) {
        let capacity = lock(&self.capacity);
        let truth = self.truth.borrow();
        let mut places = std::collections::HashMap::new();
        for (epoch, layer) in &capacity.layers {
            for (block, place) in layer {
                match place {
                    Some(place) => places.insert(*block, *place),
                    None => places.remove(block),
                };
            }
            let Some(content) = truth.of_epoch(*epoch) else { continue };
            for (number, expected) in content.chunks(BLOCK_SECTORS).enumerate() {
                let block = BlockIndex(number as u32);
                let stored = places.get(&block).map(|place| capacity.read(block, *place));
                for (n, (then, under_way)) in expected.iter().enumerate() {
                    let read = stored.as_ref().map_or(0, |data| stamp_of(&data[n * SECTOR..]));
                    assert!(
                        read == *then || Some(read) == *under_way,
                        "epoch {epoch}, block {block}, sector {n} of it: {read}, and was {then} or {under_way:?}"
                    );
                }
            }
        }
    }

    async fn promote(&self, block: BlockIndex) {
        let Some(place) = self.volume.place(block) else { return };
        let Some(ticket) = self.volume.begin_promote(block, place, 2) else { return };
        let data = lock(&self.capacity).read(block, place);
        turn().await;
        self.disk.borrow_mut().write(ticket.slot().offset_bytes() as usize, &data);
        turn().await;
        ticket.finish(block.0.is_multiple_of(2));
    }

    async fn fill(&self, block: BlockIndex) {
        let Some(place) = self.volume.place(block) else { return };
        let Some(ticket) = self.volume.begin_fill(block, place) else { return };
        let data = lock(&self.capacity).read(block, place);
        turn().await;
        self.fill_with(&ticket, &data);
        turn().await;
        ticket.finish();
    }

    fn fill_with(&self, ticket: &crate::volume::FillTicket<'_>, data: &[u8]) {
        for (first, count) in ticket.missing().runs() {
            let (from, to) = (first as usize * 4096, (first + count) as usize * 4096);
            let at = ticket.slot().offset_bytes() as usize;
            self.disk.borrow_mut().write(at + from, &data[from..to]);
        }
    }

    /// Ends the engine and recovers another one from what is left.
    pub fn crash(&mut self, crash: &Crash) {
        let (durable, appended) = (self.log.durable().0 as usize, self.log.appended().0 as usize);
        let kept = match crash {
            Crash::Kill => appended,
            Crash::Cut { more, .. } => durable + usize::from(*more) % (appended - durable + 1),
        };
        match crash {
            // Data before a durable delta is durable, as is what the next opening commits after a kill.
            Crash::Cut { bits, .. } if kept == durable => self.disk.borrow_mut().lose(*bits),
            _ => self.disk.borrow_mut().flush(),
        }
        let left = self.log.left_by_crash(kept);
        let recovered = replay(&left);
        let written_back = lock(&self.capacity).written_back();
        self.log = Arc::new(MemoryLog::beginning_with(left));
        self.services.log = self.log.clone();
        let recovery = Recovery::begin(self.geometry, SLOTS, self.log.clone(), &recovered, written_back, 1);
        let mut recovery = recovery.expect("what is recovered makes a map");
        for (epoch, layer) in &lock(&self.capacity).layers {
            layer.iter().for_each(|(block, place)| recovery.place(*block, *epoch, *place));
        }
        self.volume = recovery.finish();
        self.writing_back.set(false);
        self.truth.borrow_mut().open_again(recovered.open_epoch());
        let read = self.read(0, SECTORS);
        let mut truth = self.truth.borrow_mut();
        for (sector, read) in read.into_iter().enumerate() {
            match crash {
                Crash::Kill => truth.survived_kill(sector, read),
                Crash::Cut { .. } => truth.survived_cut(sector, read),
            }
        }
        drop(truth);
        // What recovery found is what is durable now.
        self.commit();
        self.check_all();
    }

    /// What a read of these sectors gives.
    pub fn read(&self, sector: usize, sectors: usize) -> Vec<u64> {
        let ask = Ask { operation: Operation::Read, sector, sectors, start: 0, turns: 1, fails: false };
        let handler = self.handler();
        let io = self.data_of(&ask);
        let mut reading = Box::pin(handler.handle(request(&ask), &io));
        let mut context = Context::from_waker(Waker::noop());
        while reading.as_mut().poll(&mut context).map(|read| read.expect("no read fails here")).is_pending() {
        }
        drop(reading);
        io.data.borrow().chunks(SECTOR).map(stamp_of).collect()
    }

    /// All sectors read as they should, and the counts agree.
    pub fn check_all(&self) {
        let read = self.read(0, SECTORS);
        for (sector, read) in read.into_iter().enumerate() {
            self.truth.borrow().check(sector, read);
        }
        let mapped = (0..BLOCKS).filter(|block| self.volume.is_mapped(BlockIndex(*block))).count();
        assert_eq!(self.volume.mapped_blocks(), mapped as u64, "the count of mapped blocks");
        self.check_slots();
    }

    /// No slot is lost or held twice, and nothing is left of requests.
    fn check_slots(&self) {
        let (mut held, mut empty_in_queue) = (0, 0);
        for (_, slot) in self.volume.slots.iter() {
            if slot.block.load(Ordering::SeqCst) != slots::NO_BLOCK {
                held += 1;
            } else if slot.has(slots::QUEUED) {
                empty_in_queue += 1;
            }
            assert!(!slot.pinned(), "no I/O is in flight between batches");
        }
        let volume = &self.volume;
        let known =
            held + empty_in_queue + volume.free_slots() + volume.limbo_slots() + volume.reserved_slots();
        assert_eq!(known, SLOTS, "slots: held {held}, empty in queue {empty_in_queue}");
        let mut current = std::collections::HashSet::new();
        for (_, slot) in volume.slots.iter().filter(|(_, slot)| slot.has(slots::CURRENT)) {
            assert!(current.insert(slot.block.load(Ordering::SeqCst)), "two newest slots of a block");
        }
        for shard in &volume.shards {
            assert!(lock(shard).writing.is_empty(), "a write left its mark");
        }
        assert_eq!(volume.promised.load(Ordering::SeqCst), 0, "a write keeps its promise or takes it back");
        assert!(volume.layers().live().iter().all(|layer| volume.layers().drained(*layer)));
    }
}

/// What has to be remembered of a request that has begun.
enum Begun {
    Change,
    Flush(truth::Begun),
    Read(Vec<u64>),
}

pub fn request(ask: &Ask) -> Request {
    if ask.operation == Operation::Flush {
        return Request { operation: Operation::Flush, offset_bytes: 0, len_bytes: 0 };
    }
    let (offset, len) = (ask.sector * SECTOR, ask.sectors * SECTOR);
    Request { operation: ask.operation, offset_bytes: offset as u64, len_bytes: len as u32 }
}

/// The sectors that a request changes, in ranges.
pub fn changed(ask: &Ask) -> Vec<(usize, usize)> {
    match ask.operation {
        Operation::Read | Operation::Flush => Vec::new(),
        Operation::Write { .. } | Operation::WriteZeroes { .. } => vec![(ask.sector, ask.sectors)],
        // Of blocks at the edges a discard forgets nothing.
        Operation::Discard => Span::cut((ask.sector * SECTOR) as u64, (ask.sectors * SECTOR) as u64)
            .filter(|span| u64::from(span.len) == BLOCK_BYTES)
            .map(|span| (span.block.0 as usize * BLOCK_SECTORS, BLOCK_SECTORS))
            .collect(),
    }
}

fn stamp_of(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"))
}
