//! The driver's features: which are asked for, and which were granted.
//!
//! A driver clears flags that it does not know without a word, so what was asked is always compared
//! to what came back.

use libublk::sys;

use super::options::{DataPath, ZeroCopy};

/// Taking a device over from a process that died, and doing again what it had under way.
pub(super) const RECOVERY: u64 = (sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE) as u64;
/// Requests' pages registered with the ring, and a way to copy to and from them (`put`, `get`).
pub(super) const ZERO_COPY: u64 = (sys::UBLK_F_AUTO_BUF_REG | sys::UBLK_F_USER_COPY) as u64;

const NAMES: [(u32, &str); 20] = [
    (sys::UBLK_F_SUPPORT_ZERO_COPY, "ZERO_COPY"),
    (sys::UBLK_F_URING_CMD_COMP_IN_TASK, "COMP_IN_TASK"),
    (sys::UBLK_F_NEED_GET_DATA, "NEED_GET_DATA"),
    (sys::UBLK_F_USER_RECOVERY, "USER_RECOVERY"),
    (sys::UBLK_F_USER_RECOVERY_REISSUE, "USER_RECOVERY_REISSUE"),
    (sys::UBLK_F_UNPRIVILEGED_DEV, "UNPRIVILEGED_DEV"),
    (sys::UBLK_F_CMD_IOCTL_ENCODE, "CMD_IOCTL_ENCODE"),
    (sys::UBLK_F_USER_COPY, "USER_COPY"),
    (sys::UBLK_F_ZONED, "ZONED"),
    (sys::UBLK_F_USER_RECOVERY_FAIL_IO, "USER_RECOVERY_FAIL_IO"),
    (sys::UBLK_F_UPDATE_SIZE, "UPDATE_SIZE"),
    (sys::UBLK_F_AUTO_BUF_REG, "AUTO_BUF_REG"),
    (sys::UBLK_F_QUIESCE, "QUIESCE"),
    (sys::UBLK_F_PER_IO_DAEMON, "PER_IO_DAEMON"),
    (sys::UBLK_F_BUF_REG_OFF_DAEMON, "BUF_REG_OFF_DAEMON"),
    (sys::UBLK_F_BATCH_IO, "BATCH_IO"),
    (sys::UBLK_F_INTEGRITY, "INTEGRITY"),
    (sys::UBLK_F_SAFE_STOP_DEV, "SAFE_STOP_DEV"),
    (sys::UBLK_F_NO_AUTO_PART_SCAN, "NO_AUTO_PART_SCAN"),
    (sys::UBLK_F_SHMEM_ZC, "SHMEM_ZC"),
];

/// The flags to ask of a driver that says it has `features`.
///
/// USER_COPY alone would be dearer than plain copying, so it is asked for only together with
/// AUTO_BUF_REG. Recovery is asked for in any case: the answer then says that it is missing.
pub(super) fn to_ask(zero_copy: ZeroCopy, features: u64) -> u64 {
    match zero_copy {
        ZeroCopy::Never => RECOVERY,
        ZeroCopy::WherePossible if features & ZERO_COPY != ZERO_COPY => RECOVERY,
        ZeroCopy::WherePossible | ZeroCopy::Required => RECOVERY | ZERO_COPY,
    }
}

/// Whether a driver that says it has `features` can change the size of a device; it asks no device's flags.
pub(super) fn can_resize(features: u64) -> bool {
    features & u64::from(sys::UBLK_F_UPDATE_SIZE) != 0
}

/// How data moves on a device with these flags.
pub(super) fn data_path(granted: u64) -> DataPath {
    if granted & ZERO_COPY == ZERO_COPY { DataPath::ZeroCopy } else { DataPath::Copy }
}

/// Whether a driver that says it has `features` can do what is required.
pub(super) fn has_required(zero_copy: ZeroCopy, features: u64) -> bool {
    zero_copy != ZeroCopy::Required || features & ZERO_COPY == ZERO_COPY
}

/// The names of what was wanted and not granted; `queues` are those asked for and those that came.
pub(super) fn not_granted(zero_copy: ZeroCopy, granted: u64, queues: (u16, u16)) -> Vec<String> {
    // USER_COPY is no gain of its own: it is not missed where there is nothing to go with it.
    let auto = u64::from(sys::UBLK_F_AUTO_BUF_REG);
    let wanted = match zero_copy {
        ZeroCopy::Never => RECOVERY,
        _ if granted & auto == 0 => RECOVERY | auto,
        _ => RECOVERY | ZERO_COPY,
    };
    let mut missing: Vec<String> = names(wanted & !granted).into_iter().map(str::to_owned).collect();
    if queues.1 < queues.0 {
        missing.push(format!("{} queues (it has {}: no more than CPUs)", queues.0, queues.1));
    }
    missing
}

/// The names of the features in `flags`, without the ones we do not know.
#[must_use]
pub fn names(flags: u64) -> Vec<&'static str> {
    NAMES.iter().filter(|(flag, _)| flags & u64::from(*flag) != 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_gets_no_user_copy() {
        let old = 0x1fe;
        assert_eq!(to_ask(ZeroCopy::WherePossible, old), RECOVERY);
        assert_eq!(to_ask(ZeroCopy::Required, old), RECOVERY | ZERO_COPY);
        assert_eq!(to_ask(ZeroCopy::WherePossible, 0x1f_ffff), RECOVERY | ZERO_COPY);
        assert_eq!(to_ask(ZeroCopy::Never, 0x1f_ffff), RECOVERY);
    }

    #[test]
    fn fewer_queues_than_asked_for_are_said() {
        assert_eq!(
            not_granted(ZeroCopy::Never, RECOVERY, (4, 2)),
            ["4 queues (it has 2: no more than CPUs)"]
        );
    }

    #[test]
    fn what_is_required_is_known_before_anything_is_made() {
        assert!(!has_required(ZeroCopy::Required, 0x1fe) && has_required(ZeroCopy::Required, 0x1f_ffff));
        assert!(has_required(ZeroCopy::WherePossible, 0x1fe) && has_required(ZeroCopy::Never, 0));
    }

    #[test]
    fn what_is_missing_has_a_name() {
        let not_granted = |zero_copy, granted| not_granted(zero_copy, granted, (2, 2));
        assert_eq!(not_granted(ZeroCopy::WherePossible, RECOVERY | 0x42), ["AUTO_BUF_REG"]);
        let auto = RECOVERY | u64::from(sys::UBLK_F_AUTO_BUF_REG);
        assert_eq!(not_granted(ZeroCopy::WherePossible, auto), ["USER_COPY"]);
        assert_eq!(not_granted(ZeroCopy::Never, RECOVERY), Vec::<String>::new());
        assert_eq!(data_path(RECOVERY | ZERO_COPY), DataPath::ZeroCopy);
        assert_eq!(data_path(RECOVERY | u64::from(sys::UBLK_F_USER_COPY)), DataPath::Copy);
    }
}
