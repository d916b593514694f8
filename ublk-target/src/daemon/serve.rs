//! What each command does.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::CommandFactory;

use super::answer::Answer;
use super::args::{AddArgs, Args, Command, RecoverArgs};
use super::pid_file::{PidFile, RUN_DIR, TARGET_NAME};
use super::{Source, hygiene, list, log, mounts, signals};
use crate::device::{self, DeviceInfo, Failed, Left, ReadyResult, Stop, Stopped, Users};

/// Does a command.
pub(super) fn command(command: Command, source: &impl Source) -> anyhow::Result<()> {
    match command {
        Command::Offline(_) => bail!("this command needs no device"),
        Command::Add(args) => add(&args, source),
        Command::Recover(args) => recover(&args, source),
        Command::List { id, verbose, json } => list::run(id, verbose, json),
        Command::Del { id, force, wait, .. } => {
            let users = if force { Users::Ignore } else { Users::Wait(Duration::from_secs(wait)) };
            id.map_or_else(|| del_all(users), |id| del(id, users))
        }
        Command::Help { target_type, command } => help(target_type.as_deref(), command.as_deref()),
    }
}

fn add<S: Source>(args: &AddArgs, source: &S) -> anyhow::Result<()> {
    log::for_process(args.eventfd.is_some());
    let mut answer = Answer::take(args.eventfd).context("--eventfd")?;
    let (shown, options) = (args.shown(), args.device_options());
    let stop = prepare(answer.is_wanted(), source, &shown)?;
    is_our_type(args.target_type.as_deref())?;
    // Before the volume is opened, which changes it.
    device::check(&options)?;
    let backend = source.open(&shown, false)?;
    let run = |ready: &mut dyn FnMut(&DeviceInfo) -> ReadyResult| {
        device::run(&options, Arc::clone(&backend), &stop, ready)
    };
    let result = serve(source, &backend, &shown, &mut answer, run);
    finish(source, backend, result)
}

fn recover<S: Source>(args: &RecoverArgs, source: &S) -> anyhow::Result<()> {
    log::for_process(args.eventfd.is_some());
    let mut answer = Answer::take(args.eventfd).context("--eventfd")?;
    let file = PidFile::read(Path::new(RUN_DIR), args.id)?;
    let stop = prepare(answer.is_wanted(), source, &file.volume)?;
    let backend = source.open(&file.volume, true)?;
    let run = |ready: &mut dyn FnMut(&DeviceInfo) -> ReadyResult| {
        device::recover(args.id, Arc::clone(&backend), &stop, file.not_granted(), ready)
    };
    let result = serve(source, &backend, &file.volume, &mut answer, run);
    finish(source, backend, result)
}

fn is_our_type(target_type: Option<&str>) -> anyhow::Result<()> {
    match target_type {
        Some(other) if other != TARGET_NAME => {
            bail!("this serves devices of type {TARGET_NAME}, not {other}")
        }
        _ => Ok(()),
    }
}

/// Makes this process one that may serve a device; before it has other threads.
fn prepare(daemon: bool, source: &impl Source, volume: &str) -> anyhow::Result<Stop> {
    if daemon {
        hygiene::leave_session();
    }
    hygiene::protect();
    mounts::take_own(&source.paths(volume));
    let taken = signals::block(daemon).context("blocking signals")?;
    let stop = Stop::default();
    signals::take(taken, stop.clone()).context("starting the thread that takes signals")?;
    PidFile::remove_stale(Path::new(RUN_DIR), device::exists);
    Ok(stop)
}

/// Serves a device; its pid file is there as long as it is, and before anybody is told of it.
fn serve<S: Source>(
    source: &S,
    backend: &Arc<S::Backend>,
    volume: &str,
    answer: &mut Answer,
    run: impl FnOnce(&mut dyn FnMut(&DeviceInfo) -> ReadyResult) -> Result<Stopped, Failed>,
) -> Result<Stopped, Failed> {
    let run_dir = Path::new(RUN_DIR);
    run(&mut |info| {
        source.ready(backend, info)?;
        PidFile::of(info, volume)?.write(run_dir, info.id)?;
        let told =
            if answer.is_wanted() { answer.there_is(info.id).map_err(Into::into) } else { announce(info) };
        if told.is_err() && !info.recovered {
            // The device goes again. One that was taken over waits again, and is found by the file.
            PidFile::remove(run_dir, info.id, info.pid);
        }
        Ok(told?)
    })
}

/// Prints the device, for whoever started this by hand.
fn announce(info: &DeviceInfo) -> anyhow::Result<()> {
    let entry = device::list_one(info.id)?;
    let granted = device::feature_names(info.granted_flags).join(" ");
    let mut text = format!("{entry}\n\tdata path: {}; features: {granted}\n", info.data_path);
    if !info.not_granted.is_empty() {
        text += &format!("\tnot granted by this kernel: {}\n", info.not_granted.join(", "));
    }
    print(&text)
}

