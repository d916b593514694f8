//! What the fast tier gives to the capacity tier, and what is lost of the two together.

use std::collections::{BTreeMap, HashMap};

use forerun::config::VolumeConfig;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SUB_BLOCK_BYTES, SlotId, SubBlockMask};

use super::live::Cover;
use super::report::{BlockLoss, Lost, RangeDoubt, Report, SnapshotChange, TierReport, WritesLost};
use super::{Found, RepairOptions, cover, numbers};
use crate::aligned::AlignedBuffer;
use crate::capacity_tier::{
    BlockRange, DAMAGED, Losses, LostBlock, Rebuilt, SnapshotName, Supply, free_name, marked,
};
use crate::fast_tier::delta::Holds;
use crate::fast_tier::salvage::{Extent, Salvaged};

/// The clean slots of a fast tier: the blocks as they are on the capacity tier.
pub(super) struct FastSupply<'f> {
    fast: Option<&'f Salvaged>,
    slots: HashMap<BlockIndex, (SlotId, SubBlockMask)>,
    written_back: std::cell::Cell<Epoch>,
}

impl<'f> FastSupply<'f> {
    /// Of a tier whose journal is whole: else a slot may have been given to another block since.
    pub fn new(fast: Option<&'f Salvaged>) -> Self {
        let fast = fast.filter(|fast| fast.extent == Extent::Whole);
        Self { fast, slots: HashMap::new(), written_back: std::cell::Cell::default() }
    }

    /// The newest slot of each block that is not newer than `written_back`; two of one epoch cannot both be it.
    fn clean(fast: &Salvaged, written_back: Epoch) -> BTreeMap<BlockIndex, Holds> {
        let mut newest: BTreeMap<BlockIndex, (Holds, bool)> = BTreeMap::new();
        for holds in fast.recovered.holds.iter().filter(|holds| holds.epoch <= written_back) {
            match newest.get_mut(&holds.block) {
                Some((known, _)) if known.epoch > holds.epoch => {}
                Some((known, alone)) if known.epoch == holds.epoch => *alone = false,
                _ => {
                    newest.insert(holds.block, (*holds, true));
                }
            }
        }
        newest
            .into_iter()
            .filter(|(_, (_, alone))| *alone)
            .map(|(block, (holds, _))| (block, holds))
            .collect()
    }
}

impl Supply for FastSupply<'_> {
    fn blocks(&self, written_back: Epoch) -> Vec<(BlockIndex, Epoch)> {
        self.written_back.set(written_back);
        let Some(fast) = self.fast.filter(|fast| fast.recovered.open_epoch() > written_back) else {
            return Vec::new();
        };
        Self::clean(fast, written_back).into_values().map(|holds| (holds.block, holds.epoch)).collect()
    }

    fn read(&mut self, block: BlockIndex, out: &mut [u8]) -> SubBlockMask {
        let Some(fast) = self.fast else { return SubBlockMask::EMPTY };
        if self.slots.is_empty() {
            let clean = Self::clean(fast, self.written_back.get()).into_values();
            self.slots = clean.map(|holds| (holds.block, (holds.slot, holds.valid))).collect();
        }
        let Some((slot, valid)) = self.slots.get(&block).copied() else { return SubBlockMask::EMPTY };
        let mut data = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
        let Ok(unreadable) = fast.read_slot(slot, &mut data) else { return SubBlockMask::EMPTY };
        let have = valid.minus(unreadable);
        for (first, count) in have.runs() {
            let range = first as usize * SUB_BLOCK_BYTES as usize
                ..(first + count) as usize * SUB_BLOCK_BYTES as usize;
            if let (Some(to), Some(from)) = (out.get_mut(range.clone()), data.get(range)) {
                to.copy_from_slice(from);
            }
        }
        have
    }
}

