//! `del`: stop a device. The volume's data and configuration stay.
//!
//! A device that is gone leaves nothing behind: its record goes, and the trainer that `add` started beside it ends,
//! whichever way it was named and whether or not the rest went well.

use anyhow::bail;
use forerun::config::Paths;

use super::args::DelOptions;
use super::devices::{self, DeviceRef, DeviceState};
use super::{programs, trainer};

/// Runs the command.
pub fn run(paths: &Paths, options: &DelOptions) -> anyhow::Result<()> {
    let users = options.about_users();
    if options.which.all {
        return delete_all(paths, users);
    }
    if let Some(reference) = &options.which.volume {
        return delete(paths, reference, users);
    }
    let number = options.which.number.unwrap_or_default();
    // Asked before: its target removes what it has noted.
    let mut shown: Vec<DeviceRef> = devices::shown_by(number).into_iter().collect();
    let deleted = run_target(number, users);
    let recorded = devices::all_records(paths)?.into_iter().filter(|(_, record)| record.dev_id == number);
    shown.extend(recorded.map(|(reference, _)| reference));
    for reference in shown {
        tidy(paths, &reference)?;
    }
    deleted
}

fn delete(paths: &Paths, reference: &DeviceRef, users: Vec<String>) -> anyhow::Result<()> {
    let record = devices::require(paths, reference)?;
    // A record that a reboot or a kill left over names a device that may be another's by now.
    if devices::state(&record, reference) != DeviceState::Gone {
        run_target(record.dev_id, users)?;
    }
    tidy(paths, reference)
}

fn delete_all(paths: &Paths, users: Vec<String>) -> anyhow::Result<()> {
    let deleted = programs::run_target(["del", "-a"].map(str::to_owned).into_iter().chain(users));
    let mut problems = 0;
    let volumes = paths.volumes()?.into_iter().map(|volume| DeviceRef { volume, snapshot: None });
    let recorded = devices::all_records(paths)?.into_iter().map(|(reference, _)| reference);
    for reference in volumes.chain(recorded) {
        if let Err(error) = tidy(paths, &reference) {
            eprintln!("error: {reference}: {}", forerun::told(&error));
            problems += 1;
        }
    }
    deleted?;
    if problems > 0 {
        bail!("{problems} of them left something behind");
    }
    Ok(())
}

fn run_target(number: u32, users: Vec<String>) -> anyhow::Result<()> {
    programs::run_target(["del".to_owned(), "-n".to_owned(), number.to_string()].into_iter().chain(users))
}

/// Removes what is noted about a volume's or snapshot's device, and stops the volume's trainer, if it is gone.
fn tidy(paths: &Paths, reference: &DeviceRef) -> anyhow::Result<()> {
    // A record that cannot be read is of no use to anybody.
    if let Ok(Some(record)) = devices::record(paths, reference)
        && devices::state(&record, reference) != DeviceState::Gone
    {
        return Ok(());
    }
    devices::forget(paths, reference);
    if reference.snapshot.is_none() {
        trainer::stop(paths, &reference.volume)?;
    }
    Ok(())
}
