//! A directory that only its owner enters.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes `directory` (mode 0700) where it is missing, and its parents (0755); one that is there becomes 0700.
///
/// # Errors
/// It cannot be made; or what is there is no directory (a link to one included), or is another user's, who could put
/// into it what is then believed.
pub fn make_private_dir(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let there = fs::symlink_metadata(directory)?;
    let refused = |why: &str| {
        let message = format!("{} {why}; move it away", directory.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    };
    if !there.is_dir() {
        return refused("is no directory");
    }
    if there.uid() != 0 && there.uid() != nix::unistd::geteuid().as_raw() {
        return refused("is another user's");
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_directory_of_ones_own_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let own = dir.path().join("run/data");
        make_private_dir(&own).expect("made");
        assert_eq!(mode(&own), 0o700);
        fs::set_permissions(&own, Permissions::from_mode(0o777)).expect("opened up");
        make_private_dir(&own).expect("there");
        assert_eq!(mode(&own), 0o700);
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        fs::set_permissions(&own, Permissions::from_mode(0o755)).expect("opened up");
        symlink(&own, &link).expect("made");
        fs::write(&file, "").expect("made");
        for other in [&link, &file] {
            assert_eq!(
                make_private_dir(other).expect_err("no directory").kind(),
                io::ErrorKind::PermissionDenied
            );
        }
        assert_eq!(mode(&own), 0o755, "nothing is changed through a link");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(65534), None).expect("given away");
            let error = make_private_dir(&own).expect_err("another's").to_string();
            assert!(error.contains("another user's"), "{error}");
        }
    }
}
