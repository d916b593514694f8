//! The fast tier's pages, line by line.

use std::io;
use std::ops::RangeInclusive;

use forerun::geometry::BlockIndex;
use serde_json::{Value, json};

use super::Printer;
use crate::fast_tier::delta::{Delta, Holds, Sealed};
use crate::fast_tier::inspect::Seen;
use crate::offline::repair::sub_blocks;

/// Prints one thing that was met; deltas of blocks that are not wanted are left out.
pub(super) fn print(out: &mut Printer<'_>, range: &RangeInclusive<BlockIndex>, seen: Seen) -> io::Result<()> {
    match seen {
        Seen::Superblock { name, offset, content: Ok(content) } => {
            let clean = match content.clean {
                Some(lsn) => format!("stopped cleanly after record {lsn}"),
                None => "not stopped cleanly".to_owned(),
            };
            let layout = &content.layout;
            let text = format!(
                "superblock {name} at byte {offset}: generation {}, volume {}, {clean}\n  volume of {} bytes in logical \
                 blocks of {}; tier of {} bytes: journal {} bytes at {}, checkpoints of {} bytes at {:?}, {} slots at {}",
                content.generation,
                content.volume,
                content.geometry.size_bytes(),
                content.geometry.logical_block_bytes(),
                layout.tier_bytes,
                layout.journal_bytes,
                layout.journal_offset,
                layout.checkpoint_bytes,
                layout.checkpoint_offsets,
                layout.slots,
                layout.slots_offset
            );
            let fields = json!({
                "copy": name, "offset": offset, "generation": content.generation, "volume": content.volume.to_string(),
                "clean_lsn": content.clean.map(|lsn| lsn.0), "created_us": content.created_us,
                "size_bytes": content.geometry.size_bytes(), "logical_block_bytes": content.geometry.logical_block_bytes(),
                "tier_bytes": layout.tier_bytes, "journal_offset": layout.journal_offset,
                "journal_bytes": layout.journal_bytes, "checkpoint_offsets": layout.checkpoint_offsets,
                "checkpoint_bytes": layout.checkpoint_bytes, "slots_offset": layout.slots_offset, "slots": layout.slots,
            });
            out.item("superblock", &text, fields)
        }
        Seen::Superblock { name, offset, content: Err(why) } => {
            out.broken(&format!("superblock {name} at byte {offset}"), &why)
        }
        Seen::Checkpoint { area, offset, content: Ok((number, start, pages, deltas)) } => {
            let text = format!(
                "checkpoint {number} in area {area} at byte {offset}: {deltas} facts on {pages} pages; \
                 the journal goes on after record {start}"
            );
            let fields = json!({"area": area, "offset": offset, "number": number, "after_lsn": start.0,
                                "pages": pages, "facts": deltas});
            out.item("checkpoint", &text, fields)
        }
        Seen::Checkpoint { area, offset, content: Err(why) } => {
            out.broken(&format!("checkpoint area {area} at byte {offset}"), &why)
        }
        Seen::Record { lsn, page, parts: (parts, sound), generation, needed } => {
            let state = match (sound == parts, needed) {
                (false, _) => format!(", {sound} of {parts} pages there"),
                (true, true) => String::new(),
                (true, false) => ", in a checkpoint".to_owned(),
            };
            let text =
                format!("record {lsn} at ring page {page}: {parts} pages, generation {generation}{state}");
            let fields = json!({"lsn": lsn.0, "ring_page": page, "pages": parts, "sound_pages": sound,
                                "generation": generation, "in_checkpoint": !needed});
            out.item("record", &text, fields)
        }
        Seen::Fact { checkpoint, fact } if wanted(range, &fact) => {
            let (text, mut fields) = delta(&fact);
            add(&mut fields, "checkpoint", checkpoint);
            out.item("fact", &format!("  {text}"), fields)
        }
        Seen::Change { lsn, change } if wanted(range, &change) => {
            let (text, mut fields) = delta(&change);
            add(&mut fields, "lsn", lsn.0);
            out.item("change", &format!("  {text}"), fields)
        }
        Seen::Fact { .. } | Seen::Change { .. } => Ok(()),
        Seen::Broken { what, offset } => out.broken(&format!("byte {offset}"), &what),
    }
}

fn add(fields: &mut Value, name: &str, value: u64) {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
}

fn wanted(range: &RangeInclusive<BlockIndex>, delta: &Delta) -> bool {
    match delta {
        Delta::Holds(holds) => range.contains(&holds.block),
        Delta::Deleted { block, .. } => range.contains(block),
        _ => true,
    }
}

/// A delta by its name.
fn delta(delta: &Delta) -> (String, Value) {
    match delta {
        Delta::Holds(Holds { slot, block, epoch, valid, dirty, added }) => {
            let added_too = if *added { ", added" } else { "" };
            let (v, d) =
                (sub_blocks(valid.0), if dirty.is_empty() { "none".to_owned() } else { sub_blocks(dirty.0) });
            (
                format!(
                    "slot {slot} holds block {block} of epoch {epoch}: valid {v}, written {d}{added_too}"
                ),
                json!({"delta": "holds", "slot": slot.0, "block": block.0, "epoch": epoch.0, "valid": valid.0,
                       "dirty": dirty.0, "added": added}),
            )
        }
        Delta::Free(slot) => (format!("slot {slot} is free"), json!({"delta": "free", "slot": slot.0})),
        Delta::Deleted { block, epoch } => (
            format!("block {block} was deleted in epoch {epoch}"),
            json!({"delta": "deleted", "block": block.0, "epoch": epoch.0}),
        ),
        Delta::Sealed(Sealed { epoch, opened_us, sealed_us, mapped_blocks }) => (
            format!(
                "epoch {epoch} was sealed with {mapped_blocks} blocks, opened {opened_us} us, sealed {sealed_us} us"
            ),
            json!({"delta": "sealed", "epoch": epoch.0, "opened_us": opened_us, "sealed_us": sealed_us,
                   "mapped_blocks": mapped_blocks}),
        ),
        Delta::Named { epoch, name } => (
            format!("epoch {epoch} is kept as snapshot {name}"),
            json!({"delta": "named", "epoch": epoch.0, "name": name}),
        ),
        Delta::Unnamed { epoch } => {
            (format!("epoch {epoch} is not kept any more"), json!({"delta": "unnamed", "epoch": epoch.0}))
        }
    }
}
