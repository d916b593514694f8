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
    /// How many queues have all that they need, and only have to fetch.
    pub set_up: u16,
    /// The queues that wait for requests: number, thread.
    pub ready: Vec<(u16, i32)>,
    /// How to wake the queues that have come so far.
    pub wakeups: Vec<Arc<Wakeups>>,
    /// How many queue threads have ended.
    pub ended: u16,
    /// Whether the start has failed: queues that have not fetched yet need not.
    pub given_up: bool,
    /// Whether the device is there, with users whose requests wait if a queue fails.
    pub live: bool,
    /// The first error of a queue, before the device was there.
    pub failure: Option<DeviceError>,
}

impl State {
    /// Keeps a queue's failure for the start to hand back. Gives it back once the device is there: then
    /// there is nothing to undo.
    #[must_use]
    pub fn fail(&mut self, error: DeviceError) -> Option<DeviceError> {
        if self.live {
            return Some(error);
        }
        self.failure.get_or_insert(error);
        None
    }

    /// Says that the device is there, unless a queue has failed or a stop has come before.
    pub fn go_live(&mut self, id: u32) -> Result<(), DeviceError> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.stop => Err(DeviceError::StoppedEarly(id)),
            None => {
                self.live = true;
                Ok(())
            }
        }
    }
}

impl Events {
    /// Takes a queue's failure. Ends the process if the device is there: its users' requests would wait for
    /// that queue without end, while the device of a process that died can be taken over.
    pub fn failed(&self, error: DeviceError) {
        if let Some(error) = self.change(|state| state.fail(error)) {
            tracing::error!(%error, "a queue failed: ending the process, the device can be recovered");
            std::process::abort();
        }
    }

    /// Waits until all queues are set up; `false` if one of them cannot be, or the start is given up.
    ///
    /// Before Linux 6.15 a take-over that ends when only some queues have fetched makes the next one crash
    /// the driver: so none fetches before all can.
    pub fn all_set_up(&self, queues: u16) -> bool {
        self.change(|state| state.set_up += 1);
        let settled = |state: &State| state.set_up >= queues || state.failure.is_some() || state.given_up;
        self.wait(None, settled);
        self.look(|state| state.failure.is_none() && !state.given_up)
    }

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

    fn broken(queue: u16) -> DeviceError {
        let source = std::io::Error::from_raw_os_error(5);
        DeviceError::Queue { id: 0, queue, what: "waiting in the ring", source }
    }

    #[test]
    fn a_failure_is_handed_back_only_until_the_device_is_there() {
        let mut state = State::default();
        assert!(state.fail(broken(1)).is_none() && state.fail(broken(2)).is_none());
        let error = state.go_live(0).unwrap_err();
        assert!(matches!(error, DeviceError::Queue { queue: 1, .. }), "the first: {error}");
        assert!(!state.live);

        let mut state = State { stop: true, ..State::default() };
        assert!(matches!(state.go_live(3), Err(DeviceError::StoppedEarly(3))));

        let mut state = State::default();
        state.go_live(0).unwrap();
        assert!(state.fail(broken(0)).is_some(), "the process has to end");
        assert!(state.failure.is_none());
    }

    #[test]
    fn no_queue_fetches_before_all_can() {
        let stop = Stop::default();
        let events = Arc::clone(stop.events());
        let first = std::thread::spawn(move || events.all_set_up(2));
        assert!(stop.events().wait(None, |state| state.set_up == 1));
        assert!(!first.is_finished());
        assert!(stop.events().all_set_up(2));
        assert!(first.join().unwrap());

        for give_up in [false, true] {
            let stop = Stop::default();
            let events = Arc::clone(stop.events());
            let waiting = std::thread::spawn(move || events.all_set_up(2));
            if give_up {
                stop.events().change(|state| state.given_up = true);
            } else {
                stop.events().failed(broken(1));
            }
            assert!(!waiting.join().unwrap());
        }
    }
}
