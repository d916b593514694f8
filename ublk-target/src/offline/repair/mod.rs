//! Repair: new tiers, at new places, of what can be read of the old ones.
//!
//! In order, and what a crash leaves:
//! 1. both tiers are read, and what will be lost is known: nothing has changed;
//! 2. a new capacity tier is written, its HEAD last: the volume is as it was, a directory with the mark `REPAIR`, or
//!    objects with one below `repairs/`, is left, which the next attempt begins anew;
//! 3. a new fast tier is written, its superblocks last: the same, and the next attempt writes over it;
//! 4. the pair that results is checked: the same;
//! 5. the old configuration and the report are stored beside the volume's: the same;
//! 6. the configuration is replaced, in one step: the volume is the old one or the repaired one.
//!
//! The old tiers are only read, and never written again: the volume's new epochs begin far beyond theirs (`live`).

mod lead;
mod live;
mod report;
mod switch;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use forerun::config::{CapacityAddress, VolumeConfig, VolumePaths};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SUB_BLOCK_BYTES, SlotId, SubBlockMask};

use crate::aligned::AlignedBuffer;
use crate::capacity_tier::{
    AnyStore, CapacityTier, MAX_HEAD_BYTES, ObjectKind, Rebuilt, Store, VolumeUuid, rebuild,
};
use crate::fast_tier::rebuild::NewTier;
use crate::fast_tier::salvage::{Extent, Known, Salvaged, pending_generation, salvage};
use crate::fast_tier::{FastTierError, check};
use crate::offline::check::{Places, Progress};
use crate::volume::Unsound;

use lead::{FastSupply, account};
pub(super) use live::first_epoch;
use live::{Cover, NewLayer, as_one, as_they_are, facts};
pub(crate) use report::sub_blocks;
pub use report::{BlockLoss, Lost, RangeDoubt, Report, SnapshotChange, TierReport, WritesLost};

/// What is to be made, and what is lost for good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairOptions {
    /// The new fast tier, if there is to be one: a device or file that holds nothing.
    pub to_fast: Option<PathBuf>,
    /// The size of the file to be made for it, in bytes.
    pub fast_bytes: Option<u64>,
    /// The new capacity tier, if there is to be one: a new or empty directory, or where an object store has nothing.
    pub to_capacity: Option<CapacityAddress>,
    /// The fast tier is gone for good, or not to be used.
    pub without_fast: bool,
    /// The capacity tier is gone for good, or not to be used.
    pub without_capacity: bool,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// What the two old tiers hold, read as far as they can be.
struct Found {
    fast: Option<Salvaged>,
    /// What becomes of the fast tier's epochs.
    layers: Vec<NewLayer>,
    /// The newest epoch of the capacity tier that the layers lie over.
    written_back: Epoch,
    /// Whether the layers lie over epochs that are lost.
    over_a_gap: bool,
    head_is_old: bool,
    fast_words: String,
}

