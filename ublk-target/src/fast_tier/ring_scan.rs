//! Everything that is in the journal ring, whether it is needed any more or not: for dumps and repairs.
//!
//! Memory: about 50 bytes for each page of the ring, which has at most 65,536.

use std::collections::BTreeMap;
use std::io;

use forerun::geometry::Lsn;
use uuid::Uuid;

use super::delta::Delta;
use super::device::FastDevice;
use super::layout::Layout;
use super::pack;
use super::page::{self, Kind, NoPage};
use super::page_io::PageReader;
use super::ring::JournalPoint;

/// A commit as its pages tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FoundCommit {
    pub lsn: Lsn,
    /// The ring page on which it begins.
    pub first_page: u64,
    pub parts: u32,
    pub generation: u64,
    /// How many of its pages are sound.
    pub sound_parts: u32,
}

impl FoundCommit {
    /// Whether all of it is there.
    pub const fn is_whole(&self) -> bool {
        self.sound_parts == self.parts
    }
}

/// What a ring holds.
pub(super) struct RingScan {
    /// By LSN, then by generation; pages of one commit that are missing are counted, not shown.
    pub commits: Vec<FoundCommit>,
    /// Ring pages that are pages of some kind, and damaged or misplaced.
    pub damaged: Vec<u64>,
    /// The newest LSN of a sound record that lies in another's place.
    pub misplaced: Lsn,
    /// The highest generation that a sound page carries.
    pub generation: u64,
    pages: u64,
}

/// Reads the whole ring.
pub(super) fn scan(device: &dyn FastDevice, layout: &Layout, volume: Uuid) -> io::Result<RingScan> {
    let pages = layout.journal_pages();
    let mut reader = PageReader::new(device, layout.journal_offset, pages);
    let mut found: BTreeMap<(u64, u64, u64), FoundCommit> = BTreeMap::new();
    let (mut damaged, mut misplaced, mut generation) = (Vec::new(), Lsn(0), 0);
    for index in 0..pages {
        let page = reader.page(index)?;
        let label = match page::open(page, volume, Kind::Record, index) {
            Ok((label, _)) if label.part < label.parts && u64::from(label.parts) <= pages => label,
            Ok(_) | Err(NoPage::Damaged) => {
                damaged.push(index);
                let elsewhere = page::open_anywhere(page, volume, Kind::Record);
                misplaced = misplaced.max(Lsn(elsewhere.map_or(0, |label| label.sequence)));
                continue;
            }
            Err(NoPage::Absent | NoPage::OtherVolume(_)) => continue,
        };
        generation = generation.max(label.generation);
        let first_page = (index + pages - u64::from(label.part)) % pages;
        let commit = FoundCommit {
            lsn: Lsn(label.sequence),
            first_page,
            parts: label.parts,
            generation: label.generation,
            sound_parts: 0,
        };
        found.entry((label.sequence, label.generation, first_page)).or_insert(commit).sound_parts += 1;
    }
    Ok(RingScan { commits: found.into_values().collect(), damaged, misplaced, generation, pages })
}

impl RingScan {
    /// The newest LSN that any sound page carries, in its place or not.
    pub fn newest(&self) -> Lsn {
        self.commits.last().map_or(Lsn(0), |commit| commit.lsn).max(self.misplaced)
    }

    /// The whole commit after `at`, if it lies where it has to.
    pub fn after(&self, at: JournalPoint) -> Option<&FoundCommit> {
        let from = self.commits.partition_point(|commit| commit.lsn.0 <= at.lsn.0);
        self.commits
            .iter()
            .skip(from)
            .take_while(|commit| commit.lsn.0 == at.lsn.0 + 1)
            .filter(|commit| commit.is_whole() && commit.first_page == at.page)
            .max_by_key(|commit| commit.generation)
    }

    /// After a commit.
    pub fn behind(&self, commit: &FoundCommit) -> JournalPoint {
        let page = (commit.first_page + u64::from(commit.parts)) % self.pages;
        JournalPoint { lsn: commit.lsn, page }
    }

    /// Whole commits that follow each other from `at` on.
    pub fn run_from(&self, at: JournalPoint) -> Vec<FoundCommit> {
        let (mut run, mut at) = (Vec::new(), at);
        while let Some(commit) = self.after(at) {
            run.push(*commit);
            at = self.behind(commit);
        }
        run
    }
}

/// Hands over what the sound pages of a commit say; false where one is sound and holds no deltas.
pub(super) fn read_commit(
    device: &dyn FastDevice,
    layout: &Layout,
    volume: Uuid,
    commit: &FoundCommit,
    take: &mut dyn FnMut(Delta),
) -> io::Result<bool> {
    let pages = layout.journal_pages();
    let mut whole = true;
    for part in 0..u64::from(commit.parts) {
        let index = (commit.first_page + part) % pages;
        let mut reader = PageReader::new(device, layout.journal_offset + index * page::PAGE_BYTES as u64, 1);
        if let Ok((label, payload)) = page::open(reader.page(0)?, volume, Kind::Record, index)
            && label.sequence == commit.lsn.0
        {
            whole &= pack::unpack(payload, take);
        }
    }
    Ok(whole)
}
