//! A device's life: made or taken over, started, served until it is stopped, let go.
//!
//! A start that fails leaves nothing behind: the device is stopped and deleted again. A take-over
//! that fails leaves the device as it was, to be tried again: the caller then ends its process as a kill
//! would ([`Left::InUse`]). Every wait has a limit, so that a broken queue, a backend that does not answer or a
//! driver that hangs ends in a message.
//!
//! A crash of this process at any moment leaves a device that waits: its requests are kept by the
//! driver and done again by whoever recovers it (or fail, once it is deleted).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libublk::UblkFlags;
use libublk::ctrl::UblkCtrl;
use libublk::io::UblkDev;
use libublk::sys;
use nix::libc;

use super::abi::{DevInfo, OURS};
use super::control::{Command, Control, SHORT};
use super::descriptor::Limits;
use super::dma::memory_alignment;
use super::error::{DeviceError, io_error};
use super::events::{Events, State, Stop};
use super::features;
use super::options::{
    DELETE_LIMIT, DataPath, DeviceInfo, DeviceOptions, QueueInfo, START_LIMIT, STOP_LIMIT, ZeroCopy,
};
use super::outcome::{Failed, Left, Stopped};
use super::overdue::{LOOK_INTERVAL, Moment, Progress};
use super::params::params;
use super::queue::{AbortOnPanic, Queue};
use super::scheduler;
use super::state_file::StateFile;
use crate::request::Backend;

/// How long queue threads may take to end once their device has stopped.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long the driver may take to notice that a device's process has died.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
const RECOVERY_RETRY: Duration = Duration::from_millis(100);

/// What the caller does once its device is there.
pub type ReadyResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Makes a device, calls `ready` once it is there, and serves it until it is stopped.
///
/// Returns when the device takes no more requests and all have been answered: by [`Stop::request`], or
/// by somebody's STOP_DEV (`ublk del`). The caller then closes what is behind the backend, and
/// after that lets go of the device with [`Stopped::release`].
///
/// # Errors
/// Any of [`DeviceError`]. No device is left then, unless its queues do not end: [`Failed::left`].
pub fn run<B: Backend>(
    options: &DeviceOptions,
    backend: Arc<B>,
    stop: &Stop,
    ready: impl FnOnce(&DeviceInfo) -> ReadyResult,
) -> Result<Stopped, Failed> {
    options.check()?;
    let mut control = Control::open()?;
    let asked_flags = features::to_ask(options.zero_copy, control.features()?);
    let asked = DevInfo {
        queues: options.queues,
        depth: options.depth,
        io_buffer_bytes: options.io_buffer_bytes,
        id: options.id.unwrap_or(u32::MAX),
        pid: std::process::id() as i32,
        flags: asked_flags,
        server_flags: OURS,
        ..DevInfo::default()
    };
    let info = control.add(asked, options.start_limit)?;
    let mut start = Start::new(control, info, backend, stop, options.start_limit, false);
    if options.zero_copy == ZeroCopy::Required && start.data_path() != DataPath::ZeroCopy {
        return Err(start.give_up(DeviceError::NoZeroCopy));
    }
    start.asked_flags = asked_flags;
    start.not_granted = features::not_granted(options.zero_copy, info.flags, (options.queues, info.queues));
    let alignment = start.backend.fast_tier().and_then(memory_alignment);
    let alignment = alignment.filter(|_| start.data_path() == DataPath::ZeroCopy);
    let limits = start.limits;
    let params = params(limits.geometry, limits.read_only, info.io_buffer_bytes, alignment);
    if let Err(error) = start.control.set_params(info.id, params) {
        return Err(start.give_up(error));
    }
    start.go(("START_DEV", sys::UBLK_U_CMD_START_DEV), ready)
}

