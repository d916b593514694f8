//! `history`: how the volume grew and changed, snapshot by snapshot.

use forerun::api::v1::Snapshot;
use forerun::config::{Paths, format_size};
use forerun::utc::Utc;
use serde::Serialize;

use super::args::HistoryOptions;
use super::output::{self, count};
use super::snapshot;
use super::table::{Align, Table};

#[derive(Serialize)]
struct History<'a> {
    history: &'a [Snapshot],
}

/// Runs the command.
pub fn run(paths: &Paths, options: &HistoryOptions) -> anyhow::Result<()> {
    let snapshots = snapshot::all(paths, &options.volume)?;
    if options.json {
        return Ok(output::json(&History { history: &snapshots })?);
    }
    let mut table = Table::new(&[
        ("TIME (UTC)", Align::Left),
        ("SNAPSHOT", Align::Left),
        ("EPOCH", Align::Right),
        ("DATA", Align::Right),
        ("ADDED", Align::Right),
        ("MODIFIED", Align::Right),
        ("DELETED", Align::Right),
        ("CHANGE RATE", Align::Right),
    ]);
    for snapshot in &snapshots {
        table.row(vec![
            Utc::from_us(snapshot.created_us).to_string(),
            snapshot.name.clone(),
            snapshot.epoch.to_string(),
            format_size(snapshot.data_bytes),
            count(snapshot.added_blocks),
            count(snapshot.modified_blocks),
            count(snapshot.deleted_blocks),
            rate(snapshot.change_bytes_per_second),
        ]);
    }
    let note = "added, modified and deleted count blocks of 64 KiB since the snapshot before\n";
    Ok(output::text(&format!("{}{note}", table.render()))?)
}

/// Bytes a second, for people.
fn rate(bytes_per_second: f64) -> String {
    // A cast of a float saturates: there is no value that panics here.
    format!("{}/s", format_size(bytes_per_second.round() as u64))
}
