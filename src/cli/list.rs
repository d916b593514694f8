//! `list`: the volumes that are configured here, and their devices.

use forerun::config::{DeviceRecord, Paths, VolumeConfig, VolumeName, format_size};
use serde::Serialize;

use super::args::ListOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::table::{Align, Table};
use super::{output, programs};

/// A line of the list: a volume, or an attached snapshot of the volume above it.
#[derive(Serialize)]
struct Entry {
    volume: String,
    snapshot: Option<String>,
    size_bytes: u64,
    /// "running", "stopped", "waits for recovery", or "broken: why".
    state: String,
    device: Option<String>,
    pid: Option<u32>,
    fast: String,
    capacity: String,
}

#[derive(Serialize)]
struct List {
    volumes: Vec<Entry>,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &ListOptions) -> anyhow::Result<()> {
    if options.all || options.number.is_some() {
        let number = options.number.map(|number| ["-n".to_owned(), number.to_string()]);
        let json = options.json.then(|| "--json".to_owned());
        let words = ["list".to_owned()].into_iter().chain(number.into_iter().flatten()).chain(json);
        return programs::run_target(words);
    }
    let mut volumes = Vec::new();
    for volume in paths.volumes()? {
        volumes.extend(entries(paths, &volume));
    }
    if options.json {
        return Ok(output::json(&List { volumes })?);
    }
    if volumes.is_empty() {
        let place = paths.state_dir().display();
        return Ok(output::text(&format!(
            "no volumes in {place}; `forerun create --help` shows how to make one\n"
        ))?);
    }
    Ok(output::text(&table(volumes).render())?)
}

fn entries(paths: &Paths, volume: &VolumeName) -> Vec<Entry> {
    let files = paths.volume(volume);
    let mut own = Entry {
        volume: volume.to_string(),
        snapshot: None,
        size_bytes: 0,
        state: "stopped".into(),
        device: None,
        pid: None,
        fast: String::new(),
        capacity: String::new(),
    };
    match VolumeConfig::load(volume, &files) {
        Ok(config) => {
            own.size_bytes = config.geometry.size_bytes();
            own.fast = config.fast.path.display().to_string();
            own.capacity = config.capacity.address.to_string();
        }
        Err(error) => own.state = format!("broken: {error}"),
    }
    let mut snapshots = Vec::new();
    for file in files.device_files().unwrap_or_default() {
        let Ok(Some(record)) = DeviceRecord::load(&file) else { continue };
        let Ok(snapshot) = record.snapshot.as_deref().map(str::parse).transpose() else { continue };
        let reference = DeviceRef { volume: volume.clone(), snapshot };
        let state = match devices::state(&record, &reference) {
            DeviceState::Running => "running",
            DeviceState::WaitsForRecovery => "waits for recovery",
            DeviceState::Gone => continue,
        };
        let device = Some(record.device_path());
        if record.snapshot.is_none() {
            own.state = state.into();
            (own.device, own.pid) = (device, Some(record.pid));
        } else {
            snapshots.push(Entry {
                snapshot: record.snapshot,
                state: state.into(),
                device,
                pid: Some(record.pid),
                volume: own.volume.clone(),
                size_bytes: own.size_bytes,
                fast: own.fast.clone(),
                capacity: own.capacity.clone(),
            });
        }
    }
    std::iter::once(own).chain(snapshots).collect()
}

fn table(entries: Vec<Entry>) -> Table {
    let mut table = Table::new(&[
        ("VOLUME", Align::Left),
        ("SIZE", Align::Right),
        ("DEVICE", Align::Left),
        ("PID", Align::Right),
        ("FAST TIER", Align::Left),
        ("CAPACITY TIER", Align::Left),
        ("STATE", Align::Left),
    ]);
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    for entry in entries {
        let name = match entry.snapshot {
            None => entry.volume,
            Some(snapshot) => format!("{}@{snapshot}", entry.volume),
        };
        table.row(vec![
            name,
            format_size(entry.size_bytes),
            or_dash(entry.device),
            or_dash(entry.pid.map(|pid| pid.to_string())),
            entry.fast,
            entry.capacity,
            entry.state,
        ]);
    }
    table
}
