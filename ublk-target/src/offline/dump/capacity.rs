//! HEAD, tables and segments, line by line.

use std::ops::RangeInclusive;

use forerun::geometry::{BlockIndex, Epoch, SegmentId};
use serde_json::json;

use super::Printer;
use crate::capacity_tier::{Entry, EntryKind, Inspector, LayerId, Page};

const fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Added => "added",
        EntryKind::Modified => "modified",
        EntryKind::Deleted => "deleted",
        EntryKind::Passed => "passed",
    }
}

/// HEAD and its layers; with `epoch`, the entries of the layer that holds it.
pub(super) async fn layers(
    out: &mut Printer<'_>,
    inspector: &Inspector,
    epoch: Option<Epoch>,
    range: &RangeInclusive<BlockIndex>,
) -> anyhow::Result<()> {
    let mut with_entries = None;
    match &inspector.head {
        Ok(head) => {
            let text = format!(
                "HEAD: volume {}, {} bytes, generation {}, sequence {}, objects numbered below {}, {} layers up to epoch {}",
                head.volume,
                head.geometry.size_bytes(),
                head.generation,
                head.sequence,
                head.numbers_taken_to,
                head.layers().len(),
                head.written_back_epoch()
            );
            let fields = json!({"volume": head.volume.to_string(), "size_bytes": head.geometry.size_bytes(),
                "generation": head.generation.0, "sequence": head.sequence, "numbers_taken_to": head.numbers_taken_to,
                "layers": head.layers().len(), "epoch": head.written_back_epoch().0});
            out.item("head", &text, fields)?;
            for layer in head.layers() {
                let name =
                    layer.snapshot.as_ref().map_or_else(String::new, |name| format!(", snapshot {name}"));
                let counts = layer.counts;
                let text = format!(
                    "layer layers/{:016x}: epochs {} to {}, {} pages: {} added, {} modified, {} deleted, {} passed; \
                     the volume holds {} blocks{name}",
                    layer.id.0,
                    layer.first_epoch,
                    layer.last_epoch,
                    layer.pages,
                    counts.added,
                    counts.modified,
                    counts.deleted,
                    counts.passed,
                    layer.mapped_blocks
                );
                let fields = json!({"object": layer.id.0, "first_epoch": layer.first_epoch.0,
                    "last_epoch": layer.last_epoch.0, "opened_us": layer.opened_us, "sealed_us": layer.sealed_us,
                    "pages": layer.pages, "added": counts.added, "modified": counts.modified, "deleted": counts.deleted,
                    "passed": counts.passed, "mapped_blocks": layer.mapped_blocks,
                    "snapshot": layer.snapshot.as_ref().map(ToString::to_string), "reclaim": layer.reclaim});
                out.item("layer", &text, fields)?;
                if epoch.is_some_and(|epoch| (layer.first_epoch..=layer.last_epoch).contains(&epoch)) {
                    with_entries = Some(layer.id);
                }
            }
        }
        Err(why) => {
            out.broken("HEAD", why)?;
            for layer in inspector.layers() {
                entries(out, inspector, layer, epoch, range).await?;
            }
            return Ok(());
        }
    }
    match (epoch, with_entries) {
        (Some(_), Some(layer)) => entries(out, inspector, layer, epoch, range).await,
        (Some(epoch), None) => Ok(out.broken("HEAD", &format!("no layer holds epoch {epoch}"))?),
        (None, _) => Ok(()),
    }
}

