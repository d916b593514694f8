//! The shortest history that still fails.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::history::History;
use super::run::{Counts, run};

/// Runs of one shrinking, at most.
const TRIES: usize = 600;

thread_local! {
    /// What the last panic of this thread said, in whichever task.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is in a run: its panics are findings then.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a history; gives what went wrong.
pub fn try_run(history: &History) -> Result<Counts, String> {
    watched(|| run(history))
}

/// Does a run; gives what went wrong, also in a task that nobody waited for.
pub fn watched<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                SAID.with(|said| said.borrow_mut().get_or_insert_with(|| info.to_string()).len());
            } else {
                before(info);
            }
        }));
    });
    SAID.take();
    RUNNING.set(true);
    let ran = catch_unwind(AssertUnwindSafe(work));
    RUNNING.set(false);
    match (ran, SAID.take()) {
        (Ok(done), None) => Ok(done),
        (_, said) => Err(said.unwrap_or_else(|| "a panic without words".to_owned())),
    }
}

/// Leaves out steps as long as the history fails. What it fails with may change on the way.
pub fn shrink(history: &History) -> (History, String) {
    let mut shortest = history.clone();
    let mut words = String::new();
    let mut tries = 0;
    let mut chunk = shortest.steps.len().div_ceil(2);
    while chunk > 0 && tries < TRIES {
        let mut from = 0;
        let before = shortest.steps.len();
        while from < shortest.steps.len() && tries < TRIES {
            tries += 1;
            let mut shorter = shortest.clone();
            shorter.steps.drain(from..(from + chunk).min(shorter.steps.len()));
            match try_run(&shorter) {
                Err(said) => (shortest, words) = (shorter, said),
                Ok(_) => from += chunk,
            }
        }
        if chunk > 1 || shortest.steps.len() == before {
            chunk /= 2;
        }
    }
    (shortest, words)
}
