//! What each command does.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::answer::Answer;
use super::args::{AddArgs, Command, RecoverArgs};
use super::pid_file::{PidFile, RUN_DIR, TARGET_NAME};
use super::{Source, hygiene, log, mounts, signals};
use crate::device::{self, DeviceError, DeviceInfo, ReadyResult, Stop, Stopped};

/// Does a command.
pub(super) fn command(command: Command, source: &impl Source) -> anyhow::Result<()> {
    match command {
        Command::Offline(_) => bail!("this command needs no device"),
        Command::Add(args) => add(&args, source),
        Command::Recover(args) => recover(&args, source),
        Command::List { id, verbose } => list(id, verbose),
        Command::Del { id: Some(id), force, .. } => del(id, force),
        Command::Del { id: None, force, .. } => del_all(force),
    }
}

fn add<S: Source>(args: &AddArgs, source: &S) -> anyhow::Result<()> {
    let mut answer = Answer::take(args.eventfd).context("--eventfd")?;
    let shown = args.shown();
    let stop = prepare(answer.is_wanted(), source, &shown)?;
    if let Some(other) = args.target_type.as_deref().filter(|name| *name != TARGET_NAME) {
        bail!("this serves devices of type {TARGET_NAME}, not {other}");
    }
    // Looked at before the volume is opened, which changes it.
    device::check_driver()?;
    if let Ok(id) = u32::try_from(args.id)
        && Path::new(&format!("/dev/ublkc{id}")).exists()
    {
        // The driver would say so too, but only after the volume has been opened.
        return Err(DeviceError::IdInUse(id).into());
    }
    let backend = source.open(&shown, false)?;
    let run = |ready: &mut dyn FnMut(&DeviceInfo) -> ReadyResult| {
        device::run(&args.device_options(), Arc::clone(&backend), &stop, ready)
    };
    let result = serve(source, &backend, &shown, &mut answer, run);
    finish(source, backend, result)
}

fn recover<S: Source>(args: &RecoverArgs, source: &S) -> anyhow::Result<()> {
    let mut answer = Answer::take(args.eventfd).context("--eventfd")?;
    let file = PidFile::read(Path::new(RUN_DIR), args.id)?;
    let stop = prepare(answer.is_wanted(), source, &file.volume)?;
    let backend = source.open(&file.volume, true)?;
    let run = |ready: &mut dyn FnMut(&DeviceInfo) -> ReadyResult| {
        device::recover(args.id, Arc::clone(&backend), &stop, ready)
    };
    let result = serve(source, &backend, &file.volume, &mut answer, run);
    finish(source, backend, result)
}

/// Makes this process one that may serve a device; before it has other threads.
fn prepare(daemon: bool, source: &impl Source, volume: &str) -> anyhow::Result<Stop> {
    if daemon {
        log::to_syslog();
        hygiene::leave_session();
    } else {
        log::to_stderr();
    }
    hygiene::protect();
    mounts::take_own(&source.paths(volume));
    let taken = signals::block(daemon).context("blocking signals")?;
    let stop = Stop::default();
    signals::take(taken, stop.clone()).context("starting the thread that takes signals")?;
    PidFile::remove_stale(Path::new(RUN_DIR), |id| Path::new(&format!("/dev/ublkc{id}")).exists());
    Ok(stop)
}

/// Serves a device; its pid file is there as long as it is, and before anybody is told of it.
fn serve<S: Source>(
    source: &S,
    backend: &Arc<S::Backend>,
    volume: &str,
    answer: &mut Answer,
    run: impl FnOnce(&mut dyn FnMut(&DeviceInfo) -> ReadyResult) -> Result<Stopped, DeviceError>,
) -> Result<Stopped, DeviceError> {
    let run_dir = Path::new(RUN_DIR);
    run(&mut |info| {
        source.ready(backend, info)?;
        PidFile::of(info, volume)?.write(run_dir, info.id)?;
        if answer.is_wanted() {
            answer.there_is(info.id).inspect_err(|_| PidFile::remove(run_dir, info.id))?;
        } else {
            announce(info)?;
        }
        Ok(())
    })
}

/// Prints the device, for whoever started this by hand.
fn announce(info: &DeviceInfo) -> anyhow::Result<()> {
    let entry = device::list_one(info.id)?;
    let granted = device::feature_names(info.granted_flags).join(" ");
    let mut text = format!("{entry}\n\tdata path: {}; features: {granted}\n", info.data_path);
    if !info.not_granted.is_empty() {
        text += &format!("\tnot granted by this kernel: {}\n", info.not_granted.join(" "));
    }
    print(&text)
}

/// Closes the volume, and only then lets go of the device: who deletes it waits for that.
fn finish<S: Source>(
    source: &S,
    backend: Arc<S::Backend>,
    result: Result<Stopped, DeviceError>,
) -> anyhow::Result<()> {
    let closed = source.close(backend);
    let stopped = match result {
        Ok(stopped) => stopped,
        Err(error) => {
            if let Err(error) = closed {
                tracing::error!(%error, "closing the volume");
            }
            return Err(error.into());
        }
    };
    let id = stopped.id();
    PidFile::remove(Path::new(RUN_DIR), id);
    let released = stopped.release();
    closed.context("closing the volume")?;
    released?;
    tracing::info!(id, "the device is gone");
    Ok(())
}

fn list(id: Option<u32>, verbose: bool) -> anyhow::Result<()> {
    let devices = match id {
        Some(id) => vec![device::list_one(id)?],
        None => device::list()?,
    };
    let mut text = String::new();
    for entry in devices {
        text += &format!("{entry}\n");
        match PidFile::read(Path::new(RUN_DIR), entry.id) {
            Ok(file) => {
                text += &format!("\ttarget {}\n", file.json["target"]);
                if verbose {
                    text += &format!("\tqueues {}\n", file.json["queues"]);
                }
            }
            Err(error) => tracing::debug!(%error, "a device without a pid file of ours"),
        }
    }
    print(&text)
}

/// Prints to standard output; a reader that has seen enough (`| head -1`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

fn del(id: u32, force: bool) -> anyhow::Result<()> {
    device::delete(id, force)?;
    // Its process has removed it in most cases; one that died cannot.
    PidFile::remove_stale(Path::new(RUN_DIR), |other| other != id);
    Ok(())
}

fn del_all(force: bool) -> anyhow::Result<()> {
    let mut failed = 0;
    for entry in device::list()? {
        if PidFile::read(Path::new(RUN_DIR), entry.id).is_err() {
            continue;
        }
        if let Err(error) = del(entry.id, force) {
            eprintln!("device {}: {error:#}", entry.id);
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} devices were not deleted");
    }
    Ok(())
}
