//! The fast tier's parsers as `tests/fuzz` calls them.
//!
//! Each function takes any bytes and panics where a promise does not hold: what is read is written again as
//! the same value, and nothing is read that could not be written. Where a page carries a checksum, the input is the page's
//! content, and the page is sealed here; a first byte that is even has the page as it is instead.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use forerun::geometry::{BlockIndex, Epoch, Geometry, Lsn};
use uuid::Uuid;

use super::checkpoint::{self, CheckpointWriter, Place};
use super::delta::Delta;
use super::device::FastDevice;
use super::journal::{self, JournalWriter};
use super::layout::Layout;
use super::log::{DeltaLog, LogPosition};
use super::pack;
use super::page::{self, Kind, Label, PAGE_BYTES, PAYLOAD_BYTES};
use super::pending::{self, PendingLog};
use super::recovery::recover;
use super::ring::JournalPoint;
use super::state::State;
use super::superblock::{Superblock, Unverified};
use crate::volume::Recovery;

const VOLUME: Uuid = Uuid::from_u128(0xf0);
const BOOT: Uuid = Uuid::from_u128(0xb0);
/// The most that a half of the pending log has: that of the largest journal.
const HALF_BYTES_MAX: u32 = super::layout::BATCH_BYTES_MAX as u32;
const PAGE: u64 = PAGE_BYTES as u64;

/// Takes values off the front of an input; behind its end everything is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        for (to, from) in array.iter_mut().zip(taken) {
            *to = *from;
        }
        array
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A disk in memory; what was never written is zeros.
struct Disk {
    size_bytes: u64,
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Disk {
    fn new(size_bytes: u64) -> Self {
        Self { size_bytes, pages: Mutex::default() }
    }

    fn put(&self, offset: u64, page: Vec<u8>) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(offset / PAGE, page);
    }
}

impl FastDevice for Disk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(PAGE) && buffer.len().is_multiple_of(PAGE_BYTES),
            "only whole pages are read"
        );
        assert!(offset + buffer.len() as u64 <= self.size_bytes, "nothing is read beyond the tier's end");
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, page) in (offset / PAGE..).zip(buffer.chunks_mut(PAGE_BYTES)) {
            match pages.get(&number) {
                Some(there) => page.copy_from_slice(there),
                None => page.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset + bytes.len() as u64 <= self.size_bytes, "nothing is written beyond the tier's end");
        for (number, page) in (offset / PAGE..).zip(bytes.chunks(PAGE_BYTES)) {
            self.put(number * PAGE, page.to_vec());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn page_of(bytes: &[u8]) -> Vec<u8> {
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    page
}

fn sealed(label: Label, payload: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page::seal(&mut page, VOLUME, label, payload.get(..payload.len().min(PAYLOAD_BYTES)).unwrap_or_default());
    page
}

/// A superblock: version, areas, shape.
pub fn superblock(data: &[u8]) {
    let mut input = Input(data);
    let page = if input.u8().is_multiple_of(2) {
        page_of(input.0)
    } else {
        let generation = input.u64();
        let label = Label { kind: Kind::Superblock, number: 0, generation, sequence: 0, part: 0, parts: 1 };
        sealed(label, input.0)
    };
    let Ok(read) = Unverified::parse(&page, 0) else { return };
    assert!(Unverified::parse(&page, 1).is_err(), "a copy in the other's place is none");
    let tier_bytes = 1 << 40;
    let Ok(superblock) = read.verify("tier", tier_bytes, None) else { return };
    let layout = superblock.layout;
    assert!(layout.tier_bytes <= tier_bytes && layout.batch_pages() * 8 <= layout.journal_pages());
    assert!(layout.deletions_max() > 0 && layout.checkpoint_pages() < u64::from(u32::MAX));
    let again = Unverified::parse(&superblock.to_page(0), 0).and_then(|read| {
        read.verify("tier", tier_bytes, Some(superblock.volume)).map_err(|_| page::NoPage::Damaged)
    });
    assert_eq!(again, Ok(superblock), "a superblock comes back as it was");
}

/// A record's payload, or one of the pending log's halves: deltas.
pub fn deltas(data: &[u8]) {
    let mut rest = data;
    let mut again = Vec::new();
    while let Some(delta) = Delta::decode(&mut rest) {
        delta.encode(&mut again);
    }
    let read = data.len() - rest.len();
    assert_eq!(data.get(..read), Some(again.as_slice()), "deltas have one form");
    let Some(payloads) = pack::payloads(&again) else { panic!("deltas that were read are deltas") };
    assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES));
    assert_eq!(payloads.concat(), again, "packing loses nothing");
    assert_eq!(pack::unpack(data, &mut |_| {}), rest.is_empty());
}

