//! Going through everything on a fast tier, whatever its state, for dumps. Nothing is written.
//!
//! Memory: what [`super::ring_scan`] needs.

use std::io;
use std::path::Path;

use forerun::geometry::Lsn;
use uuid::Uuid;

use super::checkpoint;
use super::delta::Delta;
use super::device::{FastDevice, TierFile};
use super::error::FastTierError;
use super::layout::Layout;
use super::pack;
use super::page::{self, Kind, PAGE_BYTES};
use super::page_io::PageReader;
use super::patient::Patient;
use super::ring_scan::{read_commit, scan};
use super::superblock::{Copies, Superblock};

/// Something that was met on a tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A superblock's place, and what is there.
    Superblock {
        /// `A` or `B`.
        name: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// What it says, or why it cannot be used.
        content: Result<Box<Superblock>, String>,
    },
    /// The header of a checkpoint area.
    Checkpoint {
        /// 0 or 1.
        area: usize,
        /// Where, in bytes.
        offset: u64,
        /// Number, first LSN not in it, pages and deltas; or why it cannot be used.
        content: Result<(u64, Lsn, u64, u64), String>,
    },
    /// A fact of a checkpoint.
    Fact {
        /// The checkpoint's number.
        checkpoint: u64,
        /// The fact.
        fact: Delta,
    },
    /// A commit of the journal.
    Record {
        /// Its LSN.
        lsn: Lsn,
        /// The ring page on which it begins.
        page: u64,
        /// Its pages, and how many of them are sound.
        parts: (u32, u32),
        /// The generation of the superblock under which it was written.
        generation: u64,
        /// Whether it is after the newest checkpoint.
        needed: bool,
    },
    /// A change that a commit tells.
    Change {
        /// The commit.
        lsn: Lsn,
        /// The change.
        change: Delta,
    },
    /// Something that should be there and is not, or is broken.
    Broken {
        /// What.
        what: String,
        /// Where, in bytes.
        offset: u64,
    },
}

/// What to go through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parts {
    /// The superblocks.
    pub superblocks: bool,
    /// The checkpoints.
    pub checkpoint: bool,
    /// The journal.
    pub journal: bool,
}

type Sink<'s> = dyn FnMut(Seen) -> io::Result<()> + 's;

/// Goes through a tier that nobody uses; `volume` helps where no superblock tells.
///
/// # Errors
/// It is missing or in use; I/O that is not about a bad sector; what `sink` fails with.
pub fn inspect(
    path: &Path,
    volume: Option<Uuid>,
    parts: Parts,
    sink: &mut Sink<'_>,
) -> Result<Option<Superblock>, FastTierError> {
    let file = TierFile::open_read_only(path)?;
    let device = Patient::new(&file);
    let name = path.display().to_string();
    let error = || FastTierError::tier("read it");
    let copies = Copies::read(&device).map_err(error())?;
    let mut newest: Option<Superblock> = None;
    for ((copy, name_of), offset) in copies.0.iter().zip(["A", "B"]).zip(copies.1) {
        let content = match copy {
            Ok(copy) => copy.verify(&name, u64::MAX, None).map_err(|error| error.to_string()),
            Err(why) => Err(format!("{why:?}").to_lowercase()),
        };
        if let Ok(found) = &content
            && newest.as_ref().is_none_or(|newest| newest.generation < found.generation)
        {
            newest = Some(found.clone());
        }
        if parts.superblocks {
            let content = content.map(Box::new);
            sink(Seen::Superblock { name: name_of, offset, content }).map_err(error())?;
        }
    }
    let places = match (&newest, volume) {
        (Some(newest), _) => Some((newest.layout, newest.volume)),
        // As a tier of this size is laid out.
        (None, Some(volume)) => Layout::for_tier(device.size_bytes()).ok().map(|layout| (layout, volume)),
        (None, None) => None,
    };
    let Some((layout, volume)) = places else {
        let what = "no superblock can be read, so it is not known where the rest lies".to_owned();
        sink(Seen::Broken { what, offset: 0 }).map_err(error())?;
        return Ok(newest);
    };
    let newest_start = checkpoints(&device, &layout, volume, parts.checkpoint, sink).map_err(error())?;
    if parts.journal {
        journal(&device, &layout, volume, newest_start, sink).map_err(error())?;
    }
    for (offset, why) in device.unreadable() {
        sink(Seen::Broken { what: format!("cannot be read: {why}"), offset }).map_err(error())?;
    }
    Ok(newest)
}

/// Gives the LSN before which the newest checkpoint begins.
fn checkpoints(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    told: bool,
    sink: &mut Sink<'_>,
) -> io::Result<Lsn> {
    let mut newest = (0, Lsn(0));
    for area in [0, 1] {
        let header = checkpoint::read_header(device, layout, volume, area)?;
        let offset = checkpoint::header_offset(layout, area);
        if let Ok(header) = &header {
            newest = newest.max((header.place.number, header.start.lsn));
        }
        if !told {
            continue;
        }
        let content = match &header {
            Ok(header) => Ok((header.place.number, header.start.lsn, header.pages, header.deltas)),
            Err(why) => Err(format!("{why:?}").to_lowercase()),
        };
        sink(Seen::Checkpoint { area, offset, content })?;
        let Ok(header) = header else { continue };
        let first = offset + PAGE_BYTES as u64;
        let mut reader = PageReader::new(device, first, layout.checkpoint_pages());
        for index in 0..header.pages {
            let (offset, number) = (reader.offset_of(index), (area as u64) << 32 | index);
            let (mut facts, mut sound) = (Vec::new(), false);
            if let Ok((label, payload)) =
                page::open(reader.page(index)?, volume, Kind::CheckpointPage, number)
                && label.sequence == header.place.number
            {
                sound = pack::unpack(payload, &mut |fact| facts.push(fact));
            }
            for fact in facts {
                sink(Seen::Fact { checkpoint: header.place.number, fact })?;
            }
            if !sound {
                let what = format!("page {index} of checkpoint {} is missing or broken", header.place.number);
                sink(Seen::Broken { what, offset })?;
            }
        }
    }
    Ok(newest.1)
}

fn journal(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    newest_start: Lsn,
    sink: &mut Sink<'_>,
) -> io::Result<()> {
    let ring = scan(device, layout, volume)?;
    let offset = |page: u64| layout.journal_offset + page * PAGE_BYTES as u64;
    for page in &ring.damaged {
        let what = format!("page {page} of the journal is broken, or lies in another's place");
        sink(Seen::Broken { what, offset: offset(*page) })?;
    }
    let mut last: Option<Lsn> = None;
    for commit in &ring.commits {
        if let Some(last) = last.filter(|last| commit.lsn.0 > last.0 + 1) {
            let what = format!("records {} to {} of the journal are missing", last.0 + 1, commit.lsn.0 - 1);
            sink(Seen::Broken { what, offset: offset(commit.first_page) })?;
        }
        last = Some(commit.lsn);
        sink(Seen::Record {
            lsn: commit.lsn,
            page: commit.first_page,
            parts: (commit.parts, commit.sound_parts),
            generation: commit.generation,
            needed: commit.lsn > newest_start,
        })?;
        let mut changes = Vec::new();
        read_commit(device, layout, volume, commit, &mut |change| changes.push(change))?;
        for change in changes {
            sink(Seen::Change { lsn: commit.lsn, change })?;
        }
    }
    Ok(())
}
