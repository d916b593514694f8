//! What can still be known of a damaged fast tier. Nothing is written.
//!
//! Three results, and nothing between them:
//! - **whole**: all that the tier knew. Lost superblocks, one lost checkpoint, even both where the journal reaches back
//!   to the newest epoch of the capacity tier, cost nothing.
//! - **up to an epoch's end**: the journal is damaged in the middle. What it says up to there is not enough for the
//!   open epoch: a slot that a lost record gave up may hold another block by now, and slots carry no checksum. Slots
//!   of sealed epochs that are not written back are never given up, so these epochs are exact; the volume goes
//!   back to the end of the newest of them, which is one single moment.
//! - **nothing**: then the capacity tier alone counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use forerun::geometry::{
    BLOCK_BYTES, BlockIndex, Epoch, Geometry, Lsn, SUB_BLOCK_BYTES, SlotId, SubBlockMask,
};
use uuid::Uuid;

use super::checkpoint::{self, Header};
use super::delta::Delta;
use super::device::{FastDevice, TierFile};
use super::error::FastTierError;
use super::layout::{BATCH_BYTES_MAX, Layout};
use super::pack;
use super::patient::{Patient, is_of_the_medium};
use super::pending::{self, Found};
use super::ring::JournalPoint;
use super::ring_scan::{FoundCommit, RingScan, read_commit, scan};
use super::state::State;
use super::superblock::{Copies, Superblock};
use crate::aligned::AlignedBuffer;
use crate::volume::Recovered;

/// Whose tier it is, and what else is known of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it is.
    pub path: PathBuf,
    /// The volume.
    pub volume: Uuid,
    /// The volume's shape.
    pub geometry: Geometry,
    /// The size its file was made with, in bytes.
    pub file_bytes: Option<u64>,
    /// The newest epoch on the capacity tier, if that is known.
    pub written_back: Option<Epoch>,
    /// The log of pending changes, if this machine may have one.
    pub pending: Option<PathBuf>,
}

/// How much of what a tier knew could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All up to the end of the newest sealed epoch; why no more.
    Sealed(String),
    /// Nothing that can be relied on, and why.
    Nothing(String),
}

/// What was read of a damaged tier.
pub struct Salvaged {
    /// What it remembers, as far as that can be relied on.
    pub recovered: Recovered,
    /// How much that is.
    pub extent: Extent,
    /// Blocks that are known to have been changed in what is left out.
    pub lost_blocks: BTreeSet<BlockIndex>,
    /// Snapshots that are known to have been in what is left out.
    pub lost_snapshots: BTreeMap<Epoch, String>,
    /// The newest epoch that anything on the tier speaks of.
    pub newest_epoch: Epoch,
    /// The newest generation of the superblock that anything on the tier speaks of.
    pub generation: u64,
    /// What was damaged and could be done without; for people.
    pub notes: Vec<String>,
    file: TierFile,
    slots_offset: u64,
}

impl Salvaged {
    /// Takes nothing of it: it has turned out that it cannot be relied on.
    pub fn give_up(&mut self, why: String) {
        let holds = self.recovered.holds.iter().map(|holds| holds.block);
        self.lost_blocks.extend(holds.chain(self.recovered.deleted.iter().map(|(block, _)| *block)));
        let named = self
            .recovered
            .sealed
            .iter()
            .filter_map(|layer| Some((layer.sealed.epoch, layer.snapshot.clone()?)));
        self.lost_snapshots.extend(named);
        self.recovered = Recovered::default();
        self.extent = Extent::Nothing(why);
    }

