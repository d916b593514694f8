//! `del`: stop a device. The volume's data and configuration stay.

use std::fs;

use forerun::config::Paths;

use super::args::DelOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::{programs, trainer};

/// Runs the command.
pub fn run(paths: &Paths, options: &DelOptions) -> anyhow::Result<()> {
    if options.all {
        programs::run_target(["del", "-a"])?;
        for volume in paths.volumes()? {
            trainer::stop(paths, &volume)?;
        }
        return Ok(());
    }
    if let Some(reference) = &options.volume {
        return delete(paths, reference);
    }
    programs::run_target(["del".to_owned(), "-n".to_owned(), options.number.unwrap_or_default().to_string()])
}

fn delete(paths: &Paths, reference: &DeviceRef) -> anyhow::Result<()> {
    let record = devices::require(paths, reference)?;
    // A record that a reboot or a kill left over names a device that may be another's by now.
    if devices::state(&record) != DeviceState::Gone {
        programs::run_target(["del".to_owned(), "-n".to_owned(), record.dev_id.to_string()])?;
    }
    if devices::state(&record) == DeviceState::Gone {
        let _ = fs::remove_file(paths.volume(&reference.volume).device_file(reference.snapshot.as_ref()));
    }
    if reference.snapshot.is_none() {
        trainer::stop(paths, &reference.volume)?;
    }
    Ok(())
}
