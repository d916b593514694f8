//! `predict`: what is expected to change, as ranges of the volume and as files.
//!
//! The table is read as the target reads it, from shared memory, so that this works without one; the names come from the
//! file system's metadata, read through the volume's device. Nothing is written, and no mount is needed.

mod contents;
mod expected;
mod page;
mod plot;
#[cfg(test)]
mod tests;

use std::fs::File;

use anyhow::Context;
use forerun::config::{Paths, VolumeConfig};
use forerun::files::{ByteRange, Named, name_ranges};
use forerun::prediction::Probability;
use forerun::prediction_table::{Table, TableInfo, TableReader};
use forerun::utc::now_us;

use super::args::PredictOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::failure::Failure;
use super::{client, output};
use expected::Expected;
pub use plot::PlotFile;

/// What there is to say.
struct Report {
    volume: String,
    /// Nothing below it is told.
    from_probability: f64,
    /// What the table says of itself; `None` where nothing was published yet.
    table: Option<TableInfo>,
    /// The most probable first.
    ranges: Vec<Expected>,
    /// How many more there are, less probable than these.
    left_out: usize,
    names: Names,
}

/// The ranges' names.
enum Names {
    /// Nobody wants them.
    NotAsked,
    /// There are none, and why.
    Missing(String),
    Found(Named),
}

/// Runs the command.
pub fn run(paths: &Paths, options: &PredictOptions) -> anyhow::Result<()> {
    let config = client::load_config(paths, &options.volume)?;
    let device = DeviceRef { volume: options.volume.clone(), snapshot: None };
    let record = devices::record(paths, &device)?;
    let record = record.map(|record| (devices::state(&record, &device), record.device_path()));
    let table = read_table(paths, &config)?;
    if table.is_none() && record.as_ref().is_none_or(|(state, _)| *state != DeviceState::Running) {
        let volume = &options.volume;
        return Err(Failure::NotRunning(format!(
            "volume {volume} is not running, and there is no prediction table of it; start it with `forerun add {volume}`"
        ))
        .into());
    }
    let from_probability = from_probability(options, &config)?;
    if let Some(file) = &options.plot {
        plot::write(paths, options, &config, table.as_ref(), from_probability, file)?;
    }
    let mut report = report(options, from_probability, table);
    if !options.no_files && !report.ranges.is_empty() {
        report.names = match record {
            Some((DeviceState::Running, path)) => names(&path, &config, &report.ranges),
            Some((DeviceState::WaitsForRecovery, path)) => {
                let volume = &options.volume;
                Names::Missing(format!("{path} waits for a target; `forerun recover {volume}` gives it one"))
            }
            Some((DeviceState::Gone, _)) | None => Names::Missing("the volume is not running".into()),
        };
    }
    if options.json {
        return Ok(output::json(&page::json(&report))?);
    }
    Ok(output::text(&page::text(&report, now_us()))?)
}

fn read_table(paths: &Paths, config: &VolumeConfig) -> anyhow::Result<Option<Table>> {
    let path = paths.volume(&config.name).predictions();
    let table = TableReader::new(&path).read(*config.uuid.as_bytes(), config.geometry.blocks());
    table.with_context(|| format!("the predictions for volume {} cannot be read", config.name))
}

/// From where on ranges are told: what was asked for, or the volume's threshold.
fn from_probability(options: &PredictOptions, config: &VolumeConfig) -> anyhow::Result<f64> {
    let Some(value) = options.from_probability else {
        // The configuration follows every change of the threshold.
        return Ok(config.threshold.as_f64());
    };
    Probability::new(value as f32).map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(value)
}

/// What the table expects, before it has names.
fn report(options: &PredictOptions, from_probability: f64, table: Option<Table>) -> Report {
    let (table, predictions) = match table {
        Some(table) => (Some(table.info), table.predictions),
        None => (None, Vec::new()),
    };
    let mut ranges = expected::ranges(&predictions, from_probability as f32);
    let limit = options.limit.unwrap_or(usize::MAX).min(ranges.len());
    let left_out = ranges.len() - limit;
    ranges.truncate(limit);
    let volume = options.volume.to_string();
    Report { volume, from_probability, table, ranges, left_out, names: Names::NotAsked }
}

/// The names of ranges. Without them the ranges still say much, so that no problem here is the command's end.
fn names(device: &str, config: &VolumeConfig, ranges: &[Expected]) -> Names {
    let asked: Vec<ByteRange> = ranges.iter().map(|expected| expected.range).collect();
    let file = match File::open(device) {
        Ok(file) => file,
        Err(error) => return Names::Missing(format!("cannot open {device}: {error}")),
    };
    match name_ranges(&file, config.geometry.size_bytes(), &asked) {
        Ok(named) => Names::Found(named),
        Err(error) => Names::Missing(format!("{device}: {error}")),
    }
}
