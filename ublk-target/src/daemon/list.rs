//! `list`: the ublk devices there are, in the text that scripts for `ublk` parse, or as JSON.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;

use super::pid_file::{PidFile, RUN_DIR, TARGET_NAME};
use super::serve::print;
use crate::device::{self, DeviceEntry};

/// A device as printed with `--json`.
#[derive(Serialize)]
struct Line {
    device: String,
    dev_id: u32,
    state: String,
    /// The process that serves it or did so last.
    pid: i32,
    /// Whether forerun made it.
    forerun: bool,
    /// What it shows, `VOLUME` or `VOLUME@SNAPSHOT`, where forerun's pid file says so.
    shows: Option<String>,
    size_bytes: u64,
    logical_block_bytes: u32,
    queues: u16,
    queue_depth: u16,
    max_request_bytes: u32,
    features: Vec<&'static str>,
}

#[derive(Serialize)]
struct List {
    devices: Vec<Line>,
}

/// Lists one device or all. What cannot be looked at is said, and fails the command after the rest was printed.
pub(super) fn run(id: Option<u32>, verbose: bool, json: bool) -> anyhow::Result<()> {
    let (devices, errors) = match id {
        Some(id) => (vec![device::list_one(id)?], Vec::new()),
        None => device::list()?,
    };
    if json {
        let devices = devices.iter().map(line).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&List { devices })?))?;
    } else {
        print(&devices.iter().map(|entry| text(entry, verbose)).collect::<String>())?;
    }
    for error in &errors {
        eprintln!("ublk.{TARGET_NAME}: {error}");
    }
    if !errors.is_empty() {
        bail!("{} devices could not be looked at", errors.len());
    }
    Ok(())
}

fn text(entry: &DeviceEntry, verbose: bool) -> String {
    let mut text = format!("{entry}\n");
    if let Ok(file) = PidFile::read(Path::new(RUN_DIR), entry.id) {
        text += &format!("\ttarget {}\n", file.json["target"]);
        if verbose {
            text += &format!("\tqueues {}\n", file.json["queues"]);
        }
    }
    text
}

fn line(entry: &DeviceEntry) -> Line {
    Line {
        device: format!("/dev/ublkb{}", entry.id),
        dev_id: entry.id,
        state: entry.state.to_string(),
        pid: entry.pid,
        forerun: entry.ours,
        shows: PidFile::read(Path::new(RUN_DIR), entry.id).ok().map(|file| file.volume),
        size_bytes: entry.sectors * 512,
        logical_block_bytes: entry.logical_block_bytes,
        queues: entry.queues,
        queue_depth: entry.depth,
        max_request_bytes: entry.io_buffer_bytes,
        features: device::feature_names(entry.flags),
    }
}