fn small_layout() -> Layout {
    let Some(layout) = Layout::with_journal(2 << 20, 16 * PAGE) else { panic!("two MiB are enough") };
    assert!(layout.is_sound());
    layout
}

/// A page of the journal: as it is, or sealed with a label near to the right one.
fn journal_page(input: &mut Input<'_>, number: u64, lsn: u64) -> Vec<u8> {
    let how = input.u8();
    if how == 0 {
        let len = usize::from(input.u16());
        return page_of(input.bytes(len.min(PAGE_BYTES)));
    }
    let sequence = if how == 255 { input.u64() } else { lsn.wrapping_add(u64::from(input.u8())) };
    let [generation, part, parts] = input.array();
    let label = Label {
        kind: Kind::Record,
        number,
        generation: generation.into(),
        sequence,
        part: part.into(),
        parts: parts.into(),
    };
    let len = usize::from(input.u16());
    sealed(label, input.bytes(len))
}

/// The journal's ring: records in any order, of any commit.
pub fn journal(data: &[u8]) {
    let mut input = Input(data);
    let layout = small_layout();
    let disk = Disk::new(layout.tier_bytes);
    // Where it begins is said by a checkpoint's header, which has no later one.
    let lsn = input.u64().min(page::COUNT_MAX);
    let start = JournalPoint { lsn: Lsn(lsn), page: u64::from(input.u8()) % layout.journal_pages() };
    let stated_end = (input.u8() == 1).then(|| Lsn(lsn.wrapping_add(u64::from(input.u8()))));
    while !input.0.is_empty() {
        let number = u64::from(input.u8()) % layout.journal_pages();
        let page = journal_page(&mut input, number, lsn);
        disk.put(layout.journal_offset + number * PAGE, page);
    }
    let mut found = Vec::new();
    let mut take = |delta: Delta| delta.encode(&mut found);
    let Ok(replayed) = journal::replay(&disk, &layout, VOLUME, start, stated_end, &mut take) else { return };
    assert!(replayed.ring.used() <= layout.journal_pages() && replayed.commits <= replayed.ring.used());
    assert_eq!(replayed.ring.next().lsn.0, lsn + replayed.commits, "records have no gap");
    assert!(found.len() as u64 <= replayed.ring.used() * PAYLOAD_BYTES as u64);
    if found.is_empty() || found.len() as u64 > layout.batch_bytes() {
        return;
    }
    // Written again, all of it as one commit, it comes back.
    let again = Disk::new(layout.tier_bytes);
    let from = JournalPoint { lsn: Lsn(0), page: start.page };
    let written = JournalWriter::new(VOLUME, 1, layout).write(&again, from, &found);
    assert_eq!(written.ok(), JournalWriter::pages_of(&found).ok());
    let mut back = Vec::new();
    let mut take = |delta: Delta| delta.encode(&mut back);
    let replayed = journal::replay(&again, &layout, VOLUME, from, Some(Lsn(1)), &mut take);
    assert!(replayed.is_ok_and(|replayed| replayed.commits == 1), "one commit was written");
    assert_eq!(back, found);
}

fn walk(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.walk(&mut |delta| delta.encode(&mut bytes));
    bytes
}

