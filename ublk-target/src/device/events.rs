//! What queue threads tell the thread that runs the device, and how it is told to stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::DeviceError;
use super::wake::Wakeups;

/// Asks a running device to stop. Clones ask the same device.
#[derive(Clone, Default)]
pub struct Stop(Arc<Events>);

impl Stop {
    /// Stops the device: requests under way are finished, then `run` returns. May be called at any
    /// time, also before the device has started.
    pub fn request(&self) {
        self.0.change(|state| state.stop = true);
    }

    pub(super) fn events(&self) -> &Arc<Events> {
        &self.0
    }
}

/// What has happened so far.
#[derive(Default)]
pub(super) struct Events {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// Whether the device is to stop.
    pub stop: bool,
    /// The queues that wait for requests: number, thread.
    pub ready: Vec<(u16, i32)>,
    /// How to wake the queues that have come so far.
    pub wakeups: Vec<Arc<Wakeups>>,
    /// How many queue threads have ended.
    pub ended: u16,
    /// The first error of a queue.
    pub failure: Option<DeviceError>,
}

impl State {
    /// Keeps the first failure.
    pub fn fail(&mut self, error: DeviceError) {
        self.failure.get_or_insert(error);
    }
}

impl Events {
    /// Changes the state and lets those who wait look at it.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.lock())
    }

    /// Waits until `done` says so; `false` if the time is up first.
    pub fn wait(&self, until: Option<Instant>, done: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        while !done(&state) {
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a queue thread ends the process; another one leaves nothing half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stop_is_seen_and_a_limit_kept() {
        let stop = Stop::default();
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!stop.events().wait(Some(soon), |state| state.stop));
        let clone = stop.clone();
        let other = std::thread::spawn(move || clone.request());
        assert!(stop.events().wait(None, |state| state.stop));
        other.join().unwrap();
    }
}
