//! The offline check: every byte of live metadata is read and verified, and nothing is written.
//!
//! Live are both superblocks, both checkpoints, and the journal after the newest one. Damage that the
//! tier can do without (one superblock, the older checkpoint) is a lesser finding.
//!
//! It cannot tell a journal's last record that was destroyed from one that a crash tore, unless the tier
//! was stopped cleanly: then the superblock says where the journal ends. Slot data carries no checksum
//! and is not read.

use std::collections::BTreeSet;
use std::path::Path;

use forerun::geometry::{Geometry, Lsn};
use uuid::Uuid;

use super::checkpoint::{self, BadPage, Header};
use super::delta::Delta;
use super::device::{FastDevice, TierFile};
use super::error::FastTierError;
use super::page::NoPage;
use super::patient::Patient;
use super::recovery::recover;
use super::ring_scan::scan;
use super::superblock::{Copies, Superblock};
use crate::volume::Recovered;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Something is damaged that the tier can do without.
    Minor,
    /// The tier cannot be opened as it is.
    Fatal,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// Where on the tier.
    pub place: String,
    /// What to do.
    pub advice: &'static str,
}

/// What a check saw.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// What is wrong; empty if all is well.
    pub findings: Vec<Finding>,
    /// The tier's volume, if a superblock says.
    pub volume: Option<Uuid>,
    /// Whether it was stopped cleanly.
    pub clean: bool,
    /// The newest commit.
    pub lsn: Lsn,
    /// Slots in use.
    pub held_slots: u64,
    /// Commits after the newest checkpoint.
    pub journal_commits: u64,
    /// The volume's shape, if a superblock says.
    pub geometry: Option<Geometry>,
    /// What it remembers, if it can be opened.
    pub recovered: Option<Recovered>,
}

const REOPEN: &str = "opening the volume writes it anew; if it comes back, replace the device";
const RESTORE: &str = "`forerun repair --to-fast PATH` makes a new fast tier of what can still be read";
const UNREADABLE: &str =
    "the device fails: copy what is on it to another, or run `forerun repair --to-fast PATH`";

/// Checks the tier at `path`, which nobody may be using. With `volume`, it has to be that volume's.
///
/// # Errors
/// It is missing, in use, or cannot be read; what is wrong on it is in the report.
pub fn check(path: &Path, volume: Option<[u8; 16]>) -> Result<Report, FastTierError> {
    let file = TierFile::open_read_only(path)?;
    check_device(&file, &path.display().to_string(), volume.map(Uuid::from_bytes))
}

/// Checks a tier on a device that is called `name` in messages.
pub(crate) fn check_device(
    device: &dyn FastDevice,
    name: &str,
    volume: Option<Uuid>,
) -> Result<Report, FastTierError> {
    let patient = Patient::new(device);
    let mut report = Report::default();
    look(&mut report, &patient, name, volume)?;
    for (offset, why) in patient.unreadable() {
        report.add(Severity::Minor, format!("cannot be read: {why}"), format!("byte {offset}"), UNREADABLE);
    }
    Ok(report)
}

