//! The whole engine against a plain array: random requests, epochs, write-back, eviction, predictions
//! and crashes, in one thread, on a simulated fast tier that loses what was not flushed.
//!
//! A sector (512 bytes) is stamped with the number of the write that made it. After a crash a sector may
//! hold what it held at the last flush or what any later write put there, nothing else.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry, MIN_VOLUME_BYTES, SlotId};
use proptest::prelude::*;

use super::handle::{Handler, Services};
use super::recover::{Recovered, RecoveredLayer, Recovery};
use super::*;
use crate::aligned::AlignedBuffer;
use crate::request::{Operation, Request, RequestIo};

const SECTOR: usize = 512;
const BLOCKS: u32 = 12;
const SLOTS: u32 = 40;
const SECTORS: usize = BLOCKS as usize * BLOCK_BYTES as usize / SECTOR;

/// The log: all deltas since the start, and how many of them are durable.
#[derive(Default)]
struct MemoryLog {
    deltas: Mutex<Vec<Delta>>,
    durable: AtomicU64,
}

impl DeltaLog for MemoryLog {
    fn append(&self, delta: &Delta) -> LogPosition {
        let mut deltas = lock(&self.deltas);
        // What the journal would read back.
        let mut bytes = Vec::new();
        delta.encode(&mut bytes);
        assert_eq!(Delta::decode(&mut bytes.as_slice()).as_ref(), Some(delta));
        deltas.push(delta.clone());
        LogPosition(deltas.len() as u64)
    }

    fn appended(&self) -> LogPosition {
        LogPosition(lock(&self.deltas).len() as u64)
    }

    fn durable(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::SeqCst))
    }

    fn has_room(&self) -> bool {
        true
    }
}

/// What replaying deltas gives.
fn replay(deltas: &[Delta]) -> Recovered {
    let mut holds = BTreeMap::new();
    let mut deleted = HashSet::new();
    let mut sealed: BTreeMap<Epoch, RecoveredLayer> = BTreeMap::new();
    let mut names = HashMap::new();
    for delta in deltas {
        match delta {
            Delta::Holds(fact) => {
                holds.insert(fact.slot, *fact);
            }
            Delta::Free(slot) => {
                holds.remove(slot);
            }
            Delta::Deleted { block, epoch } => {
                deleted.insert((*block, *epoch));
            }
            Delta::Sealed { epoch, opened_us, sealed_us } => {
                let (epoch, opened_us, sealed_us) = (*epoch, *opened_us, *sealed_us);
                sealed.insert(epoch, RecoveredLayer { epoch, opened_us, sealed_us, snapshot: None });
            }
            Delta::Named { epoch, name } => {
                names.insert(*epoch, name.clone());
            }
            Delta::Unnamed { epoch } => {
                names.remove(epoch);
            }
        }
    }
    for (epoch, layer) in &mut sealed {
        layer.snapshot = names.get(epoch).cloned();
    }
    Recovered {
        holds: holds.into_values().collect(),
        deleted: deleted.into_iter().collect(),
        sealed: sealed.into_values().collect(),
    }
}

/// The fast tier: what the device would return, and the writes it may still lose.
struct Disk {
    live: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<(usize, usize)>,
}

type Places = Vec<(BlockIndex, Option<NonZeroU64>)>;

struct Capacity {
    blocks: HashMap<u64, (BlockIndex, Arc<AlignedBuffer>)>,
    layers: Vec<(Epoch, Places)>,
}

struct World {
    disk: RefCell<Disk>,
    capacity: Arc<Mutex<Capacity>>,
    log: Arc<MemoryLog>,
    volume: Volume,
    services: TestServices,
    /// The newest write of each sector, 0 for zeros.
    now: Vec<u64>,
    /// What each sector may hold after a crash, beside `now`.
    since_flush: Vec<Vec<u64>>,
    stamp: u64,
    /// The content at each sealed epoch.
    sealed: BTreeMap<Epoch, Vec<u64>>,
    geometry: Geometry,
}

struct TestServices {
    capacity: Arc<Mutex<Capacity>>,
    log: Arc<MemoryLog>,
    room_wanted: Mutex<bool>,
    flush_wanted: Mutex<bool>,
}