/// Closes the volume, and only then lets go of the device: who deletes it waits for that.
///
/// A volume whose device is still in use is not closed: the caller ends the process, as a kill would, and what
/// was acknowledged is found by whoever takes the device over.
fn finish<S: Source>(
    source: &S,
    backend: Arc<S::Backend>,
    result: Result<Stopped, Failed>,
) -> anyhow::Result<()> {
    let stopped = match result {
        Ok(stopped) => stopped,
        Err(Failed { error, left: Left::InUse }) => {
            // Its threads and files end with the process, which ends now.
            std::mem::forget(backend);
            return Err(error.into());
        }
        Err(Failed { error, left: Left::Nothing }) => {
            if let Err(error) = source.close(backend) {
                tracing::error!(%error, "closing the volume");
            }
            return Err(error.into());
        }
    };
    let closed = source.close(backend);
    let id = stopped.id();
    PidFile::remove(Path::new(RUN_DIR), id, std::process::id() as i32);
    let released = stopped.release();
    closed.context("closing the volume")?;
    released?;
    tracing::info!(id, "the device is gone");
    Ok(())
}

/// Prints to standard output; a reader that has seen enough (`| head -1`) is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

fn del(id: u32, users: Users) -> anyhow::Result<()> {
    let run_dir = Path::new(RUN_DIR);
    let file = PidFile::read(run_dir, id);
    device::delete(id, users)?;
    // Its process has removed it in most cases; one that died cannot. By now the number may be another's.
    if let Ok(file) = file {
        PidFile::remove(run_dir, id, file.pid);
    }
    Ok(())
}

/// Deletes all devices of ours, one that fails or not.
fn del_all(users: Users) -> anyhow::Result<()> {
    let (devices, errors) = device::list()?;
    let mut failed = errors.len();
    for error in errors {
        eprintln!("ublk.{TARGET_NAME}: {error}");
    }
    for entry in devices.iter().filter(|entry| entry.ours) {
        if let Err(error) = del(entry.id, users) {
            eprintln!("ublk.{TARGET_NAME}: device {}: {}", entry.id, forerun::told(&error));
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} devices were not deleted");
    }
    Ok(())
}

/// Prints the help of everything, or of one command; with a type that of `add`, for `ublk help -t TYPE`.
fn help(target_type: Option<&str>, word: Option<&str>) -> anyhow::Result<()> {
    is_our_type(target_type)?;
    print(&help_text(word.or(target_type.map(|_| "add")))?)
}

fn help_text(word: Option<&str>) -> anyhow::Result<String> {
    let mut command = Args::command();
    command.build();
    let shown = match word {
        None => &mut command,
        Some(word) => {
            command.find_subcommand_mut(word).with_context(|| format!("there is no command {word}"))?
        }
    };
    Ok(shown.render_long_help().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use forerun::geometry::Geometry;

    use super::*;
    use crate::device::DeviceError;
    use crate::request::{Backend, Request, RequestIo};

    /// A volume that only knows whether it was closed.
    #[derive(Default)]
    struct Fake {
        closed: AtomicBool,
    }

    struct NoVolume;

    impl Backend for NoVolume {
        fn geometry(&self) -> Geometry {
            Geometry::new(64 << 20, 4096).unwrap()
        }

        fn read_only(&self) -> bool {
            false
        }

        fn fast_tier(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }

        async fn handle<I: RequestIo>(&self, _: Request, _: &I) -> io::Result<()> {
            Ok(())
        }
    }

    impl Source for Fake {
        type Backend = NoVolume;

        fn paths(&self, _: &str) -> Vec<PathBuf> {
            Vec::new()
        }

        fn open(&self, _: &str, _: bool) -> anyhow::Result<Arc<NoVolume>> {
            Ok(Arc::new(NoVolume))
        }

        fn ready(&self, _: &Arc<NoVolume>, _: &DeviceInfo) -> anyhow::Result<()> {
            Ok(())
        }

        fn close(&self, _: Arc<NoVolume>) -> anyhow::Result<()> {
            self.closed.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_volume_is_closed_only_where_nothing_serves_its_device_any_more() {
        for (left, closed) in [(Left::InUse, false), (Left::Nothing, true)] {
            let source = Fake::default();
            let failed = Failed { error: DeviceError::StoppedEarly(3), left };
            let error = finish(&source, Arc::new(NoVolume), Err(failed)).unwrap_err();
            assert!(error.to_string().contains("device 3"), "{error}");
            assert_eq!(source.closed.load(Ordering::Relaxed), closed, "{left:?}");
        }
    }

    #[test]
    fn help_is_of_all_or_of_a_command() {
        let all = help_text(None).unwrap();
        assert!(all.contains("ublk.forerun <COMMAND>") && all.contains("recover"), "{all}");
        let add = help_text(Some("add")).unwrap();
        assert!(add.contains("--volume <NAME>") && add.contains("--snapshot"), "{add}");
        assert!(help_text(Some("frobnicate")).is_err());
        assert!(help(Some("loop"), None).unwrap_err().to_string().contains("not loop"));
    }
}