/// A whole fast tier: checkpoints' headers and contents, and the journal after them.
pub fn recovery(data: &[u8]) {
    let mut input = Input(data);
    let layout = small_layout();
    let disk = Disk::new(layout.tier_bytes);
    let Ok(geometry) = Geometry::new(64 << 20, 4096) else { panic!("a shape") };
    let clean = (input.u8() == 1).then(|| Lsn(input.u8().into()));
    let superblock = Superblock { volume: VOLUME, generation: 1, clean, created_us: 0, geometry, layout };
    while !input.0.is_empty() {
        let how = input.u8();
        let area = usize::from(how & 1);
        let [base, _] = layout.checkpoint_offsets;
        let base = base + area as u64 * layout.checkpoint_bytes;
        match how >> 1 {
            0 => {
                let number = if input.u8() == 255 { input.u64() } else { u64::from(how) };
                let label = Label {
                    kind: Kind::CheckpointHeader,
                    number: area as u64,
                    generation: 1,
                    sequence: number,
                    part: 0,
                    parts: 1,
                };
                disk.put(base, sealed(label, input.bytes(32)));
            }
            1 => {
                let index = u64::from(input.u8()) % layout.checkpoint_pages();
                let label = Label {
                    kind: Kind::CheckpointPage,
                    number: (area as u64) << 32 | index,
                    generation: 1,
                    sequence: input.u8().into(),
                    part: 0,
                    parts: 1,
                };
                let len = usize::from(input.u16());
                disk.put(base + (1 + index) * PAGE, sealed(label, input.bytes(len)));
            }
            _ => {
                let number = u64::from(input.u8()) % layout.journal_pages();
                let page = journal_page(&mut input, number, 0);
                disk.put(layout.journal_offset + number * PAGE, page);
            }
        }
    }
    let Ok(recovery) = recover(&disk, &superblock) else { return };
    assert!(recovery.attempted >= recovery.place.number);
    let facts = walk(&recovery.state);
    // The state, written as a checkpoint, is the same state.
    let again = Disk::new(layout.tier_bytes);
    let place = Place { area: 0, number: 1 };
    let mut writer = CheckpointWriter::new(&again, &layout, VOLUME, 2, place);
    recovery.state.walk(&mut |delta| writer.push(delta));
    if writer.finish_content().is_err() {
        assert!(facts.len() as u64 > layout.checkpoint_pages() * 3900, "a state that fits is written");
        return;
    }
    let (offset, header) = writer.header(JournalPoint { lsn: Lsn(0), page: 0 });
    disk_write(&again, offset, &header);
    let Ok(Ok(header)) = checkpoint::read_header(&again, &layout, VOLUME, 0) else { panic!("a header") };
    assert_eq!(header.place, place);
    let superblock = Superblock { clean: None, ..superblock };
    let Ok(back) = recover(&again, &superblock) else { panic!("a checkpoint that was written is read") };
    assert_eq!(walk(&back.state), facts);
    let mut state = back.state;
    if let Some(Delta::Sealed(sealed)) = state.newest_sealed() {
        state.forget(sealed.epoch);
    }
    drop((state.unsealed_names(), state.finish()));
    // What pages say that are sound can still be no map; it is told, and nothing worse comes of it.
    let recovered = recovery.state.finish();
    if let Ok(mut map) = Recovery::begin(geometry, layout.slots, Arc::new(NoLog), &recovered, Epoch(0), 1) {
        map.place(BlockIndex(1), Epoch(0), NonZeroU64::new(1 << 24 | 1 << 8 | 1));
        let volume = map.finish();
        let facts = volume.facts().count() as u64;
        assert!(
            facts
                <= 2 * (recovered.holds.len() + recovered.deleted.len() + 2 * recovered.sealed.len()) as u64
        );
    }
}

/// Takes deltas and keeps none.
struct NoLog;

impl DeltaLog for NoLog {
    fn append(&self, _: &Delta) -> LogPosition {
        LogPosition(1)
    }

    fn appended(&self) -> LogPosition {
        LogPosition(1)
    }

    fn durable(&self) -> LogPosition {
        LogPosition(1)
    }

    fn has_room(&self, _: u32) -> bool {
        true
    }

    fn has_failed(&self) -> bool {
        false
    }
}

fn disk_write(disk: &Disk, offset: u64, bytes: &[u8]) {
    assert!(disk.write_at(offset, bytes).is_ok());
}

/// The pending log, as a file at `path` that is made anew; an input longer than it says something of is cut.
///
/// # Panics
/// Also where the file cannot be made.
pub fn pending(data: &[u8], path: &Path) {
    let mut input = Input(data);
    let bytes = if input.u8().is_multiple_of(2) { input.0.to_vec() } else { pending_file(&mut input) };
    let sparse =
        if data.first() == Some(&3) { u64::from(u32::from_le_bytes(input.array())) * 2 + 4096 } else { 0 };
    let made = std::fs::File::create(path).and_then(|file| {
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0)?;
        file.set_len(sparse.max(bytes.len() as u64))
    });
    assert!(made.is_ok(), "{made:?}");
    let Ok(Ok(found)) = pending::read(path, VOLUME, BOOT, HALF_BYTES_MAX) else { return };
    let deltas: usize = found.batches.iter().map(|batch| batch.deltas.len()).sum();
    assert!(deltas <= bytes.len().max(sparse as usize), "no more is found than the file has");
    for batch in &found.batches {
        pack::unpack(&batch.deltas, &mut |_| {});
    }
    let half_bytes = ((bytes.len().max(sparse as usize) - 4096) / 2) as u32;
    let Ok(log) = PendingLog::open(path, VOLUME, BOOT, half_bytes, true) else { panic!("it was found") };
    let [mut half, _] = log.start(found.generation, Lsn(0));
    assert!(half.append(&[2, 1, 0, 0, 0]) || half_bytes < 5);
    drop((half, log));
    let back = pending::read(path, VOLUME, BOOT, HALF_BYTES_MAX);
    assert!(back.is_ok_and(|back| back.is_ok_and(|back| back.generation == found.generation)));
}