/// The report, as far as it can be told before anything is written.
pub(super) fn account(
    config: &VolumeConfig,
    options: &RepairOptions,
    found: &Found,
    rebuilt: &Rebuilt,
) -> Report {
    let cover = cover(found);
    let mut lost = Lost { writes: writes_lost(options, found, rebuilt), ..Lost::default() };
    let snapshots = Snapshots::of(found, rebuilt);
    for block in &rebuilt.losses.blocks {
        let touched = |epoch: Epoch| block.since <= epoch && block.until.is_none_or(|until| epoch < until);
        let mut names = snapshots.written_back(touched);
        let now = if block.until.is_none() {
            block.sub_blocks.minus(cover.of(block.block))
        } else {
            SubBlockMask::EMPTY
        };
        if block.until.is_none() {
            names.extend(snapshots.live(|cover| !block.sub_blocks.minus(cover.of(block.block)).is_empty()));
        }
        let in_volume = !now.is_empty();
        let sub_blocks = if in_volume && names.is_empty() { now.0 } else { block.sub_blocks.0 };
        // What no point shows that anybody can look at is no loss.
        if in_volume || !names.is_empty() {
            lost.blocks.push(BlockLoss { block: block.block.0, sub_blocks, in_volume, snapshots: names });
        }
    }
    doubts(&mut lost, &rebuilt.losses, &cover, &snapshots);
    if found.over_a_gap {
        over_a_gap(&mut lost, config, found, rebuilt, &cover);
    }
    for change in &rebuilt.losses.snapshots {
        lost.snapshots.push(SnapshotChange {
            name: change.name.as_ref().map(ToString::to_string),
            kept_as: Some(change.kept_as.to_string()),
            epoch: change.epoch.0,
            why: change.why.clone(),
        });
    }
    lost.snapshots.extend(snapshots_of_the_fast_tier(found));
    let mut blocks = rebuilt.mapped.clone();
    for layer in &found.layers {
        layer.deleted.iter().for_each(|block| blocks.set(*block, false));
        layer.slots.iter().for_each(|slot| blocks.set(slot.block, true));
    }
    let fast_notes = found.fast.as_ref().map_or_else(Vec::new, |fast| fast.notes.clone());
    let used = match &rebuilt.head_lost {
        _ if options.without_capacity => "not used".to_owned(),
        Some(why) => format!("its layers are used, without HEAD: {why}"),
        None => format!("{} layers and {} records are used", rebuilt.layers, rebuilt.records),
    };
    Report {
        volume: config.name.to_string(),
        dry_run: options.dry_run,
        switched: false,
        fast: TierReport {
            from: config.fast.path.clone(),
            to: options.to_fast.clone(),
            used: found.fast_words.clone(),
            notes: fast_notes,
        },
        capacity: TierReport {
            from: config.capacity.address.to_string().into(),
            to: options.to_capacity.as_ref().map(|address| address.to_string().into()),
            used,
            notes: rebuilt.losses.notes.clone(),
        },
        blocks: blocks.count().into(),
        blocks_copied: found.layers.iter().map(|layer| layer.slots.len() as u64).sum(),
        blocks_supplied: rebuilt.supplied,
        lost,
        kept: Vec::new(),
    }
}

fn writes_lost(options: &RepairOptions, found: &Found, rebuilt: &Rebuilt) -> Option<WritesLost> {
    options.to_fast.as_ref()?;
    let newest = found.layers.last();
    let (as_of_epoch, as_of_us) = match newest {
        Some(layer) => (layer.old_epoch.0, layer.sealed_us),
        None => (rebuilt.written_back.0, rebuilt.sealed_us),
    };
    let (known_blocks, why) = match &found.fast {
        None => (Vec::new(), "the fast tier is not used".to_owned()),
        Some(fast) => match &fast.extent {
            Extent::Whole => return None,
            Extent::Sealed(why) | Extent::Nothing(why) => (numbers(&fast.lost_blocks), why.clone()),
        },
    };
    Some(WritesLost { as_of_epoch, as_of_us, known_blocks, why })
}

/// Names of points, by what they cover.
struct Snapshots {
    written_back: Vec<(Epoch, String)>,
    live: Vec<(String, Cover)>,
}

impl Snapshots {
    fn of(found: &Found, rebuilt: &Rebuilt) -> Self {
        let live = found.layers.iter().enumerate().filter_map(|(at, layer)| {
            let name = layer.snapshot.clone()?;
            Some((name, Cover::by(&found.layers, at)))
        });
        let written_back = rebuilt.snapshots.iter().map(|(epoch, name)| (*epoch, name.to_string()));
        Self { written_back: written_back.collect(), live: live.collect() }
    }

    fn written_back(&self, touched: impl Fn(Epoch) -> bool) -> Vec<String> {
        let touched = self.written_back.iter().filter(|(epoch, _)| touched(*epoch));
        touched.map(|(_, name)| name.clone()).collect()
    }

    fn live(&self, touched: impl Fn(&Cover) -> bool) -> Vec<String> {
        self.live.iter().filter(|(_, cover)| touched(cover)).map(|(name, _)| name.clone()).collect()
    }
}

fn doubts(lost: &mut Lost, losses: &Losses, cover: &Cover, snapshots: &Snapshots) {
    for doubt in &losses.doubtful {
        let names = snapshots.written_back(|epoch| doubt.since <= epoch);
        let (first, last) = (doubt.range.first.0, doubt.range.last.0);
        if !names.is_empty() {
            lost.doubtful.push(RangeDoubt {
                first,
                last,
                in_volume: false,
                snapshots: names,
                why: doubt.why.clone(),
            });
        }
    }
    let why = losses.doubtful.first().map_or("", |doubt| doubt.why.as_str());
    for range in losses.doubtful_now.iter().flat_map(|range| without(*range, cover)) {
        let (first, last) = (range.first.0, range.last.0);
        lost.doubtful.push(RangeDoubt {
            first,
            last,
            in_volume: true,
            snapshots: Vec::new(),
            why: why.to_owned(),
        });
    }
    for (name, cover) in &snapshots.live {
        for range in losses.doubtful_now.iter().flat_map(|range| without(*range, cover)) {
            let (first, last, snapshots) = (range.first.0, range.last.0, vec![name.clone()]);
            lost.doubtful.push(RangeDoubt { first, last, in_volume: false, snapshots, why: why.to_owned() });
        }
    }
}

