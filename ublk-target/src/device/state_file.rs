//! libublk's own note about a device, which it reads when it is given one that exists.
//!
//! Our notes are in the pid file (`daemon::pid_file`), which other tools can read. libublk prints a line to the
//! terminal when its note is missing, so an empty one lies there while it looks.

use std::fs;
use std::path::PathBuf;

/// A note that is removed again when this is dropped.
pub(super) struct StateFile(PathBuf);

impl StateFile {
    /// Puts an empty note there. Any other one under this id is of a device that is gone.
    pub fn placeholder(id: u32) -> Self {
        let path = PathBuf::from(libublk::ctrl::UblkCtrl::run_dir()).join(format!("{id:04}.json"));
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, "{}"));
        if let Err(error) = written {
            tracing::debug!(%error, path = %path.display(), "libublk will miss its note");
        }
        Self(path)
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "an empty note of libublk stays");
        }
    }
}
