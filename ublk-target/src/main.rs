//! The process that serves one volume as a block device; also installed as `ublk.forerun`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ublk_target::daemon::{self, Source};

mod open;

struct Volumes;

impl Source for Volumes {
    type Backend = open::Opened;

    fn paths(&self, volume: &str) -> Vec<PathBuf> {
        open::volume_paths(volume)
    }

    fn open(&self, volume: &str) -> anyhow::Result<Arc<Self::Backend>> {
        open::open_volume(volume)
    }

    fn close(&self, backend: Arc<Self::Backend>) -> anyhow::Result<()> {
        open::close_volume(backend)
    }
}

fn main() -> ExitCode {
    daemon::main(&Volumes)
}
