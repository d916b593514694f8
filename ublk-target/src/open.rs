//! The one place where a volume's name becomes what stands behind its device.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use forerun::geometry::Geometry;
use ublk_target::request::{Backend, Request, RequestIo};

/// An opened volume. None can be opened yet: the volume engine takes this place.
pub enum Opened {}

impl Backend for Opened {
    fn geometry(&self) -> Geometry {
        match *self {}
    }

    fn read_only(&self) -> bool {
        match *self {}
    }

    fn fast_tier(&self) -> Option<BorrowedFd<'_>> {
        match *self {}
    }

    async fn handle<I: RequestIo>(&self, _request: Request, _io: &I) -> io::Result<()> {
        match *self {}
    }
}

/// The folders and files of a volume, whose mounts the process keeps.
pub fn volume_paths(_name: &str) -> Vec<PathBuf> {
    Vec::new()
}

/// Opens a volume by its name.
pub fn open_volume(name: &str) -> anyhow::Result<Arc<Opened>> {
    bail!("volume {name:?} cannot be opened: this build has no volume engine")
}

/// Closes a volume; its device takes no requests any more.
pub fn close_volume(_volume: Arc<Opened>) -> anyhow::Result<()> {
    Ok(())
}
