//! The pages of a layer's table, 4096 bytes each: one that opens it, pages of entries, one that closes it.
//!
//! Every page:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | mark `FRly` |
//! | 4 | 4 | CRC-32C of bytes 8 to 4095, salted with the page's number |
//! | 8 | 8 | layer |
//! | 16 | 4 | number of the page, from 0 |
//! | 20 | 2 | entries in the page |
//! | 22 | 1 | kind: 1 opens, 2 entries, 3 closes |
//! | 23 | 1 | 0 |
//! | 24 | 8 | first 8 bytes of the volume's UUID |
//!
//! The page that opens: 32 version (4), 36 first epoch (4), 40 last epoch (4), 44 zero (4), 48 opened (8) and
//! 56
//! sealed (8), in microseconds since 1970, 64 generation of the writer (8), 72 volume (16).
//! The page that closes: 32 added (4), 36 modified (4), 40 deleted (4), 44 passed (4), 48 pages in all (4).
//! A page of entries: up to 203 entries of 20 bytes from offset 32, each: block (4), epoch (4), place (8, 0 for
//! none), kind (1), sub-blocks (1), zero (2).
//!
//! Always true of a table: entries are strictly ascending by block over all pages, so one block is
//! found by halving. Every byte is under its page's checksum.

use forerun::geometry::{BlockIndex, Epoch, Generation, SUB_BLOCKS_PER_BLOCK};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U16, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::entry::{Entry, EntryCounts, EntryKind};
use super::fault::Fault;
use super::names::{LayerId, VolumeUuid};
use super::place::Place;

/// The version of the layer format that is written and the newest that is read.
pub const LAYER_VERSION: u32 = 1;
/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// The most entries a page holds.
pub const ENTRIES_PER_PAGE: usize = (PAGE_BYTES - HEADER_BYTES) / ENTRY_BYTES;

const HEADER_BYTES: usize = 32;
pub const ENTRY_BYTES: usize = 20;
const MARK: [u8; 4] = *b"FRly";
const WHAT: &str = "a page of the layer's table";
const OPENS: u8 = 1;
const ENTRIES: u8 = 2;
const CLOSES: u8 = 3;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 4],
    checksum: U32<LE>,
    layer: U64<LE>,
    number: U32<LE>,
    count: U16<LE>,
    kind: u8,
    zero: u8,
    volume: [u8; 8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawOpening {
    version: U32<LE>,
    first_epoch: U32<LE>,
    last_epoch: U32<LE>,
    zero: U32<LE>,
    opened_us: U64<LE>,
    sealed_us: U64<LE>,
    generation: U64<LE>,
    volume: [u8; 16],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawClosing {
    added: U32<LE>,
    modified: U32<LE>,
    deleted: U32<LE>,
    passed: U32<LE>,
    pages: U32<LE>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    block: U32<LE>,
    epoch: U32<LE>,
    place: U64<LE>,
    kind: u8,
    sub_blocks: u8,
    zero: U16<LE>,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES && size_of::<RawEntry>() == ENTRY_BYTES);

/// Which table a page has to belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableIdentity {
    /// The volume.
    pub volume: VolumeUuid,
    /// The layer.
    pub layer: LayerId,
}

/// What the page that opens a table tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The first epoch of the layer.
    pub first_epoch: Epoch,
    /// The last epoch of the layer.
    pub last_epoch: Epoch,
    /// When the first epoch was opened, in microseconds since 1970 (UTC).
    pub opened_us: u64,
    /// When the last epoch was sealed, in microseconds since 1970 (UTC).
    pub sealed_us: u64,
    /// Who wrote the table.
    pub generation: Generation,
}

/// What the page that closes a table tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closing {
    /// The table's entries by kind.
    pub counts: EntryCounts,
    /// All pages of the table, the first and this one included.
    pub pages: u32,
}

/// A page's content, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Page {
    /// The first page.
    Opening(Opening),
    /// A page of entries, strictly ascending by block.
    Entries(Vec<Entry>),
    /// The last page.
    Closing(Closing),
}

