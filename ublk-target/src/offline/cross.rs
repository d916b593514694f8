//! Whether a fast and a capacity tier fit each other: what neither can tell alone.

use forerun::config::CapacityAddress;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use forerun::geometry::{BlockIndex, Epoch, SubBlockMask};

use super::check::{Finding, Outcome, Severity};
use super::repair::sub_blocks;
use crate::capacity_tier::{CapacityTier, CheckReport, Head};
use crate::fast_tier::check::Report;
use crate::volume::Recovered;

const REPAIR: &str = "`forerun repair` makes new tiers of what both have; see docs/repair.md";

/// Adds what does not fit. Where a tier alone is too damaged to be understood, that has been told.
pub(super) fn check(
    fast: &Report,
    capacity: &CheckReport,
    address: &CapacityAddress,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let (Some(recovered), Some(head)) = (&fast.recovered, &capacity.head) else { return Ok(()) };
    let mut add = |what: String, place: String, advice: &str| {
        let (tier, severity, advice) = ("both", Severity::Damage, advice.to_owned());
        outcome.findings.push(Finding { tier, severity, what, place, advice });
    };
    let found = uuid::Uuid::from_bytes(head.volume.0);
    if let Some(volume) = fast.volume.filter(|volume| *volume != found) {
        let what = format!("the fast tier is of volume {volume}, the capacity tier of {found}");
        add(what, "volume".to_owned(), "give the two tiers of one volume");
        return Ok(());
    }
    // Growth is noted on the fast tier first.
    if let Some(geometry) = fast.geometry.filter(|geometry| !head.geometry.grows_into(*geometry)) {
        let (a, b) = (geometry.size_bytes(), head.geometry.size_bytes());
        add(
            format!("the fast tier is of a volume of {a} bytes, the capacity tier of {b}"),
            "size".to_owned(),
            REPAIR,
        );
        return Ok(());
    }
    let (open, written_back) = (recovered.open_epoch(), head.written_back_epoch());
    let place = format!("epoch {open} over epoch {written_back}");
    if open <= written_back {
        let what =
            format!("the fast tier is at epoch {open}, older than epoch {written_back} on the capacity tier");
        add(
            what,
            place,
            "it is an old copy: put the right one back, or have a new one made by `forerun repair`",
        );
        return Ok(());
    }
    if let Err(unsound) = recovered.check(written_back) {
        add(unsound.to_string(), place, REPAIR);
        return Ok(());
    }
    for layer in recovered.sealed.iter().filter(|layer| layer.sealed.epoch > written_back) {
        let taken = head.snapshots().find(|(name, _)| Some(name.as_str()) == layer.snapshot.as_deref());
        if let Some((name, there)) = taken {
            let (epoch, other) = (layer.sealed.epoch, there.last_epoch);
            let what = format!(
                "snapshot {name} of epoch {epoch} waits to be written back, and epoch {other} has that name"
            );
            add(what, format!("epoch {epoch}"), "delete the older snapshot of this name");
        }
    }
    let open_below = open_below(recovered, written_back);
    for (block, epoch) in damaged_below(address, head, capacity, &open_below)? {
        let missing = open_below.get(&block).copied().unwrap_or_default();
        let what = format!(
            "the fast tier has a part of block {block}, and the rest ({}) is damaged on the capacity tier: \
             the block cannot be written back",
            sub_blocks(missing.0)
        );
        add(what, format!("block {block} of epoch {epoch}"), REPAIR);
    }
    Ok(())
}

/// Blocks that are not written back, of which the capacity tier has to give the rest: the sub-blocks it has to give.
fn open_below(recovered: &Recovered, written_back: Epoch) -> BTreeMap<BlockIndex, SubBlockMask> {
    let deleted: BTreeSet<BlockIndex> = recovered
        .deleted
        .iter()
        .filter(|(_, epoch)| *epoch > written_back)
        .map(|(block, _)| *block)
        .collect();
    let mut missing: BTreeMap<BlockIndex, SubBlockMask> = BTreeMap::new();
    for holds in recovered.holds.iter().filter(|holds| holds.epoch > written_back) {
        // Above a deletion are zeros; versions below one are still read for their own epoch, and are told with the block.
        if !deleted.contains(&holds.block) && !holds.dirty.is_empty() {
            // The oldest version alone decides: it is written back first.
            let entry = missing.entry(holds.block).or_insert(SubBlockMask::EMPTY);
            *entry = entry.union(SubBlockMask::FULL.minus(holds.valid));
        }
    }
    missing.retain(|_, mask| !mask.is_empty());
    missing
}

/// Of these blocks, those whose newest record is damaged, with its epoch.
fn damaged_below(
    address: &CapacityAddress,
    head: &Head,
    capacity: &CheckReport,
    blocks: &BTreeMap<BlockIndex, SubBlockMask>,
) -> anyhow::Result<Vec<(BlockIndex, Epoch)>> {
    if blocks.is_empty() || capacity.damaged_records.is_empty() {
        return Ok(Vec::new());
    }
    let mut newest: BTreeMap<BlockIndex, Epoch> = BTreeMap::new();
    let read = tokio_uring::start(async {
        let tier = CapacityTier::open_reader(address, Some(head.volume)).await?;
        let mut note = |block, epoch, place: Option<_>| {
            if place.is_some() && blocks.contains_key(&block) {
                newest.insert(block, epoch);
            } else {
                newest.remove(&block);
            }
        };
        tier.load_places(None, &mut note).await
    });
    match read {
        // A damaged table has been told.
        Err(error) if error.is_corrupt() || error.is_not_found() => return Ok(Vec::new()),
        other => other.context("read the layers")?,
    };
    Ok(newest.into_iter().filter(|key| capacity.damaged_records.contains(key)).collect())
}