    /// Reads a slot's 64 KiB; tells the sub-blocks that cannot be read, which are zeros then.
    ///
    /// # Errors
    /// I/O that is not about a bad sector or the end of a tier that was cut off.
    pub fn read_slot(&self, slot: SlotId, buffer: &mut AlignedBuffer) -> io::Result<SubBlockMask> {
        debug_assert_eq!(buffer.len() as u64, BLOCK_BYTES);
        let offset = self.slots_offset + slot.offset_bytes();
        match self.file.read_at(offset, buffer) {
            Err(error) if is_of_the_medium(&error) => {}
            other => return other.map(|()| SubBlockMask::EMPTY),
        }
        let mut unreadable = 0;
        for (number, part) in (0u32..).zip(buffer.chunks_mut(SUB_BLOCK_BYTES as usize)) {
            match self.file.read_at(offset + u64::from(number) * SUB_BLOCK_BYTES, part) {
                Err(error) if is_of_the_medium(&error) => {
                    part.fill(0);
                    unreadable |= 1 << number;
                }
                other => other?,
            }
        }
        Ok(SubBlockMask(unreadable))
    }
}

/// Reads what can be read of a tier that nobody uses.
///
/// # Errors
/// It is missing, in use, of another volume or of a newer version; or I/O that is not about a bad sector.
pub fn salvage(known: &Known) -> Result<Salvaged, FastTierError> {
    let file = TierFile::open_read_only(&known.path)?;
    let outcome = {
        let device = Patient::new(&file);
        let mut work = Work::new(&device, known);
        match work.find_superblock()? {
            Some(superblock) => {
                work.read(&superblock).map_err(FastTierError::tier("read what is left of it"))?;
                work.slots_offset = superblock.layout.slots_offset;
            }
            None => work.extent = Extent::Nothing("no superblock and no checkpoint can be read".to_owned()),
        }
        work.notes.extend(device.unreadable().iter().map(|(at, why)| format!("byte {at}: {why}")));
        work.finish()
    };
    let Outcome {
        recovered,
        extent,
        lost_blocks,
        lost_snapshots,
        newest_epoch,
        generation,
        notes,
        slots_offset,
    } = outcome;
    Ok(Salvaged {
        recovered,
        extent,
        lost_blocks,
        lost_snapshots,
        newest_epoch,
        generation,
        notes,
        file,
        slots_offset,
    })
}

struct Outcome {
    recovered: Recovered,
    extent: Extent,
    lost_blocks: BTreeSet<BlockIndex>,
    lost_snapshots: BTreeMap<Epoch, String>,
    newest_epoch: Epoch,
    generation: u64,
    notes: Vec<String>,
    slots_offset: u64,
}

struct Work<'a> {
    device: &'a Patient<'a>,
    known: &'a Known,
    extent: Extent,
    recovered: Recovered,
    lost_blocks: BTreeSet<BlockIndex>,
    lost_snapshots: BTreeMap<Epoch, String>,
    newest_epoch: Epoch,
    generation: u64,
    notes: Vec<String>,
    slots_offset: u64,
}

/// A state, and where the journal behind it ends.
struct Base {
    state: State,
    end: JournalPoint,
    /// What it was made from, for people.
    from: String,
}

impl<'a> Work<'a> {
    fn new(device: &'a Patient<'a>, known: &'a Known) -> Self {
        Self {
            device,
            known,
            extent: Extent::Whole,
            recovered: Recovered::default(),
            lost_blocks: BTreeSet::new(),
            lost_snapshots: BTreeMap::new(),
            newest_epoch: Epoch(0),
            generation: 0,
            notes: Vec::new(),
            slots_offset: 0,
        }
    }

    /// The newest superblock of the volume; where both are lost, one made from the size, if a checkpoint proves it.
    fn find_superblock(&mut self) -> Result<Option<Superblock>, FastTierError> {
        let name = self.known.path.display().to_string();
        let copies = Copies::read(self.device).map_err(FastTierError::tier("read the superblocks"))?;
        let mut other = None;
        let mut sound: Vec<Superblock> = Vec::new();
        for copy in copies.0.iter().flatten() {
            // Whatever its size is by now.
            match copy.verify(&name, u64::MAX, Some(self.known.volume)) {
                Ok(superblock) if superblock.geometry.grows_into(self.known.geometry) => {
                    sound.push(Superblock { geometry: self.known.geometry, ..superblock });
                }
                Ok(_) => self.notes.push("a superblock tells another shape of the volume".to_owned()),
                Err(error @ (FastTierError::Newer { .. } | FastTierError::OtherVolume { .. })) => {
                    other = Some(error);
                }
                Err(error) => self.notes.push(error.to_string()),
            }
        }
        if sound.len() < 2 {
            self.notes.push(format!("{} of 2 superblocks can be used", sound.len()));
        }
        if let Some(newest) = sound.into_iter().max_by_key(|superblock| superblock.generation) {
            self.generation = newest.generation;
            return Ok(Some(newest));
        }
        match other {
            Some(error) => Err(error),
            None => self.layout_by_size().map_err(FastTierError::tier("read a checkpoint")),
        }
    }