/// A file with a right header, whose counters and halves are the input's.
fn pending_file(input: &mut Input<'_>) -> Vec<u8> {
    let half_bytes = if input.0.len() > 4 { u32::from_le_bytes(input.array()) } else { 0 };
    let counters = input.bytes(8 * 8);
    let mut bytes = pending::identity(half_bytes, VOLUME, BOOT);
    bytes.resize(4096, 0);
    for (at, counter) in [64, 72, 80, 88, 128, 192, 256, 320].into_iter().zip(counters.chunks(8)) {
        if let Some(place) = bytes.get_mut(at..at + counter.len()) {
            place.copy_from_slice(counter);
        }
    }
    let halves = input.bytes((half_bytes as usize).saturating_mul(2).min(64 << 10));
    bytes.extend_from_slice(halves);
    bytes
}

/// What real encoders write, for the seeds: each target's name and inputs.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use forerun::geometry::{SlotId, SubBlockMask};

    use super::delta::{Holds, Sealed};
    let holds = |slot, block, epoch| {
        Delta::Holds(Holds {
            slot: SlotId(slot),
            block: BlockIndex(block),
            epoch: Epoch(epoch),
            valid: SubBlockMask(0xffff),
            dirty: SubBlockMask(1),
            added: true,
        })
    };
    let sealed =
        |epoch| Delta::Sealed(Sealed { epoch: Epoch(epoch), opened_us: 1, sealed_us: 2, mapped_blocks: 3 });
    let facts = [
        holds(0, 1, 1),
        holds(1, 2, 1),
        Delta::Named { epoch: Epoch(1), name: "monday".to_owned() },
        sealed(1),
        Delta::Deleted { block: BlockIndex(2), epoch: Epoch(2) },
        Delta::Free(SlotId(1)),
        holds(2, 1, 2),
        sealed(2),
        Delta::Unnamed { epoch: Epoch(1) },
    ];
    let mut bytes = Vec::new();
    facts.iter().for_each(|delta| delta.encode(&mut bytes));
    let mut seeds = vec![("deltas", bytes.clone())];
    let Ok(geometry) = Geometry::new(1 << 30, 512) else { panic!("a shape") };
    let Ok(layout) = Layout::for_tier(64 << 20) else { panic!("a tier") };
    for clean in [None, Some(Lsn(9))] {
        let superblock = Superblock { volume: VOLUME, generation: 3, clean, created_us: 1, geometry, layout };
        let page = superblock.to_page(0);
        seeds.push(("superblock", [&[0], &page[..]].concat()));
        seeds.push(("superblock", [&[1, 3, 0, 0, 0, 0, 0, 0, 0][..], &page[72..72 + 96]].concat()));
    }
    let len = (bytes.len() as u16).to_le_bytes();
    // Two commits, the second of two parts, from the ring's last page on.
    let record = |number: u8, lsn: u8, part: u8, parts: u8| {
        [&[number, 1, lsn, 1, part, parts][..], &len, &bytes].concat()
    };
    let ring = [record(15, 1, 0, 1), record(0, 2, 0, 2), record(1, 2, 1, 2)].concat();
    seeds.push(("journal", [&[0; 8][..], &[15, 0, 0], &ring].concat()));
    seeds.push(("journal", [&[7, 0, 0, 0, 0, 0, 0, 0][..], &[15, 1, 2], &ring].concat()));
    let checkpoint = |number: u8, area: u8| {
        let mut payload = [0; 32];
        payload[16] = 1;
        payload[24] = facts.len() as u8;
        payload[8] = 15;
        let header = [&[area, 255][..], &u64::from(number).to_le_bytes(), &payload].concat();
        let content = [&[2 + area, 0, number][..], &len, &bytes].concat();
        [header, content].concat()
    };
    let journal: Vec<u8> = [record(15, 1, 0, 1), record(0, 2, 0, 1)]
        .into_iter()
        .flat_map(|page| [vec![4], page].concat())
        .collect();
    seeds.push(("recovery", [vec![0], checkpoint(1, 0), checkpoint(2, 1), journal.clone()].concat()));
    seeds.push(("recovery", [vec![1, 2], checkpoint(3, 0), journal].concat()));
    let mut file = pending::identity(4096, VOLUME, BOOT);
    file.resize(4096 + 8192, 0);
    file[64] = 3;
    file[128] = 1;
    file[192] = bytes.len() as u8;
    file[4096..4096 + bytes.len()].copy_from_slice(&bytes);
    seeds.push(("pending", [&[0][..], &file].concat()));
    let mut counters = [0; 64];
    counters[0] = 3;
    counters[32] = 1;
    counters[40] = bytes.len() as u8;
    let half = (bytes.len() as u32).to_le_bytes();
    seeds.push(("pending", [&[1][..], &half, &counters, &bytes, &bytes].concat()));
    seeds
}