fn encode(table: TableIdentity, number: u32, kind: u8, count: u16, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut volume = [0; 8];
    volume.copy_from_slice(&table.volume.0[..8]);
    let header = RawHeader {
        mark: MARK,
        checksum: U32::new(0),
        layer: U64::new(table.layer.0),
        number: U32::new(number),
        count: U16::new(count),
        kind,
        zero: 0,
        volume,
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(body);
    out.resize(start + PAGE_BYTES, 0);
    let sum = checksum(Salt::LayerPage, number.into(), &[out.get(start + 8..).unwrap_or_default()]);
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
}

/// Appends the page that opens a table to `out`.
pub fn encode_opening(table: TableIdentity, opening: &Opening, out: &mut Vec<u8>) {
    let raw = RawOpening {
        version: U32::new(LAYER_VERSION),
        first_epoch: U32::new(opening.first_epoch.0),
        last_epoch: U32::new(opening.last_epoch.0),
        zero: U32::new(0),
        opened_us: U64::new(opening.opened_us),
        sealed_us: U64::new(opening.sealed_us),
        generation: U64::new(opening.generation.0),
        volume: table.volume.0,
    };
    encode(table, 0, OPENS, 0, raw.as_bytes(), out);
}

/// Appends page `number` with at most [`ENTRIES_PER_PAGE`] entries to `out`.
pub fn encode_entries(table: TableIdentity, number: u32, entries: &[Entry], out: &mut Vec<u8>) {
    debug_assert!(entries.len() <= ENTRIES_PER_PAGE);
    let mut body = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        let raw = RawEntry {
            block: U32::new(entry.block.0),
            epoch: U32::new(entry.epoch.0),
            place: U64::new(entry.place.map_or(0, |place| place.word().get())),
            kind: entry.kind as u8,
            sub_blocks: entry.sub_blocks,
            zero: U16::new(0),
        };
        body.extend_from_slice(raw.as_bytes());
    }
    encode(table, number, ENTRIES, entries.len() as u16, &body, out);
}

/// Appends the page that closes a table to `out`.
pub fn encode_closing(table: TableIdentity, closing: &Closing, out: &mut Vec<u8>) {
    let raw = RawClosing {
        added: U32::new(closing.counts.added),
        modified: U32::new(closing.counts.modified),
        deleted: U32::new(closing.counts.deleted),
        passed: U32::new(closing.counts.passed),
        pages: U32::new(closing.pages),
    };
    encode(table, closing.pages.saturating_sub(1), CLOSES, 0, raw.as_bytes(), out);
}

/// Reads and verifies page `number` of a table.
///
/// # Errors
/// Another length than a page, any byte that is not as it was written, a page of another table or number, or
/// entries that cannot be.
pub fn decode(page: &[u8], table: TableIdentity, number: u32) -> Result<Page, Fault> {
    let short = || Fault::Short { what: WHAT, have: page.len() as u64, need: PAGE_BYTES as u64 };
    if page.len() != PAGE_BYTES {
        return Err(short());
    }
    let (header, body) = RawHeader::read_from_prefix(page).map_err(|_| short())?;
    if header.mark != MARK {
        return Err(Fault::Mark { what: WHAT });
    }
    let sum = checksum(Salt::LayerPage, number.into(), &[page.get(8..).unwrap_or_default()]);
    if header.checksum.get() != sum {
        return Err(Fault::Checksum { what: WHAT });
    }
    let same = |field, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(Fault::Field { what: WHAT, field, found, expected }) }
    };
    same("layer", header.layer.get(), table.layer.0)?;
    same("number", header.number.get().into(), number.into())?;
    let mut volume = [0; 8];
    volume.copy_from_slice(&table.volume.0[..8]);
    same("volume", u64::from_le_bytes(header.volume), u64::from_le_bytes(volume))?;
    match header.kind {
        OPENS => decode_opening(body, table).map(Page::Opening),
        ENTRIES => decode_entries(body, header.count.get()).map(Page::Entries),
        CLOSES => decode_closing(body, number).map(Page::Closing),
        kind => Err(Fault::Range { what: WHAT, field: "kind", found: kind.into() }),
    }
}

fn decode_opening(body: &[u8], table: TableIdentity) -> Result<Opening, Fault> {
    let Ok((raw, _)) = RawOpening::read_from_prefix(body) else { return Err(Fault::Mark { what: WHAT }) };
    let (found, supported) = (raw.version.get(), LAYER_VERSION);
    if found == 0 || found > supported {
        return Err(Fault::NewerFormat { what: WHAT, found, supported });
    }
    if raw.volume != table.volume.0 {
        let (found, expected) = (VolumeUuid(raw.volume), table.volume);
        return Err(Fault::OtherVolume { what: WHAT, found, expected });
    }
    let (first, last) = (raw.first_epoch.get(), raw.last_epoch.get());
    if first == 0 || first > last {
        return Err(Fault::Range { what: WHAT, field: "first epoch", found: first.into() });
    }
    Ok(Opening {
        first_epoch: Epoch(first),
        last_epoch: Epoch(last),
        opened_us: raw.opened_us.get(),
        sealed_us: raw.sealed_us.get(),
        generation: Generation(raw.generation.get()),
    })
}

fn decode_closing(body: &[u8], number: u32) -> Result<Closing, Fault> {
    let Ok((raw, _)) = RawClosing::read_from_prefix(body) else { return Err(Fault::Mark { what: WHAT }) };
    let pages = raw.pages.get();
    if pages.checked_sub(1) != Some(number) {
        return Err(Fault::Range { what: WHAT, field: "number of pages", found: pages.into() });
    }
    let counts = EntryCounts {
        added: raw.added.get(),
        modified: raw.modified.get(),
        deleted: raw.deleted.get(),
        passed: raw.passed.get(),
    };
    Ok(Closing { counts, pages })
}

