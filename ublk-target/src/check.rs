//! `check`: prints what the check of a volume that is not in use found.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forerun::config::{Paths, VolumeConfig, VolumeName};
use ublk_target::daemon::CheckArgs;
use ublk_target::offline::check::{Places, Progress, check};

/// The exit code that says: there is damage.
pub const DAMAGED: u8 = 5;
/// The line of progress is written anew this often, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Checks what the arguments name and prints what was found.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let places = match &args.volume {
        Some(volume) => Places::of(&config(volume)?),
        None => Places { fast: args.fast.clone(), capacity: args.capacity.clone(), volume: None },
    };
    let mut progress = Terminal::new();
    let outcome = check(&places, &mut progress);
    drop(progress);
    let outcome = outcome?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", outcome.json())?;
    } else {
        out.write_all(outcome.text().as_bytes())?;
    }
    Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

/// The configuration of a volume of this machine.
pub fn config(volume: &str) -> anyhow::Result<VolumeConfig> {
    let volume = VolumeName::new(volume)?;
    Ok(VolumeConfig::load(&volume, &Paths::from_env().volume(&volume))?)
}

/// One line on standard error that is written over and over, if that is a terminal.
pub struct Terminal {
    shown: Option<Instant>,
    is_terminal: bool,
    wrote: bool,
}

impl Terminal {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        Self { shown: None, is_terminal: io::stderr().is_terminal(), wrote: false }
    }
}

impl Progress for Terminal {
    fn step(&mut self, what: &'static str, done: u64, all: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_EVERY);
        if self.is_terminal && (due || done == all) {
            self.shown = Some(Instant::now());
            self.wrote = true;
            // Whoever does not see it misses nothing.
            let _ = write!(io::stderr(), "\r\x1b[K{done} of {all} {what}");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.wrote {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