    fn layout_by_size(&mut self) -> io::Result<Option<Superblock>> {
        let Known { volume, geometry, .. } = *self.known;
        for size in self.known.file_bytes.into_iter().chain([self.device.size_bytes()]) {
            let Ok(layout) = Layout::for_tier(size) else { continue };
            // Where the second area is depends on the number of slots, as where they begin does; the first is at the same place on
            // tiers of other sizes, and on one that has grown its old header may still be there.
            if checkpoint::read_header(self.device, &layout, volume, 1)?.is_ok() {
                let (generation, clean, created_us) = (0, None, 0);
                return Ok(Some(Superblock { volume, generation, clean, created_us, geometry, layout }));
            }
        }
        Ok(None)
    }

    fn read(&mut self, superblock: &Superblock) -> io::Result<()> {
        let Superblock { layout, volume, .. } = superblock;
        let ring = scan(self.device, layout, *volume)?;
        let mut headers: Vec<Header> = Vec::new();
        for area in [0, 1] {
            match checkpoint::read_header(self.device, layout, *volume, area)? {
                Ok(header) => headers.push(header),
                Err(_) => self.notes.push(format!("the checkpoint in area {area} has no sound header")),
            }
        }
        headers.sort_unstable_by_key(|header| std::cmp::Reverse(header.place.number));
        let mut superblock = superblock.clone();
        if ring.generation > self.generation {
            if self.generation > 0 {
                self.notes.push("both superblocks are older than the journal".to_owned());
            }
            self.generation = ring.generation;
            // What it says of a clean stop is of another one.
            superblock.clean = None;
        }
        let superblock = &superblock;
        let newest_start = headers.first().map_or(Lsn(0), |header| header.start.lsn);
        let mut base = None;
        for header in &headers {
            base = self.read_checkpoint(superblock, header, &ring)?;
            if base.is_some() {
                break;
            }
        }
        if base.is_none() {
            base = self.read_journal_alone(superblock, &ring)?;
        }
        let Some(Base { mut state, end, from }) = base else {
            let why =
                "no checkpoint is whole, and the journal does not reach back to what the capacity tier holds";
            self.note_lost(superblock, &ring, Lsn(0))?;
            self.extent = Extent::Nothing(why.to_owned());
            return Ok(());
        };
        self.notes.push(format!("read from {from}, the journal up to record {}", end.lsn));
        let damage = self.journal_damage(superblock, &ring, end, newest_start);
        let damage = match damage {
            Some(why) => Some(why),
            None => self.take_pending(superblock, end, &mut state)?,
        };
        if let Some(problem) = state.problem() {
            self.extent = Extent::Nothing(format!("sound pages state what cannot be: {problem}"));
            return Ok(());
        }
        self.recovered = state.finish();
        if let Some(why) = damage {
            self.note_lost(superblock, &ring, end.lsn)?;
            self.go_back_to_the_last_seal();
            self.extent = Extent::Sealed(why);
        }
        Ok(())
    }