/// Repairs a volume that is not in use.
///
/// # Errors
/// Nothing usable to begin with, new places that are not new, a tier in use or of another volume, I/O. The volume is
/// as it was then.
pub fn repair(
    config: &VolumeConfig,
    paths: &VolumePaths,
    options: &RepairOptions,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    switch::check_places(config, options)?;
    let _lock = switch::lock(paths)?;
    let now_us = crate::background::now_us();
    let mut found = look(config, paths, options)?;
    let mut supply = FastSupply::new(found.fast.as_ref());
    let volume = VolumeUuid(*config.uuid.as_bytes());
    let new = options.to_capacity.as_ref().filter(|_| !options.dry_run);
    let rebuilt = tokio_uring::start(async {
        // A client of an object store belongs to the runtime that it is used on.
        let old = if options.without_capacity { None } else { Some(AnyStore::at(&config.capacity.address)?) };
        let new = match new {
            None => None,
            Some(new) => Some(switch::begin_capacity(new, config.uuid).await?),
        };
        let mut progress = |layers, total| progress.step("layers read", layers, total);
        rebuild(old, new, volume, config.geometry, found.head_is_old, &mut supply, &mut progress)
            .await
            .map_err(anyhow::Error::new)
    })
    .with_context(|| format!("capacity tier {}", config.capacity.address))?;
    drop(supply);
    finish_layers(&mut found, &rebuilt, options.without_capacity || rebuilt.end_unknown, now_us);
    if options.to_fast.is_some() {
        lead::rename_live(&mut found, &rebuilt);
    }
    let mut report = account(config, options, &found, &rebuilt);
    if options.to_capacity.is_none() && (rebuilt.head_lost.is_some() || !rebuilt.losses.is_empty()) {
        bail!(
            "the capacity tier {} is damaged ({}): give --to-capacity PLACE to have a new one made of what can be read; \
             `forerun check` lists the damage; nothing was changed",
            config.capacity.address,
            rebuilt.head_lost.as_deref().unwrap_or("blocks or layers are lost")
        );
    }
    if options.to_fast.is_none() && (rebuilt.head_lost.is_some() || found.over_a_gap) {
        bail!(
            "the capacity tier {} has lost its HEAD or its newest epochs, so the fast tier has to be made anew as well: \
             give --to-fast PATH; nothing was changed",
            config.capacity.address
        );
    }
    if options.dry_run {
        return Ok(report);
    }
    if let Some(to_fast) = &options.to_fast {
        write_fast(config, paths, options, to_fast, &found, &rebuilt, &mut report, now_us, progress)
            .with_context(|| format!("fast tier {}", to_fast.display()))?;
    }
    let repaired = switch::repaired(config, options);
    let places = Places::of(&repaired);
    let outcome = crate::offline::check::check(&places, progress).context("checking the new tiers")?;
    if outcome.is_damaged() {
        let first = outcome.findings.iter().find(|finding| finding.is_damage());
        let first = first.map_or_else(String::new, |finding| format!("{}: {}", finding.place, finding.what));
        bail!(
            "the tiers would still be damaged ({first}), so the volume's configuration was left as it is; \
             give both --to-fast and --to-capacity"
        );
    }
    switch::switch(config, &repaired, paths, options, &mut report)?;
    Ok(report)
}

/// Sees that there is something to repair from: a file system that is not mounted, or a bucket that is not there, looks as if all
/// were lost.
fn see_capacity(config: &VolumeConfig) -> anyhow::Result<()> {
    let address = &config.capacity.address;
    let is_there = match address.directory() {
        Some(directory) => directory.is_dir(),
        None => {
            tokio_uring::start(has_objects(address)).with_context(|| format!("capacity tier {address}"))?
        }
    };
    if !is_there {
        let advice = match address.directory() {
            Some(_) => "see that its file system is mounted",
            None => "see that its bucket is there",
        };
        bail!(
            "the capacity tier {address} is not there: {advice}; if it is lost for good, say --without-capacity; nothing was changed"
        );
    }
    Ok(())
}

async fn has_objects(address: &CapacityAddress) -> anyhow::Result<bool> {
    let store = AnyStore::at(address)?;
    for kind in [ObjectKind::Layer, ObjectKind::Segment] {
        if !store.list(kind).await?.is_empty() {
            return Ok(true);
        }
    }
    // A volume that nothing has been written back of; a HEAD that cannot be read is there.
    Ok(store.read_head(MAX_HEAD_BYTES).await.map_or(true, |head| head.is_some()))
}

/// Reads the fast tier, and sees how it fits the capacity tier's HEAD.
fn look(config: &VolumeConfig, paths: &VolumePaths, options: &RepairOptions) -> anyhow::Result<Found> {
    if !options.without_capacity {
        see_capacity(config)?;
    }
    let written_back = if options.without_capacity { None } else { head_epoch(config)? };
    let fast = if options.without_fast { None } else { Some(read_fast(config, paths, written_back)?) };
    let mut found = Found {
        fast,
        layers: Vec::new(),
        written_back: written_back.unwrap_or_default(),
        over_a_gap: false,
        head_is_old: false,
        fast_words: "not used".to_owned(),
    };
    if let Some(fast) = &mut found.fast {
        let HeadFit { old_copy, head_is_old } = fit(fast, written_back);
        if old_copy {
            let open = fast.recovered.open_epoch();
            fast.give_up(format!(
                "it is an old copy, at epoch {open}, and the capacity tier is at {}",
                found.written_back
            ));
        }
        found.head_is_old = head_is_old;
    }
    if options.to_fast.is_none() {
        let sound = check::check(&config.fast.path, Some(*config.uuid.as_bytes()));
        let usable =
            sound.is_ok_and(|report| !report.findings.iter().any(|f| f.severity == check::Severity::Fatal));
        if !usable || !matches!(found.fast.as_ref().map(|fast| &fast.extent), Some(Extent::Whole)) {
            bail!(
                "the fast tier {} is lost or damaged, so it has to be made anew as well: give --to-fast PATH; \
                 nothing was changed",
                config.fast.path.display()
            );
        }
    }
    Ok(found)
}