/// Takes over a device whose process has died, with its queues, depth and features as they are.
///
/// Requests that were under way are done again. `not_granted` is what the device's first process noted, for
/// [`DeviceInfo::not_granted`]. Otherwise as [`run`].
///
/// # Errors
/// Any of [`DeviceError`]; the device is left as it was, to be taken over later ([`Left::InUse`]).
pub fn recover<B: Backend>(
    id: u32,
    backend: Arc<B>,
    stop: &Stop,
    not_granted: Vec<String>,
    ready: impl FnOnce(&DeviceInfo) -> ReadyResult,
) -> Result<Stopped, Failed> {
    let mut control = Control::open().map_err(Failed::in_use)?;
    let (info, shown_bytes) =
        begin_recovery(&mut control, id, backend.geometry().size_bytes(), stop).map_err(Failed::in_use)?;
    let mut start = Start::new(control, info, backend, stop, START_LIMIT, true);
    start.shown_bytes = shown_bytes;
    start.asked_flags = info.flags;
    start.not_granted = not_granted;
    start.go(("END_USER_RECOVERY", sys::UBLK_U_CMD_END_USER_RECOVERY), ready)
}

/// Makes the driver ready for a device's next process, once the last one has ended; gives the bytes that it shows as well.
fn begin_recovery(
    control: &mut Control,
    id: u32,
    size_bytes: u64,
    stop: &Stop,
) -> Result<(DevInfo, u64), DeviceError> {
    let started = Instant::now();
    let refuse = |why: String| Err(DeviceError::NotRecoverable { id, why });
    let info = control.info(id)?;
    if info.server_flags != OURS {
        return refuse("it was not made by forerun".into());
    }
    if info.flags & features::RECOVERY != features::RECOVERY {
        return refuse("it was made without recovery, which its kernel did not grant".into());
    }
    let shown = control.params(id)?.sectors * 512;
    // Less than the volume has: the process died on the way to a new size.
    if shown > size_bytes {
        return refuse(format!(
            "it shows {shown} bytes, and the volume has {size_bytes}: it is of another volume"
        ));
    }
    loop {
        let command = Command::new("START_USER_RECOVERY", sys::UBLK_U_CMD_START_USER_RECOVERY, id);
        let source = match control.send(command, SHORT, &|| true) {
            Ok(_) => return Ok((info, shown)),
            Err(DeviceError::Command { source, .. }) => source,
            Err(error) => return Err(error),
        };
        match source.raw_os_error() {
            Some(libc::EBUSY) if started.elapsed() >= RECOVERY_LIMIT => {
                return refuse(format!("its process {} still lives", info.pid));
            }
            Some(libc::EBUSY) => {}
            // Linux before 6.15, when a process died between START_USER_RECOVERY and its first fetch.
            Some(libc::EINVAL) => {
                return refuse(
                    "an earlier take-over ended half-way, and this kernel's driver cannot begin another; delete \
                     the device and add the volume again: all that was acknowledged is there, what waits fails"
                        .into(),
                );
            }
            _ => return Err(DeviceError::Command { command: "START_USER_RECOVERY", id, source }),
        }
        if stop.events().look(|state| state.stop) {
            return Err(DeviceError::StoppedEarly(id));
        }
        thread::sleep(RECOVERY_RETRY);
    }
}

/// A device that has been added or is being taken over, and is not started yet.
struct Start<B> {
    control: Control,
    info: DevInfo,
    backend: Arc<B>,
    events: Arc<Events>,
    limits: Limits,
    limit: Duration,
    until: Instant,
    recovered: bool,
    /// The bytes that the device shows.
    shown_bytes: u64,
    abandoned: Arc<AtomicBool>,
    /// Of each queue.
    progress: Arc<[Progress]>,
    /// Since when the driver seems to be stopping the device for somebody else.
    stopping_since: Option<Instant>,
    asked_flags: u64,
    not_granted: Vec<String>,
    device: Option<Arc<UblkDev>>,
    threads: Vec<JoinHandle<()>>,
    cpus: Vec<Vec<usize>>,
}