fn decode_entries(body: &[u8], count: u16) -> Result<Vec<Entry>, Fault> {
    let range = |field, found| Fault::Range { what: "an entry of the layer's table", field, found };
    let count = usize::from(count);
    let Some(bytes) = body.get(..count * ENTRY_BYTES).filter(|_| count <= ENTRIES_PER_PAGE) else {
        return Err(range("number of entries in its page", count as u64));
    };
    let mut entries = Vec::with_capacity(count);
    let mut last = None;
    for chunk in bytes.chunks_exact(ENTRY_BYTES) {
        let Ok(raw) = RawEntry::read_from_bytes(chunk) else { return Err(Fault::Mark { what: WHAT }) };
        let block = BlockIndex(raw.block.get());
        if last.is_some_and(|last| last >= block) {
            return Err(range("order: block", block.0.into()));
        }
        last = Some(block);
        let kind =
            EntryKind::from_number(raw.kind).ok_or_else(|| range("kind of change", raw.kind.into()))?;
        let place = match raw.place.get() {
            0 => None,
            word => Some(Place::from_word(word).ok_or_else(|| range("place", word))?),
        };
        if place.is_some() != kind.after() {
            return Err(range("place with its kind of change", raw.place.get()));
        }
        if !(1..=SUB_BLOCKS_PER_BLOCK).contains(&u32::from(raw.sub_blocks)) {
            return Err(range("number of sub-blocks", raw.sub_blocks.into()));
        }
        let epoch = Epoch(raw.epoch.get());
        entries.push(Entry { block, epoch, kind, sub_blocks: raw.sub_blocks, place });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun::geometry::SegmentId;
    use proptest::prelude::*;

    const TABLE: TableIdentity = TableIdentity { volume: VolumeUuid([7; 16]), layer: LayerId(12) };

    fn entry(block: u32, kind: EntryKind) -> Entry {
        let place = kind.after().then(|| Place::new(SegmentId(4), block + 1, 3).unwrap());
        Entry { block: BlockIndex(block), epoch: Epoch(2), kind, sub_blocks: 5, place }
    }

    fn pages() -> Vec<(u32, Page)> {
        let opening = Opening {
            first_epoch: Epoch(2),
            last_epoch: Epoch(6),
            opened_us: 1,
            sealed_us: 2,
            generation: Generation(3),
        };
        let full = (0..ENTRIES_PER_PAGE as u32).map(|block| entry(block, EntryKind::Added)).collect();
        let few = vec![entry(900, EntryKind::Deleted), entry(901, EntryKind::Passed)];
        let counts = EntryCounts { added: 203, modified: 0, deleted: 1, passed: 1 };
        vec![
            (0, Page::Opening(opening)),
            (1, Page::Entries(full)),
            (2, Page::Entries(few)),
            (3, Page::Closing(Closing { counts, pages: 4 })),
        ]
    }

    fn bytes_of(number: u32, page: &Page) -> Vec<u8> {
        let mut out = Vec::new();
        match page {
            Page::Opening(opening) => encode_opening(TABLE, opening, &mut out),
            Page::Entries(entries) => encode_entries(TABLE, number, entries, &mut out),
            Page::Closing(closing) => encode_closing(TABLE, closing, &mut out),
        }
        out
    }

    #[test]
    fn pages_read_back() {
        for (number, page) in pages() {
            let bytes = bytes_of(number, &page);
            assert_eq!(decode(&bytes, TABLE, number), Ok(page));
            assert!(decode(&bytes, TABLE, number + 1).is_err());
            assert!(decode(&bytes, TableIdentity { layer: LayerId(13), ..TABLE }, number).is_err());
            assert!(decode(&bytes, TableIdentity { volume: VolumeUuid([8; 16]), ..TABLE }, number).is_err());
            assert!(decode(&bytes[..4095], TABLE, number).is_err());
        }
    }

    #[test]
    fn every_flipped_byte_is_found() {
        for (number, page) in pages() {
            let mut bytes = bytes_of(number, &page);
            for at in 0..PAGE_BYTES {
                bytes[at] ^= 0x40;
                assert!(decode(&bytes, TABLE, number).is_err(), "byte {at} of page {number}");
                bytes[at] ^= 0x40;
            }
        }
    }

    proptest! {
        #[test]
        fn bodies_with_a_right_checksum_never_panic(count in 0u16..300, kind in 0u8..5, body in prop::collection::vec(any::<u8>(), 0..4064)) {
            let mut out = Vec::new();
            encode(TABLE, 1, kind, count, &body, &mut out);
            let _ = decode(&out, TABLE, 1);
        }
    }
}
