//! What a repair did, and exactly what is lost by it: as text for people, as JSON for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use forerun::config::CapacityAddress;
use serde::Serialize;

/// The most lines of a list that the text shows; the JSON has all.
const LINES_MAX: usize = 200;

/// A tier before and after.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TierReport {
    /// Where it was.
    pub from: PathBuf,
    /// Where the new one is; none if the old one stays.
    pub to: Option<PathBuf>,
    /// How much of the old one could be used, in words.
    pub used: String,
    /// What was met there.
    pub notes: Vec<String>,
}

/// A block whose data is lost at one or more points.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BlockLoss {
    /// The block of 64 KiB.
    pub block: u32,
    /// Its sub-blocks of 4 KiB that are lost, one bit each.
    pub sub_blocks: u16,
    /// Whether the volume itself misses it: it reads as zeros there.
    pub in_volume: bool,
    /// The snapshots that miss it, by their new names.
    pub snapshots: Vec<String>,
}

/// Blocks that may not be what they were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RangeDoubt {
    /// The first block.
    pub first: u32,
    /// The last block.
    pub last: u32,
    /// Whether this is about the volume itself; else about snapshots only.
    pub in_volume: bool,
    /// The snapshots it is about, by their new names.
    pub snapshots: Vec<String>,
    /// Why.
    pub why: String,
}

/// A snapshot that is kept under another name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotChange {
    /// Its name before; none where that is lost.
    pub name: Option<String>,
    /// Its name now; none where it is dropped.
    pub kept_as: Option<String>,
    /// Its epoch before.
    pub epoch: u32,
    /// Why.
    pub why: String,
}

/// Writes that are lost because a fast tier is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WritesLost {
    /// The volume is as it was at the end of this epoch; 0: as it was created.
    pub as_of_epoch: u32,
    /// When that was, in microseconds since 1970; 0 where it is not known.
    pub as_of_us: u64,
    /// Blocks that are known to have been changed after it; there may be others.
    pub known_blocks: Vec<u32>,
    /// Why.
    pub why: String,
}

/// All that is lost.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Lost {
    /// All that was written after some moment.
    pub writes: Option<WritesLost>,
    /// Blocks.
    pub blocks: Vec<BlockLoss>,
    /// Blocks that may not be what they were.
    pub doubtful: Vec<RangeDoubt>,
    /// Snapshots that are not what they were.
    pub snapshots: Vec<SnapshotChange>,
}

impl Lost {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The whole report.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// The volume's name.
    pub volume: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Whether the volume's configuration names the new places.
    pub switched: bool,
    /// The fast tier.
    pub fast: TierReport,
    /// The capacity tier.
    pub capacity: TierReport,
    /// Blocks that hold something now.
    pub blocks: u64,
    /// Blocks that were copied from the old fast tier to the new one.
    pub blocks_copied: u64,
    /// Blocks that the capacity tier had lost and the fast tier had.
    pub blocks_supplied: u64,
    /// What is lost.
    pub lost: Lost,
    /// The configuration as it was, and this report, where they are kept.
    pub kept: Vec<PathBuf>,
}

/// Whether an old tier is still there; what is not on this machine is not looked for.
fn is_there(tier: &Path) -> bool {
    let address = tier.to_string_lossy().parse::<CapacityAddress>().ok();
    address.and_then(|address| address.local_path()).is_none_or(|path| path.exists())
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { volume, fast, capacity, .. } = self;
        for (name, tier) in [("fast tier", fast), ("capacity tier", capacity)] {
            write!(out, "{name} {}: {}", tier.from.display(), tier.used)?;
            match &tier.to {
                Some(to) => writeln!(out, "; new: {}", to.display())?,
                None => writeln!(out, "; stays")?,
            }
            for note in &tier.notes {
                writeln!(out, "  {note}")?;
            }
        }
        let Self { blocks, blocks_copied, blocks_supplied, .. } = self;
        writeln!(
            out,
            "{blocks} blocks hold data; {blocks_copied} come from the old fast tier; {blocks_supplied} that the \
             capacity tier had lost were on the fast tier"
        )?;
        self.lost.write(out)?;
        match (self.dry_run, self.switched) {
            (true, _) => writeln!(out, "nothing was changed (--dry-run)"),
            (_, true) => {
                for tier in [fast, capacity].into_iter().filter(|tier| tier.to.is_some()) {
                    let kept = if is_there(&tier.from) { "kept as it was" } else { "not there" };
                    writeln!(out, "{kept}: {}", tier.from.display())?;
                }
                for path in &self.kept {
                    writeln!(out, "kept: {}", path.display())?;
                }
                writeln!(out, "volume {volume} is repaired; start it with `forerun add {volume}`")
            }
            (false, false) => writeln!(out, "the volume's configuration is as it was"),
        }
    }
}