impl Services for TestServices {
    async fn fetch(&self, block: BlockIndex, place: NonZeroU64) -> io::Result<Arc<AlignedBuffer>> {
        let capacity = lock(&self.capacity);
        let (of, data) = capacity.blocks.get(&place.get()).expect("a place that is named exists");
        assert_eq!(*of, block, "a place belongs to its block");
        Ok(data.clone())
    }

    async fn commit(&self) -> io::Result<()> {
        *lock(&self.flush_wanted) = true;
        let target = self.log.appended();
        std::future::poll_fn(|_| if self.log.durable() >= target { Poll::Ready(()) } else { Poll::Pending })
            .await;
        Ok(())
    }

    fn need_room(&self) {
        *lock(&self.room_wanted) = true;
    }
}

/// A request's data in memory, over the world's disk. Each I/O takes one turn of the executor.
struct TestIo<'a> {
    disk: &'a RefCell<Disk>,
    data: RefCell<Vec<u8>>,
}

async fn turn() {
    let first = Cell::new(true);
    std::future::poll_fn(|_| if first.replace(false) { Poll::Pending } else { Poll::Ready(()) }).await;
}

impl Disk {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        self.unflushed.push((at, bytes.len()));
    }

    fn flush(&mut self) {
        for (at, len) in std::mem::take(&mut self.unflushed) {
            let (live, durable) = (&self.live, &mut self.durable);
            durable[at..at + len].copy_from_slice(&live[at..at + len]);
        }
    }
}

impl RequestIo for TestIo<'_> {
    async fn fast_to_data(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        turn().await;
        let disk = self.disk.borrow();
        self.data.borrow_mut()[at as usize..(at + len) as usize]
            .copy_from_slice(&disk.live[fast as usize..fast as usize + len as usize]);
        Ok(())
    }

    async fn data_to_fast(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        turn().await;
        let data = self.data.borrow();
        self.disk.borrow_mut().write(fast as usize, &data[at as usize..(at + len) as usize]);
        Ok(())
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        let len = bytes.len();
        bytes.copy_from_slice(&self.data.borrow()[at as usize..at as usize + len]);
        Ok(())
    }

    async fn read_fast(&self, fast: u64, mut buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        turn().await;
        let len = buffer.len();
        buffer.copy_from_slice(&self.disk.borrow().live[fast as usize..fast as usize + len]);
        (Ok(()), buffer)
    }

    async fn write_fast(&self, fast: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        turn().await;
        self.disk.borrow_mut().write(fast as usize, &buffer);
        (Ok(()), buffer)
    }

    async fn flush_fast(&self) -> io::Result<()> {
        turn().await;
        self.disk.borrow_mut().flush();
        Ok(())
    }
}

/// One step of a history. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Read {
        sector: usize,
        sectors: usize,
    },
    Write {
        sector: usize,
        sectors: usize,
        fua: bool,
    },
    /// Two writes to different places, at once.
    Pair {
        first: (usize, usize),
        second: (usize, usize),
        seal_between: bool,
    },
    Flush,
    Discard {
        block: usize,
        blocks: usize,
        zero: bool,
        ragged: usize,
    },
    Seal,
    WriteBack,
    Evict(u8),
    Promote(u8),
    Fill(u8),
    Reserve(u8),
    GiveBack(u8),
    Commit,
    /// kill -9: the log is whole, the disk keeps all that was written.
    Kill,
    /// Power cut: the log up to what is durable; unflushed writes survive where a bit is set.
    Cut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let span = || (0..SECTORS, prop_oneof![1..9usize, Just(8), Just(128), 1..400usize]);
    prop_oneof![
        6 => span().prop_map(|(sector, sectors)| Step::Read { sector, sectors }),
        10 => (span(), proptest::bool::weighted(0.1))
            .prop_map(|((sector, sectors), fua)| Step::Write { sector, sectors, fua }),
        4 => (span(), span(), any::<bool>())
            .prop_map(|(first, second, seal_between)| Step::Pair { first, second, seal_between }),
        1 => Just(Step::Flush),
        2 => (0..BLOCKS as usize, 1..4usize, any::<bool>(), 0..130usize)
            .prop_map(|(block, blocks, zero, ragged)| Step::Discard { block, blocks, zero, ragged }),
        2 => Just(Step::Seal),
        2 => Just(Step::WriteBack),
        2 => any::<u8>().prop_map(Step::Evict),
        2 => any::<u8>().prop_map(Step::Promote),
        1 => any::<u8>().prop_map(Step::Fill),
        2 => any::<u8>().prop_map(Step::Reserve),
        1 => any::<u8>().prop_map(Step::GiveBack),
        1 => Just(Step::Commit),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
}

