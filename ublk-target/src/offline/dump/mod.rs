//! The dump: what is on the tiers, as readable text or one JSON object a line.
//!
//! It goes on over damage: what can be read is printed, what cannot is marked `BROKEN`. It prints as it reads; memory
//! follows the fast tier's size and the number of layers, not the volume.

mod capacity;
mod fast;
mod map;

use std::io::{self, Write};
use std::ops::RangeInclusive;

use forerun::geometry::{BlockIndex, Epoch, Geometry};
use serde_json::{Value, json};
use uuid::Uuid;

use super::check::Places;
use crate::capacity_tier::{Inspector, VolumeUuid};
use crate::fast_tier::inspect::{Parts, inspect};

/// What is to be printed. Nothing chosen means all but segments and the map, which can be long.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpOptions {
    /// The superblocks.
    pub superblocks: bool,
    /// The journal.
    pub journal: bool,
    /// The checkpoints.
    pub checkpoint: bool,
    /// Where each block is.
    pub map: bool,
    /// HEAD and the layers; of one epoch, with its entries.
    pub layers: Option<Option<u32>>,
    /// The segments, or one of them, with their records.
    pub segments: Option<Option<u64>>,
    /// Only these blocks.
    pub blocks: Option<(u32, u32)>,
    /// One JSON object a line.
    pub json: bool,
}

impl DumpOptions {
    fn all(&mut self) {
        let Self { superblocks, journal, checkpoint, map, layers, segments, .. } = self;
        if !(*superblocks || *journal || *checkpoint || *map) && layers.is_none() && segments.is_none() {
            (*superblocks, *journal, *checkpoint, *layers) = (true, true, true, Some(None));
        }
    }

    /// The blocks that are wanted.
    fn range(&self) -> RangeInclusive<BlockIndex> {
        let (first, last) = self.blocks.unwrap_or((0, u32::MAX));
        BlockIndex(first)..=BlockIndex(last)
    }
}

/// Where lines go.
struct Printer<'o> {
    out: &'o mut dyn Write,
    json: bool,
    broken: u64,
}

impl Printer<'_> {
    /// Prints one thing, either way. The JSON is an object.
    fn item(&mut self, kind: &str, text: &str, mut fields: Value) -> io::Result<()> {
        if self.json {
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("kind".to_owned(), kind.into());
            }
            return writeln!(self.out, "{fields}");
        }
        writeln!(self.out, "{text}")
    }

    fn broken(&mut self, place: &str, what: &str) -> io::Result<()> {
        self.broken += 1;
        self.item("broken", &format!("BROKEN: {place}: {what}"), json!({"where": place, "what": what}))
    }
}

/// Prints what is chosen; gives how many things could not be read.
///
/// # Errors
/// A tier that is missing, in use or another volume's; I/O that is not about damage.
pub fn dump(
    places: &Places,
    shape: Option<(Uuid, Geometry)>,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let mut options = options.clone();
    options.all();
    let mut printer = Printer { out, json: options.json, broken: 0 };
    let mut shape = shape;
    let parts =
        Parts { superblocks: options.superblocks, checkpoint: options.checkpoint, journal: options.journal };
    if let Some(path) = &places.fast
        && (parts != Parts::default() || shape.is_none())
    {
        let volume = shape.map(|(volume, _)| volume);
        let range = options.range();
        let newest = inspect(path, volume, parts, &mut |seen| fast::print(&mut printer, &range, seen))?;
        shape = shape.or(newest.map(|superblock| (superblock.volume, superblock.geometry)));
    }
    let wants_capacity = options.layers.is_some() || options.segments.is_some() || options.map;
    if let Some(address) = places.capacity.as_ref().filter(|_| wants_capacity) {
        let known = shape.map(|(volume, geometry)| (VolumeUuid(*volume.as_bytes()), geometry));
        tokio_uring::start(async {
            let inspector = Inspector::open(address, known).await?;
            if let Some(epoch) = options.layers {
                capacity::layers(&mut printer, &inspector, epoch.map(Epoch), &options.range()).await?;
            }
            if let Some(segment) = options.segments {
                capacity::segments(&mut printer, &inspector, segment, &options.range()).await?;
            }
            if options.map {
                map::print(&mut printer, &inspector, places, shape, &options.range()).await?;
            }
            anyhow::Ok(())
        })?;
    }
    printer.out.flush()?;
    Ok(printer.broken)
}
