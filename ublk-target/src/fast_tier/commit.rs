//! Waiting for a commit: as a future for queue threads, blocking for others.
//!
//! A wait belongs to the first round of the journal that begins after it was made, so what completed
//! before it was made is in that round.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Condvar, Mutex, PoisonError};
use crate::volume::lock;

/// How a round went, for all who wait for it: `io::Error` cannot be cloned.
pub(super) type Outcome = Result<(), (io::ErrorKind, String)>;

/// An error's kind and words.
pub(super) fn outcome(result: &io::Result<()>) -> Outcome {
    result.as_ref().copied().map_err(|error| (error.kind(), error.to_string()))
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// One who waits.
#[derive(Default)]
pub(super) struct Waiter {
    state: Mutex<State>,
    done: Condvar,
}

impl Waiter {
    /// Tells how it went.
    pub fn finish(&self, outcome: &Outcome) {
        let mut state = lock(&self.state);
        state.outcome = Some(outcome.clone());
        self.done.notify_all();
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome.map_err(|(kind, words)| io::Error::new(kind, words));
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Resolves once everything that was written and appended before it was made is durable, or could not
/// be made so. Dropping it is allowed; the commit goes on.
#[must_use = "nothing is durable before it resolves"]
pub struct Commit(pub(super) Arc<Waiter>);

impl Commit {
    /// How it went, if it is done; once only.
    pub(super) fn outcome(&self) -> Option<io::Result<()>> {
        let outcome = lock(&self.0.state).outcome.take()?;
        Some(outcome.map_err(|(kind, words)| io::Error::new(kind, words)))
    }

    /// Blocks the thread until it is done.
    ///
    /// # Errors
    /// As when awaited.
    pub fn wait(self) -> io::Result<()> {
        self.0.wait()
    }
}

impl Future for Commit {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.state);
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome.map_err(|(kind, words)| io::Error::new(kind, words))),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