/// A table's pages; only of a table that holds `epoch`, if that is given and the first page tells.
async fn entries(
    out: &mut Printer<'_>,
    inspector: &Inspector,
    layer: LayerId,
    epoch: Option<Epoch>,
    range: &RangeInclusive<BlockIndex>,
) -> anyhow::Result<()> {
    let object = format!("layers/{:016x}", layer.0);
    for number in 0..inspector.pages(layer) {
        match inspector.page(layer, number).await? {
            Ok(Page::Opening(opening)) => {
                let (first, last) = (opening.first_epoch, opening.last_epoch);
                if epoch.is_some_and(|epoch| !(first..=last).contains(&epoch)) {
                    return Ok(());
                }
                let text =
                    format!("table {object}: epochs {first} to {last}, generation {}", opening.generation);
                let fields = json!({"object": layer.0, "first_epoch": first.0, "last_epoch": last.0,
                                    "generation": opening.generation.0});
                out.item("table", &text, fields)?;
            }
            Ok(Page::Entries(page)) => {
                for entry in page.iter().filter(|entry| range.contains(&entry.block)) {
                    let (text, fields) = self::entry(entry);
                    out.item("entry", &format!("  {text}"), fields)?;
                }
            }
            Ok(Page::Closing(closing)) => {
                let count = closing.counts.entries();
                out.item(
                    "table end",
                    &format!("  {count} entries"),
                    json!({"object": layer.0, "entries": count}),
                )?;
            }
            Err(why) => out.broken(&format!("{object} page {number}"), &why)?,
        }
    }
    Ok(())
}

fn entry(entry: &Entry) -> (String, serde_json::Value) {
    let place = entry.place.map(|place| place.to_string());
    let at = place.as_ref().map_or_else(String::new, |place| format!(" at {place}"));
    let Entry { block, epoch, kind: what, sub_blocks, .. } = *entry;
    (
        format!("block {block}: {} in epoch {epoch}, {sub_blocks} sub-blocks{at}", kind(what)),
        json!({"block": block.0, "epoch": epoch.0, "change": kind(what), "sub_blocks": sub_blocks, "place": place}),
    )
}

/// The segments with their records, or one of them.
pub(super) async fn segments(
    out: &mut Printer<'_>,
    inspector: &Inspector,
    only: Option<u64>,
    range: &RangeInclusive<BlockIndex>,
) -> anyhow::Result<()> {
    let there = inspector.segments();
    if let Some(only) = only.filter(|only| !there.contains(&SegmentId(*only))) {
        out.broken(&format!("segments/{only:016x}"), "is not there")?;
    }
    for id in there.into_iter().filter(|id| only.is_none_or(|only| only == id.0)) {
        let object = format!("segments/{:016x}", id.0);
        let scan = inspector.segment(id).await?;
        match &scan.header {
            Ok(header) => {
                let text = format!(
                    "{object}: {} records in {} bytes, of epoch {}, generation {}",
                    header.records, scan.bytes, header.epoch, header.generation
                );
                let fields = json!({"segment": id.0, "records": header.records, "bytes": scan.bytes,
                                    "epoch": header.epoch.0, "generation": header.generation.0});
                out.item("segment", &text, fields)?;
            }
            Err(why) => out.broken(&object, why)?,
        }
        if let Ok(header) = &scan.header
            && u64::from(header.units) * 512 != scan.bytes
        {
            let what =
                format!("it has {} bytes and was written with {}", scan.bytes, u64::from(header.units) * 512);
            out.broken(&object, &what)?;
        }
        for record in scan.records.iter().filter(|record| range.contains(&record.header.block)) {
            let (header, at) = (record.header, u64::from(record.at_units) * 512);
            let (bytes, stored) = (header.record_bytes(), header.stored_bytes);
            let codec = format!("{:?}", header.codec).to_lowercase();
            if !record.sound {
                out.broken(
                    &format!("{object} at {at}"),
                    &format!("the data of block {} does not match", header.block),
                )?;
            }
            let text = format!(
                "  at {at}, {bytes} bytes: block {} of epoch {}, {stored} bytes {codec}",
                header.block, header.epoch
            );
            let fields = json!({"segment": id.0, "offset": at, "bytes": bytes, "block": header.block.0,
                "epoch": header.epoch.0, "codec": codec, "stored_bytes": stored, "sound": record.sound});
            out.item("segment record", &text, fields)?;
        }
        for (first, count) in &scan.gaps {
            let (at, bytes) = (u64::from(*first) * 512, u64::from(*count) * 512);
            out.broken(&format!("{object} at {at}"), &format!("{bytes} bytes are no record"))?;
        }
    }
    Ok(())
}
