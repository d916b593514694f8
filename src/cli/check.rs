//! `check`: the target walks the tiers; its exit code 5 says that it found damage.

use std::ffi::OsString;

use anyhow::bail;
use forerun::config::Paths;

use super::args::CheckOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::{client, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &CheckOptions) -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = vec!["check".into()];
    if let Some(volume) = &options.volume {
        client::load_config(paths, volume)?;
        let device = DeviceRef { volume: volume.clone(), snapshot: None };
        if let Some(record) = devices::record(paths, &device)?
            && devices::state(&record, &device) != DeviceState::Gone
        {
            let path = record.device_path();
            bail!("volume {volume} has a device, {path}, and changes; stop it with `forerun del {volume}`");
        }
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