impl Lost {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        if self.is_empty() {
            return writeln!(out, "nothing is lost");
        }
        if let Some(writes) = &self.writes {
            let WritesLost { as_of_epoch, as_of_us, known_blocks, why } = writes;
            let when = match *as_of_us {
                0 => String::new(),
                us => format!(" ({} UTC)", forerun::utc::Utc::from_us(us)),
            };
            writeln!(
                out,
                "LOST: all that was written after the end of epoch {as_of_epoch}{when}, with the snapshots made after it: {why}"
            )?;
            if !known_blocks.is_empty() {
                let shown: Vec<String> = known_blocks.iter().take(LINES_MAX).map(u32::to_string).collect();
                let dots = if known_blocks.len() > LINES_MAX { ", ..." } else { "" };
                let count = known_blocks.len();
                writeln!(
                    out,
                    "  {count} blocks are known to have changed since: {}{dots}",
                    shown.join(", ")
                )?;
            }
        }
        for loss in self.blocks.iter().take(LINES_MAX) {
            let parts = sub_blocks(loss.sub_blocks);
            let places = places(loss.in_volume, &loss.snapshots);
            writeln!(
                out,
                "LOST: block {} (byte {}), {parts}: reads as zeros in {places}",
                loss.block,
                u64::from(loss.block) << 16
            )?;
        }
        more(out, self.blocks.len(), "blocks")?;
        for doubt in self.doubtful.iter().take(LINES_MAX) {
            let places = places(doubt.in_volume, &doubt.snapshots);
            writeln!(out, "DOUBTFUL: blocks {} to {} in {places}: {}", doubt.first, doubt.last, doubt.why)?;
        }
        more(out, self.doubtful.len(), "ranges")?;
        for change in &self.snapshots {
            let name = change.name.as_deref().unwrap_or("(name lost)");
            let kept =
                change.kept_as.as_deref().map_or("dropped".to_owned(), |kept| format!("kept as {kept}"));
            writeln!(out, "SNAPSHOT: {name} of epoch {}: {kept}: {}", change.epoch, change.why)?;
        }
        Ok(())
    }
}

fn more(out: &mut String, count: usize, what: &str) -> std::fmt::Result {
    match count.checked_sub(LINES_MAX) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "... and {more} more {what}; --json lists them all"),
    }
}

fn places(in_volume: bool, snapshots: &[String]) -> String {
    let volume = in_volume.then_some("the volume");
    let all: Vec<&str> = volume.into_iter().chain(snapshots.iter().map(String::as_str)).collect();
    if all.is_empty() { "epochs that no snapshot keeps".to_owned() } else { all.join(", ") }
}

/// Sub-blocks as runs: `sub-blocks 0-3, 7`.
pub(crate) fn sub_blocks(mask: u16) -> String {
    let mask = forerun::geometry::SubBlockMask(mask);
    let run = |(first, count): (u32, u32)| match count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + count - 1),
    };
    match mask.count() {
        16 => "all of it".to_owned(),
        1 => format!("sub-block {}", mask.runs().map(run).collect::<String>()),
        _ => format!("sub-blocks {}", mask.runs().map(run).collect::<Vec<_>>().join(", ")),
    }
}
