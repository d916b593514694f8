//! Operations on a queue's ring: what was submitted, who waits for it, what memory it uses.
//!
//! The kernel writes to an operation's memory until its completion has come, whatever becomes of the
//! future that waits for it. So an operation's own buffer belongs to this table until then, and a
//! future that is dropped early only loses its interest. A request's buffer belongs to its tag; a tag
//! counts its operations, and a request is answered only once they all have come back
//! ([`Ops::settled`]).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use io_uring::squeue;
use libublk::UblkUringData;
use libublk::io::with_task_io_ring_mut;
use nix::libc;

use super::wake::Wakeups;
use crate::aligned::AlignedBuffer;

/// Marks a completion as ours: libublk's own have this bit clear.
const OURS: u64 = UblkUringData::Target as u64;
/// No slot.
const NONE: u32 = u32::MAX;
/// How often a full ring is submitted before an operation is given up.
const SUBMIT_TRIES: u32 = 1000;

/// The operations of one queue, used by its thread only.
pub(super) struct Ops {
    table: RefCell<Table>,
    in_flight: Vec<Cell<u32>>,
    wakeups: Arc<Wakeups>,
}

struct Table {
    slots: Vec<Slot>,
    free: u32,
}

struct Slot {
    state: State,
    task: u32,
    result: i32,
    waker: Option<Waker>,
    buffer: Option<AlignedBuffer>,
    next_free: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    InFlight,
    /// In flight, and nobody waits for it.
    Forsaken,
    Done,
}

impl Ops {
    /// A table for `tasks` tasks; it grows with what they submit.
    pub fn new(tasks: usize, wakeups: Arc<Wakeups>) -> Self {
        let table = Table { slots: Vec::with_capacity(tasks * 2), free: NONE };
        Self { table: RefCell::new(table), in_flight: vec![Cell::new(0); tasks], wakeups }
    }

    /// Submits an operation of a task, and gives the future of its result.
    ///
    /// # Safety
    /// The memory and files that `entry` names stay valid until the operation has completed: they
    /// are `buffer`'s, or outlive the queue's loop.
    pub unsafe fn submit(
        &self,
        task: usize,
        entry: squeue::Entry,
        buffer: Option<AlignedBuffer>,
    ) -> Operation<'_> {
        let index = self.table.borrow_mut().take(task, buffer);
        let entry = entry.user_data(OURS | u64::from(index));
        if let Err(error) = push(&entry) {
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            self.table.borrow_mut().slots[index as usize].fail(-code);
        } else {
            let count = &self.in_flight[task];
            count.set(count.get() + 1);
        }
        Operation { ops: self, index }
    }

    /// Whether a completion is one of ours.
    pub fn is_ours(user_data: u64) -> bool {
        user_data & OURS != 0
    }

    /// Takes an operation's completion from the ring.
    pub fn complete(&self, user_data: u64, result: i32) {
        let index = (user_data & !OURS) as u32;
        let mut table = self.table.borrow_mut();
        let Some(slot) = table.slots.get_mut(index as usize) else { return };
        debug_assert!(matches!(slot.state, State::InFlight | State::Forsaken), "{:?}", slot.state);
        let task = slot.task as usize;
        let left = self.in_flight[task].get() - 1;
        self.in_flight[task].set(left);
        if slot.state == State::Forsaken {
            let buffer = table.release(index);
            drop(table);
            drop(buffer);
            if left == 0 {
                self.wakeups.wake(task);
            }
            return;
        }
        slot.state = State::Done;
        slot.result = result;
        let waker = slot.waker.take();
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until none of a task's operations is in flight.
    pub async fn settled(&self, task: usize) {
        if self.in_flight[task].get() == 0 {
            return;
        }
        poll_fn(|_| if self.in_flight[task].get() == 0 { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Table {
    fn take(&mut self, task: usize, buffer: Option<AlignedBuffer>) -> u32 {
        let taken = Slot {
            state: State::InFlight,
            task: task as u32,
            result: 0,
            waker: None,
            buffer,
            next_free: NONE,
        };
        if self.free == NONE {
            self.slots.push(taken);
            return (self.slots.len() - 1) as u32;
        }
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        self.free = slot.next_free;
        *slot = taken;
        index
    }

    fn release(&mut self, index: u32) -> Option<AlignedBuffer> {
        let slot = &mut self.slots[index as usize];
        slot.state = State::Free;
        slot.waker = None;
        slot.next_free = self.free;
        self.free = index;
        slot.buffer.take()
    }
}

impl Slot {
    fn fail(&mut self, result: i32) {
        self.state = State::Done;
        self.result = result;
    }
}

/// The result of an operation: the kernel's number, and the buffer that was given.
pub(super) struct Operation<'o> {
    ops: &'o Ops,
    index: u32,
}

impl Future for Operation<'_> {
    type Output = (i32, Option<AlignedBuffer>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut table = self.ops.table.borrow_mut();
        let slot = &mut table.slots[self.index as usize];
        if slot.state == State::Done {
            let result = slot.result;
            let buffer = table.release(self.index);
            drop(table);
            self.index = NONE;
            return Poll::Ready((result, buffer));
        }
        let known = slot.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !known {
            slot.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if self.index == NONE {
            return;
        }
        let mut table = self.ops.table.borrow_mut();
        let slot = &mut table.slots[self.index as usize];
        if slot.state == State::Done {
            let buffer = table.release(self.index);
            drop(table);
            drop(buffer);
        } else {
            slot.state = State::Forsaken;
            slot.waker = None;
        }
    }
}

/// Puts an entry into the thread's ring, submitting what is there if it is full.
fn push(entry: &squeue::Entry) -> io::Result<()> {
    with_task_io_ring_mut(|ring| {
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: the caller of `Ops::submit` vouches for the entry's memory and files.
            if unsafe { ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            match ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    })
}

/// Sees to it that the thread's ring has room for one more entry.
///
/// libublk's own submissions cannot wait and panic where this would fail.
pub(super) fn make_room() -> io::Result<()> {
    with_task_io_ring_mut(|ring| {
        for _ in 0..SUBMIT_TRIES {
            if !ring.submission().is_full() {
                return Ok(());
            }
            match ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    })
}
