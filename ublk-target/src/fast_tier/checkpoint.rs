//! Checkpoints: the whole state as deltas, in one of two areas, so that the journal can be short.
//!
//! An area is a header page and content pages. The header's payload:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | the last LSN before the checkpoint began |
//! | 8 | 8 | the ring page at which the journal goes on after that LSN |
//! | 16 | 8 | content pages |
//! | 24 | 8 | deltas in them |
//!
//! Its label's sequence is the checkpoint's number, which all of its content pages carry too; a content
//! page's number is its place within its area, with the area in the upper half.
//!
//! A checkpoint is fuzzy: it is taken while commits go on, so it may hold facts that are newer than where
//! it begins. Since each delta is a whole fact, replaying the journal over it from there ends in the
//! state of the journal's end, provided that end lies after everything the checkpoint saw. Hence the
//! order: content, then a commit of all that was appended meanwhile, then a sync, then the header, then a
//! sync.
//!
//! What a crash leaves: before the header is durable, the other area's checkpoint and all of the journal
//! after it, untouched. Afterwards, this one.

use std::io;

use forerun::geometry::Lsn;
use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::delta::{DELTA_BYTES_MAX, Delta};
use super::device::FastDevice;
use super::layout::Layout;
use super::pack;
use super::page::{self, COUNT_MAX, Kind, Label, NoPage, PAGE_BYTES, PAYLOAD_BYTES};
use super::page_io::{PageReader, PageWriter};
use super::ring::JournalPoint;
use crate::aligned::AlignedBuffer;

const PAGE: u64 = PAGE_BYTES as u64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Payload {
    start_lsn: U64,
    start_page: U64,
    pages: U64,
    deltas: U64,
}

/// Which area and which checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Area 0 or 1.
    pub area: usize,
    /// Counts checkpoints from 1.
    pub number: u64,
}

impl Place {
    /// Where the next checkpoint goes: over the older one.
    pub const fn next(self) -> Self {
        Self { area: 1 - self.area, number: self.number + 1 }
    }
}

/// A checkpoint's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub place: Place,
    pub start: JournalPoint,
    pub pages: u64,
    pub deltas: u64,
}

/// A content page that is not as the header says.
#[derive(Clone, Debug)]
pub(super) struct BadPage {
    pub what: String,
    /// It is sound, and of a later attempt at a checkpoint.
    pub superseded: bool,
    pub offset: u64,
}

fn area_offset(layout: &Layout, area: usize) -> u64 {
    let [first, second] = layout.checkpoint_offsets;
    if area == 0 { first } else { second }
}

/// Where the header of an area is on the tier, in bytes.
pub(super) fn header_offset(layout: &Layout, area: usize) -> u64 {
    area_offset(layout, area)
}

const fn page_number(area: usize, index: u64) -> u64 {
    (area as u64) << 32 | index
}

/// Reads the header of an area.
pub(super) fn read_header(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    area: usize,
) -> io::Result<Result<Header, NoPage>> {
    let mut buffer = AlignedBuffer::zeroed(PAGE_BYTES);
    device.read_at(area_offset(layout, area), &mut buffer)?;
    Ok(parse_header(&buffer, layout, volume, area))
}

fn parse_header(bytes: &[u8], layout: &Layout, volume: Uuid, area: usize) -> Result<Header, NoPage> {
    let (label, payload) = page::open(bytes, volume, Kind::CheckpointHeader, area as u64)?;
    let (payload, _) = Payload::ref_from_prefix(payload).map_err(|_| NoPage::Damaged)?;
    let header = Header {
        place: Place { area, number: label.sequence },
        start: JournalPoint { lsn: Lsn(payload.start_lsn.get()), page: payload.start_page.get() },
        pages: payload.pages.get(),
        deltas: payload.deltas.get(),
    };
    let fits = header.pages <= layout.checkpoint_pages()
        && header.start.page < layout.journal_pages()
        && header.start.lsn.0 <= COUNT_MAX;
    if fits { Ok(header) } else { Err(NoPage::Damaged) }
}

/// Hands over a checkpoint's deltas; stops at the first page that is not as it should be.
pub(super) fn read_content(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    header: &Header,
    take: &mut dyn FnMut(Delta),
) -> io::Result<Result<(), BadPage>> {
    let Place { area, number } = header.place;
    let mut reader = PageReader::new(device, area_offset(layout, area) + PAGE, layout.checkpoint_pages());
    let mut deltas = 0;
    for index in 0..header.pages {
        let offset = reader.offset_of(index);
        let bad = |what: &str, superseded| {
            let what = format!("page {index} of checkpoint {number} {what}");
            Ok(Err(BadPage { what, superseded, offset }))
        };
        match page::open(reader.page(index)?, volume, Kind::CheckpointPage, page_number(area, index)) {
            Ok((label, _)) if label.sequence != number => {
                return bad("is of another checkpoint", label.sequence > number);
            }
            Ok((_, payload)) => {
                let mut count = |delta| {
                    deltas += 1;
                    take(delta);
                };
                if !pack::unpack(payload, &mut count) {
                    return bad("is sound but holds no deltas", false);
                }
            }
            Err(_) => return bad("is missing or broken", false),
        }
    }
    if deltas != header.deltas {
        let what = format!("checkpoint {number} holds {deltas} deltas and says {}", header.deltas);
        return Ok(Err(BadPage { what, superseded: false, offset: area_offset(layout, area) }));
    }
    Ok(Ok(()))
}

