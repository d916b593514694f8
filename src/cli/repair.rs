//! `repair`: the target makes new tiers; its exit code 6 says that something is lost.

use std::ffi::OsString;

use forerun::config::Paths;

use super::args::RepairOptions;
use super::create::absolute_address;
use super::offline::{absolute, stopped};
use super::programs;

/// Runs the command.
pub fn run(paths: &Paths, options: &RepairOptions) -> anyhow::Result<()> {
    let RepairOptions {
        volume,
        to_fast,
        fast_size,
        to_capacity,
        without_fast,
        without_capacity,
        dry_run,
        json,
    } = options;
    stopped(paths, volume)?;
    let mut arguments: Vec<OsString> = vec!["repair".into(), "--volume".into(), volume.as_str().into()];
    if let Some(path) = to_fast {
        arguments.extend(["--to-fast".into(), absolute(path)?.into()]);
    }
    if let Some(address) = to_capacity {
        arguments.extend(["--to-capacity".into(), absolute_address(address)?.to_string().into()]);
    }
    if let Some(bytes) = fast_size {
        arguments.extend(["--fast-size".into(), bytes.to_string().into()]);
    }
    let flags = [
        ("--without-fast", without_fast),
        ("--without-capacity", without_capacity),
        ("--dry-run", dry_run),
        ("--json", json),
    ];
    arguments.extend(flags.iter().filter(|(_, given)| **given).map(|(flag, _)| OsString::from(flag)));
    programs::run_target(arguments)
}
