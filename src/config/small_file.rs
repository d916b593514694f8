//! Reading a small file that somebody else may have put there.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// The content of the regular file at `path`, of at most `limit_bytes` bytes.
///
/// It waits for nobody (a FIFO) and takes no more memory than that (a device, a file that grows).
///
/// # Errors
/// It cannot be opened or read, is no regular file, or is longer.
pub fn read_small_file(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        let message = format!("it has more than {limit_bytes} bytes, the most that such a file has");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_never_end_and_never_begin_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, [7; 100]).expect("written");
        assert_eq!(read_small_file(&path, 100).expect("short enough"), [7; 100]);
        assert_eq!(read_small_file(&path, 99).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(read_small_file(&fifo, 100).expect_err("a FIFO").kind(), io::ErrorKind::InvalidInput);
        let zeros = dir.path().join("zeros");
        std::os::unix::fs::symlink("/dev/zero", &zeros).expect("made");
        assert_eq!(read_small_file(&zeros, 100).expect_err("a device").kind(), io::ErrorKind::InvalidInput);
        let none = read_small_file(&dir.path().join("none"), 100).expect_err("nothing there");
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
