//! `check`: the target walks the tiers; its exit code 5 says that it found damage.

use std::ffi::OsString;

use super::args::CheckOptions;
use super::programs;

/// Runs the command.
pub fn run(options: &CheckOptions) -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = vec!["check".into()];
    if let Some(volume) = &options.volume {
        arguments.extend(["--volume".into(), volume.as_str().into()]);
    }
    if let Some(fast) = &options.fast {
        arguments.extend(["--fast".into(), fast.into()]);
    }
    if let Some(capacity) = &options.capacity {
        arguments.extend(["--capacity".into(), capacity.into()]);
    }
    if options.json {
        arguments.push("--json".into());
    }
    programs::run_target(arguments)
}
