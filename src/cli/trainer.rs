//! The trainer that `add` starts beside a volume and `del` stops. One that a service manager runs is
//! left alone: only what is noted in the volume's run directory is stopped.

use std::fs;

use anyhow::{Context, bail};
use forerun::config::{Paths, VolumeName, replace_file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{launch, programs};

/// Starts a volume's trainer in the background, unless the one noted is still there.
///
/// # Errors
/// It cannot be found or started.
pub fn start(paths: &Paths, volume: &VolumeName) -> anyhow::Result<()> {
    let program = programs::find(programs::TRAINER)?;
    if running(paths, volume).is_some() {
        return Ok(());
    }
    let files = paths.volume(volume);
    let pid = launch::start_beside(&program, &["run", volume.as_str()], &files.trainer_log())?;
    replace_file(&files.trainer_pid(), format!("{pid}\n").as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", files.trainer_pid().display()))
}

/// Stops a volume's trainer, where `start` started one; it stores what it has learned.
///
/// # Errors
/// It may not be signalled.
pub fn stop(paths: &Paths, volume: &VolumeName) -> anyhow::Result<()> {
    if let Some(pid) = running(paths, volume)
        && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        && error != nix::errno::Errno::ESRCH
    {
        bail!("cannot stop the trainer, process {pid}: {error}");
    }
    let _ = fs::remove_file(paths.volume(volume).trainer_pid());
    Ok(())
}

/// The noted trainer's process, if it is one still and not another that got its number.
fn running(paths: &Paths, volume: &VolumeName) -> Option<i32> {
    let text = fs::read_to_string(paths.volume(volume).trainer_pid()).ok()?;
    let pid: i32 = text.trim().parse().ok().filter(|pid| *pid > 1)?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let is_trainer = words.first()?.ends_with(programs::TRAINER.as_bytes());
    (is_trainer && words.contains(&volume.as_str().as_bytes())).then_some(pid)
}
