//! The capacity tier's parsers as `tests/fuzz` calls them.
//!
//! Each function takes any bytes and panics where a promise does not hold: what is read is written again as
//! the same value. An even first byte gives the object as it is; after an odd one its checksums are set right here, so that
//! what lies behind them is reached.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Generation, Geometry, SegmentId};

use super::check::check_store;
use super::checksum::{Salt, checksum};
use super::codec::{Codec, Compressor, restore};
use super::entry::{Entry, EntryCounts, EntryKind};
use super::head::{Head, LayerInfo, MAX_LAYERS};
use super::layer_page::{
    Closing, Opening, PAGE_BYTES, Page, TableIdentity, decode, encode_closing, encode_entries, encode_opening,
};
use super::names::{LayerId, ObjectKind, ObjectName, SnapshotName, VolumeUuid};
use super::origin::ORIGIN_BYTES;
use super::place::UNIT_BYTES;
use super::record::{RECORD_HEADER_BYTES, RecordHeader, read_record};
use super::segment::{RecordWalk, SEGMENT_HEADER_BYTES, SegmentBuilder, SegmentHeader};
use super::store::{HeadNumber, ReplaceError, Store, StoreSpace, Upload};
use super::warm_list::WarmList;

const VOLUME: VolumeUuid = VolumeUuid([0xf0; 16]);
const LAYER: LayerId = LayerId(2);
const SEGMENT: SegmentId = SegmentId(3);
const UNIT: usize = UNIT_BYTES as usize;

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

fn part(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.get(from.min(bytes.len())..to.min(bytes.len())).unwrap_or_default()
}

/// Sets right what a HEAD says of itself: mark, version, length, number of layers and origins, checksum. A clone's has one
/// origin.
fn seal_head(bytes: &mut Vec<u8>, clone: bool) {
    let (origins, tail) = if clone { (1, ORIGIN_BYTES) } else { (0u32, 0) };
    let layers = bytes.len().saturating_sub(128 + tail) / 128;
    bytes.resize(128 + layers * 128 + tail, 0);
    let len = bytes.len() as u64;
    put(bytes, 0, if clone { b"FRhead01\x02\0\0\0" } else { b"FRhead01\x01\0\0\0" });
    put(bytes, 80, &origins.to_le_bytes());
    put(bytes, 16, &len.to_le_bytes());
    put(bytes, 52, &(layers as u32).to_le_bytes());
    let sum = checksum(Salt::Head, 0, &[part(bytes, 0, 12), part(bytes, 16, bytes.len())]);
    put(bytes, 12, &sum.to_le_bytes());
}

/// HEAD.
pub fn head(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if !how.is_multiple_of(2) {
        seal_head(&mut bytes, how & 2 != 0);
    }
    let Ok(head) = Head::verify(&bytes) else { return };
    assert!(head.layers.len() <= MAX_LAYERS && head.layers.len() * 128 < bytes.len());
    let again = head.encode();
    assert_eq!(again.len(), bytes.len());
    assert_eq!(Head::verify(&again).as_ref(), Ok(&head), "a HEAD comes back as it was");
    let mut before = Epoch(0);
    for layer in &head.layers {
        assert!(before < layer.first_epoch && layer.first_epoch <= layer.last_epoch);
        before = layer.last_epoch;
        assert_eq!(head.layer_holding(layer.first_epoch), Some(layer));
        assert_eq!(head.layers_up_to(layer.last_epoch).and_then(<[_]>::last), Some(layer));
        if let Some(name) = &layer.snapshot {
            assert_eq!(head.snapshot(name), Some(layer));
        }
    }
    assert_eq!(head.written_back_epoch(), before);
}

const TABLE: TableIdentity = TableIdentity { volume: VOLUME, layer: LAYER };

/// Sets right what a page of a table says of itself.
fn seal_page(page: &mut Vec<u8>, number: u32) {
    page.resize(PAGE_BYTES, 0);
    put(page, 0, b"FRly");
    put(page, 8, &LAYER.0.to_le_bytes());
    put(page, 16, &number.to_le_bytes());
    put(page, 24, part(&VOLUME.0, 0, 8));
    let sum = checksum(Salt::LayerPage, number.into(), &[part(page, 8, PAGE_BYTES)]);
    put(page, 4, &sum.to_le_bytes());
}