/// A range without the blocks that the fast tier has the whole of.
fn without(range: BlockRange, cover: &Cover) -> Vec<BlockRange> {
    let (mut parts, mut first) = (Vec::new(), range.first);
    for block in cover.whole().range(range.first..=range.last) {
        if first < *block {
            parts.push(BlockRange { first, last: BlockIndex(block.0 - 1) });
        }
        first = BlockIndex(block.0 + 1);
    }
    if first <= range.last {
        parts.push(BlockRange { first, last: range.last });
    }
    parts
}

/// The newest epochs of the capacity tier are lost, nobody knows which blocks they changed, and the fast tier has some.
fn over_a_gap(lost: &mut Lost, config: &VolumeConfig, found: &Found, rebuilt: &Rebuilt, cover: &Cover) {
    let written_back = rebuilt.written_back;
    let reads = match written_back {
        Epoch(0) => "reads as zeros".to_owned(),
        epoch => format!("reads as it was at the end of epoch {epoch}"),
    };
    let why = format!(
        "the capacity tier's epochs after {written_back} are lost: what the fast tier does not have of these blocks {reads}"
    );
    for range in without(BlockRange::whole(config.geometry.blocks()), cover) {
        let (first, last) = (range.first.0, range.last.0);
        lost.doubtful.push(RangeDoubt {
            first,
            last,
            in_volume: true,
            snapshots: Vec::new(),
            why: why.clone(),
        });
    }
    let Some(fast) = &found.fast else { return };
    for layer in fast.recovered.sealed.iter().filter(|layer| layer.sealed.epoch > written_back) {
        if let Some(name) = &layer.snapshot {
            let (name, epoch) = (Some(name.clone()), layer.sealed.epoch.0);
            let why = "the capacity tier lost the epochs that it lies over".to_owned();
            lost.snapshots.push(SnapshotChange { name, kept_as: None, epoch, why });
        }
    }
}

/// Snapshots that were not written back yet: those with another name, and those that are lost.
fn snapshots_of_the_fast_tier(found: &Found) -> Vec<SnapshotChange> {
    let renamed = found.layers.iter().filter_map(|layer| {
        let (name, kept_as) = (Some(layer.old_name.clone()?), layer.snapshot.clone());
        let why = "blocks of it are lost or doubtful, or its name is taken".to_owned();
        Some(SnapshotChange { name, kept_as, epoch: layer.old_epoch.0, why })
    });
    let lost = found.fast.iter().flat_map(|fast| &fast.lost_snapshots).filter(|(epoch, name)| {
        let kept = |layer: &super::live::NewLayer| layer.snapshot.as_ref() == Some(*name);
        **epoch > found.written_back && !found.layers.iter().any(kept)
    });
    let lost = lost.map(|(epoch, name)| {
        let why = "it was not written back, and is lost with the fast tier".to_owned();
        SnapshotChange { name: Some(name.clone()), kept_as: None, epoch: epoch.0, why }
    });
    renamed.chain(lost).collect()
}

/// Gives snapshots that are not written back yet another name where they are not what they were, or theirs is taken.
pub(super) fn rename_live(found: &mut Found, rebuilt: &Rebuilt) {
    let mut taken: Vec<SnapshotName> = rebuilt.snapshots.iter().map(|(_, name)| name.clone()).collect();
    for at in 0..found.layers.len() {
        let cover = Cover::by(&found.layers, at);
        let lost = |block: &LostBlock| {
            block.until.is_none() && !block.sub_blocks.minus(cover.of(block.block)).is_empty()
        };
        let doubtful = rebuilt.losses.doubtful_now.iter().any(|range| !without(*range, &cover).is_empty());
        let damaged = doubtful || rebuilt.losses.blocks.iter().any(lost);
        let Some(layer) = found.layers.get_mut(at) else { continue };
        let Some(name) = layer.snapshot.clone() else { continue };
        let wanted = if damaged { marked(&name, DAMAGED) } else { name.clone() };
        let kept = free_name(&wanted, &taken).map(|kept| kept.to_string());
        taken.extend(kept.as_ref().and_then(|kept| SnapshotName::new(kept.as_str()).ok()));
        if kept.as_ref() != Some(&name) {
            layer.old_name = Some(name);
            layer.snapshot = kept;
        }
    }
}

/// A slot could not be read while it was copied: its block reads as zeros there.
pub(super) fn note_unreadable(report: &mut Report, found: &Found, block: BlockIndex, lost: SubBlockMask) {
    let snapshots = found.layers.iter().filter_map(|layer| layer.snapshot.clone()).collect();
    let (block, sub_blocks) = (block.0, lost.0);
    report.lost.blocks.push(BlockLoss { block, sub_blocks, in_volume: true, snapshots });
}
