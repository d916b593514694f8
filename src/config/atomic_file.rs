//! Replacing a small file so that a crash leaves the old content or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Gives the file at `path` this content and mode, durably: a temporary file beside it is written and
/// synchronised, renamed over it, and the directory is synchronised.
///
/// A crash at any point leaves the old file or the new one whole, and perhaps `<path>.new`, which
/// the next call replaces. Two callers at once: one of the two contents stays.
///
/// # Errors
/// The directory is missing, full or not writable; the old file is then as it was.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (Some(directory), Some(file_name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let mut temporary_name = OsString::from(file_name);
    temporary_name.push(".new");
    let temporary = directory.join(temporary_name);
    // A left-over may have another mode or owner: start from nothing.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let result = write_and_rename(&temporary, path, content, mode);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result?;
    File::open(directory)?.sync_all()
}

fn write_and_rename(temporary: &Path, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(dir.path().join("file.new"), "left over").expect("written");
        replace_file(&path, b"one", 0o600).expect("stored");
        replace_file(&path, b"two", 0o640).expect("stored");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = replace_file(&dir.path().join("none/file"), b"", 0o600).expect_err("no directory");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(replace_file(Path::new("/"), b"", 0o600).is_err());
    }
}