/// A page of a layer's table.
pub fn layer_page(data: &[u8]) {
    let Some(([how, number], rest)) = data.split_first_chunk() else { return };
    let (mut page, number) = (rest.to_vec(), u32::from(*number));
    if !how.is_multiple_of(2) {
        seal_page(&mut page, number);
    }
    let Ok(read) = decode(&page, TABLE, number) else { return };
    let mut again = Vec::new();
    match &read {
        Page::Opening(opening) => encode_opening(TABLE, opening, &mut again),
        Page::Entries(entries) => encode_entries(TABLE, number, entries, &mut again),
        Page::Closing(closing) => encode_closing(TABLE, closing, &mut again),
    }
    // One that opens lies at the front, wherever it was found: that is the cursor's to see.
    let number = if matches!(read, Page::Opening(_)) { 0 } else { number };
    assert_eq!(decode(&again, TABLE, number), Ok(read), "a page comes back as it was");
}

/// A warm list.
pub fn warm_list(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let (mut bytes, number) = (rest.to_vec(), 5);
    if !how.is_multiple_of(2) {
        bytes.resize(bytes.len().max(64), 0);
        put(&mut bytes, 0, b"FRwm");
        put(&mut bytes, 8, &1u32.to_le_bytes());
        put(&mut bytes, 16, &VOLUME.0);
        let sum = checksum(Salt::WarmList, number, &[part(&bytes, 8, bytes.len())]);
        put(&mut bytes, 4, &sum.to_le_bytes());
    }
    let Ok(geometry) = Geometry::new(64 << 20, 4096) else { return };
    let Ok(list) = WarmList::decode(&bytes, VOLUME, number, geometry) else { return };
    assert!(list.blocks().all(|block| block.0 < geometry.blocks()), "a block outside of the volume");
    let again = list.encode(VOLUME, number);
    assert_eq!(WarmList::decode(&again, VOLUME, number, geometry), Ok(list), "a list comes back as it was");
}

/// Sets right a segment's header and each record that follows on the one before.
fn seal_segment(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(UNIT).max(UNIT), 0);
    put(bytes, 0, b"FRsegmnt\x01\0\0\0");
    put(bytes, 16, &VOLUME.0);
    put(bytes, 32, &SEGMENT.0.to_le_bytes());
    let units = (bytes.len() / UNIT) as u32;
    put(bytes, 52, &units.to_le_bytes());
    let mut at = 1;
    let mut records = 0_u32;
    while at < units {
        let start = at as usize * UNIT;
        put(bytes, start, b"FRbk");
        put(bytes, start + 8, &VOLUME.0);
        put(bytes, start + 24, &SEGMENT.0.to_le_bytes());
        put(bytes, start + 44, &(BLOCK_BYTES as u32).to_le_bytes());
        let field = |bytes: &[u8], from: usize| {
            part(bytes, start + from, start + from + 4).try_into().map_or(0, u32::from_le_bytes)
        };
        let stored = field(bytes, 40).min(BLOCK_BYTES as u32);
        let len = (RECORD_HEADER_BYTES + stored as usize).next_multiple_of(UNIT);
        let data = part(bytes, start + RECORD_HEADER_BYTES, start + len);
        let sum = checksum(Salt::RecordData, field(bytes, 32).into(), &[data]);
        put(bytes, start + 48, &sum.to_le_bytes());
        let sum = checksum(Salt::RecordHeader, at.into(), &[part(bytes, start, start + 60)]);
        put(bytes, start + 60, &sum.to_le_bytes());
        at += (len / UNIT) as u32;
        records += 1;
    }
    // Now and then the wrong number.
    if bytes.get(12) != Some(&255) {
        put(bytes, 12, &records.to_le_bytes());
    }
    let sum = checksum(Salt::SegmentHeader, SEGMENT.0, &[part(bytes, 0, SEGMENT_HEADER_BYTES - 4)]);
    put(bytes, SEGMENT_HEADER_BYTES - 4, &sum.to_le_bytes());
}

