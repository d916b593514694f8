//! CPU time as the budget counts it: what this thread has used, whatever the wall clock says.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used so far (`CLOCK_THREAD_CPUTIME_ID`).
#[must_use]
pub fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, |time| {
        Duration::new(
            u64::try_from(time.tv_sec()).unwrap_or(0),
            u32::try_from(time.tv_nsec()).unwrap_or(0).min(999_999_999),
        )
    })
}

/// The most memory this process has had resident, in bytes.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0) * 1024)
}

/// A share of CPU time that runs out.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    started: Duration,
    allowed: Duration,
}

impl Budget {
    /// A budget of `seconds` of this thread's CPU time, from now on.
    #[must_use]
    pub fn start(seconds: f64) -> Self {
        let allowed = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Self { started: thread_time(), allowed }
    }

    /// CPU time used since the start.
    #[must_use]
    pub fn used(&self) -> Duration {
        thread_time().saturating_sub(self.started)
    }

    /// CPU time left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.used())
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.used() >= self.allowed
    }
}

/// Splits CPU time among what it was used for.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// Counts from now on.
    #[must_use]
    pub fn start() -> Self {
        Self(thread_time())
    }

    /// Adds this thread's CPU time since the start or the last lap to `total`.
    pub fn lap(&mut self, total: &mut Duration) {
        let now = thread_time();
        *total += now.saturating_sub(self.0);
        self.0 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_counts_work_and_not_sleep() {
        let budget = Budget::start(0.02);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!budget.spent(), "sleeping costs no CPU time");
        let mut rng = crate::rng::Rng::new(1);
        while !budget.spent() {
            std::hint::black_box(rng.next_u64());
        }
        assert!(budget.used() >= Duration::from_millis(20));
    }
}
