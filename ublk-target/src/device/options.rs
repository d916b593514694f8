//! What a device is asked to be, and what it became.

use std::fmt;
use std::time::Duration;

use forerun::geometry::Geometry;

use super::error::DeviceError;

/// The most queues a device may have.
pub const MAX_QUEUES: u16 = 64;
/// The most requests a queue may have under way at once.
pub const MAX_DEPTH: u16 = 1024;
/// The sizes a request's data may be limited to, in bytes: the least, and the most.
pub const IO_BUFFER_BYTES: (u32, u32) = (64 * 1024, 1024 * 1024);
/// How long a device may take to start before the start is given up.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a stop waits for the requests under way; those that are not answered then fail.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a delete waits for those who have the device open.
pub const DELETE_LIMIT: Duration = Duration::from_secs(10);
/// How long a delete waits for the device's target, which closes the volume first: on a store that is slow or gone that takes a
/// while.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(150);

/// Whether requests' data is copied between the kernel and this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroCopy {
    /// Not where the kernel can do without, and said which it was.
    #[default]
    WherePossible,
    /// Never copied; a kernel that cannot is refused.
    Required,
    /// Always copied.
    Never,
}

/// What a device is asked to be.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The device's number N in `/dev/ublkbN`; `None` for the first free one.
    pub id: Option<u32>,
    /// Queues, each with a thread and a ring: 1 to [`MAX_QUEUES`]; the driver takes no more than CPUs.
    pub queues: u16,
    /// Requests under way at once in each queue: 1 to [`MAX_DEPTH`].
    pub depth: u16,
    /// The most data a request has, in bytes: a power of two within [`IO_BUFFER_BYTES`].
    pub io_buffer_bytes: u32,
    /// Whether data is copied.
    pub zero_copy: ZeroCopy,
    /// The limit for the start.
    pub start_limit: Duration,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            id: None,
            queues: 1,
            depth: 128,
            io_buffer_bytes: 512 * 1024,
            zero_copy: ZeroCopy::default(),
            start_limit: START_LIMIT,
        }
    }
}

impl DeviceOptions {
    /// Checks every option's range, before anything is changed.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let refuse = |text: String| Err(DeviceError::Option(text));
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return refuse(format!("a device has 1 to {MAX_QUEUES} queues, not {}", self.queues));
        }
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return refuse(format!("a queue's depth is 1 to {MAX_DEPTH}, not {}", self.depth));
        }
        let (least, most) = IO_BUFFER_BYTES;
        if !(least..=most).contains(&self.io_buffer_bytes) || !self.io_buffer_bytes.is_power_of_two() {
            return refuse(format!(
                "a request's data is limited to a power of two from {least} to {most} bytes, not {}",
                self.io_buffer_bytes
            ));
        }
        Ok(())
    }
}

/// How requests' data gets to the volume and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPath {
    /// The ring reads and writes the request's own pages.
    ZeroCopy,
    /// The driver copies between the request's pages and a buffer of this process.
    Copy,
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero copy",
            Self::Copy => "copy",
        })
    }
}

/// One queue of a running device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueInfo {
    /// The kernel's id of the queue's thread.
    pub tid: i32,
    /// The CPUs whose requests it serves, and on which it runs.
    pub cpus: Vec<usize>,
}

/// What a device became.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The device's number N in `/dev/ublkbN` and `/dev/ublkcN`.
    pub id: u32,
    /// This process.
    pub pid: i32,
    /// The volume's size and logical block size.
    pub geometry: Geometry,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The queues, in order.
    pub queues: Vec<QueueInfo>,
    /// Requests under way at once in each queue.
    pub depth: u16,
    /// The most data a request has, in bytes.
    pub io_buffer_bytes: u32,
    /// How data is moved.
    pub data_path: DataPath,
    /// Features asked of the driver (UBLK_F_*).
    pub asked_flags: u64,
    /// Features the driver granted; it sets some of its own accord.
    pub granted_flags: u64,
    /// What was wanted and not granted: features by name, and queues; after a take-over as its first process
    /// noted it.
    pub not_granted: Vec<String>,
    /// Whether the device was taken over from a process that ended.
    pub recovered: bool,
}

impl DeviceInfo {
    /// The block device's path.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/dev/ublkb{}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_and_named() {
        assert!(DeviceOptions::default().check().is_ok());
        let refused = |options: DeviceOptions| options.check().map_err(|error| error.to_string());
        assert!(refused(DeviceOptions { queues: 0, ..Default::default() }).is_err());
        assert!(refused(DeviceOptions { queues: MAX_QUEUES + 1, ..Default::default() }).is_err());
        let text = refused(DeviceOptions { depth: 4096, ..Default::default() });
        assert_eq!(text, Err("a queue's depth is 1 to 1024, not 4096".into()));
        assert!(refused(DeviceOptions { io_buffer_bytes: 96 * 1024, ..Default::default() }).is_err());
        assert!(refused(DeviceOptions { io_buffer_bytes: 2 << 20, ..Default::default() }).is_err());
    }
}
