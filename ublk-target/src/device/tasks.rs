//! The tasks of one queue: one future a tag, polled when it is woken.
//!
//! As little as an executor can be: all tasks are of one type and live as long as the queue, so there
//! is nothing to allocate, to queue or to lock while requests come and go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::wake::Wakeups;

/// A queue's tasks.
pub(super) struct Tasks<F> {
    tasks: Vec<Option<Pin<Box<F>>>>,
    wakers: Vec<Waker>,
    wakeups: Arc<Wakeups>,
    running: usize,
}

impl<F: Future<Output = ()>> Tasks<F> {
    /// Takes the tasks; none is polled yet. `wakeups` has a bit for each.
    pub fn new(wakeups: Arc<Wakeups>, tasks: impl Iterator<Item = F>) -> Self {
        let tasks: Vec<_> = tasks.map(|task| Some(Box::pin(task))).collect();
        let wakers = (0..tasks.len()).map(|task| wakeups.waker(task)).collect();
        Self { running: tasks.len(), tasks, wakers, wakeups }
    }

    /// Polls each woken task once.
    ///
    /// A task that wakes itself is polled again in the next round, after the ring had its turn.
    pub fn run_woken(&mut self) {
        for word in 0..self.wakeups.words() {
            let mut woken = self.wakeups.take(word);
            while woken != 0 {
                let task = word * 64 + woken.trailing_zeros() as usize;
                woken &= woken - 1;
                self.poll(task);
            }
        }
    }

    fn poll(&mut self, index: usize) {
        let (Some(slot), Some(waker)) = (self.tasks.get_mut(index), self.wakers.get(index)) else { return };
        let Some(task) = slot else { return };
        if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            *slot = None;
            self.running -= 1;
        }
    }

    /// Which of them are woken.
    pub fn wakeups(&self) -> Arc<Wakeups> {
        Arc::clone(&self.wakeups)
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[test]
    fn tasks_run_when_woken_and_end() {
        let wakeups = Wakeups::new(3).unwrap();
        let polls = Cell::new(0);
        let task = |index: usize| {
            let polls = &polls;
            let mut left = index;
            poll_fn(move |context| {
                polls.set(polls.get() + 1);
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })
        };
        let mut tasks = Tasks::new(Arc::clone(&wakeups), (0..3).map(task));
        tasks.run_woken();
        assert_eq!((tasks.running(), polls.get()), (2, 3));
        tasks.run_woken();
        assert_eq!((tasks.running(), polls.get()), (1, 5));
        wakeups.wake_all();
        tasks.run_woken();
        assert_eq!((tasks.running(), polls.get()), (0, 6));
        tasks.run_woken();
        assert_eq!(polls.get(), 6);
    }
}
