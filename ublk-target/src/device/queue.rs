//! One queue: its ring, its tasks, and the loop that drives both on the queue's own thread.
//!
//! The loop is our own because libublk's hangs on a stop once completions are deferred to the thread
//! that waits (DEFER_TASKRUN), which is the cheapest way. It ends when every tag's task has ended,
//! which they do when the driver aborts their fetch, and when no operation is in flight any more: only
//! then may the buffers go away.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use io_uring::{IoUring, squeue};
use libublk::io::{UblkDev, UblkQueue, with_task_io_ring};
use libublk::uring_async::{ublk_reap_io_events_with_update_queue, ublk_wake_task};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::copy::{CopyData, QueueBuffers};
use super::data::TagData;
use super::descriptor::Limits;
use super::error::{DeviceError, io_error};
use super::events::Events;
use super::fast::FastTier;
use super::ops::Ops;
use super::options::DataPath;
use super::overdue::Progress;
use super::tag::{TagContext, serve, watch};
use super::tasks::Tasks;
use super::wake::Wakeups;
use super::zero_copy::PageData;
use crate::request::Backend;

/// Entries in the ring for each tag: its fetch, and room for the operations of its request.
const SUBMISSIONS_PER_TAG: u32 = 4;
/// Completions that fit for each tag; the kernel keeps what is beyond, at a price.
const COMPLETIONS_PER_TAG: u32 = 8;

/// What a queue's thread works with.
pub(super) struct Queue<'d, B> {
    pub number: u16,
    pub device: &'d UblkDev,
    pub backend: &'d B,
    pub limits: Limits,
    pub data_path: DataPath,
    pub cpus: Vec<usize>,
    pub events: &'d Events,
    pub progress: &'d Progress,
    /// Set when a start or a stop is given up: requests then fail instead of waiting for the backend.
    pub abandoned: &'d AtomicBool,
}

/// What was being done, and why it failed.
pub(super) type Failure = (&'static str, io::Error);

impl<B: Backend> Queue<'_, B> {
    /// Serves the queue until the device is stopped, or until a failure that [`Events::failed`] was told of.
    ///
    /// # Errors
    /// The queue could not be set up.
    pub fn run(&self) -> Result<(), Failure> {
        let tid = libublk::ctrl::UblkCtrl::init_queue_thread();
        self.pin();
        let depth = u32::from(self.device.dev_info.queue_depth);
        prepare_ring(depth).map_err(|error| ("setting up the ring", error))?;
        let ublk_queue = UblkQueue::new(self.number, self.device)
            .map_err(|error| ("mapping the queue", io_error(error)))?;
        let tags = depth as usize;
        // One task more: it waits for wake-ups from other threads.
        let wakeups = Wakeups::new(tags + 1).map_err(|error| ("making an event", error))?;
        let ops = Ops::new(tags + 1, Arc::clone(&wakeups));
        let fast = |task| FastTier { ops: &ops, task, present: self.backend.fast_tier().is_some() };
        match self.data_path {
            DataPath::Copy => {
                let each = self.limits.io_buffer_bytes as usize;
                let buffers =
                    QueueBuffers::map(tags, each).map_err(|error| ("mapping request buffers", error))?;
                self.drive(tid, &ublk_queue, &ops, &wakeups, |tag| CopyData::new(fast(tag), &buffers));
            }
            DataPath::ZeroCopy => {
                // SAFETY: libublk keeps the character device open as long as `self.device`.
                let device = unsafe { BorrowedFd::borrow_raw(self.device.tgt.fds[0]) };
                let device: File = device
                    .try_clone_to_owned()
                    .map_err(|error| ("opening the character device again", error))?
                    .into();
                let data = |tag| PageData::new(fast(tag), &device, self.number);
                self.drive(tid, &ublk_queue, &ops, &wakeups, data);
            }
        }
        Ok(())
    }

    fn drive<D: TagData>(
        &self,
        tid: i32,
        ublk_queue: &UblkQueue<'_>,
        ops: &Ops,
        wakeups: &Arc<Wakeups>,
        data: impl Fn(usize) -> D,
    ) {
        debug_assert_eq!(D::PATH, self.data_path);
        let tags = usize::from(self.device.dev_info.queue_depth);
        let context = TagContext {
            queue: ublk_queue,
            ops,
            backend: self.backend,
            limits: self.limits,
            abandoned: self.abandoned,
            events: self.events,
            progress: self.progress,
            failed_requests: Cell::new(0),
            reported: Cell::new(None),
            serving: Cell::new(tags),
            place: (self.device.dev_info.dev_id, self.number),
        };
        let ended = Cell::new(false);
        let tasks = (0..=tags).map(|task| {
            let data = (task < tags).then(|| data(task));
            let (context, wakeups, ended) = (&context, &**wakeups, &ended);
            async move {
                match data {
                    Some(data) => {
                        serve(context, task as u16, data).await;
                        context.serving.set(context.serving.get() - 1);
                    }
                    None => watch(context.ops, task, wakeups, ended).await,
                }
            }
        });
        let mut tasks = Tasks::new(Arc::clone(wakeups), tasks);
        // Dropped first if something panics: the buffers must not go while the ring uses them.
        let _guard = AbortOnPanic;
        let result = self.turn_until_all_ended(tid, ublk_queue, &context, &mut tasks, &ended);
        if let Err(failure) = result {
            // Said here and not by the caller: with fetches under way, giving up the ring's files waits for them.
            self.events.failed(self.error(failure));
        }
    }

    /// Turns the ring and runs the woken tasks, until all have ended.
    fn turn_until_all_ended<F: Future<Output = ()>>(
        &self,
        tid: i32,
        ublk_queue: &UblkQueue<'_>,
        context: &TagContext<'_, B>,
        tasks: &mut Tasks<F>,
        ended: &Cell<bool>,
    ) -> Result<(), Failure> {
        let (ops, wakeups) = (context.ops, tasks.wakeups());
        let wakeups = &*wakeups;
        tasks.run_woken();
        if !self.events.all_set_up(self.device.dev_info.nr_hw_queues) {
            return Err(("starting", io::Error::other("the start was given up")));
        }
        // Every task is woken, so this does not wait.
        wakeups.wake_all();
        turn(ublk_queue, ops, wakeups).map_err(|error| ("submitting the first fetches", error))?;
        tasks.run_woken();
        self.events.change(|state| {
            state.wakeups.push(tasks.wakeups());
            state.ready.push((self.number, tid));
        });
        while context.serving.get() > 0 {
            turn(ublk_queue, ops, wakeups).map_err(|error| ("waiting in the ring", error))?;
            tasks.run_woken();
        }
        // Only the watch is left; its read ends once there is something to read.
        ended.set(true);
        wakeups.write_event();
        while tasks.running() > 0 {
            turn(ublk_queue, ops, wakeups).map_err(|error| ("ending the ring", error))?;
            tasks.run_woken();
        }
        Ok(())
    }

    /// A failure of this queue as an error of its device.
    pub fn error(&self, (what, source): Failure) -> DeviceError {
        DeviceError::Queue { id: self.device.dev_info.dev_id, queue: self.number, what, source }
    }

    /// Keeps the thread on the CPUs whose requests it serves; a hint, not a need.
    fn pin(&self) {
        let mut cpus = CpuSet::new();
        let known = self.cpus.iter().filter(|cpu| cpus.set(**cpu).is_ok()).count();
        if known > 0
            && let Err(error) = sched_setaffinity(Pid::from_raw(0), &cpus)
        {
            tracing::debug!(%error, queue = self.number, "the queue's thread runs on any CPU");
        }
    }
}

