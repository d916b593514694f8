//! Work beside the requests: seals epochs, writes sealed layers back, serves misses, promotes, evicts,
//! acts on predictions. One thread with a ring of its own (tokio-uring).
//!
//! ```text
//! queue threads --Ask--> background thread --reads--> capacity tier
//!       ^                      |  '------reads/writes--> fast tier (own ring)
//!       '---- the map ---------'  (plan, commit: `volume`)
//! ```
//!
//! It meets requests only through the map and through [`Ask`]. When it stops working (a capacity tier that
//! is gone), requests that the fast tier can serve go on.

mod budget;
mod capacity;
mod evict;
mod fast_file;
mod fetch;
mod predict;
mod seal;
mod shared;
mod write_back;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

pub use budget::Foreground;
pub use capacity::{Ask, CapacityError, CapacityReply, KeptLayer, Reply};
pub use predict::{Acted, PredictionState};
pub use seal::{Sealer, now_us};
pub use shared::{Progress, Settings, Shared};

use crate::capacity_tier::CapacityTier;
use budget::Budget;
use fast_file::FastFile;

/// How often the background looks for work that nobody asked for.
const TICK: std::time::Duration = std::time::Duration::from_millis(50);

/// What every task of the background thread uses.
struct Tasks {
    shared: Arc<Shared>,
    capacity: CapacityTier,
    fast: FastFile,
    budget: Budget,
    fetches: fetch::Fetches,
}

impl Tasks {
    /// Waits for room in the budget for `bytes`.
    async fn budget(&self, bytes: u64) {
        self.budget.take(bytes, &self.shared.foreground, &self.shared.urgent).await;
    }
}

/// The background thread; ends when [`Ask::Stop`] is done.
pub struct Background {
    thread: JoinHandle<()>,
}

impl Background {
    /// Starts the thread over a fast tier's file. `open` opens the capacity tier on the new thread, which it
    /// never leaves; its error is returned.
    ///
    /// # Errors
    /// No thread, no ring, or what `open` fails with.
    pub fn start<O, F>(
        shared: Arc<Shared>,
        asks: mpsc::UnboundedReceiver<Ask>,
        fast: std::fs::File,
        slots_offset: u64,
        open: O,
    ) -> io::Result<Self>
    where
        O: FnOnce() -> F + Send + 'static,
        F: Future<Output = io::Result<CapacityTier>>,
    {
        let (opened, told) = std::sync::mpsc::channel();
        let body = move || {
            let failed = opened.clone();
            let run = async move {
                let capacity = match open().await {
                    Ok(capacity) => capacity,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                let _ = opened.send(Ok(()));
                let fast = FastFile::new(fast, slots_offset);
                let (budget, fetches) = (Budget::new(), fetch::Fetches::default());
                serve(Rc::new(Tasks { shared, capacity, fast, budget, fetches }), asks).await;
            };
            // tokio-uring panics where it gets no ring; the caller is told of an error instead.
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio_uring::start(run)));
            if ran.is_err() {
                let _ = failed.send(Err(io::Error::other("the background thread ended by a panic")));
                tracing::error!("the background thread ended by a panic: ending, to be recovered");
                std::process::abort();
            }
        };
        let thread = std::thread::Builder::new().name("background".to_owned()).spawn(body)?;
        match told.recv() {
            Ok(Ok(())) => Ok(Self { thread }),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(_) => Err(io::Error::other("the background thread ended before it had begun")),
        }
    }

    /// Waits for the thread's end, after [`Ask::Stop`].
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the background thread ended by a panic");
        }
    }
}

/// Serves asks and looks for work until told to stop.
async fn serve(tasks: Rc<Tasks>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    capacity::note_kept(&tasks);
    capacity::look_at_space(&tasks).await;
    let writer = tokio::task::spawn_local(write_back::keep_writing_back(tasks.clone()));
    let keeper = tokio::task::spawn_local(evict::keep_room(tasks.clone()));
    let sealer = tokio::task::spawn_local(seal::keep_sealing(tasks.clone()));
    let predictor = tokio::task::spawn_local(predict::keep_acting(tasks.clone()));
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Fetch { block, place, reply } => fetch::start(&tasks, block, place, reply),
            Ask::Room => tasks.shared.wake_keeper.notify_one(),
            Ask::Stop => break,
            other => {
                let tasks = tasks.clone();
                tokio::task::spawn_local(async move { capacity::answer(&tasks, other).await });
            }
        }
    }
    // Each of them looks at `stopping` and ends by itself, with no I/O in flight.
    tasks.shared.stop();
    for task in [writer, keeper, sealer, predictor] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a background task failed");
        }
    }
    fetch::settle(&tasks).await;
}