/// A segment: its header, its records, the blocks in them.
pub fn segment(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if !how.is_multiple_of(2) {
        seal_segment(&mut bytes);
    }
    let Ok(header) = SegmentHeader::decode(&bytes, VOLUME, SEGMENT) else { return };
    let mut walk = RecordWalk::new(header);
    let mut builder = SegmentBuilder::new(VOLUME, SEGMENT, header.generation, header.epoch, Vec::new());
    let mut end = UNIT;
    let mut block = vec![0; BLOCK_BYTES as usize];
    while let Some(at) = walk.next_at() {
        let start = at as usize * UNIT;
        let Ok((record, place)) = walk.step(part(&bytes, start, bytes.len())) else { return };
        assert_eq!((place.segment(), place.offset_units()), (SEGMENT, at));
        assert_eq!(record.record_bytes(), place.len_bytes());
        let whole = part(&bytes, start, start + place.len_bytes());
        let Ok(stored) = record.verify_data(whole) else { return };
        let read = read_record(whole, VOLUME, place, record.block, &mut block);
        assert!(read.is_err() || read == Ok(record));
        // What was in the block's place before must not matter; the other codecs are a copy and a fill.
        if read.is_ok() && record.codec == Codec::Lz4 {
            let mut once_more = vec![0xaa; BLOCK_BYTES as usize];
            assert!(restore(record.codec, stored, &mut once_more).is_ok() && once_more == block);
        }
        // Padding that is not zeros is under the checksum, and no encoder writes it.
        let padding = part(whole, RECORD_HEADER_BYTES + stored.len(), whole.len());
        if padding.iter().any(|byte| *byte != 0) {
            return;
        }
        assert_eq!(builder.append(&record, stored), Some(place), "a record lies where it lay");
        end = start + whole.len();
    }
    if walk.finish().is_ok() {
        let (again, copy) = builder.finish();
        assert_eq!(again, header);
        assert_eq!(part(&copy, UNIT, copy.len()).len(), end - UNIT);
        assert_eq!(SegmentHeader::decode(&copy, VOLUME, SEGMENT), Ok(header));
    }
}

/// Objects in memory, to be read.
struct Objects {
    head: Vec<u8>,
    objects: RefCell<BTreeMap<ObjectName, Vec<u8>>>,
}

struct NoUpload;

impl Upload for NoUpload {
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        (Err(io::ErrorKind::ReadOnlyFilesystem.into()), bytes)
    }

    async fn finish(self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Store for Objects {
    type Upload = NoUpload;
    type Lease = ();

    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn lock_writer(&self) -> io::Result<Result<Generation, String>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    async fn begin_upload(&self, _: ObjectName) -> io::Result<NoUpload> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let objects = self.objects.borrow();
        let object = objects.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let range = object.get(from..from.saturating_add(len)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.clear();
        buffer.extend_from_slice(range);
        Ok(buffer)
    }

    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        let objects = self.objects.borrow();
        let of_kind = objects.iter().filter(|(name, _)| name.kind == kind);
        Ok(of_kind.map(|(name, bytes)| (*name, bytes.len() as u64)).collect())
    }

    async fn delete(&self, _: ObjectName) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        if self.head.len() > limit {
            Err(io::ErrorKind::InvalidData.into())
        } else {
            Ok(Some(self.head.clone()))
        }
    }

    async fn replace_head(&self, _: &[&[u8]], _: Vec<u8>, _: HeadNumber) -> Result<(), ReplaceError> {
        Err(ReplaceError::Conflict)
    }

    async fn settle_head(&self) -> io::Result<()> {
        Ok(())
    }

    async fn space(&self) -> io::Result<StoreSpace> {
        Ok(StoreSpace::default())
    }

    async fn lease(&self, _: Epoch) -> io::Result<()> {
        Ok(())
    }

    async fn leased(&self) -> io::Result<Vec<Epoch>> {
        Ok(Vec::new())
    }
}

/// A whole capacity tier, read by `check`: a HEAD, one layer's table, one segment. The input's first six bytes are
/// what is sealed and the lengths of the first two; entries and records meet here, which the other targets have apart.
pub fn tier(data: &[u8]) {
    let Some(([how, layers, pages, ..], rest)) = data.split_first_chunk::<4>() else { return };
    let (head, rest) = rest.split_at((128 + usize::from(*layers % 8) * 128).min(rest.len()));
    let (table, segment) = rest.split_at((usize::from(*pages % 8) * 256).min(rest.len()));
    let (mut head, mut segment) = (head.to_vec(), segment.to_vec());
    if how & 1 != 0 {
        put(&mut head, 24, &VOLUME.0);
        seal_head(&mut head, false);
    }
    let mut layer = Vec::new();
    // The table's pages are given by their first 256 bytes.
    for (number, page) in (0..).zip(table.chunks(256)) {
        let mut page = page.to_vec();
        if how & 2 != 0 {
            if number == 0 {
                put(&mut page, 72, &VOLUME.0);
            }
            seal_page(&mut page, number);
        }
        page.resize(PAGE_BYTES, 0);
        layer.extend_from_slice(&page);
    }
    if how & 4 != 0 {
        seal_segment(&mut segment);
    }
    let objects =
        BTreeMap::from([(ObjectName::layer(LAYER), layer), (ObjectName::segment(SEGMENT), segment)]);
    let read: u64 = head.len() as u64 + objects.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let store = Objects { head, objects: RefCell::new(objects) };
    let mut progress = |_| {};
    let check = pin!(check_store(store, None, &mut progress));
    // Nothing in it waits: all is in memory.
    let Poll::Ready(report) = check.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a check of objects in memory waits for something")
    };
    let Ok(report) = report else { return };
    assert!(report.findings.len() as u64 >= report.damaged.min(1), "damage is told");
    assert!(report.objects <= 3 * 8 && report.blocks * 20 <= read * 8);
}

