//! Looking at devices and removing them, whoever serves them.

use std::cell::Cell;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use libublk::sys;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::abi::OURS;
use super::control::{Control, SHORT};
use super::error::DeviceError;
use super::features;
use super::options::{CLOSE_LIMIT, DELETE_LIMIT, STOP_LIMIT};

/// Where the kernel shows every ublk device.
const CLASS_DIR: &str = "/sys/class/ublk-char";
/// How often it is looked whether a device's users have let go of it.
const HELD_POLL: Duration = Duration::from_millis(200);

/// What state a device is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// Added and not started, or stopped.
    Dead,
    /// Served.
    Live,
    /// Its process has died; requests wait for one that recovers it.
    Quiesced,
    /// Its process has died; requests fail.
    FailIo,
    /// One that this program does not know.
    Unknown(u16),
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "DEAD",
            Self::Live => "LIVE",
            Self::Quiesced => "QUIESCED",
            Self::FailIo => "FAIL_IO",
            Self::Unknown(_) => "UNKNOWN",
        })
    }
}

impl From<u16> for DeviceState {
    fn from(state: u16) -> Self {
        match u32::from(state) {
            sys::UBLK_S_DEV_DEAD => Self::Dead,
            sys::UBLK_S_DEV_LIVE => Self::Live,
            sys::UBLK_S_DEV_QUIESCED => Self::Quiesced,
            sys::UBLK_S_DEV_FAIL_IO => Self::FailIo,
            _ => Self::Unknown(state),
        }
    }
}

/// A ublk device, as the driver knows it.
///
/// Its text is the one that scripts parse: the state is the eleventh word of its line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceEntry {
    /// N in `/dev/ublkbN`.
    pub id: u32,
    /// Queues.
    pub queues: u16,
    /// Requests under way at once in each.
    pub depth: u16,
    /// The logical block size, in bytes.
    pub logical_block_bytes: u32,
    /// The size, in sectors of 512 bytes.
    pub sectors: u64,
    /// The most data a request has, in bytes.
    pub io_buffer_bytes: u32,
    /// The process that serves it or did so last.
    pub pid: i32,
    /// UBLK_F_*.
    pub flags: u64,
    /// Its state.
    pub state: DeviceState,
    /// Major and minor numbers of `/dev/ublkcN`, then of `/dev/ublkbN`.
    pub numbers: [u32; 4],
    /// User and group that own it.
    pub owner: (u32, u32),
    /// Whether forerun made it.
    pub ours: bool,
}

impl fmt::Display for DeviceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [char_major, char_minor, disk_major, disk_minor] = self.numbers;
        writeln!(
            f,
            "dev id {}: nr_hw_queues {} queue_depth {} block size {} dev_capacity {}",
            self.id, self.queues, self.depth, self.logical_block_bytes, self.sectors
        )?;
        writeln!(
            f,
            "\tmax rq size {} daemon pid {} flags 0x{:x} state {}",
            self.io_buffer_bytes, self.pid, self.flags, self.state
        )?;
        write!(
            f,
            "\tublkc: {char_major}:{char_minor} ublkb: {disk_major}:{disk_minor} owner: {}:{}",
            self.owner.0, self.owner.1
        )
    }
}

/// Whether the driver can change a device's size ([`resize`]).
///
/// # Errors
/// The driver cannot be asked.
pub fn can_resize() -> Result<bool, DeviceError> {
    Ok(features::can_resize(Control::open()?.features()?))
}

/// Makes a started device show `size_bytes` bytes, which are whole logical blocks.
///
/// # Errors
/// The driver cannot, or there is no such device, or it has been stopped.
pub fn resize(id: u32, size_bytes: u64) -> Result<(), DeviceError> {
    let mut control = Control::open()?;
    // A device without a disk crashes drivers before Linux 7.0 (25966fc09769).
    if DeviceState::from(control.info(id)?.state) == DeviceState::Dead {
        return Err(DeviceError::NotFound(id));
    }
    control.update_size(id, size_bytes >> 9)
}

