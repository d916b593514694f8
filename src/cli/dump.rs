//! `dump`: the target prints what is on the tiers; its exit code 5 says that not all could be read.

use std::ffi::OsString;

use forerun::config::Paths;

use super::args::DumpOptions;
use super::{offline, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &DumpOptions) -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = vec!["dump".into()];
    arguments.extend(offline::tiers(paths, &options.which)?);
    let DumpOptions { superblocks, journal, checkpoint, map, layers, segments, blocks, json, .. } = options;
    let chosen = [
        ("--superblocks", *superblocks),
        ("--journal", *journal),
        ("--checkpoint", *checkpoint),
        ("--map", *map),
        ("--layers", layers.is_some()),
        ("--json", *json),
    ];
    for (option, _) in chosen.iter().filter(|(_, chosen)| *chosen) {
        arguments.push(option.into());
        if let (&"--layers", Some(Some(epoch))) = (option, layers) {
            arguments.push(epoch.to_string().into());
        }
    }
    if let Some(segment) = segments {
        arguments.push("--segments".into());
        arguments.extend(segment.map(|segment| segment.to_string().into()));
    }
    if let Some(blocks) = blocks {
        arguments.extend(["--blocks".into(), blocks.into()]);
    }
    programs::run_target(arguments)
}