/// What real encoders write, for the seeds: each target's name and inputs.
///
/// # Panics
/// Where an encoder refuses what it is given here.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut compressor = Compressor::default();
    let text: Vec<u8> = b"forerun ".iter().copied().cycle().take(BLOCK_BYTES as usize).collect();
    let mut builder = SegmentBuilder::new(VOLUME, SEGMENT, Generation(1), Epoch(1), Vec::new());
    let mut entries = Vec::new();
    for (block, content) in [(1, text), (5, vec![0; BLOCK_BYTES as usize])] {
        let (codec, stored) = compressor.compress(&content);
        let header = RecordHeader::new(VOLUME, SEGMENT, BlockIndex(block), Epoch(1), codec, stored);
        let Some(place) = builder.append(&header, stored) else { panic!("it fits") };
        let (block, epoch) = (BlockIndex(block), Epoch(1));
        entries.push(Entry { block, epoch, kind: EntryKind::Added, sub_blocks: 16, place: Some(place) });
    }
    entries.push(Entry {
        block: BlockIndex(9),
        epoch: Epoch(1),
        kind: EntryKind::Passed,
        sub_blocks: 16,
        place: None,
    });
    let (_, segment) = builder.finish();
    let counts = EntryCounts { added: 2, passed: 1, ..EntryCounts::default() };
    let opening = Opening {
        first_epoch: Epoch(1),
        last_epoch: Epoch(1),
        opened_us: 10,
        sealed_us: 20,
        generation: Generation(1),
    };
    let pages = [Page::Opening(opening), Page::Entries(entries), Page::Closing(Closing { counts, pages: 3 })];
    let table = pages.map(|page| {
        let mut bytes = Vec::new();
        match page {
            Page::Opening(opening) => encode_opening(TABLE, &opening, &mut bytes),
            Page::Entries(entries) => encode_entries(TABLE, 1, &entries, &mut bytes),
            Page::Closing(closing) => encode_closing(TABLE, &closing, &mut bytes),
        }
        bytes
    });
    let (Ok(geometry), Ok(name)) = (Geometry::new(64 << 20, 4096), SnapshotName::new("monday")) else {
        panic!("a shape and a name")
    };
    let mut head = Head::new(VOLUME, geometry);
    let mut seeds = vec![("head", [&[0][..], &head.encode()].concat())];
    head.numbers_taken_to = 10;
    head.layers.push(LayerInfo {
        id: LAYER,
        first_epoch: Epoch(1),
        last_epoch: Epoch(1),
        opened_us: 10,
        sealed_us: 20,
        counts,
        mapped_blocks: 2,
        pages: 3,
        reclaim: false,
        snapshot: Some(name),
    });
    let head = head.encode();
    let bands = vec![(3..9).map(BlockIndex).collect(), vec![BlockIndex(1), BlockIndex(700)]];
    let list =
        WarmList { epoch: Epoch(4), made_us: 7, request_ns: 9, read_hits_ppm: 11, first_bands: 1, bands };
    let list = list.encode(VOLUME, 5);
    for how in [0, 1] {
        seeds.push(("warm_list", [&[how][..], &list].concat()));
        seeds.push(("head", [&[how][..], &head].concat()));
        seeds.push(("segment", [&[how][..], &segment].concat()));
        for (number, page) in (0..).zip(&table) {
            seeds.push((
                "layer_page",
                [&[how, number][..], part(page, 0, if how == 0 { 4096 } else { 128 })].concat(),
            ));
        }
    }
    let short: Vec<u8> = table.iter().flat_map(|page| part(page, 0, 256).to_vec()).collect();
    seeds.push(("tier", [&[7, 1, 3, 0][..], &head, &short, &segment].concat()));
    seeds
}