/// All ublk devices that can be looked at, by number, and why the others could not.
///
/// # Errors
/// The driver cannot be asked.
pub fn list() -> Result<(Vec<DeviceEntry>, Vec<DeviceError>), DeviceError> {
    let mut control = Control::open()?;
    let mut ids: Vec<u32> = match fs::read_dir(CLASS_DIR) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("ublkc")?.parse().ok())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(DeviceError::Process { what: "reading /sys/class/ublk-char", source }),
    };
    ids.sort_unstable();
    Ok(sift(ids.into_iter().map(|id| entry(&mut control, id))))
}

/// Parts what was found from what went wrong; a device that went while we looked is neither.
fn sift(
    looks: impl Iterator<Item = Result<DeviceEntry, DeviceError>>,
) -> (Vec<DeviceEntry>, Vec<DeviceError>) {
    let (mut devices, mut errors) = (Vec::new(), Vec::new());
    for look in looks {
        match look {
            Ok(device) => devices.push(device),
            Err(DeviceError::NotFound(_)) => {}
            Err(error) => errors.push(error),
        }
    }
    (devices, errors)
}

/// One ublk device.
///
/// # Errors
/// There is none with this number, or the driver cannot be asked.
pub fn list_one(id: u32) -> Result<DeviceEntry, DeviceError> {
    entry(&mut Control::open()?, id)
}

fn entry(control: &mut Control, id: u32) -> Result<DeviceEntry, DeviceError> {
    let info = control.info(id)?;
    let params = control.params(id)?;
    Ok(DeviceEntry {
        id,
        queues: info.queues,
        depth: info.depth,
        logical_block_bytes: 1u32.checked_shl(u32::from(params.logical_shift)).unwrap_or(0),
        sectors: params.sectors,
        io_buffer_bytes: info.io_buffer_bytes,
        pid: info.pid,
        flags: info.flags,
        state: info.state.into(),
        numbers: [params.char_major, params.char_minor, params.disk_major, params.disk_minor],
        owner: (info.owner_uid, info.owner_gid),
        ours: info.server_flags == OURS,
    })
}

/// What becomes of a device that is mounted or held while it is to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Users {
    /// They are waited for so long; the device is refused then, and nothing is changed.
    Wait(Duration),
    /// The device is stopped all the same: what they still write fails, and it is gone when the last of them lets
    /// go.
    Ignore,
}

/// Stops and deletes a device, and waits until it is gone.
///
/// Requests that a target of ours does not answer within the stop's limit fail, so that the stop ends. Its target is waited for
/// while it closes the volume.
///
/// # Errors
/// There is none with this number, it is in use, or the driver does not answer in time.
pub fn delete(id: u32, users: Users) -> Result<(), DeviceError> {
    let mut control = Control::open()?;
    let info = control.info(id)?;
    if let Users::Wait(limit) = users {
        let started = Instant::now();
        while is_held(id) {
            if started.elapsed() >= limit {
                return Err(DeviceError::InUse(id));
            }
            thread::sleep(HELD_POLL);
        }
    }
    let mut stopped = control.stop(id, STOP_LIMIT);
    if matches!(stopped, Err(DeviceError::Deadline { .. })) && ask_target_to_stop(&mut control, id)? {
        // By now it has failed what it could not answer, or is about to.
        stopped = control.stop(id, STOP_LIMIT + 2 * SHORT);
    }
    let deleted = stopped.and_then(|()| match users {
        Users::Ignore => control.delete_later(id).map(|()| wait_for_target(info.pid)),
        Users::Wait(_) => {
            let lived = Cell::new(Instant::now());
            control.delete_unless(id, CLOSE_LIMIT, &|| {
                if is_target(info.pid) {
                    lived.set(Instant::now());
                }
                lived.get().elapsed() < DELETE_LIMIT
            })
        }
    });
    match deleted.map_err(|error| error.if_gone(id)) {
        // Its target was faster.
        Err(DeviceError::NotFound(_)) => Ok(()),
        result => result,
    }
}

