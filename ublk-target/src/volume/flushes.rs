//! The flushes of the fast tier's device that are on their way, whoever asked for them.
//!
//! A device tells of lost writes once, to whoever's flush it was; the flush that comes after it succeeds. So the success of
//! one says nothing while another may have failed and nobody has taken note of it yet: whoever is told that its flush
//! succeeded waits for those that were on their way at that moment, and then looks whether the tier has failed. (The journal
//! does not wait while an appender is blocked: see `Shared::sync`.)

use std::collections::BTreeSet;

use super::wait::Room;
use crate::sync::Mutex;
use crate::volume::lock;

/// The flushes on their way.
#[derive(Default)]
pub struct Flushes {
    running: Mutex<Running>,
    ended: Room,
}

#[derive(Default)]
struct Running {
    begun: u64,
    numbers: BTreeSet<u64>,
}

impl Flushes {
    /// Counts a flush as on its way. To be called before the device is asked.
    pub fn begin(&self) -> Flush<'_> {
        let mut running = lock(&self.running);
        let number = running.begun;
        running.begun += 1;
        running.numbers.insert(number);
        Flush { flushes: self, number }
    }
}

/// A flush that is on its way, until it is dropped. Its failure, if it fails, is to be noted before that.
pub struct Flush<'a> {
    flushes: &'a Flushes,
    number: u64,
}

impl Flush<'_> {
    /// Says that it succeeded, and waits until all those have ended that are on their way now: their failures are noted then.
    ///
    /// It ends itself first, so no two wait for each other; and it waits for none that begins later.
    pub async fn succeeded(self) {
        let flushes = self.flushes;
        let end = lock(&flushes.running).begun;
        drop(self);
        loop {
            let seen = flushes.ended.now();
            if lock(&flushes.running).numbers.first().is_none_or(|oldest| *oldest >= end) {
                return;
            }
            flushes.ended.after(seen).await;
        }
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        lock(&self.flushes.running).numbers.remove(&self.number);
        self.flushes.ended.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::Flushes;

    #[test]
    fn a_success_waits_for_those_on_their_way_and_for_no_later_one() {
        let flushes = Flushes::default();
        let (one, two) = (flushes.begin(), flushes.begin());
        let mut context = Context::from_waker(Waker::noop());
        let mut success = pin!(two.succeeded());
        assert_eq!(success.as_mut().poll(&mut context), Poll::Pending);
        let later = flushes.begin();
        assert_eq!(success.as_mut().poll(&mut context), Poll::Pending);
        // Neither of two that end at the same time waits for the other.
        let mut also = pin!(one.succeeded());
        assert_eq!(also.as_mut().poll(&mut context), Poll::Pending, "the later one is on its way");
        assert_eq!(success.as_mut().poll(&mut context), Poll::Ready(()));
        drop(later);
        assert_eq!(also.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
