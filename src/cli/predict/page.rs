//! The report, as a table for people and as JSON.

use forerun::config::format_size;
use forerun::files::{Piece, What};
use serde::Serialize;

use super::super::output::{count, counted, span};
use super::super::table::{Align, Table};
use super::contents::{exact_size, in_words, inode_kind_name, kind_name};
use super::{Names, Report};

/// The report for people, at a moment in microseconds since 1970.
pub fn text(report: &Report, now_us: u64) -> String {
    let Some(info) = &report.table else {
        return format!(
            "no predictions for volume {} yet; its trainer publishes some after the first sealed epochs\n",
            report.volume
        );
    };
    let mut text = format!(
        "predictions for {} after epoch {}, by {}, published {} ago\n",
        counted(info.horizon.epochs().into(), "epoch"),
        info.epoch,
        info.model,
        span(now_us.saturating_sub(info.published_us) as f64 / 1e6)
    );
    if report.ranges.is_empty() {
        let less = if report.left_out > 0 { "with --limit 0" } else { "as probable as that" };
        return format!("{text}from p = {}: nothing {less}\n", report.from_probability);
    }
    let names = match &report.names {
        Names::Found(named) => Some(named),
        _ => None,
    };
    let mut columns =
        vec![("P", Align::Right), ("KIND", Align::Left), ("OFFSET", Align::Right), ("LENGTH", Align::Right)];
    if names.is_some() {
        columns.push(("WHAT", Align::Left));
    }
    let mut table = Table::new(&columns);
    for expected in &report.ranges {
        let mut row = vec![
            format!("{:.2}", expected.probability),
            expected.kind.name().to_owned(),
            exact_size(expected.range.offset_bytes),
            exact_size(expected.range.length_bytes),
        ];
        row.extend(names.map(|named| in_words(named, expected.range)));
        table.row(row);
    }
    text.push_str(&table.render());
    let bytes = report.ranges.iter().map(|expected| expected.range.length_bytes).sum();
    let ranges = counted(report.ranges.len() as u64, "range");
    text.push_str(&format!("{ranges}, {}, from p = {}", format_size(bytes), report.from_probability));
    if report.left_out > 0 {
        text.push_str(&format!("; {} less probable left out", count(report.left_out as u64)));
    }
    text.push('\n');
    match &report.names {
        Names::Missing(why) => text.push_str(&format!("no files are named: {why}\n")),
        Names::Found(named) if named.damaged > 0 => text.push_str(&format!(
            "{} of the {} file system cannot be read, or changed meanwhile: names may be missing\n",
            counted(named.damaged, "structure"),
            named.file_system
        )),
        _ => {}
    }
    text
}

/// The report in JSON.
#[derive(Serialize)]
pub struct Json<'r> {
    volume: &'r str,
    from_probability: f64,
    table: Option<TableJson<'r>>,
    /// "ext2", "ext3", "ext4" or "XFS"; null where nothing is named.
    file_system: Option<&'static str>,
    /// Why nothing is named; null where it is, and where nobody asked for it.
    not_named: Option<&'r str>,
    damaged_structures: u64,
    ranges: Vec<RangeJson<'r>>,
    left_out: usize,
}

#[derive(Serialize)]
struct TableJson<'r> {
    generation: u64,
    model: &'r str,
    epoch: u32,
    horizon_epochs: u32,
    published_us: u64,
}

#[derive(Serialize)]
struct RangeJson<'r> {
    probability: f64,
    kind: &'static str,
    offset_bytes: u64,
    length_bytes: u64,
    contents: Vec<PieceJson<'r>>,
}

#[derive(Serialize)]
struct PieceJson<'r> {
    offset_bytes: u64,
    length_bytes: u64,
    /// "content", "growth", "map", "attributes", "structure", "free" or "unnamed".
    what: &'static str,
    inode: Option<u64>,
    inode_kind: Option<&'static str>,
    path: Option<&'r str>,
    file_offset_bytes: Option<u64>,
    structure: Option<&'static str>,
    group: Option<u32>,
}

/// The report as JSON prints it.
pub fn json(report: &Report) -> Json<'_> {
    let named = match &report.names {
        Names::Found(named) => Some(named),
        _ => None,
    };
    let piece = |piece: Piece| {
        let mut json = PieceJson {
            offset_bytes: piece.range.offset_bytes,
            length_bytes: piece.range.length_bytes,
            what: kind_name(&piece),
            inode: None,
            inode_kind: None,
            path: None,
            file_offset_bytes: None,
            structure: None,
            group: None,
        };
        match piece.what {
            What::Inode { inode, offset_bytes, .. } => {
                let owner = named.and_then(|named| named.owners.get(&inode));
                json.inode = Some(inode);
                json.inode_kind = owner.map(|owner| inode_kind_name(owner.kind));
                json.path = owner.and_then(|owner| owner.path.as_deref());
                json.file_offset_bytes = matches!(json.what, "content" | "growth").then_some(offset_bytes);
            }
            What::Metadata(metadata) => {
                json.structure = Some(metadata.what);
                json.group = metadata.group;
            }
            What::Free | What::Unknown => {}
        }
        json
    };
    let ranges = report.ranges.iter().map(|expected| RangeJson {
        probability: expected.probability,
        kind: expected.kind.name(),
        offset_bytes: expected.range.offset_bytes,
        length_bytes: expected.range.length_bytes,
        contents: named.map_or_else(Vec::new, |named| named.within(expected.range).map(piece).collect()),
    });
    Json {
        volume: &report.volume,
        from_probability: report.from_probability,
        table: report.table.as_ref().map(|info| TableJson {
            generation: info.generation,
            model: &info.model,
            epoch: info.epoch.0,
            horizon_epochs: info.horizon.epochs(),
            published_us: info.published_us,
        }),
        file_system: named.map(|named| named.file_system),
        not_named: match &report.names {
            Names::Missing(why) => Some(why),
            _ => None,
        },
        damaged_structures: named.map_or(0, |named| named.damaged),
        ranges: ranges.collect(),
        left_out: report.left_out,
    }
}
