//! The process around a device: command line, daemon, pid file, logs, signals.
//!
//! Started by hand it stays in the foreground. Started by the stock `ublk` tool, which runs
//! `ublk.TYPE add ... --eventfd FD` for `ublk add -t TYPE`, it keeps to that tool's contract: it leaves
//! its session, writes `/run/ublksrvd/<id>.pid`, and then 8 bytes to FD that say which device there is,
//! or that there is none. In both cases:
//!
//! - SIGINT and SIGTERM stop the device, finish what is under way, close the volume, delete the
//!   device, and end with 0;
//! - `ublk del` (or anybody's STOP_DEV) ends it the same way, and whoever stopped it deletes;
//! - SIGKILL and crashes leave a device that `recover -n N` takes over.
//!
//! Messages go to stderr, and a daemon's to syslog as well: `ublk add` itself prints nothing.

mod answer;
mod args;
mod hygiene;
mod list;
mod log;
mod mounts;
mod pid_file;
mod serve;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

pub use args::{AddArgs, Args, CheckArgs, Command, DumpArgs, Offline, RepairArgs};
pub use pid_file::{PidFile, RUN_DIR, TARGET_NAME};

use crate::device::DeviceInfo;
use crate::request::Backend;

/// What a daemon serves: how a volume is opened by its name, and closed at the end.
pub trait Source {
    /// What stands behind the device.
    type Backend: Backend;

    /// Folders and files of the volume: mounts that hold them are kept.
    fn paths(&self, volume: &str) -> Vec<PathBuf>;

    /// Opens a volume, or with `VOLUME@SNAPSHOT` a snapshot, for one device; with `take_over` for one whose
    /// last process has died.
    ///
    /// # Errors
    /// With a message that says what, where and what to do.
    fn open(&self, volume: &str, take_over: bool) -> anyhow::Result<Arc<Self::Backend>>;

    /// Called once the device is there, before anybody is told of it.
    ///
    /// # Errors
    /// What is needed to serve it cannot be had; the start is undone.
    fn ready(&self, backend: &Arc<Self::Backend>, info: &DeviceInfo) -> anyhow::Result<()>;

    /// Writes back what has to be and closes the volume; the device takes no requests any more.
    ///
    /// # Errors
    /// What could not be made durable.
    fn close(&self, backend: Arc<Self::Backend>) -> anyhow::Result<()>;
}

/// The whole program. `offline` does the commands that need no device.
pub fn main(source: &impl Source, offline: impl FnOnce(Offline) -> anyhow::Result<ExitCode>) -> ExitCode {
    crate::memory::set_up();
    let args = Args::parse();
    let result = match args.command {
        Command::Offline(command) => {
            log::to_stderr();
            offline(command)
        }
        command => serve::command(command, source).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            log::failure(&forerun::told(&error));
            ExitCode::FAILURE
        }
    }
}
