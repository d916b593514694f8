//! The process that serves one volume as a block device; also installed as `ublk.forerun`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ublk_target::daemon::{self, Offline, Source};
use ublk_target::device::DeviceInfo;

mod check;
mod dump;
mod open;
mod repair;
mod restore;

struct Volumes;

impl Source for Volumes {
    type Backend = open::Served;

    fn paths(&self, volume: &str) -> Vec<PathBuf> {
        open::paths(volume)
    }

    fn open(&self, volume: &str, take_over: bool) -> anyhow::Result<Arc<Self::Backend>> {
        open::open(volume, take_over).map(Arc::new)
    }

    fn ready(&self, backend: &Arc<Self::Backend>, info: &DeviceInfo) -> anyhow::Result<()> {
        backend.ready(info)
    }

    fn close(&self, backend: Arc<Self::Backend>) -> anyhow::Result<()> {
        backend.close()
    }
}

fn offline(command: Offline) -> anyhow::Result<ExitCode> {
    match command {
        Offline::Create { config_file } => open::create(&config_file).map(|()| ExitCode::SUCCESS),
        Offline::Look { capacity } => restore::look(&capacity),
        Offline::Restore { config_file, fence } => restore::run(&config_file, fence),
        Offline::Clone { config_file, origin, snapshot } => restore::clone(&config_file, &origin, &snapshot),
        Offline::Forget { capacity, clone, force } => restore::forget(&capacity, clone, force),
        Offline::Check(args) => check::run(&args),
        Offline::Dump(args) => dump::run(&args),
        Offline::Repair(args) => repair::run(&args),
    }
}

fn main() -> ExitCode {
    daemon::main(&Volumes, offline)
}
