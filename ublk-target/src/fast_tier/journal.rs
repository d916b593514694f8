//! The journal: a ring of commits, each of one or more pages.
//!
//! A record is one page: its label says of which commit (LSN) it is which part of how many, its payload
//! are deltas. A commit's pages lie one after the other in the ring; a page's number is its place there.
//! LSNs follow each other without a gap, and a commit begins only when the one before it is durable.
//!
//! What a crash leaves: all commits before the last one whole, and of the last any part. So at the first
//! place where no whole commit with the next LSN is found, the journal ends. If a sound page with a later
//! LSN lies anywhere beyond, this was no crash but damage, and the tier is refused.
//!
//! A torn commit's pages may stay behind and the same LSN be used again; they are told apart by the
//! generation, which no two openings share, and a commit whose write is tried again within one opening has
//! the same bytes.

use std::io;

use forerun::geometry::Lsn;
use uuid::Uuid;

use super::delta::Delta;
use super::device::FastDevice;
use super::error::FastTierError;
use super::layout::Layout;
use super::pack;
use super::page::{self, Kind, Label};
use super::page_io::{PageReader, PageWriter};
use super::ring::{JournalPoint, Ring};

/// Writes commits.
pub(super) struct JournalWriter {
    volume: Uuid,
    generation: u64,
    layout: Layout,
    pages: PageWriter,
}

impl JournalWriter {
    pub fn new(volume: Uuid, generation: u64, layout: Layout) -> Self {
        Self { volume, generation, layout, pages: PageWriter::new() }
    }

    /// How many pages a commit of these deltas takes.
    pub fn pages_of(deltas: &[u8]) -> io::Result<u64> {
        payloads(deltas).map(|payloads| payloads.len() as u64)
    }

    /// Writes the commit after `at`, and returns how many pages it took. It is not durable yet. The caller
    /// has made sure that so many pages are free.
    pub fn write(&mut self, device: &dyn FastDevice, at: JournalPoint, deltas: &[u8]) -> io::Result<u64> {
        let payloads = payloads(deltas)?;
        let ring = self.layout.journal_pages();
        let mut first = at.page;
        for (part, payload) in (0u32..).zip(&payloads) {
            let index = (at.page + u64::from(part)) % ring;
            if self.pages.is_full() || (index == 0 && self.pages.filled() > 0) {
                self.pages.write(device, offset(&self.layout, first))?;
                first = index;
            }
            let label = Label {
                kind: Kind::Record,
                number: index,
                generation: self.generation,
                sequence: at.lsn.0 + 1,
                part,
                parts: payloads.len() as u32,
            };
            page::seal(self.pages.next(), self.volume, label, payload);
        }
        self.pages.write(device, offset(&self.layout, first))?;
        Ok(payloads.len() as u64)
    }
}

fn payloads(deltas: &[u8]) -> io::Result<Vec<&[u8]>> {
    pack::payloads(deltas).ok_or_else(|| io::Error::other("the log of pending changes holds no deltas"))
}

const fn offset(layout: &Layout, page: u64) -> u64 {
    layout.journal_offset + page * page::PAGE_BYTES as u64
}

/// What the journal held.
pub(super) struct Replayed {
    /// From the checkpoint to the newest commit.
    pub ring: Ring,
    /// How many commits were read.
    pub commits: u64,
}

/// Hands over the deltas of every whole commit after `from`, in order.
///
/// With `stated_end`, which a clean stop leaves, the journal has to end there; without, nothing later
/// may lie beyond its end.
pub(super) fn replay(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    from: JournalPoint,
    stated_end: Option<Lsn>,
    take: &mut dyn FnMut(Delta),
) -> Result<Replayed, FastTierError> {
    let mut reader = PageReader::new(device, layout.journal_offset, layout.journal_pages());
    let mut ring = Ring::new(layout.journal_pages(), from);
    let mut commits = 0;
    let mut commit = Vec::new();
    loop {
        let parts = read_commit(&mut reader, volume, layout, &ring, &mut commit)
            .map_err(FastTierError::tier("read the journal"))?;
        let Some(parts) = parts else { break };
        if !pack::unpack(&commit, take) {
            let what = format!("journal record {} is sound but holds no deltas", ring.next().lsn.0 + 1);
            return Err(FastTierError::Damaged { what, offset: offset(layout, ring.next().page) });
        }
        ring.advance(parts);
        commits += 1;
    }
    let end = ring.next();
    match stated_end {
        Some(stated) if stated == end.lsn => {}
        Some(stated) => {
            let what = format!(
                "the journal ends after record {}, and the clean stop left {stated} as the last",
                end.lsn
            );
            return Err(FastTierError::Damaged { what, offset: offset(layout, end.page) });
        }
        None => {
            let later =
                find_later(&mut reader, volume, &ring).map_err(FastTierError::tier("read the journal"))?;
            if let Some((lsn, at)) = later {
                let what = format!(
                    "journal record {} is missing or broken, and the later record {lsn} is there at byte {at}",
                    end.lsn.0 + 1
                );
                return Err(FastTierError::Damaged { what, offset: offset(layout, end.page) });
            }
        }
    }
    Ok(Replayed { ring, commits })
}

/// Reads the commit after the ring's newest into `commit`, and returns its pages; `None` if it is not
/// there whole.
fn read_commit(
    reader: &mut PageReader<'_>,
    volume: Uuid,
    layout: &Layout,
    ring: &Ring,
    commit: &mut Vec<u8>,
) -> io::Result<Option<u64>> {
    commit.clear();
    let next = ring.next();
    let mut whole: Option<Label> = None;
    let mut part = 0;
    loop {
        let index = (next.page + u64::from(part)) % ring.pages();
        if u64::from(part) >= ring.free() {
            return Ok(None);
        }
        let Ok((label, payload)) = page::open(reader.page(index)?, volume, Kind::Record, index) else {
            return Ok(None);
        };
        let whole = *whole.get_or_insert(label);
        let belongs = label.sequence == next.lsn.0 + 1
            && label.part == part
            && label.parts == whole.parts
            && label.generation == whole.generation;
        if !belongs || u64::from(whole.parts) > layout.batch_pages() {
            return Ok(None);
        }
        commit.extend_from_slice(payload);
        part += 1;
        if part == whole.parts {
            return Ok(Some(part.into()));
        }
    }
}

/// A sound record later than the next one to be written, anywhere in the ring's free pages.
fn find_later(reader: &mut PageReader<'_>, volume: Uuid, ring: &Ring) -> io::Result<Option<(Lsn, u64)>> {
    let next = ring.next();
    for ahead in 0..ring.free() {
        let index = (next.page + ahead) % ring.pages();
        let offset = reader.offset_of(index);
        if let Ok((label, _)) = page::open(reader.page(index)?, volume, Kind::Record, index)
            && label.sequence > next.lsn.0 + 1
        {
            return Ok(Some((Lsn(label.sequence), offset)));
        }
    }
    Ok(None)
}