fn stamp_of(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"))
}

impl World {
    fn new() -> Self {
        let geometry = Geometry::new(MIN_VOLUME_BYTES, 512).expect("a sound geometry");
        let log = Arc::new(MemoryLog::default());
        let capacity = Arc::new(Mutex::new(Capacity { blocks: HashMap::new(), layers: Vec::new() }));
        let bytes = SLOTS as usize * BLOCK_BYTES as usize;
        // What was never written to the volume must never show: the slots are full of it.
        let garbage = vec![0xEE; bytes];
        Self {
            disk: RefCell::new(Disk { live: garbage.clone(), durable: garbage, unflushed: Vec::new() }),
            volume: Volume::new(geometry, SLOTS, log.clone(), 1),
            services: TestServices {
                capacity: capacity.clone(),
                log: log.clone(),
                room_wanted: Mutex::new(false),
                flush_wanted: Mutex::new(false),
            },
            capacity,
            log,
            now: vec![0; SECTORS],
            since_flush: vec![vec![0]; SECTORS],
            stamp: 0,
            sealed: BTreeMap::new(),
            geometry,
        }
    }

    /// Runs requests together to their end, with the background's help where they wait.
    fn run(&mut self, requests: Vec<(Request, Vec<u8>)>, seal_between: bool) -> Vec<Vec<u8>> {
        if seal_between {
            self.seal_later();
        }
        let handler = Handler { volume: &self.volume, services: &self.services, slots_offset: 0 };
        let ios: Vec<TestIo<'_>> = requests
            .iter()
            .map(|(_, data)| TestIo { disk: &self.disk, data: RefCell::new(data.clone()) })
            .collect();
        let mut futures: Vec<_> = requests
            .iter()
            .zip(&ios)
            .map(|((request, _), io)| Box::pin(handler.handle(*request, io)))
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        for round in 0.. {
            futures.retain_mut(|future| match future.as_mut().poll(&mut context) {
                Poll::Ready(result) => {
                    result.expect("no I/O fails here");
                    false
                }
                Poll::Pending => true,
            });
            if futures.is_empty() {
                break;
            }
            assert!(round < 10_000, "requests wait for ever");
            if round == 1 && seal_between {
                let _ = self.volume.seal(1, None);
            }
            if std::mem::take(&mut *lock(&self.services.flush_wanted)) {
                self.commit();
            }
            if std::mem::take(&mut *lock(&self.services.room_wanted)) {
                if self.volume.free_slots() == 0 {
                    while self.volume.evict(&|_| false) == Evicted::One {}
                    self.commit();
                }
                if self.volume.free_slots() == 0 {
                    let _ = self.volume.seal(1, None);
                    self.write_back_all();
                    while self.volume.evict(&|_| false) == Evicted::One {}
                    self.commit();
                }
                self.volume.room().wake_all();
            }
        }
        drop(futures);
        ios.into_iter().map(|io| io.data.into_inner()).collect()
    }

    /// The content at a seal in the middle of writes is not known: such an epoch is not compared.
    fn seal_later(&mut self) {
        self.sealed.remove(&self.volume.layers().open_epoch());
    }

    fn commit(&self) {
        self.disk.borrow_mut().flush();
        self.log.durable.store(self.log.appended().0, Ordering::SeqCst);
        self.volume.reclaim();
    }

    fn flushed(&mut self) {
        for (since, now) in self.since_flush.iter_mut().zip(&self.now) {
            since.clear();
            since.push(*now);
        }
    }