/// Ends the process when it is dropped by a panic.
///
/// The panic's message has been printed by then; the device stays and can be taken over.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a queue thread panicked: ending the process, the device can be recovered");
            std::process::abort();
        }
    }
}

/// Makes the thread's ring, before libublk makes one that has room for nothing but fetches.
fn prepare_ring(depth: u32) -> io::Result<()> {
    let build = |defer: bool| {
        let mut builder = IoUring::<squeue::Entry>::builder();
        builder.setup_cqsize(depth * COMPLETIONS_PER_TAG).setup_coop_taskrun();
        if defer {
            builder = IoUring::builder();
            builder.setup_cqsize(depth * COMPLETIONS_PER_TAG);
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        builder.build(depth * SUBMISSIONS_PER_TAG)
    };
    // Linux before 6.1 does not know the better way.
    let ring = build(true).or_else(|_| build(false))?;
    libublk::ublk_init_task_ring(|cell| {
        cell.set(RefCell::new(ring)).map_err(|_| libublk::UblkError::OtherError(-libc::EEXIST))
    })
    .map_err(io_error)
}

/// Submits what is there, waits for a completion unless a task is woken, and hands out all that have come.
fn turn(queue: &UblkQueue<'_>, ops: &Ops, wakeups: &Wakeups) -> io::Result<()> {
    let wait = usize::from(wakeups.fall_asleep());
    let entered = with_task_io_ring(|ring| ring.submit_and_wait(wait));
    // Before the completions wake tasks: the thread need not be told of those.
    wakeups.rise();
    if let Err(error) = entered {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME) => {}
            // No memory for now, or too many completions: they are taken below.
            Some(libc::EAGAIN | libc::EBUSY) => std::thread::sleep(Duration::from_millis(1)),
            _ => return Err(error),
        }
    }
    ublk_reap_io_events_with_update_queue(queue, false, None, |entry| {
        let user_data = entry.user_data();
        if Ops::is_ours(user_data) {
            ops.complete(user_data, entry.result());
        } else {
            ublk_wake_task(user_data, entry);
        }
    })
    .map(drop)
    .map_err(io_error)
}