impl<B: Backend> Start<B> {
    fn new(
        control: Control,
        info: DevInfo,
        backend: Arc<B>,
        stop: &Stop,
        limit: Duration,
        recovered: bool,
    ) -> Self {
        let limits = Limits {
            geometry: backend.geometry(),
            read_only: backend.read_only(),
            io_buffer_bytes: info.io_buffer_bytes,
        };
        Self {
            shown_bytes: limits.geometry.size_bytes(),
            control,
            info,
            backend,
            events: Arc::clone(stop.events()),
            limits,
            limit,
            until: Instant::now() + limit,
            recovered,
            abandoned: Arc::default(),
            progress: (0..info.queues).map(|_| Progress::default()).collect(),
            stopping_since: None,
            asked_flags: 0,
            not_granted: Vec::new(),
            device: None,
            threads: Vec::new(),
            cpus: Vec::new(),
        }
    }

    fn data_path(&self) -> DataPath {
        features::data_path(self.info.flags)
    }

    /// Starts the device, serves it, and undoes everything if that does not work.
    fn go(
        mut self,
        start: (&'static str, u32),
        ready: impl FnOnce(&DeviceInfo) -> ReadyResult,
    ) -> Result<Stopped, Failed> {
        let (id, recovered) = (self.info.id, self.recovered);
        let begun = self.begin(start).and_then(|info| {
            self.show_all();
            info.log();
            ready(&info).map_err(|source| DeviceError::Ready { id, recovered, source })
        });
        if let Err(error) = begun {
            return Err(self.give_up(error));
        }
        let queues = self.info.queues;
        self.serve();
        let asked_to_stop = self.events.look(|state| state.stop && state.ended < queues);
        if asked_to_stop {
            tracing::info!(id, "stopping the device");
            self.stop_device();
        }
        if !self.ended() {
            if asked_to_stop && let Err(error) = self.control.delete_later(id) {
                tracing::warn!(id, %error, "the device stays until it is deleted");
            }
            let (command, seconds) = ("the end of the queue threads", END_LIMIT.as_secs());
            return Err(Failed::in_use(DeviceError::Deadline { command, id, seconds }));
        }
        Ok(Stopped { id, delete: asked_to_stop, control: self.control, device: self.device.take() })
    }

    /// A device whose volume has grown without it shows all of it from now on.
    fn show_all(&mut self) {
        let (id, size_bytes) = (self.info.id, self.limits.geometry.size_bytes());
        if self.shown_bytes < size_bytes
            && let Err(error) = self.control.update_size(id, size_bytes >> 9)
        {
            let shown = self.shown_bytes;
            tracing::warn!(id, %error, "the device goes on to show {shown} bytes of {size_bytes} until it is added again");
        }
    }

    /// Returns when the device is to be stopped, or has been stopped by somebody else.
    fn serve(&mut self) {
        let (id, queues) = (self.info.id, self.info.queues);
        let events = Arc::clone(&self.events);
        let over = |state: &State| state.stop || state.ended == queues;
        while !events.wait(Some(Instant::now() + LOOK_INTERVAL), over) {
            if !self.holds_up_a_stop() {
                continue;
            }
            let seconds = STOP_LIMIT.as_secs();
            tracing::error!(
                id,
                seconds,
                "somebody stops the device, and requests are not answered: failing them"
            );
            self.abandon_requests();
            if !events.wait(Some(Instant::now() + END_LIMIT), over) {
                tracing::warn!(id, "the device was not stopped after all: requests are waited for again");
                self.abandoned.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Whether somebody has been stopping the device for longer than a stop may take, and waits for requests
    /// under way (see `overdue`).
    fn holds_up_a_stop(&mut self) -> bool {
        let (id, queues) = (self.info.id, self.info.queues);
        let before = Moment::of(&self.progress);
        if !before.is_busy() {
            return false;
        }
        let (events, progress) = (Arc::clone(&self.events), Arc::clone(&self.progress));
        let still_so = || {
            let over = events.look(|state| state.stop || state.ended == queues);
            !over && before.stands_still(Moment::of(&progress))
        };
        let asked = Instant::now();
        let out = matches!(
            self.control.params_unless(id, STOP_LIMIT, &still_so),
            Err(DeviceError::Deadline { .. })
        );
        self.stopping_since = out.then_some(asked);
        out && asked.elapsed() >= STOP_LIMIT && still_so()
    }

    /// Waits for the end of the queue threads; `false` if they do not end in time.
    fn ended(&mut self) -> bool {
        let threads = self.threads.len();
        let until = Instant::now() + END_LIMIT;
        let ended = self.events.wait(Some(until), |state| usize::from(state.ended) == threads);
        if ended {
            self.join();
        }
        ended
    }

    /// Gives a start up: a device that we made is removed again, one taken over stays for the next.
    fn give_up(mut self, error: DeviceError) -> Failed {
        self.events.change(|state| {
            state.given_up = true;
            // A device that is removed has no users to be kept: a queue's failure ends the queue only.
            state.live &= self.recovered;
        });
        if self.recovered {
            return Failed::in_use(error);
        }
        let left = if self.undo() { Left::Nothing } else { Left::InUse };
        Failed { error, left }
    }

    fn begin(&mut self, (name, operation): (&'static str, u32)) -> Result<DeviceInfo, DeviceError> {
        let id = self.info.id;
        let queues = usize::from(self.info.queues);
        let device = Arc::new(self.open()?);
        self.device = Some(Arc::clone(&device));
        for number in 0..self.info.queues {
            let cpus = self.control.affinity(id, number)?;
            self.cpus.push(cpus);
            self.spawn(number, &device)?;
        }
        // A take-over is not left half-way for a stop: see `Events::all_set_up`.
        let recovered = self.recovered;
        let settled = |state: &State| {
            state.failure.is_some() || (state.stop && !recovered) || state.ready.len() == queues
        };
        if !self.events.wait(Some(self.until), settled) {
            return Err(self.late());
        }
        self.check()?;
        let left = self.until.saturating_duration_since(Instant::now());
        let events = Arc::clone(&self.events);
        let wanted = || events.look(|state| state.failure.is_none() && !state.stop);
        let command = Command::new(name, operation, id).data(u64::from(std::process::id()));
        match self.control.send(command, left, &wanted) {
            Ok(_) => {
                self.events.change(|state| state.go_live(id))?;
                if !self.recovered {
                    scheduler::take_off(id);
                }
                Ok(self.describe())
            }
            Err(error) => {
                self.check()?;
                Err(if matches!(error, DeviceError::Deadline { .. }) { self.late() } else { error })
            }
        }
    }

    /// A queue's failure or an early stop, if there was one.
    fn check(&self) -> Result<(), DeviceError> {
        let id = self.info.id;
        self.events.look(|state| match state.failure.take() {
            Some(failure) => Err(failure),
            None if state.stop => Err(DeviceError::StoppedEarly(id)),
            None => Ok(()),
        })
    }

    fn late(&self) -> DeviceError {
        DeviceError::StartLate { id: self.info.id, seconds: self.limit.as_secs() }
    }

    /// Opens the character device, through libublk.
    fn open(&self) -> Result<UblkDev, DeviceError> {
        let id = self.info.id;
        let failed = |what| move |error| DeviceError::Process { what, source: io_error(error) };
        let _quiet = StateFile::placeholder(id);
        let control = UblkCtrl::new(None, id as i32, 0, 0, 0, 0, 0, UblkFlags::empty())
            .map_err(failed("opening the control device again"))?;
        let fast_tier = self.backend.fast_tier();
        let prepare = |device: &mut UblkDev| {
            if let Some(file) = fast_tier {
                device.tgt.fds[1] = std::os::fd::AsRawFd::as_raw_fd(&file);
                device.tgt.nr_fds = 2;
            }
            Ok(())
        };
        UblkDev::new("forerun".into(), prepare, &control).map_err(failed("opening the character device"))
    }

    fn spawn(&mut self, number: u16, device: &Arc<UblkDev>) -> Result<(), DeviceError> {
        let device = Arc::clone(device);
        let backend = Arc::clone(&self.backend);
        let events = Arc::clone(&self.events);
        let abandoned = Arc::clone(&self.abandoned);
        let progress = Arc::clone(&self.progress);
        let (limits, data_path) = (self.limits, self.data_path());
        let cpus = self.cpus[usize::from(number)].clone();
        let name = format!("ublk{}q{number}", self.info.id);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let _guard = AbortOnPanic;
            let queue = Queue {
                number,
                device: &device,
                backend: &*backend,
                limits,
                data_path,
                cpus,
                events: &events,
                progress: &progress[usize::from(number)],
                abandoned: &abandoned,
            };
            if let Err(failure) = queue.run() {
                events.failed(queue.error(failure));
            }
            // What holds the character device open goes before the word is out.
            drop(queue);
            drop(device);
            events.change(|state| state.ended += 1);
        });
        self.threads.push(thread.map_err(DeviceError::process("starting a queue's thread"))?);
        Ok(())
    }

    fn describe(&self) -> DeviceInfo {
        let mut ready = self.events.look(|state| state.ready.clone());
        ready.sort_unstable();
        let queue = |(number, tid): (u16, i32)| QueueInfo {
            tid,
            cpus: self.cpus.get(usize::from(number)).cloned().unwrap_or_default(),
        };
        DeviceInfo {
            id: self.info.id,
            pid: std::process::id() as i32,
            geometry: self.limits.geometry,
            read_only: self.limits.read_only,
            queues: ready.into_iter().map(queue).collect(),
            depth: self.info.depth,
            io_buffer_bytes: self.info.io_buffer_bytes,
            data_path: self.data_path(),
            asked_flags: self.asked_flags,
            granted_flags: self.info.flags,
            not_granted: self.not_granted.clone(),
            recovered: self.recovered,
        }
    }

    /// Stops the device. Requests that the backend does not answer in time fail, so that it ends.
    fn stop_device(&mut self) {
        let id = self.info.id;
        // A stop of somebody else's has waited for them already.
        let waited = self.stopping_since.map_or(Duration::ZERO, |since| since.elapsed());
        let mut stopped = self.control.stop(id, STOP_LIMIT.saturating_sub(waited));
        if matches!(stopped, Err(DeviceError::Deadline { .. })) {
            let seconds = STOP_LIMIT.as_secs();
            tracing::error!(id, seconds, "requests are not answered: failing them to stop the device");
            self.abandon_requests();
            stopped = self.control.stop(id, SHORT);
        }
        if let Err(error) = stopped {
            // Somebody else may be stopping it: what counts is that the queues end.
            tracing::warn!(id, %error, "the device could not be stopped");
        }
    }

    /// Makes requests fail that the backend has not answered, now and from here on.
    fn abandon_requests(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.events.look(|state| state.wakeups.iter().for_each(|wakeups| wakeups.wake_all()));
    }

    /// Removes a device whose start failed, as far as the driver lets us, and logs what it does not. Says
    /// whether its queue threads have ended.
    fn undo(&mut self) -> bool {
        let id = self.info.id;
        self.abandon_requests();
        if let Err(error) = self.control.stop(id, SHORT) {
            tracing::warn!(id, %error, "a device whose start failed could not be stopped");
        }
        let ended = self.ended();
        let result = if ended {
            self.device = None;
            self.control.delete(id, DELETE_LIMIT)
        } else {
            self.control.delete_later(id)
        };
        match result {
            Ok(()) => tracing::info!(id, "the device was removed again"),
            Err(error) => tracing::warn!(id, %error, "a device whose start failed could not be removed"),
        }
        ended
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(id = self.info.id, "a queue thread panicked");
            }
        }
    }
}

impl DeviceInfo {
    fn log(&self) {
        let Self { id, data_path, depth, not_granted, .. } = self;
        let queues = self.queues.len();
        if !not_granted.is_empty() {
            tracing::warn!(id, ?not_granted, "the kernel did not grant all that was asked of it");
        }
        let action = if self.recovered { "taken over" } else { "started" };
        tracing::info!(id, %data_path, queues, depth, "device {action}");
    }
}