/// Writes a checkpoint's content while it is being gathered, and then its header.
pub(super) struct CheckpointWriter<'a> {
    device: &'a dyn FastDevice,
    layout: &'a Layout,
    volume: Uuid,
    generation: u64,
    place: Place,
    payload: Vec<u8>,
    chunk: PageWriter,
    /// Pages handed to the device.
    written: u64,
    deltas: u64,
    failed: Option<io::Error>,
}

impl<'a> CheckpointWriter<'a> {
    pub fn new(
        device: &'a dyn FastDevice,
        layout: &'a Layout,
        volume: Uuid,
        generation: u64,
        place: Place,
    ) -> Self {
        let payload = Vec::with_capacity(PAYLOAD_BYTES + DELTA_BYTES_MAX);
        let chunk = PageWriter::new();
        Self {
            device,
            layout,
            volume,
            generation,
            place,
            payload,
            chunk,
            written: 0,
            deltas: 0,
            failed: None,
        }
    }

    /// Adds a delta; an error shows in [`Self::finish_content`].
    pub fn push(&mut self, delta: &Delta) {
        let before = self.payload.len();
        delta.encode(&mut self.payload);
        self.deltas += 1;
        if self.payload.len() > PAYLOAD_BYTES {
            let last = self.payload.split_off(before);
            self.end_page();
            self.payload = last;
        }
    }

    fn end_page(&mut self) {
        let index = self.written + self.chunk.filled();
        if self.failed.is_some() {
            return;
        }
        if index >= self.layout.checkpoint_pages() {
            let message = format!(
                "the state does not fit into a checkpoint of {} pages: there may be {} deletions at most",
                self.layout.checkpoint_pages(),
                self.layout.deletions_max()
            );
            self.failed = Some(io::Error::new(io::ErrorKind::StorageFull, message));
            return;
        }
        let label = Label {
            kind: Kind::CheckpointPage,
            number: page_number(self.place.area, index),
            generation: self.generation,
            sequence: self.place.number,
            part: 0,
            parts: 1,
        };
        page::seal(self.chunk.next(), self.volume, label, &self.payload);
        self.payload.clear();
        if self.chunk.is_full() {
            self.write_chunk();
        }
    }

    fn write_chunk(&mut self) {
        let filled = self.chunk.filled();
        let offset = area_offset(self.layout, self.place.area) + (1 + self.written) * PAGE;
        match self.chunk.write(self.device, offset) {
            Ok(()) => self.written += filled,
            Err(error) => self.failed = Some(error),
        }
    }

    /// Writes what is left of the content. The checkpoint is not valid yet.
    ///
    /// # Errors
    /// Any error since the start.
    pub fn finish_content(&mut self) -> io::Result<()> {
        if !self.payload.is_empty() {
            self.end_page();
        }
        if self.failed.is_none() {
            self.write_chunk();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The header's page; writing it between two syncs makes the checkpoint valid.
    pub fn header(&self, start: JournalPoint) -> (u64, AlignedBuffer) {
        let payload = Payload {
            start_lsn: U64::new(start.lsn.0),
            start_page: U64::new(start.page),
            pages: U64::new(self.written),
            deltas: U64::new(self.deltas),
        };
        let label = Label {
            kind: Kind::CheckpointHeader,
            number: self.place.area as u64,
            generation: self.generation,
            sequence: self.place.number,
            part: 0,
            parts: 1,
        };
        let mut buffer = AlignedBuffer::zeroed(PAGE_BYTES);
        page::seal(&mut buffer, self.volume, label, payload.as_bytes());
        (area_offset(self.layout, self.place.area), buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_leads_nowhere_is_none() {
        let layout = Layout::for_tier(64 << 20).expect("large enough");
        let volume = Uuid::from_u128(1);
        let label =
            Label { kind: Kind::CheckpointHeader, number: 0, generation: 1, sequence: 1, part: 0, parts: 1 };
        let mut bytes = AlignedBuffer::zeroed(PAGE_BYTES);
        for (lsn, page, pages, good) in [
            (7, 0, 1, true),
            (u64::MAX, 0, 1, false),
            (7, layout.journal_pages(), 1, false),
            (7, 0, layout.checkpoint_pages() + 1, false),
        ] {
            let [start_lsn, start_page, pages, deltas] = [lsn, page, pages, 0].map(U64::new);
            let payload = Payload { start_lsn, start_page, pages, deltas };
            page::seal(&mut bytes, volume, label, payload.as_bytes());
            assert_eq!(parse_header(&bytes, &layout, volume, 0).is_ok(), good, "{lsn} {page}");
        }
    }
}