    fn read_checkpoint(
        &mut self,
        superblock: &Superblock,
        header: &Header,
        ring: &RingScan,
    ) -> io::Result<Option<Base>> {
        let Superblock { layout, volume, geometry, .. } = superblock;
        let number = header.place.number;
        let mut state = State::new(layout.slots, geometry.blocks());
        let mut apply = |delta| state.apply(delta);
        let content = checkpoint::read_content(self.device, layout, *volume, header, &mut apply)?;
        if let Err(bad) = content {
            self.notes.push(format!("{}, at byte {}", bad.what, bad.offset));
            return Ok(None);
        }
        let end = self.replay(superblock, ring, header.start, &mut state)?;
        Ok(Some(Base { state, end, from: format!("checkpoint {number}") }))
    }

    /// A state from the journal alone: complete as to what is not on the capacity tier, if the journal has the end of
    /// the newest epoch there, for nothing of a later epoch is told before that.
    fn read_journal_alone(&mut self, superblock: &Superblock, ring: &RingScan) -> io::Result<Option<Base>> {
        let Superblock { layout, volume, geometry, .. } = superblock;
        let Some(written_back) = self.known.written_back else { return Ok(None) };
        let mut rest: &[FoundCommit] = &ring.commits;
        while let Some(last) = rest.iter().rposition(FoundCommit::is_whole) {
            let Some(run) = run_ending_at(rest, last, ring) else { break };
            let (mut state, mut reaches) = (State::new(layout.slots, geometry.blocks()), false);
            let mut end = None;
            for commit in run {
                reaches |= commit.lsn == Lsn(1) && written_back == Epoch(0);
                let mut apply = |delta| {
                    reaches |= matches!(&delta, Delta::Sealed(sealed) if sealed.epoch == written_back);
                    // What was told before is of epochs that are on the capacity tier.
                    state.apply(delta);
                };
                read_commit(self.device, layout, *volume, commit, &mut apply)?;
                end = Some(ring.behind(commit));
            }
            if let (true, Some(end)) = (reaches, end) {
                let from = format!("the journal alone, from the end of epoch {written_back} on");
                return Ok(Some(Base { state, end, from }));
            }
            rest = rest.split_at(last + 1 - run.len()).0;
        }
        Ok(None)
    }

    fn replay(
        &self,
        superblock: &Superblock,
        ring: &RingScan,
        from: JournalPoint,
        state: &mut State,
    ) -> io::Result<JournalPoint> {
        let mut end = from;
        for commit in ring.run_from(from) {
            let Superblock { layout, volume, .. } = superblock;
            read_commit(self.device, layout, *volume, &commit, &mut |delta| state.apply(delta))?;
            end = ring.behind(&commit);
        }
        Ok(end)
    }

    fn journal_damage(
        &self,
        superblock: &Superblock,
        ring: &RingScan,
        end: JournalPoint,
        newest_start: Lsn,
    ) -> Option<String> {
        let (next, newest) = (end.lsn.0 + 1, ring.newest());
        match superblock.clean {
            Some(stated) if stated != end.lsn => Some(format!(
                "the journal ends after record {}, and the clean stop left {stated} as the last",
                end.lsn
            )),
            _ if newest.0 > next => {
                Some(format!("journal record {next} is missing or broken, and record {newest} is there"))
            }
            _ if newest_start > end.lsn => Some(format!(
                "the journal ends after record {}, and the newest checkpoint begins after record {newest_start}",
                end.lsn
            )),
            _ => None,
        }
    }

    /// Applies what a killed process left; gives what that proves to be missing from the journal.
    fn take_pending(
        &mut self,
        superblock: &Superblock,
        end: JournalPoint,
        state: &mut State,
    ) -> io::Result<Option<String>> {
        let Some(path) = &self.known.pending else { return Ok(None) };
        let Some(found) = read_pending(path, superblock.volume)? else { return Ok(None) };
        if found.generation != self.generation && found.adopting != self.generation {
            return Ok(None);
        }
        if found.durable > end.lsn {
            return Ok(Some(format!(
                "record {} was durable, and the journal ends after {}",
                found.durable, end.lsn
            )));
        }
        let mut deltas = 0u64;
        for (expected, batch) in
            (end.lsn.0 + 1..).zip(found.batches.iter().filter(|batch| batch.lsn > end.lsn))
        {
            if batch.lsn.0 != expected || pack::payloads(&batch.deltas).is_none() {
                return Ok(Some(format!("the log of pending changes does not follow record {}", end.lsn)));
            }
            pack::unpack(&batch.deltas, &mut |delta| {
                deltas += 1;
                state.apply(delta);
            });
        }
        self.notes.push(format!("{deltas} changes were taken from the log of pending changes"));
        Ok(None)
    }

