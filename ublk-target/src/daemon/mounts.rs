//! A mount namespace of our own, without filesystems that live on ublk devices.
//!
//! A process that shares its mounts with the users of its device can be the last to hold a filesystem
//! on it: its own exit then has to unmount it, writes to the device that it no longer serves, and
//! waits for itself. So it takes a copy of the mounts, to which unmounts of others still come (slave, not
//! private: else a filesystem unmounted outside would stay busy in here), and lets go of what is
//! mounted from ublk devices, unless the volume's own files are there.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Takes the copy. Before any thread starts; it is a precaution, and what fails is only said.
pub(super) fn take_own(keep: &[PathBuf]) {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
        tracing::warn!(%error, "no mount namespace of its own: unmount the device before ending this process");
        return;
    }
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    if let Err(error) = mount(None::<&str>, "/", None::<&str>, slave, None::<&str>) {
        tracing::warn!(%error, "mounts could not be made slaves: none is let go of");
        return;
    }
    let keep: Vec<PathBuf> = keep.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    // The last mounted first: one may lie on another.
    for place in on_ublk(&table).iter().rev() {
        if keep.iter().any(|kept| kept.starts_with(place)) {
            continue;
        }
        if let Err(error) = umount2(place, MntFlags::MNT_DETACH) {
            tracing::debug!(%error, place = %place.display(), "a mount is kept");
        }
    }
}

/// Where ublk devices are mounted, by the text of `mountinfo`.
fn on_ublk(table: &str) -> Vec<PathBuf> {
    let place = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let source = filesystem.split(' ').nth(1)?;
        let place = mount.split(' ').nth(4)?;
        source.starts_with("/dev/ublkb").then(|| Path::new(&unescape(place)).to_owned())
    };
    table.lines().filter_map(place).collect()
}

/// Turns `\040` and its like back into what they stand for.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part
            .split_at_checked(3)
            .and_then(|(code, rest)| Some((u8::from_str_radix(code, 8).ok()?, rest)))
        {
            Some((byte, rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ublk_devices_are_found() {
        let table = "22 1 0:21 / / rw - ext4 /dev/vda rw\n\
                     30 22 259:0 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/ublkb0 rw\n\
                     31 22 259:1 / /mnt/c rw - xfs /dev/ublkb12p1 rw\n\
                     32 22 0:5 / /dev rw - devtmpfs udev rw\nnonsense\n";
        assert_eq!(on_ublk(table), [Path::new("/mnt/a b"), Path::new("/mnt/c")]);
        assert_eq!(unescape("a\\134b\\x"), "a\\b\\x");
    }
}
