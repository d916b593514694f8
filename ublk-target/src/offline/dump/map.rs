//! Where each block's data is: its slots, newest first, and its place on the capacity tier.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use forerun::geometry::{BlockIndex, Epoch, Geometry};
use serde_json::json;
use uuid::Uuid;

use super::Printer;
use crate::capacity_tier::Inspector;
use crate::fast_tier::delta::Holds;
use crate::fast_tier::salvage::{Extent, Known, salvage};
use crate::offline::check::Places;
use crate::offline::repair::sub_blocks;

/// Blocks that are gone through at a time.
const WINDOW: u32 = 1 << 16;

/// Prints the map, run by run of blocks.
pub(super) async fn print(
    out: &mut Printer<'_>,
    inspector: &Inspector,
    places: &Places,
    shape: Option<(Uuid, Geometry)>,
    range: &RangeInclusive<BlockIndex>,
) -> anyhow::Result<()> {
    let of_head = inspector.head.as_ref().ok();
    let (volume, geometry) = match (shape, of_head) {
        (Some(shape), _) => shape,
        (None, Some(head)) => (Uuid::from_bytes(head.volume.0), head.geometry),
        (None, None) => anyhow::bail!("neither a superblock nor HEAD tells the volume's shape"),
    };
    let written_back = of_head.map(crate::capacity_tier::Head::written_back_epoch);
    let mut slots: BTreeMap<BlockIndex, Vec<Holds>> = BTreeMap::new();
    let mut deleted: BTreeMap<BlockIndex, Epoch> = BTreeMap::new();
    if let Some(path) = &places.fast {
        let known =
            Known { path: path.clone(), volume, geometry, file_bytes: None, written_back, pending: None };
        let fast = salvage(&known)?;
        if let Extent::Sealed(why) | Extent::Nothing(why) = &fast.extent {
            out.broken("the fast tier's map", why)?;
        }
        for holds in &fast.recovered.holds {
            slots.entry(holds.block).or_default().push(*holds);
        }
        for (block, epoch) in &fast.recovered.deleted {
            let newest = deleted.entry(*block).or_default();
            *newest = (*newest).max(*epoch);
        }
    }
    let written_back = written_back.unwrap_or_default();
    let mut newest = inspector.newest();
    let (mut from, end) = (0, geometry.blocks().min(range.end().0.saturating_add(1)));
    while from < end {
        let to = (from + WINDOW).min(end);
        let mut broken = Vec::new();
        let window =
            newest.below(BlockIndex(to), &mut |layer, page, why| broken.push((layer, page, why))).await?;
        for (layer, page, why) in broken {
            out.broken(&format!("layers/{:016x} page {page}", layer.0), &why)?;
        }
        for block in (from.max(range.start().0)..to).map(BlockIndex) {
            let of_block = slots.get_mut(&block).map(std::mem::take).unwrap_or_default();
            let gone = deleted.get(&block).copied().filter(|epoch| *epoch > written_back);
            let entry = window.get(&block);
            if of_block.is_empty() && gone.is_none() && entry.is_none() {
                continue;
            }
            line(out, block, of_block, gone, entry, written_back)?;
            let place = entry.and_then(|(_, entry)| entry.place);
            if let Some(place) = place.filter(|place| !inspector.has_segment(place.segment())) {
                out.broken(&format!("block {block}"), &format!("{place}: the segment is not there"))?;
            }
        }
        from = to;
    }
    Ok(())
}

fn line(
    out: &mut Printer<'_>,
    block: BlockIndex,
    mut of_block: Vec<Holds>,
    gone: Option<Epoch>,
    entry: Option<&(crate::capacity_tier::LayerId, crate::capacity_tier::Entry)>,
    written_back: Epoch,
) -> std::io::Result<()> {
    of_block.sort_unstable_by_key(|holds| std::cmp::Reverse(holds.epoch));
    let (mut text, mut list) = (format!("block {block}"), Vec::new());
    for holds in &of_block {
        let Holds { slot, epoch, valid, dirty, .. } = *holds;
        let is_dirty = epoch > written_back;
        let state = if is_dirty { format!("dirty ({} written)", dirty.count()) } else { "clean".to_owned() };
        text.push_str(&format!(" -> slot {slot} of epoch {epoch}, {state}, valid {}", sub_blocks(valid.0)));
        list.push(json!({"slot": slot.0, "epoch": epoch.0, "valid": valid.0,
                         "dirty": if is_dirty { dirty.0 } else { 0 }, "written_back": !is_dirty}));
    }
    if let Some(epoch) = gone {
        text.push_str(&format!(" -> deleted in epoch {epoch}"));
    }
    if let Some((layer, entry)) = entry {
        let at = entry.place.map_or_else(|| "deleted".to_owned(), |place| place.to_string());
        text.push_str(&format!(" -> layers/{:016x}, epoch {}: {at}", layer.0, entry.epoch));
    }
    let fields = json!({"block": block.0, "slots": list, "deleted_in_epoch": gone.map(|epoch| epoch.0),
        "layer": entry.map(|(layer, _)| layer.0), "epoch": entry.map(|(_, entry)| entry.epoch.0),
        "place": entry.and_then(|(_, entry)| entry.place).map(|place| place.to_string())});
    out.item("block", &text, fields)
}