    /// Notes the blocks that records after `end` speak of.
    fn note_lost(&mut self, superblock: &Superblock, ring: &RingScan, end: Lsn) -> io::Result<()> {
        let Superblock { layout, volume, geometry, .. } = superblock;
        let written_back = self.known.written_back.unwrap_or_default();
        for commit in ring.commits.iter().filter(|commit| commit.lsn > end) {
            let mut note = |delta| {
                let (block, epoch) = match delta {
                    Delta::Holds(holds) => (Some(holds.block), holds.epoch),
                    Delta::Deleted { block, epoch } => (Some(block), epoch),
                    Delta::Sealed(sealed) => (None, sealed.epoch),
                    Delta::Named { epoch, name } => {
                        if epoch > written_back {
                            self.lost_snapshots.insert(epoch, name);
                        }
                        (None, epoch)
                    }
                    _ => return,
                };
                self.newest_epoch = self.newest_epoch.max(epoch);
                if let Some(block) = block.filter(|block| epoch > written_back && block.0 < geometry.blocks())
                {
                    self.lost_blocks.insert(block);
                }
            };
            read_commit(self.device, layout, *volume, commit, &mut note)?;
        }
        Ok(())
    }

    fn go_back_to_the_last_seal(&mut self) {
        let open = self.recovered.open_epoch();
        self.newest_epoch = self.newest_epoch.max(open);
        let lost = &mut self.lost_blocks;
        let mut kept = |block, epoch| {
            if epoch >= open {
                lost.insert(block);
            }
            epoch < open
        };
        self.recovered.holds.retain(|holds| kept(holds.block, holds.epoch));
        self.recovered.deleted.retain(|(block, epoch)| kept(*block, *epoch));
    }

    fn finish(self) -> Outcome {
        let holds = self.recovered.holds.iter().map(|holds| holds.epoch).max().unwrap_or_default();
        let newest_epoch = self.newest_epoch.max(self.recovered.open_epoch()).max(holds);
        let Self { extent, recovered, lost_blocks, lost_snapshots, generation, notes, slots_offset, .. } =
            self;
        Outcome {
            recovered,
            extent,
            lost_blocks,
            lost_snapshots,
            newest_epoch,
            generation,
            notes,
            slots_offset,
        }
    }
}

/// The longest run of whole commits without a gap that ends with the one at `last`.
fn run_ending_at<'c>(commits: &'c [FoundCommit], last: usize, ring: &RingScan) -> Option<&'c [FoundCommit]> {
    let mut first = last;
    while let Some(before) = first.checked_sub(1) {
        let (older, newer) = (commits.get(before)?, commits.get(first)?);
        let follows = JournalPoint { lsn: newer.lsn, page: newer.first_page };
        let behind = ring.behind(older);
        if !older.is_whole() || behind.lsn.0 + 1 != follows.lsn.0 || behind.page != follows.page {
            break;
        }
        first = before;
    }
    commits.get(first..=last)
}

/// The newest generation that a log of pending changes of this boot speaks of; 0 where there is none.
///
/// # Errors
/// It is there and cannot be read.
pub fn pending_generation(path: &Path, volume: Uuid) -> io::Result<u64> {
    let found = read_pending(path, volume)?;
    Ok(found.map_or(0, |found| found.generation.max(found.adopting)))
}

fn read_pending(path: &Path, volume: Uuid) -> io::Result<Option<Found>> {
    let boot = pending::boot_id()?;
    // No tier has a longer half.
    Ok(pending::read(path, volume, boot, BATCH_BYTES_MAX as u32)?.ok())
}
