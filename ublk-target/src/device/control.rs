//! Control commands to the ublk driver, one at a time, each with a deadline.
//!
//! libublk's own control calls wait without limit, take a signal for an answer and print to the
//! terminal, so the commands are sent from here, over a ring of their own. A command that misses its
//! deadline leaves the ring: the ring is closed (the kernel cancels what can be cancelled), a new one
//! is made, and the command's buffer is leaked, since the driver may still write to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use libublk::sys;
use nix::libc;
use zerocopy::{FromBytes, IntoBytes};

use super::abi::{ControlCommand, DevInfo, Params};
use super::error::DeviceError;

/// The driver's control device.
const CONTROL_PATH: &str = "/dev/ublk-control";
/// The limit for commands that only ask or set something.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// How often a waiting command looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(50);
/// The most CPUs an affinity answer covers.
const CPUS: usize = 1024;

/// The control device and the ring that commands go over.
pub(super) struct Control {
    file: File,
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    sent: u64,
}

/// One command: what, for which device, with what.
pub(super) struct Command {
    name: &'static str,
    operation: u32,
    id: u32,
    data: u64,
    buffer: Vec<u8>,
}

impl Command {
    /// A command without data or buffer.
    pub fn new(name: &'static str, operation: u32, id: u32) -> Self {
        Self { name, operation, id, data: 0, buffer: Vec::new() }
    }

    /// Adds the command's number (a pid, a queue).
    pub fn data(self, data: u64) -> Self {
        Self { data, ..self }
    }

    /// Adds the command's buffer, which the driver reads or fills.
    pub fn buffer(self, buffer: Vec<u8>) -> Self {
        Self { buffer, ..self }
    }
}

