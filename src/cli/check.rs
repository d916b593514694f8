//! `check`: the target walks the tiers; its exit code 5 says that it found damage.

use std::ffi::OsString;

use forerun::config::Paths;

use super::args::CheckOptions;
use super::{offline, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &CheckOptions) -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = vec!["check".into()];
    arguments.extend(offline::tiers(paths, &options.which)?);
    if options.json {
        arguments.push("--json".into());
    }
    programs::run_target(arguments)
}
