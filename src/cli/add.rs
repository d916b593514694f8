//! `add`: start a volume, or take its device over where the caller asks for that.

use std::process::Command;

use anyhow::{anyhow, bail};
use forerun::config::{Paths, SnapshotName, VolumeConfig, VolumeName};

use super::args::{AddOptions, DeviceOptions};
use super::devices::{self, DeviceRef, DeviceState};
use super::{client, launch, programs, recover, trainer};

/// Runs the command.
pub fn run(paths: &Paths, options: &AddOptions) -> anyhow::Result<()> {
    let config = client::load_config(paths, &options.volume)?;
    let device = DeviceRef { volume: options.volume.clone(), snapshot: None };
    if let Some(record) = devices::record(paths, &device)? {
        let volume = &options.volume;
        let path = record.device_path();
        match devices::state(&record, &device) {
            DeviceState::Running => {
                bail!("volume {volume} is running already: {path}, process {}", record.pid)
            }
            DeviceState::WaitsForRecovery if options.or_recover => {
                let foreground = options.device.foreground;
                return recover::device(paths, &device, record.dev_id, foreground, options.json);
            }
            DeviceState::WaitsForRecovery => {
                return Err(anyhow!(
                    "the target of volume {volume} died and left {path} waiting; `forerun recover {volume}` takes it over"
                ));
            }
            DeviceState::Gone => {}
        }
    }
    start(paths, &options.volume, None, &options.device, options.json)?;
    start_trainer(paths, &config, options);
    Ok(())
}

fn start_trainer(paths: &Paths, config: &VolumeConfig, options: &AddOptions) {
    if options.no_trainer || !config.prediction {
        return;
    }
    if let Err(error) = trainer::start(paths, &config.name) {
        eprintln!("warning: the volume runs without predictions: {}", forerun::told(&error));
    }
}

/// Starts a volume's device, or a snapshot's, and prints its path. In the foreground it does not return.
///
/// # Errors
/// The target does not start.
pub fn start(
    paths: &Paths,
    volume: &VolumeName,
    snapshot: Option<&SnapshotName>,
    options: &DeviceOptions,
    json: bool,
) -> anyhow::Result<()> {
    let arguments = arguments(volume, snapshot, options);
    if options.foreground {
        let mut command = Command::new(programs::find(programs::TARGET)?);
        command.args(arguments);
        return Err(programs::become_target(command));
    }
    launch::start_target(&arguments, &paths.volume(volume).target_log())?.print(json)
}

/// What `ublk-target` is told to show a volume or a snapshot.
pub fn arguments(
    volume: &VolumeName,
    snapshot: Option<&SnapshotName>,
    options: &DeviceOptions,
) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["add", "-t", "forerun", "--volume", volume.as_str()].map(Into::into).into();
    let numbers = [
        ("-n", options.number.map(|number| number.to_string())),
        ("-q", options.queues.map(|number| number.to_string())),
        ("-d", options.depth.map(|number| number.to_string())),
        ("--snapshot", snapshot.map(ToString::to_string)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            arguments.extend([name.into(), value]);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_on_as_ublk_spells_them() {
        let volume = VolumeName::new("data").expect("a name");
        let snapshot = SnapshotName::new("mon").expect("a name");
        let options = DeviceOptions { number: Some(5), queues: Some(4), depth: Some(64), foreground: false };
        assert_eq!(
            arguments(&volume, Some(&snapshot), &options).join(" "),
            "add -t forerun --volume data -n 5 -q 4 -d 64 --snapshot mon"
        );
        assert_eq!(arguments(&volume, None, &DeviceOptions::default()).len(), 5);
    }
}