    fn write_data(&mut self, sector: usize, sectors: usize) -> Vec<u8> {
        let mut data = vec![0; sectors * SECTOR];
        for (n, bytes) in data.chunks_mut(SECTOR).enumerate() {
            self.stamp += 1;
            bytes[..8].copy_from_slice(&self.stamp.to_le_bytes());
            self.put(sector + n, self.stamp);
        }
        data
    }

    fn put(&mut self, sector: usize, stamp: u64) {
        self.now[sector] = stamp;
        self.since_flush[sector].push(stamp);
    }

    fn request(operation: Operation, sector: usize, sectors: usize) -> Request {
        Request { operation, offset_bytes: (sector * SECTOR) as u64, len_bytes: (sectors * SECTOR) as u32 }
    }

    fn read(&mut self, sector: usize, sectors: usize) -> Vec<u64> {
        let request = Self::request(Operation::Read, sector, sectors);
        let data = self.run(vec![(request, vec![0xDD; sectors * SECTOR])], false).remove(0);
        data.chunks(SECTOR).map(stamp_of).collect()
    }

    fn check_all(&mut self) {
        let read = self.read(0, SECTORS);
        for (sector, (read, now)) in read.iter().zip(&self.now).enumerate() {
            assert_eq!(read, now, "sector {sector} of block {}", sector * SECTOR / BLOCK_BYTES as usize);
        }
        let mapped = (0..BLOCKS).filter(|block| self.volume.is_mapped(BlockIndex(*block))).count();
        assert_eq!(self.volume.mapped_blocks(), mapped as u64, "the count of mapped blocks");
    }

    fn seal(&mut self) {
        if let Ok((_, epoch)) = self.volume.seal(1, Some("s")) {
            self.sealed.insert(epoch, self.now.clone());
        }
    }

    fn write_back_all(&self) {
        loop {
            let before = self.volume.layers().live_count();
            self.write_back_one();
            if before == self.volume.layers().live_count() {
                return;
            }
        }
    }

