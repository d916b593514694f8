//! Opening what should be a plain file in a directory that others may write to.
//!
//! A capacity directory is often shared, or copied back by hand. Whoever can write to it can destroy the volume's
//! history; they shall not get the target to write to another file (a link), nor to wait for ever (a FIFO).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Flags that lead to no other file and wait for nobody.
const NOT_ELSEWHERE: i32 = O_NOFOLLOW | O_NONBLOCK;

/// What kind of error says that something else is there.
pub const OTHER_KIND: io::ErrorKind = io::ErrorKind::InvalidData;

fn other() -> io::Error {
    io::Error::new(OTHER_KIND, "it is a link or no regular file; nothing in a capacity tier is")
}

/// What `O_NOFOLLOW` says of a link, and `O_NONBLOCK` of a socket, said in words.
fn named(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP | Errno::ENXIO | Errno::EISDIR) => other(),
        _ => error,
    }
}

/// Opens a file to read, by io_uring.
pub async fn open(path: &Path) -> io::Result<tokio_uring::fs::File> {
    let mut options = tokio_uring::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(NOT_ELSEWHERE).open(path).await.map_err(named)?;
    // The open file itself is asked, whatever the name leads to by now; its inode is in memory.
    if fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?.is_file() {
        return Ok(file);
    }
    file.close().await?;
    Err(other())
}

/// Opens a file to read and, with `write`, to write, and makes it then where it is missing.
pub fn open_now(path: &Path, write: bool) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).create(write).truncate(false).custom_flags(NOT_ELSEWHERE);
    let file = options.open(path).map_err(named)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(other()) }
}
