//! Where requests wait until there is room: a list of wakers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::lock;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A place to wait for a change that others announce.
///
/// A waiter notes [`Room::now`] before it looks whether it has to wait; so a change announced in between
/// is not missed.
#[derive(Default)]
pub struct Room {
    announced: AtomicU64,
    waiters: AtomicU32,
    waiting: Mutex<Vec<Waker>>,
}

impl Room {
    /// The count of announcements so far.
    pub fn now(&self) -> u64 {
        self.announced.load(Ordering::SeqCst)
    }

    /// Wakes everyone who waits.
    pub fn wake_all(&self) {
        self.announced.fetch_add(1, Ordering::SeqCst);
        // A waiter counts itself before it looks at `announced`, so one of the two sees the other.
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = lock(&self.waiting);
        self.waiters.store(0, Ordering::SeqCst);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        for waker in woken {
            waker.wake();
        }
    }

    /// Whether anyone waits.
    pub fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) != 0 && !lock(&self.waiting).is_empty()
    }

    /// Waits until something is announced after `seen`.
    pub fn after(&self, seen: u64) -> After<'_> {
        After { room: self, seen }
    }
}

/// Waits for an announcement; see [`Room::after`].
pub struct After<'a> {
    room: &'a Room,
    seen: u64,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.room.waiting);
        self.room.waiters.fetch_add(1, Ordering::SeqCst);
        if self.room.now() != self.seen {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