fn look(
    report: &mut Report,
    device: &dyn FastDevice,
    name: &str,
    volume: Option<Uuid>,
) -> Result<(), FastTierError> {
    let copies = Copies::read(device).map_err(FastTierError::tier("read the superblocks"))?;
    let verified = copies.newest(name).and_then(|newest| newest.verify(name, device.size_bytes(), volume));
    let superblock = match verified {
        Ok(superblock) => superblock,
        // It is no damage to be newer than this program.
        Err(error @ FastTierError::Newer { .. }) => return Err(error),
        Err(error) => {
            report.add(Severity::Fatal, error.to_string(), "superblocks".to_owned(), RESTORE);
            return Ok(());
        }
    };
    report.volume = Some(superblock.volume);
    report.geometry = Some(superblock.geometry);
    report.clean = superblock.clean.is_some();
    report.superblocks(&copies, &superblock);
    let ring = scan(device, &superblock.layout, superblock.volume)
        .map_err(FastTierError::tier("read the journal"))?;
    if ring.generation > superblock.generation {
        let what = format!(
            "both superblocks are older (generation {}) than the journal ({})",
            superblock.generation, ring.generation
        );
        report.add(Severity::Fatal, what, "superblocks".to_owned(), RESTORE);
    }
    report.checkpoints(device, &superblock)?;
    match recover(device, &superblock) {
        Ok(recovery) => {
            report.lsn = recovery.ring.next().lsn;
            report.journal_commits = recovery.commits;
            if ring.misplaced > report.lsn {
                let what = format!("record {} of the journal lies in another's place", ring.misplaced);
                report.add(Severity::Fatal, what, "journal".to_owned(), RESTORE);
            }
            let recovered = recovery.state.finish();
            report.held_slots = recovered.holds.len() as u64;
            report.recovered = Some(recovered);
        }
        Err(FastTierError::Damaged { what, offset }) => {
            report.add(Severity::Fatal, what, format!("byte {offset}"), RESTORE);
        }
        Err(other) => return Err(other),
    }
    Ok(())
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, severity: Severity, what: String, place: String, advice: &'static str) {
        self.findings.push(Finding { severity, what, place, advice });
    }

    fn superblocks(&mut self, copies: &Copies, newest: &Superblock) {
        for ((copy, name), offset) in copies.0.iter().zip(["A", "B"]).zip(copies.1) {
            let what = match copy {
                // A crash between the two copies leaves one a generation behind, also in the midst of a clean stop.
                Ok(copy) if copy.generation() == newest.generation => continue,
                Ok(copy) if copy.generation() + 1 == newest.generation => continue,
                Ok(copy) => {
                    format!(
                        "superblock {name} is of generation {}, not {}",
                        copy.generation(),
                        newest.generation
                    )
                }
                Err(NoPage::Absent) => format!("superblock {name} is missing"),
                Err(_) => format!("superblock {name} is damaged"),
            };
            self.add(Severity::Minor, what, format!("byte {offset}"), REOPEN);
        }
    }

    /// Both areas; whether the tier can be opened without what is damaged shows when it is recovered.
    fn checkpoints(&mut self, device: &dyn FastDevice, superblock: &Superblock) -> Result<(), FastTierError> {
        let Superblock { layout, volume, .. } = superblock;
        let error = || FastTierError::tier("read a checkpoint");
        let read = |area| checkpoint::read_header(device, layout, *volume, area);
        let mut sound: Vec<Header> = Vec::new();
        for area in [0, 1] {
            if let Ok(header) = read(area).map_err(error())? {
                sound.push(header);
            } else {
                let what =
                    format!("the checkpoint in area {area} has no sound header (a crash can leave that)");
                let offset = checkpoint::header_offset(layout, area);
                self.add(
                    Severity::Minor,
                    what,
                    format!("byte {offset}"),
                    "the next checkpoint writes it anew",
                );
            }
        }
        let newest = sound.iter().map(|header| header.place.number).max();
        for header in &sound {
            let is_newest = Some(header.place.number) == newest;
            let (mut slots, mut twice) = (BTreeSet::new(), None);
            let mut look = |delta| match delta {
                Delta::Holds(holds) if !slots.insert(holds.slot) => twice = Some(holds.slot),
                _ => {}
            };
            let content =
                checkpoint::read_content(device, layout, *volume, header, &mut look).map_err(error())?;
            let offset = checkpoint::header_offset(layout, header.place.area);
            if let Some(slot) = twice.filter(|_| content.is_ok()) {
                let what = format!("slot {slot} is held twice in checkpoint {}", header.place.number);
                self.add(
                    Severity::Minor,
                    what,
                    format!("byte {offset}"),
                    "the next checkpoint writes it anew",
                );
            }
            match content {
                Ok(()) => {}
                // The next checkpoint is being written over the older one.
                Err(BadPage { superseded: true, .. }) if !is_newest && !self.clean => {}
                Err(BadPage { what, offset, .. }) => {
                    self.add(
                        Severity::Minor,
                        what,
                        format!("byte {offset}"),
                        "the next checkpoint writes it anew",
                    );
                }
            }
        }
        Ok(())
    }
}
