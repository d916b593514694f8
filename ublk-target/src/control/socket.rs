//! The socket's file: a directory that only its owner enters (0700), a socket that only its owner
//! opens (0600), and a left-over of a killed target replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use forerun::config::make_private_dir;

use super::server::StartError;

/// The longest path of a unix socket, in bytes; the kernel's limit without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Binds the socket at `path`, making its directory where it is missing.
///
/// # Errors
/// Another process answers on it; something else than a socket is there; no rights; a path that is
/// too long. Nothing is changed then.
pub(super) fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |action, source| StartError::Socket { path: path.into(), action, source };
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(StartError::PathTooLong { path: path.into(), limit: SOCKET_PATH_BYTES_MAX });
    }
    if let Some(directory) = path.parent() {
        make_private_dir(directory).map_err(|source| failed("make the directory of", source))?;
    }
    remove_stale(path)?;
    // Nobody else can enter the directory, so nobody connects before the mode is set.
    let listener = UnixListener::bind(path).map_err(|source| failed("bind", source))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|source| failed("set the mode of", source))?;
    listener.set_nonblocking(true).map_err(|source| failed("set up", source))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), StartError> {
    let failed = |action, source| StartError::Socket { path: path.into(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(StartError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(StartError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| failed("replace", source))
        }
        Err(error) => Err(failed("reach who serves", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_private_and_a_left_over_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/data/api.sock");
        drop(bind(&path).expect("bound"));
        assert!(path.exists(), "a dropped listener leaves its file, as a kill does");
        let _listener = bind(&path).expect("replaced");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a parent")), 0o700);
    }

    #[test]
    fn a_live_socket_and_a_plain_file_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("d/api.sock");
        let _listener = bind(&path).expect("bound");
        assert!(matches!(bind(&path), Err(StartError::InUse { .. })));
        let file = dir.path().join("d/file");
        fs::write(&file, "precious").expect("written");
        assert!(matches!(bind(&file), Err(StartError::NotASocket { .. })));
        assert_eq!(fs::read(&file).expect("read"), b"precious");
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(bind(&long), Err(StartError::PathTooLong { .. })));
    }
}