/// Whether a device is mounted, or part of another: an exclusive open succeeds only where nobody else has one.
fn is_held(id: u32) -> bool {
    let path = format!("/dev/ublkb{id}");
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// Asks the process that serves a device of ours to stop it, as the driver will not before all requests are
/// answered. `false` where it is not ours, or its process has gone.
fn ask_target_to_stop(control: &mut Control, id: u32) -> Result<bool, DeviceError> {
    let info = control.info(id)?;
    if info.server_flags != OURS || !is_target(info.pid) {
        return Ok(false);
    }
    match kill(Pid::from_raw(info.pid), Signal::SIGTERM) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::ESRCH) => Ok(false),
        Err(error) => Err(DeviceError::Process { what: "asking the target to stop", source: error.into() }),
    }
}

/// Whether a process serves devices: another one may have got the number of one that died.
fn is_target(pid: i32) -> bool {
    pid > 1 && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| tells_of_a_target(&stat))
}

/// By what `/proc/PID/stat` says: name in brackets, state. One that has ended and that nobody has waited for serves nothing.
fn tells_of_a_target(stat: &str) -> bool {
    let Some((before, after)) = stat.rsplit_once(')') else { return false };
    // Installed as ublk-target and as ublk.forerun.
    let name = before.split_once('(').is_some_and(|(_, name)| name.starts_with("ublk"));
    name && !matches!(after.trim_start().as_bytes().first(), Some(b'Z' | b'X') | None)
}

/// Waits until the process of a device that was stopped has closed what is behind it, but not for ever.
fn wait_for_target(pid: i32) {
    let started = Instant::now();
    while is_target(pid) && started.elapsed() < DELETE_LIMIT {
        thread::sleep(HELD_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceEntry {
        DeviceEntry {
            id: 3,
            queues: 2,
            depth: 128,
            logical_block_bytes: 4096,
            sectors: 2048,
            io_buffer_bytes: 524_288,
            pid: 140,
            flags: 0x42,
            state: DeviceState::from(1),
            numbers: [239, 3, 259, 1],
            owner: (0, 0),
            ours: true,
        }
    }

    #[test]
    fn a_target_is_told_by_its_name_and_state() {
        for (stat, expected) in [
            ("140 (ublk-target) S 1 140 140 0", true),
            ("140 (ublk.forerun) D 1 140", true),
            ("140 (ublk-target) Z 1 140", false),
            ("140 (ublk-target) X 1 140", false),
            ("140 (bash) S 1 140", false),
            ("140 (a ) ublk (b) S 1 140", false),
            ("140 (ublk ) Z) S 1 140", true),
            ("140 (ublk-target)", false),
            ("", false),
        ] {
            assert_eq!(tells_of_a_target(stat), expected, "{stat:?}");
        }
    }

    #[test]
    fn a_device_that_goes_or_hangs_does_not_hide_the_others() {
        let hangs = DeviceError::Deadline { command: "GET_PARAMS", id: 4, seconds: 10 };
        let looks = [Err(DeviceError::NotFound(1)), Ok(device()), Err(hangs), Err(DeviceError::NotFound(5))];
        let (devices, errors) = sift(looks.into_iter());
        assert_eq!(devices, [device()]);
        assert!(matches!(errors[..], [DeviceError::Deadline { id: 4, .. }]), "{errors:?}");
    }

    #[test]
    fn the_text_is_what_scripts_parse() {
        let text = device().to_string();
        let line = text.lines().find(|line| line.contains("state")).unwrap();
        assert_eq!(line, "\tmax rq size 524288 daemon pid 140 flags 0x42 state LIVE");
        assert_eq!(line.split_whitespace().nth(10), Some("LIVE"), "the eleventh word");
        assert_eq!(line.split_whitespace().nth(6), Some("140"), "the seventh word");
        assert!(
            text.starts_with("dev id 3: nr_hw_queues 2 queue_depth 128 block size 4096 dev_capacity 2048\n")
        );
    }
}
