//! Which errors say that what was written is not there any more, and which that something else is wrong.

use std::io;

use nix::errno::Errno;

use super::error::CapacityError;
use super::plain_file::OTHER_KIND;

/// Whether an error is about the medium: a sector that cannot be read, or something that is no object at all (a link, a
/// FIFO, a HEAD longer than any).
pub(super) fn is_of_the_medium(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == OTHER_KIND
        || matches!(
            errno,
            Some(Errno::EIO | Errno::ENODATA | Errno::EREMOTEIO | Errno::EILSEQ | Errno::EUCLEAN)
        )
}

/// Whether an error means that an object is missing, unreadable or not as it was written.
pub(super) fn is_damage(error: &CapacityError) -> bool {
    match error {
        CapacityError::Io { source, .. } if is_of_the_medium(source) => true,
        other => other.is_corrupt() || other.is_not_found(),
    }
}
