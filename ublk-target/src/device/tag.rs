//! The task of one tag: fetch a request, let the backend do it, answer it and fetch the next.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use io_uring::{opcode, types};
use libublk::UblkError;
use libublk::io::UblkQueue;
use nix::libc;

use super::data::TagData;
use super::descriptor::Limits;
use super::error::{DeviceError, io_error};
use super::events::Events;
use super::ops::{Ops, make_room};
use super::overdue::Progress;
use super::wake::Wakeups;
use crate::aligned::AlignedBuffer;
use crate::request::{Backend, Request};

/// At most so often is a failed request logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What the tasks of a queue share.
pub(super) struct TagContext<'q, B> {
    pub queue: &'q UblkQueue<'q>,
    pub ops: &'q Ops,
    pub backend: &'q B,
    pub limits: Limits,
    pub abandoned: &'q AtomicBool,
    pub events: &'q Events,
    pub progress: &'q Progress,
    /// How many requests have failed, and when that was last logged.
    pub failed_requests: Cell<u64>,
    pub reported: Cell<Option<Instant>>,
    /// How many tags' tasks have not ended.
    pub serving: Cell<usize>,
    /// The device's number and the queue's, for messages.
    pub place: (u32, u16),
}

/// Serves a tag until the driver aborts its fetch.
pub(super) async fn serve<B: Backend, D: TagData>(context: &TagContext<'_, B>, tag: u16, data: D) {
    let queue = context.queue;
    if let Err(error) = make_room() {
        return context.fail("fetching", error);
    }
    let mut fetched = queue.submit_io_prep_cmd(tag, data.descriptor(), 0, None).await;
    loop {
        match fetched {
            Ok(0) => {}
            Err(UblkError::QueueIsDown) => return,
            Ok(code) => return context.fail("fetching", io::Error::from_raw_os_error(code.abs())),
            Err(error) => return context.fail("fetching", io_error(error)),
        }
        context.progress.note_taken();
        let result = match context.limits.request(queue.get_iod(tag), || context.backend.geometry()) {
            Ok(request) => {
                data.begin(&request);
                context.answer(request, context.handle(request, &data).await)
            }
            Err(errno) => -errno,
        };
        // The backend may have given up waiting for something that still uses the data.
        context.ops.settled(usize::from(tag)).await;
        context.progress.note_answered();
        // Once the queue stops, libublk takes no more commands and would never answer; the driver
        // has finished what it had delivered before it stops a queue.
        if queue.is_stopping() {
            return;
        }
        if let Err(error) = make_room() {
            return context.fail("answering", error);
        }
        fetched = queue.submit_io_commit_cmd(tag, data.descriptor(), result).await;
    }
}

impl<B: Backend> TagContext<'_, B> {
    /// The backend's answer, unless it is given up meanwhile.
    async fn handle<D: TagData>(&self, request: Request, data: &D) -> io::Result<()> {
        let mut handle = pin!(self.backend.handle(request, data));
        poll_fn(|context| match handle.as_mut().poll(context) {
            Poll::Pending if self.abandoned.load(Ordering::Relaxed) => {
                Poll::Ready(Err(io::Error::from_raw_os_error(libc::EIO)))
            }
            poll => poll,
        })
        .await
    }

    /// A request's result as the driver takes it: bytes done, or a negative errno.
    fn answer(&self, request: Request, result: io::Result<()>) -> i32 {
        match result {
            Ok(()) => request.len_bytes as i32,
            Err(error) => {
                self.report(request, &error);
                // An errno of 0 or less would be taken for success.
                -error.raw_os_error().filter(|errno| *errno > 0).unwrap_or(libc::EIO)
            }
        }
    }

    /// Logs a failed request, but not thousands a second.
    #[cold]
    fn report(&self, request: Request, error: &io::Error) {
        let failed = self.failed_requests.get() + 1;
        self.failed_requests.set(failed);
        if self.reported.get().is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported.set(Some(Instant::now()));
            tracing::warn!(?request, %error, failed, "a request failed; so many of this queue so far");
        }
    }

    /// Something went wrong between the driver and us: this tag serves no more.
    fn fail(&self, what: &'static str, source: io::Error) {
        let (id, queue) = self.place;
        self.events.failed(DeviceError::Queue { id, queue, what, source });
    }
}

/// Reads the event that other threads write to wake the queue, until the tasks have ended.
///
/// There is nothing to do with what was read: that it was read has woken the thread, and whom to
/// poll is in the bits of [`Wakeups`].
pub(super) async fn watch(ops: &Ops, task: usize, wakeups: &Wakeups, ended: &Cell<bool>) {
    const EVENT_BYTES: u32 = 8;
    let mut buffer = AlignedBuffer::zeroed(EVENT_BYTES as usize);
    while !ended.get() {
        let entry =
            opcode::Read::new(types::Fd(wakeups.event_fd()), buffer.as_mut_ptr(), EVENT_BYTES).build();
        // SAFETY: the buffer goes with the operation, and the event outlives the queue's loop.
        let (result, back) = unsafe { ops.submit(task, entry, Some(buffer)) }.await;
        let Some(back) = back else { return };
        buffer = back;
        if result < 0 && !matches!(-result, libc::EINTR | libc::EAGAIN) {
            tracing::error!(result, "wake-ups of other threads cannot be read any more");
            return;
        }
    }
}