impl Control {
    /// Opens the control device.
    pub fn open() -> Result<Self, DeviceError> {
        let file =
            OpenOptions::new().read(true).write(true).open(CONTROL_PATH).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => DeviceError::NoDriver,
                    io::ErrorKind::PermissionDenied => DeviceError::NotPermitted,
                    _ if error.raw_os_error() == Some(libc::ENXIO) => DeviceError::NoDriver,
                    _ => DeviceError::ControlDevice(error),
                }
            })?;
        Ok(Self { file, ring: new_ring()?, sent: 0 })
    }

    /// Sends a command and waits for its answer, at most `limit` or until `wanted` says no.
    ///
    /// Gives the answer and the buffer back. No answer in time is an error, a negative one too.
    pub fn send(
        &mut self,
        command: Command,
        limit: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(i32, Vec<u8>), DeviceError> {
        let Command { name, operation, id, data, mut buffer } = command;
        self.sent += 1;
        let body = ControlCommand {
            id,
            queue: u16::MAX,
            len: buffer.len() as u16,
            address: if buffer.is_empty() { 0 } else { buffer.as_mut_ptr() as u64 },
            data,
            ..ControlCommand::default()
        };
        let mut bytes = [0u8; 80];
        bytes[..32].copy_from_slice(body.as_bytes());
        let entry = opcode::UringCmd80::new(types::Fd(self.file.as_raw_fd()), operation)
            .cmd(bytes)
            .build()
            .user_data(self.sent);
        // SAFETY: the file is open as long as the ring, and the buffer lives until the answer has
        // come; where it does not come in time the buffer is leaked below.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            return Err(DeviceError::Process {
                what: "the control ring is full",
                source: io::Error::from_raw_os_error(libc::EBUSY),
            });
        }
        let started = Instant::now();
        match self.answer(started, limit, wanted) {
            Ok(Some(answer)) if answer >= 0 => Ok((answer, buffer)),
            Ok(Some(answer)) => {
                let source = io::Error::from_raw_os_error(-answer);
                Err(DeviceError::Command { command: name, id, source })
            }
            Ok(None) => {
                self.abandon(buffer)?;
                Err(DeviceError::Deadline { command: name, id, seconds: started.elapsed().as_secs() })
            }
            Err(source) => {
                self.abandon(buffer)?;
                Err(DeviceError::Process { what: "waiting in the control ring", source })
            }
        }
    }

    fn answer(
        &mut self,
        started: Instant,
        limit: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<Option<i32>> {
        let slice = types::Timespec::from(SLICE);
        let arguments = types::SubmitArgs::new().timespec(&slice);
        loop {
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return Err(error),
                },
            }
            let sent = self.sent;
            if let Some(entry) = self.ring.completion().find(|entry| entry.user_data() == sent) {
                return Ok(Some(entry.result()));
            }
            if started.elapsed() >= limit || !wanted() {
                return Ok(None);
            }
        }
    }

    fn abandon(&mut self, buffer: Vec<u8>) -> Result<(), DeviceError> {
        std::mem::forget(buffer);
        self.ring = new_ring()?;
        Ok(())
    }

    fn simple(
        &mut self,
        name: &'static str,
        operation: u32,
        id: u32,
        limit: Duration,
    ) -> Result<(), DeviceError> {
        self.send(Command::new(name, operation, id), limit, &|| true).map(drop)
    }

    /// The driver's features; 0 where it is too old to say.
    pub fn features(&mut self) -> Result<u64, DeviceError> {
        let command = Command::new("GET_FEATURES", sys::UBLK_U_CMD_GET_FEATURES, u32::MAX).buffer(vec![0; 8]);
        match self.send(command, SHORT, &|| true) {
            Ok((_, bytes)) => Ok(u64::read_from_bytes(&bytes).unwrap_or(0)),
            Err(DeviceError::Command { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Makes a device; what the driver granted comes back. `id` `u32::MAX` lets it choose one.
    pub fn add(&mut self, info: DevInfo, limit: Duration) -> Result<DevInfo, DeviceError> {
        let command =
            Command::new("ADD_DEV", sys::UBLK_U_CMD_ADD_DEV, info.id).buffer(info.as_bytes().to_vec());
        match self.send(command, limit, &|| true) {
            Ok((_, bytes)) => read(&bytes),
            Err(DeviceError::Command { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                Err(DeviceError::IdInUse(info.id))
            }
            Err(DeviceError::Command { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                Err(DeviceError::NotPermitted)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what the driver knows of a device.
    pub fn info(&mut self, id: u32) -> Result<DevInfo, DeviceError> {
        let blank = vec![0; size_of::<DevInfo>()];
        let command = Command::new("GET_DEV_INFO", sys::UBLK_U_CMD_GET_DEV_INFO, id).buffer(blank);
        match self.send(command, SHORT, &|| true) {
            Ok((_, bytes)) => read(&bytes),
            // Drivers before Linux 6.4 know no better.
            Err(DeviceError::Command { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Err(DeviceError::NotFound(id))
            }
            Err(error) => Err(error.if_gone(id)),
        }
    }

    /// Reads a device's parameters.
    pub fn params(&mut self, id: u32) -> Result<Params, DeviceError> {
        self.params_unless(id, SHORT, &|| true)
    }

    /// Reads a device's parameters, for which the driver takes the device's lock: at most `limit` long, and as
    /// long as `wanted`.
    pub fn params_unless(
        &mut self,
        id: u32,
        limit: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Params, DeviceError> {
        let blank = Params { len: size_of::<Params>() as u32, ..Params::default() };
        let command =
            Command::new("GET_PARAMS", sys::UBLK_U_CMD_GET_PARAMS, id).buffer(blank.as_bytes().to_vec());
        let (_, bytes) = self.send(command, limit, wanted).map_err(|error| error.if_gone(id))?;
        read(&bytes)
    }

    /// Sets a device's parameters, before it is started.
    pub fn set_params(&mut self, id: u32, params: Params) -> Result<(), DeviceError> {
        let command =
            Command::new("SET_PARAMS", sys::UBLK_U_CMD_SET_PARAMS, id).buffer(params.as_bytes().to_vec());
        self.send(command, SHORT, &|| true).map(drop)
    }

    /// Changes the size of a started device.
    pub fn update_size(&mut self, id: u32, sectors: u64) -> Result<(), DeviceError> {
        let command = Command::new("UPDATE_SIZE", sys::UBLK_U_CMD_UPDATE_SIZE, id).data(sectors);
        self.send(command, SHORT, &|| true).map(drop).map_err(|error| error.if_gone(id))
    }

    /// The CPUs whose requests a queue serves.
    pub fn affinity(&mut self, id: u32, queue: u16) -> Result<Vec<usize>, DeviceError> {
        let command = Command::new("GET_QUEUE_AFFINITY", sys::UBLK_U_CMD_GET_QUEUE_AFFINITY, id)
            .data(u64::from(queue))
            .buffer(vec![0; CPUS / 8]);
        let (_, bytes) = self.send(command, SHORT, &|| true)?;
        Ok((0..CPUS).filter(|cpu| bytes[cpu / 8] & (1 << (cpu % 8)) != 0).collect())
    }

    /// Stops a device: no new requests, those under way are finished first.
    pub fn stop(&mut self, id: u32, limit: Duration) -> Result<(), DeviceError> {
        self.simple("STOP_DEV", sys::UBLK_U_CMD_STOP_DEV, id, limit)
    }

    /// Deletes a device and waits until nobody has it open any more.
    pub fn delete(&mut self, id: u32, limit: Duration) -> Result<(), DeviceError> {
        self.delete_unless(id, limit, &|| true)
    }

    /// The same, for as long as `wanted`.
    pub fn delete_unless(
        &mut self,
        id: u32,
        limit: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), DeviceError> {
        self.send(Command::new("DEL_DEV", sys::UBLK_U_CMD_DEL_DEV, id), limit, wanted).map(drop)
    }

    /// Deletes a device; it is gone once the last who has it open closes it.
    pub fn delete_later(&mut self, id: u32) -> Result<(), DeviceError> {
        self.simple("DEL_DEV_ASYNC", sys::UBLK_U_CMD_DEL_DEV_ASYNC, id, SHORT)
    }
}

fn new_ring() -> Result<IoUring<squeue::Entry128, cqueue::Entry>, DeviceError> {
    IoUring::builder().build(4).map_err(DeviceError::process("no io_uring for control commands"))
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T, DeviceError> {
    T::read_from_bytes(bytes).map_err(|_| DeviceError::Process {
        what: "the driver's answer has the wrong length",
        source: io::Error::from_raw_os_error(libc::EPROTO),
    })
}
