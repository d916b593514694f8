//! Waking a queue's tasks, from its own thread and from others.
//!
//! Each task has a bit. Waking sets it: one atomic instruction, no allocation, no lock. The queue
//! thread says when it is about to sleep in its ring, and looks at the bits once more after it said so;
//! whoever sets a bit looks whether the thread sleeps, and then writes to an event that the ring
//! reads. One of the two always sees the other (all four accesses are sequentially consistent), so no
//! wake-up is lost; and as long as only the thread itself wakes its tasks, the event is never touched.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};

const BITS: usize = 64;

/// Which tasks of a queue are woken, and whether its thread sleeps.
pub(super) struct Wakeups {
    words: Box<[AtomicU64]>,
    asleep: AtomicBool,
    event: EventFd,
}

impl Wakeups {
    /// For `tasks` tasks, all of them woken.
    pub fn new(tasks: usize) -> io::Result<Arc<Self>> {
        let words = (0..tasks.div_ceil(BITS))
            .map(|word| {
                let count = (tasks - word * BITS).min(BITS);
                AtomicU64::new(u64::MAX >> (BITS - count))
            })
            .collect();
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Arc::new(Self { words, asleep: AtomicBool::new(false), event }))
    }

    /// A waker for the task with this number.
    pub fn waker(self: &Arc<Self>, task: usize) -> Waker {
        Waker::from(Arc::new(TaskWaker { task, wakeups: Arc::clone(self) }))
    }

    /// Wakes a task.
    pub fn wake(&self, task: usize) {
        if let Some(word) = self.words.get(task / BITS) {
            word.fetch_or(1 << (task % BITS), Ordering::SeqCst);
        }
        self.signal();
    }

    /// Wakes all tasks.
    pub fn wake_all(&self) {
        for word in &self.words {
            word.store(u64::MAX, Ordering::SeqCst);
        }
        self.signal();
    }

    fn signal(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.write_event();
        }
    }

    /// Makes the event readable, whether the thread sleeps or not.
    pub fn write_event(&self) {
        if let Err(error) = self.event.write(1) {
            tracing::error!(%error, "a queue thread could not be woken");
        }
    }

    /// The event's file, for the ring to read 8 bytes from.
    pub fn event_fd(&self) -> RawFd {
        self.event.as_fd().as_raw_fd()
    }

    /// Takes the woken tasks of word `word`.
    pub fn take(&self, word: usize) -> u64 {
        let bits = &self.words[word];
        // Mostly nothing is set: a load is cheaper than an exchange.
        if bits.load(Ordering::Relaxed) == 0 { 0 } else { bits.swap(0, Ordering::SeqCst) }
    }

    /// How many words there are, of 64 tasks each.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Says that the thread is about to sleep; `false` if it must not, because a task is woken.
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let nothing = self.words.iter().all(|word| word.load(Ordering::SeqCst) == 0);
        if !nothing {
            self.rise();
        }
        nothing
    }

    /// Says that the thread is awake.
    pub fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

struct TaskWaker {
    task: usize,
    wakeups: Arc<Wakeups>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakeups.wake(self.task);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn all_are_woken_at_first_and_each_once() {
        let wakeups = Wakeups::new(130).unwrap();
        assert_eq!(wakeups.words(), 3);
        assert_eq!(wakeups.take(0), u64::MAX);
        assert_eq!(wakeups.take(2), 0b11);
        assert!(!wakeups.fall_asleep(), "word 1 is still woken");
        assert_eq!(wakeups.take(1), u64::MAX);
        wakeups.waker(65).wake();
        assert_eq!(wakeups.take(1), 0b10);
        assert!(wakeups.fall_asleep());
    }

    #[test]
    fn a_sleeping_thread_is_signalled_once() {
        let wakeups = Wakeups::new(2).unwrap();
        wakeups.take(0);
        assert!(wakeups.fall_asleep());
        wakeups.waker(0).wake();
        wakeups.waker(1).wake();
        assert_eq!(wakeups.event.read().unwrap(), 1, "one event for both");
        assert_eq!(wakeups.take(0), 0b11);
    }

    #[test]
    fn no_wakeup_is_lost_between_threads() {
        const ROUNDS: usize = 50_000;
        let wakeups = Wakeups::new(1).unwrap();
        let waker = wakeups.waker(0);
        wakeups.take(0);
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            for () in receive {
                waker.wake_by_ref();
            }
        });
        for _ in 0..ROUNDS {
            send.send(()).unwrap();
            loop {
                if wakeups.take(0) != 0 {
                    break;
                }
                if wakeups.fall_asleep() {
                    wakeups.event.read().unwrap();
                }
                wakeups.rise();
            }
        }
        drop(send);
        other.join().unwrap();
    }
}
