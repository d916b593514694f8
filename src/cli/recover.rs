//! `recover`: a new target for the device that a dead one left.

use std::process::Command;

use forerun::config::{DeviceRecord, Paths};

use super::args::RecoverOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::failure::Failure;
use super::{launch, output, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &RecoverOptions) -> anyhow::Result<()> {
    let (reference, record) = match (&options.which.volume, options.which.number) {
        (Some(reference), _) => (reference.clone(), devices::require(paths, reference)?),
        (None, number) => find(paths, number.unwrap_or_default())?,
    };
    let path = record.device_path();
    match devices::state(&record) {
        DeviceState::Running => {
            anyhow::bail!("{path} is served by process {}; nothing to recover", record.pid)
        }
        DeviceState::Gone => Err(Failure::NotFound(format!(
            "{path} is gone, as after a reboot; `forerun add {}` starts the volume",
            reference.volume
        ))
        .into()),
        DeviceState::WaitsForRecovery => device(paths, &reference, record.dev_id, options.foreground),
    }
}

/// Starts a target for the device `dev_id`. In the foreground it does not return.
///
/// # Errors
/// The target does not start; the device still waits then.
pub fn device(paths: &Paths, reference: &DeviceRef, dev_id: u32, foreground: bool) -> anyhow::Result<()> {
    let arguments: Vec<String> = vec!["recover".into(), "-n".into(), dev_id.to_string()];
    if foreground {
        let mut command = Command::new(programs::find(programs::TARGET)?);
        command.args(arguments);
        return Err(programs::become_target(command));
    }
    let log = paths.volume(&reference.volume).target_log();
    let (dev_id, _pid) = launch::start_target(&arguments, &log)?;
    Ok(output::text(&format!("/dev/ublkb{dev_id}\n"))?)
}

/// The volume or snapshot whose device has this number.
fn find(paths: &Paths, number: u32) -> anyhow::Result<(DeviceRef, DeviceRecord)> {
    for volume in paths.volumes()? {
        for file in paths.volume(&volume).device_files()? {
            let Some(record) = DeviceRecord::load(&file)? else { continue };
            if record.dev_id == number {
                let snapshot = record.snapshot.as_deref().map(str::parse).transpose()?;
                return Ok((DeviceRef { volume, snapshot }, record));
            }
        }
    }
    let message = format!("no volume has /dev/ublkb{number}; `forerun list` shows the volumes' devices");
    Err(Failure::NotFound(message).into())
}
