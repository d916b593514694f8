//! Noticing that somebody else's stop waits for requests that are not answered.
//!
//! The driver tells a target of a STOP_DEV (`ublk del`) only once all requests under way are answered: with a
//! backend that cannot answer, both would wait without end. But the driver holds the device's lock
//! meanwhile, and delivers nothing more. So the target asks for something that needs that lock, now and then while
//! requests are under way; an answer that stays out for as long as a stop may take, while
//! no request was delivered and one was under way all the time, means that it is being stopped.
//!
//! Nothing else holds the lock of a device that is served for more than a moment. Even so both signs have to come
//! together, since what follows from them is that requests fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often it is looked whether somebody stops the device, while requests are under way.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How many requests a queue has taken and answered; counted by its thread, read by another.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Progress {
    taken: AtomicU64,
    answered: AtomicU64,
}

impl Progress {
    /// Counts a request that was delivered.
    pub fn note_taken(&self) {
        add_one(&self.taken);
    }

    /// Counts a request that was answered.
    pub fn note_answered(&self) {
        add_one(&self.answered);
    }
}

/// Only one thread counts, so that no locked instruction is needed.
fn add_one(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
}

/// The requests of a device at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    taken: u64,
    answered: u64,
}

impl Moment {
    /// What the queues have counted.
    pub fn of(queues: &[Progress]) -> Self {
        // The answered ones first: what comes in between then looks busy, never idle.
        let sum = |count: fn(&Progress) -> &AtomicU64| {
            queues.iter().map(|queue| count(queue).load(Ordering::Acquire)).sum()
        };
        let answered = sum(|queue| &queue.answered);
        Self { taken: sum(|queue| &queue.taken), answered }
    }

    /// Whether a request is under way.
    pub fn is_busy(self) -> bool {
        self.taken > self.answered
    }

    /// Whether, by what is counted now, a request of this moment was under way all the time since and none was
    /// delivered.
    pub fn stands_still(self, now: Self) -> bool {
        self.taken == now.taken && now.is_busy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stands_still_only_while_nothing_new_comes_and_something_waits() {
        let queues: [Progress; 2] = Default::default();
        assert!(!Moment::of(&queues).is_busy());
        for _ in 0..3 {
            queues[0].note_taken();
        }
        queues[1].note_taken();
        let before = Moment::of(&queues);
        assert!(before.is_busy() && before.stands_still(Moment::of(&queues)));
        // Some are answered and others wait.
        queues[0].note_answered();
        queues[1].note_answered();
        assert!(before.stands_still(Moment::of(&queues)));
        // One is delivered: the device is not being stopped.
        queues[1].note_taken();
        assert!(!before.stands_still(Moment::of(&queues)));
        for _ in 0..2 {
            queues[0].note_answered();
        }
        queues[1].note_answered();
        let idle = Moment::of(&queues);
        assert!(!idle.is_busy() && !idle.stands_still(idle));
    }
}