struct HeadFit {
    old_copy: bool,
    head_is_old: bool,
}

/// Which of the two is behind the other, if any.
fn fit(fast: &Salvaged, written_back: Option<Epoch>) -> HeadFit {
    let whole = fast.extent == Extent::Whole;
    let Some(written_back) = written_back else {
        return HeadFit { old_copy: false, head_is_old: false };
    };
    let knows = !matches!(fast.extent, Extent::Nothing(_));
    let gap =
        matches!(fast.recovered.check(written_back), Err(Unsound::Gap { .. } | Unsound::UnknownEpoch { .. }));
    HeadFit {
        old_copy: knows && fast.recovered.open_epoch() <= written_back,
        head_is_old: whole && fast.recovered.open_epoch() > written_back && gap,
    }
}

fn head_epoch(config: &VolumeConfig) -> anyhow::Result<Option<Epoch>> {
    let volume = VolumeUuid(*config.uuid.as_bytes());
    let address = &config.capacity.address;
    let read = tokio_uring::start(CapacityTier::open_reader(address, Some(volume)));
    match read {
        Ok(tier) => Ok(Some(tier.head().written_back_epoch())),
        Err(error)
            if error.is_corrupt() || error.is_not_found() || error.raw_os_error() == nix::libc::EIO =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("capacity tier {address}")),
    }
}

fn read_fast(
    config: &VolumeConfig,
    paths: &VolumePaths,
    written_back: Option<Epoch>,
) -> anyhow::Result<Salvaged> {
    let known = Known {
        path: config.fast.path.clone(),
        volume: config.uuid,
        geometry: config.geometry,
        file_bytes: config.fast.size_bytes,
        written_back,
        pending: Some(paths.pending()),
    };
    salvage(&known).map_err(|error| match error {
        FastTierError::Missing(_) => anyhow::anyhow!(
            "{error}. If it is lost for good, say --without-fast: then all that was not yet on the capacity tier is lost"
        ),
        error => anyhow::Error::new(error),
    })
}

/// Decides what the fast tier's epochs become, now that it is known what they lie over.
/// With `end_unknown` it is not known whether the capacity tier had newer epochs, whose slots may have been given up.
fn finish_layers(found: &mut Found, rebuilt: &Rebuilt, end_unknown: bool, now_us: u64) {
    found.written_back = rebuilt.written_back;
    let Found { fast, layers, written_back, over_a_gap, fast_words, .. } = found;
    let Some(fast) = fast else { return };
    if fast.extent == Extent::Whole && fast.recovered.open_epoch() <= *written_back {
        fast.give_up(format!("it is older than epoch {written_back}, which the capacity tier has"));
    }
    let fits = fast.recovered.check(*written_back);
    match (&fast.extent, fits) {
        (Extent::Nothing(why), _) => *fast_words = format!("nothing of it can be used: {why}"),
        (_, Ok(())) if !end_unknown => {
            *layers = as_they_are(&fast.recovered, *written_back, now_us);
            *fast_words = match &fast.extent {
                Extent::Sealed(why) => format!("used up to the end of its newest sealed epoch: {why}"),
                _ => "all that it knew is used".to_owned(),
            };
        }
        (Extent::Whole, Ok(()) | Err(Unsound::Gap { .. } | Unsound::UnknownEpoch { .. })) => {
            *over_a_gap = true;
            *layers = vec![as_one(&fast.recovered, *written_back, &rebuilt.mapped, now_us)];
            *fast_words =
                "its newest data is used; the epochs between are lost with the capacity tier".to_owned();
        }
        (_, unfit) => {
            let why = unfit
                .err()
                .map_or("it is damaged, and so is the capacity tier".to_owned(), |why| why.to_string());
            fast.give_up(format!("what it says cannot be: {why}"));
            *fast_words = format!("nothing of it can be used: {why}");
        }
    }
}