    /// Writes the oldest sealed layer back, as the background does.
    fn write_back_one(&self) {
        let live = self.volume.layers().live();
        let layer = live[0];
        if live.len() < 2 || !self.volume.layers().drained(layer) {
            return;
        }
        // The seal and all of the layer's mappings are durable before the capacity tier has the layer.
        self.commit();
        let blocks = self.volume.layer_blocks(layer);
        self.volume.change_vector(layer, &blocks).expect("a sound change vector");
        let mut capacity = lock(&self.capacity);
        let mut placed = Vec::new();
        for entry in &blocks {
            let block = entry.change.block;
            let place = entry.slot.map(|slot| {
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
                            let (of, below) = &capacity.blocks[&place.get()];
                            assert_eq!(*of, block);
                            data[range.clone()].copy_from_slice(&below[range]);
                        }
                        Source::Zero => {}
                    }
                }
                let place = NonZeroU64::new(capacity.blocks.len() as u64 + 1).expect("not zero");
                capacity.blocks.insert(place.get(), (block, Arc::new(data)));
                place
            });
            placed.push((block, place));
        }
        capacity.layers.push((self.volume.layers().epoch(layer), placed.clone()));
        drop(capacity);
        self.volume.written_back_layer(layer, &blocks, &placed);
    }

    /// Every sealed epoch on the capacity tier reads back as it was.
    fn check_snapshots(&self) {
        let capacity = lock(&self.capacity);
        let mut places: HashMap<BlockIndex, NonZeroU64> = HashMap::new();
        for (epoch, layer) in &capacity.layers {
            for (block, place) in layer {
                match place {
                    Some(place) => places.insert(*block, *place),
                    None => places.remove(block),
                };
            }
            let Some(content) = self.sealed.get(epoch) else { continue };
            for (number, expected) in content.chunks(BLOCK_BYTES as usize / SECTOR).enumerate() {
                let block = BlockIndex(number as u32);
                let stored = places.get(&block).map(|place| &capacity.blocks[&place.get()].1);
                for (n, expected) in expected.iter().enumerate() {
                    let read = stored.map_or(0, |data| stamp_of(&data[n * SECTOR..]));
                    assert_eq!(read, *expected, "epoch {epoch}, block {block}, sector {n} of it");
                }
            }
        }
    }

    fn promote(&mut self, block: u8) {
        let block = BlockIndex(u32::from(block) % BLOCKS);
        let Some(place) = self.volume.place(block) else { return };
        let Some(ticket) = self.volume.begin_promote(block, place, 2) else { return };
        let data = lock(&self.capacity).blocks[&place.get()].1.clone();
        self.disk.borrow_mut().write(ticket.slot().offset_bytes() as usize, &data);
        // Durable before the log says so, as for every write.
        assert!(ticket.finish(block.0.is_multiple_of(2)));
    }

    fn fill(&mut self, block: u8) {
        let block = BlockIndex(u32::from(block) % BLOCKS);
        let Some(place) = self.volume.place(block) else { return };
        let Some(ticket) = self.volume.begin_fill(block, place) else { return };
        let data = lock(&self.capacity).blocks[&place.get()].1.clone();
        for (first, count) in ticket.missing().runs() {
            let (from, to) = (first as usize * 4096, (first + count) as usize * 4096);
            let at = ticket.slot().offset_bytes() as usize;
            self.disk.borrow_mut().write(at + from, &data[from..to]);
        }
        assert!(ticket.finish());
    }

    fn crash(&mut self, surviving: Option<u64>) {
        let deltas = lock(&self.log.deltas).clone();
        let durable = match surviving {
            None => {
                // What the pending log holds is committed before the volume is used again.
                self.disk.borrow_mut().flush();
                deltas
            }
            Some(bits) => {
                let mut disk = self.disk.borrow_mut();
                let unflushed = std::mem::take(&mut disk.unflushed);
                let mut number = 0u32;
                for (at, len) in unflushed {
                    for from in (at..at + len).step_by(SECTOR) {
                        number = number.wrapping_mul(31).wrapping_add(17);
                        if bits.rotate_left(number % 64) & 1 == 1 {
                            let Disk { live, durable, .. } = &mut *disk;
                            durable[from..from + SECTOR].copy_from_slice(&live[from..from + SECTOR]);
                        }
                    }
                }
                disk.live = disk.durable.clone();
                deltas[..self.log.durable().0 as usize].to_vec()
            }
        };
        let mut recovered = replay(&durable);
        recovered.sealed.retain(|layer| layer.epoch.0 > 0);
        let capacity = lock(&self.capacity);
        let written_back = capacity.layers.last().map_or(Epoch(0), |(epoch, _)| *epoch);
        let open = recovered.open_epoch();
        self.log = Arc::new(MemoryLog::default());
        *lock(&self.log.deltas) = durable;
        self.log.durable.store(self.log.appended().0, Ordering::SeqCst);
        self.services.log = self.log.clone();
        let mut recovery =
            Recovery::begin(self.geometry, SLOTS, self.log.clone(), &recovered, written_back, 1);
        for (epoch, layer) in &capacity.layers {
            layer.iter().for_each(|(block, place)| recovery.place(*block, *epoch, *place));
        }
        drop(capacity);
        self.volume = recovery.finish();
        if surviving.is_none() {
            // A checkpoint in place of the journal: what it says is what the map knows.
            let mut facts = Vec::new();
            self.volume.facts(&mut |fact| facts.push(fact.clone()));
            *lock(&self.log.deltas) = facts;
            self.log.durable.store(self.log.appended().0, Ordering::SeqCst);
        }
        // An epoch that is open again may be sealed with other content.
        self.sealed.retain(|epoch, _| *epoch < open);
        if surviving.is_some() {
            let read = self.read(0, SECTORS);
            for (sector, read) in read.into_iter().enumerate() {
                let may = &self.since_flush[sector];
                assert!(
                    read == self.now[sector] || may.contains(&read),
                    "after a power cut sector {sector} (block {}) holds {read}; it may hold {may:?}",
                    sector * SECTOR / BLOCK_BYTES as usize
                );
                self.now[sector] = read;
            }
        }
        self.flushed();
        self.check_all();
    }

    fn apply(&mut self, step: &Step) {
        let clip = |sector: usize, sectors: usize| sectors.min(SECTORS - sector);
        match *step {
            Step::Read { sector, sectors } => {
                let sectors = clip(sector, sectors);
                let read = self.read(sector, sectors);
                assert_eq!(read, self.now[sector..sector + sectors]);
            }
            Step::Write { sector, sectors, fua } => {
                let sectors = clip(sector, sectors);
                let data = self.write_data(sector, sectors);
                self.run(vec![(Self::request(Operation::Write { fua }, sector, sectors), data)], false);
                if fua {
                    for at in sector..sector + sectors {
                        self.since_flush[at] = vec![self.now[at]];
                    }
                }
            }
            Step::Pair { first, second, seal_between } => {
                let first = (first.0, clip(first.0, first.1));
                let second = (second.0, clip(second.0, second.1));
                let apart = first.0 + first.1 <= second.0 || second.0 + second.1 <= first.0;
                if apart {
                    let write = Operation::Write { fua: false };
                    let requests = [first, second].map(|(sector, sectors)| {
                        let data = self.write_data(sector, sectors);
                        (Self::request(write, sector, sectors), data)
                    });
                    self.run(requests.into(), seal_between);
                }
            }
            Step::Flush => {
                self.run(vec![(Self::request(Operation::Flush, 0, 0), Vec::new())], false);
                self.flushed();
            }
            Step::Discard { block, blocks, zero, ragged } => {
                let per_block = BLOCK_BYTES as usize / SECTOR;
                let sector = (block * per_block + ragged).min(SECTORS - 1);
                let sectors = clip(sector, blocks * per_block);
                let operation = if zero {
                    Operation::WriteZeroes { no_unmap: false, fua: false }
                } else {
                    Operation::Discard
                };
                for at in sector..sector + sectors {
                    let whole_block = at / per_block * per_block >= sector
                        && at / per_block * per_block + per_block <= sector + sectors;
                    if zero || whole_block {
                        self.put(at, 0);
                    }
                }
                self.run(vec![(Self::request(operation, sector, sectors), Vec::new())], false);
            }
            Step::Seal => self.seal(),
            Step::WriteBack => self.write_back_one(),
            Step::Evict(keep) => {
                self.volume.evict(&|block| block.0 == u32::from(keep) % BLOCKS);
            }
            Step::Promote(block) => self.promote(block),
            Step::Fill(block) => self.fill(block),
            Step::Reserve(block) => {
                self.volume.reserve(BlockIndex(u32::from(block) % BLOCKS), 4);
            }
            Step::GiveBack(block) => {
                self.volume.give_back_reservation(BlockIndex(u32::from(block) % BLOCKS));
            }
            Step::Commit => {
                self.commit();
                self.flushed();
            }
            Step::Kill => self.crash(None),
            Step::Cut(bits) => self.crash(Some(bits)),
        }
        self.check_slots();
    }

    /// No slot is lost or held twice.
    fn check_slots(&self) {
        let (mut held, mut empty_in_queue) = (0, 0);
        for (_, slot) in self.volume.slots.iter() {
            if slot.block.load(Ordering::SeqCst) != slots::NO_BLOCK {
                held += 1;
            } else if slot.has(slots::QUEUED) {
                empty_in_queue += 1;
            }
            assert!(!slot.pinned(), "no I/O is in flight between steps");
        }
        let volume = &self.volume;
        let known =
            held + empty_in_queue + volume.free_slots() + volume.limbo_slots() + volume.reserved_slots();
        assert_eq!(known, SLOTS, "slots: held {held}, empty in queue {empty_in_queue}");
        let mut current = HashSet::new();
        for (_, slot) in volume.slots.iter().filter(|(_, slot)| slot.has(slots::CURRENT)) {
            assert!(current.insert(slot.block.load(Ordering::SeqCst)), "two newest slots of a block");
        }
        let _ = SlotId(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_is_a_plain_array(steps in proptest::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.check_all();
        world.seal();
        world.write_back_all();
        world.check_snapshots();
        world.check_all();
    }
}
