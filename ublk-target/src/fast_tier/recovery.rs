//! Reading a fast tier: the newest checkpoint that is whole, and the journal after it. Nothing is written.
//!
//! Where the newest checkpoint is damaged the older one serves, if the journal still reaches from there to the
//! end; that it does is proved by the LSNs, which have no gap.

use std::io;

use forerun::geometry::Lsn;

use super::checkpoint::{self, BadPage, Header, Place};
use super::device::FastDevice;
use super::error::FastTierError;
use super::journal;
use super::page::NoPage;
use super::ring::Ring;
use super::state::State;
use super::superblock::Superblock;

/// What a tier holds.
pub(super) struct Recovery {
    pub state: State,
    /// The journal from the checkpoint used to its end.
    pub ring: Ring,
    /// The checkpoint used.
    pub place: Place,
    /// The highest number of a checkpoint.
    pub attempted: u64,
    /// Commits replayed.
    pub commits: u64,
    /// What was found and could be done without.
    pub notes: Vec<String>,
}

/// Reads the tier of a verified superblock.
pub(super) fn recover(device: &dyn FastDevice, superblock: &Superblock) -> Result<Recovery, FastTierError> {
    let read = |area| {
        checkpoint::read_header(device, &superblock.layout, superblock.volume, area)
            .map_err(FastTierError::tier("read a checkpoint"))
    };
    let headers = [read(0)?, read(1)?];
    let mut notes = Vec::new();
    for (area, header) in headers.iter().enumerate() {
        if let Err(NoPage::Damaged) = header {
            notes.push(format!(
                "checkpoint area {area} has no sound header; a crash while it is written leaves that"
            ));
        }
    }
    let mut sound: Vec<Header> = headers.into_iter().flatten().collect();
    sound.sort_unstable_by_key(|header| std::cmp::Reverse(header.place.number));
    let attempted = sound.first().map_or(0, |header| header.place.number);
    let newest_start = sound.first().map_or(Lsn(0), |header| header.start.lsn);
    let mut first_problem: Option<FastTierError> = None;
    for header in &sound {
        match from_checkpoint(device, superblock, header, newest_start) {
            Ok((state, ring, commits)) => {
                if let Some(problem) = first_problem {
                    let number = header.place.number;
                    notes.push(format!(
                        "{problem}; the older checkpoint {number} and the journal since made up for it"
                    ));
                }
                return Ok(Recovery { state, ring, place: header.place, attempted, commits, notes });
            }
            Err(problem @ FastTierError::Damaged { .. }) => {
                first_problem.get_or_insert(problem);
            }
            Err(other) => return Err(other),
        }
    }
    Err(first_problem.unwrap_or_else(|| FastTierError::Damaged {
        what: "no checkpoint has a sound header".to_owned(),
        offset: checkpoint::header_offset(&superblock.layout, 0),
    }))
}

fn from_checkpoint(
    device: &dyn FastDevice,
    superblock: &Superblock,
    header: &Header,
    newest_start: Lsn,
) -> Result<(State, Ring, u64), FastTierError> {
    let Superblock { layout, volume, geometry, clean, .. } = superblock;
    let mut state = State::new(layout.slots, geometry.blocks());
    let mut apply = |delta| state.apply(delta);
    let content: io::Result<Result<(), BadPage>> =
        checkpoint::read_content(device, layout, *volume, header, &mut apply);
    content
        .map_err(FastTierError::tier("read a checkpoint"))?
        .map_err(|BadPage { what, offset, .. }| FastTierError::Damaged { what, offset })?;
    let replayed = journal::replay(device, layout, *volume, header.start, *clean, &mut apply)?;
    let end = replayed.ring.next();
    let offset = layout.journal_offset + end.page * super::page::PAGE_BYTES as u64;
    if end.lsn < newest_start {
        let what = format!("the journal ends after record {}, before the newest checkpoint begins", end.lsn);
        return Err(FastTierError::Damaged { what, offset });
    }
    match state.problem() {
        None => Ok((state, replayed.ring, replayed.commits)),
        Some(problem) => {
            let what = format!("sound pages state what cannot be: {problem}");
            Err(FastTierError::Damaged { what, offset: checkpoint::header_offset(layout, header.place.area) })
        }
    }
}