/// Writes the new fast tier.
#[allow(clippy::too_many_arguments, reason = "one step of one procedure")]
fn write_fast(
    config: &VolumeConfig,
    paths: &VolumePaths,
    options: &RepairOptions,
    path: &Path,
    found: &Found,
    rebuilt: &Rebuilt,
    report: &mut Report,
    now_us: u64,
    progress: &mut dyn Progress,
) -> anyhow::Result<()> {
    let file_bytes = if path.exists() { None } else { options.fast_bytes.or(config.fast.size_bytes) };
    let tier = NewTier::begin(path, file_bytes, config.uuid, config.geometry)?;
    let empty = [NewLayer { opened_us: now_us, sealed_us: now_us, ..NewLayer::default() }];
    let layers = if found.layers.is_empty() { &empty[..] } else { &found.layers };
    let (slots, room) =
        (layers.iter().map(|layer| layer.slots.len() as u64).sum::<u64>(), u64::from(tier.slots()));
    let deletions: u64 = layers.iter().map(|layer| layer.deleted.len() as u64).sum();
    // One slot has to be free for writes to go on until the first is written back.
    if slots >= room || deletions > tier.deletions_max() {
        bail!("it has room for {room} blocks, and {slots} have to be copied to it: give a larger one");
    }
    let mut slot = 0u32;
    for new in layers.iter().flat_map(|layer| &layer.slots) {
        if let Some(fast) = &found.fast {
            let (data, lost) = read_pieces(fast, &new.pieces)?;
            tier.write_slot(SlotId(slot), &data).context("write a slot")?;
            if !lost.is_empty() {
                lead::note_unreadable(report, found, new.block, lost);
            }
        }
        slot += 1;
        progress.step("blocks copied", slot.into(), slots);
    }
    let seen = found.fast.as_ref().map_or(Epoch(0), |fast| fast.newest_epoch).max(found.written_back);
    let of_pending =
        pending_generation(&paths.pending(), config.uuid).context("the log of pending changes")?;
    let old_generation = found.fast.as_ref().map_or(0, |fast| fast.generation).max(of_pending);
    let facts = facts(layers, first_epoch(seen), &rebuilt.mapped);
    // Beyond the old one, so that no log of pending changes of before can be taken for one of this tier.
    tier.finish(old_generation + 16, now_us, &facts)?;
    Ok(())
}

/// Puts a slot together; sub-blocks that cannot be read are zeros, and told.
fn read_pieces(
    fast: &Salvaged,
    pieces: &[(SlotId, SubBlockMask)],
) -> anyhow::Result<(AlignedBuffer, SubBlockMask)> {
    let mut whole = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
    let mut lost = SubBlockMask::EMPTY;
    let mut from = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
    for (slot, mask) in pieces {
        let unreadable = fast.read_slot(*slot, &mut from).context("read a slot")?;
        lost = lost.union(unreadable.intersection(*mask));
        for (first, count) in mask.runs() {
            let bytes = |sub_block: u32| sub_block as usize * SUB_BLOCK_BYTES as usize;
            let range = bytes(first)..bytes(first + count);
            if let (Some(to), Some(from)) = (whole.get_mut(range.clone()), from.get(range)) {
                to.copy_from_slice(from);
            }
        }
    }
    Ok((whole, lost))
}

/// Blocks whose newest data the fast tier has, whatever is below.
fn cover(found: &Found) -> Cover {
    Cover::by(&found.layers, found.layers.len())
}

/// Blocks as numbers, for reports.
fn numbers<'b>(blocks: impl IntoIterator<Item = &'b BlockIndex>) -> Vec<u32> {
    blocks.into_iter().map(|block| block.0).collect()
}
