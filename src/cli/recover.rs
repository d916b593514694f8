//! `recover`: a new target for the device that a dead one left.

use std::process::Command;

use forerun::config::{DeviceRecord, Paths};

use super::args::RecoverOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::failure::Failure;
use super::{launch, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &RecoverOptions) -> anyhow::Result<()> {
    let (reference, record) = match (&options.which.volume, options.which.number) {
        (Some(reference), _) => (reference.clone(), devices::require(paths, reference)?),
        (None, number) => find(paths, number.unwrap_or_default())?,
    };
    let path = record.device_path();
    match devices::state(&record, &reference) {
        DeviceState::Running => {
            anyhow::bail!("{path} is served by process {}; nothing to recover", record.pid)
        }
        DeviceState::Gone => Err(Failure::NotFound(format!(
            "{path} is gone, as after a reboot; `forerun add {}` starts the volume",
            reference.volume
        ))
        .into()),
        DeviceState::WaitsForRecovery => {
            device(paths, &reference, record.dev_id, options.foreground, options.json)
        }
    }
}

/// Starts a target for the device `dev_id`. In the foreground it does not return.
///
/// # Errors
/// The target does not start; the device still waits then.
pub fn device(
    paths: &Paths,
    reference: &DeviceRef,
    dev_id: u32,
    foreground: bool,
    json: bool,
) -> anyhow::Result<()> {
    let arguments: Vec<String> = vec!["recover".into(), "-n".into(), dev_id.to_string()];
    if foreground {
        let mut command = Command::new(programs::find(programs::TARGET)?);
        command.args(arguments);
        return Err(programs::become_target(command));
    }
    let log = paths.volume(&reference.volume).target_log();
    launch::start_target(&arguments, &log)?.print(json)
}

/// The volume or snapshot whose device has this number.
fn find(paths: &Paths, number: u32) -> anyhow::Result<(DeviceRef, DeviceRecord)> {
    let mut found = None;
    for (reference, record) in devices::all_records(paths)? {
        if record.dev_id == number {
            // One that was left over may name the same number.
            if devices::state(&record, &reference) != DeviceState::Gone {
                return Ok((reference, record));
            }
            found = Some((reference, record));
        }
    }
    let message = format!("no volume has /dev/ublkb{number}; `forerun list` shows the volumes' devices");
    found.ok_or_else(|| Failure::NotFound(message).into())
}
