//! One budget for all background I/O, tied to foreground latency.
//!
//! The rate of background bytes rises while requests are as quick as they can be and falls when they
//! are not (additive increase, multiplicative decrease, as in TCP: Chiu and Jain, 1989). Work that the
//! foreground waits for (no free slot, the journal of epochs full) is urgent and is not held back.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The least rate, in bytes a second: background work never stops.
pub(super) const RATE_MIN: f64 = 8.0 * 1024.0 * 1024.0;
/// The highest rate, in bytes a second.
const RATE_MAX: f64 = 8.0 * 1024.0 * 1024.0 * 1024.0;
/// Where the rate begins.
const RATE_START: f64 = 256.0 * 1024.0 * 1024.0;
/// How much the rate rises in an interval in which requests were quick: an eighth.
const RISE: f64 = 1.125;
/// How much may be owed to the budget, as time at the current rate: what urgent work took beyond it is forgiven.
const DEBT_MAX: Duration = Duration::from_secs(1);
/// How often the rate is set.
const INTERVAL: Duration = Duration::from_millis(100);
/// Requests this many times slower than their best average count as slowed down.
const SLOW: f64 = 2.0;
/// An average request below this is quick, whatever the best is, in nanoseconds.
const QUICK_NS: f64 = 200_000.0;

/// What queue threads tell of the foreground's latency. One request in sixteen is timed.
#[derive(Default, Debug)]
pub struct Foreground {
    total_ns: AtomicU64,
    samples: AtomicU64,
}

impl Foreground {
    /// Takes note of a request that took `ns` nanoseconds.
    pub fn note(&self, ns: u64) {
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }
}

/// Follows the foreground's latency; each has its own.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct MeanTime {
    total_ns: u64,
    samples: u64,
}

impl MeanTime {
    /// The average since the last call in nanoseconds; `None` where no request was timed.
    pub fn take(&mut self, foreground: &Foreground) -> Option<f64> {
        // In the order in which they are added to, backwards: a sample too few, and never a time too few.
        let samples = foreground.samples.load(Ordering::Relaxed);
        let total_ns = foreground.total_ns.load(Ordering::Relaxed);
        let before = std::mem::replace(self, Self { total_ns, samples });
        let new = samples.wrapping_sub(before.samples);
        (new > 0).then(|| total_ns.wrapping_sub(before.total_ns) as f64 / new as f64)
    }
}

/// The budget; used by the background thread only.
pub(crate) struct Budget {
    rate: Cell<f64>,
    best_ns: Cell<f64>,
    mean: Cell<MeanTime>,
    set_at: Cell<Instant>,
    /// When the bytes taken so far will have been paid for.
    paid_until: Cell<Instant>,
}

impl Budget {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            rate: Cell::new(RATE_START),
            best_ns: Cell::new(f64::INFINITY),
            mean: Cell::default(),
            set_at: Cell::new(now),
            paid_until: Cell::new(now),
        }
    }

    /// Takes `bytes` from the budget; waits until they are there, unless the work is `urgent`.
    pub async fn take(&self, bytes: u64, foreground: &Foreground, urgent: &AtomicBool) {
        let now = Instant::now();
        self.adjust(now, foreground);
        let from = self.paid_until.get().max(now);
        let until = from + Duration::from_secs_f64(bytes as f64 / self.rate.get());
        self.paid_until.set(until.min(now + DEBT_MAX));
        if from > now && !urgent.load(Ordering::Relaxed) {
            tokio::time::sleep_until(from.min(now + INTERVAL)).await;
        }
    }

    fn adjust(&self, now: Instant, foreground: &Foreground) {
        if now.duration_since(self.set_at.get()) < INTERVAL {
            return;
        }
        self.set_at.set(now);
        let mut mean = self.mean.get();
        let average = mean.take(foreground);
        self.mean.set(mean);
        let slow = average.is_some_and(|average| {
            // The best fades, so that a device that has become slower is not for ever 'slow'.
            let best = (self.best_ns.get() * 1.001).min(average);
            self.best_ns.set(best);
            average > QUICK_NS && average > best * SLOW
        });
        let rate = if slow { self.rate.get() / 2.0 } else { self.rate.get() * RISE };
        debug_assert!(rate.is_finite() && rate > 0.0, "{rate}");
        self.rate.set(rate.clamp(RATE_MIN, RATE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_requests_halve_the_rate_and_quick_ones_raise_it() {
        let budget = Budget::new();
        let foreground = Foreground::default();
        let mut now = Instant::now();
        let mut interval = |ns: u64| {
            now += INTERVAL;
            foreground.note(ns);
            budget.adjust(now, &foreground);
            budget.rate.get()
        };
        let quick = interval(300_000);
        assert!(quick > RATE_START);
        assert!((interval(3_000_000) - quick / 2.0).abs() < 1.0);
        for _ in 0..100 {
            assert!(interval(3_000_000_000) >= RATE_MIN);
        }
    }
}
