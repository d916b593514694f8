//! Work beside the requests: seals epochs, tells of them, writes sealed layers back, serves misses, promotes, evicts,
//! acts on predictions, warms up. One thread with a ring of its own (tokio-uring).
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
mod kept;
mod pace;
mod predict;
mod publish;
mod seal;
mod shared;
mod upkeep;
mod warm;
mod world;
mod write_back;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

pub use budget::Foreground;
pub use capacity::{Ask, CapacityError, CapacityReply, Reply};
pub use kept::KeptLayer;
pub use predict::{Acted, Group, PredictionState};
pub use seal::{Sealer, WallClock, now_us};
pub use shared::{Progress, Settings, Shared};
pub use upkeep::Collected;
pub use warm::{Hydration, HydrationState};
#[cfg(test)]
pub(crate) use world::Slots;

use crate::capacity_tier::{CapacityTier, Pace};
pub(crate) use budget::Budget;
use fast_file::FastFile;
use world::Real;
pub(crate) use world::World;

/// How often the background looks for work that nobody asked for.
const TICK: std::time::Duration = std::time::Duration::from_millis(50);
/// So many ticks the last users of the capacity tier have, before the thread ends without closing it (5 seconds).
const CLOSE_TRIES: u32 = 100;

/// What every task of the background thread uses.
pub(crate) struct Tasks<W: World> {
    shared: Arc<Shared>,
    capacity: CapacityTier<W::Store>,
    fast: W::Slots,
    budget: Rc<Budget>,
    fetches: fetch::Fetches,
    /// Changes between snapshots, as counted before.
    counted: kept::Counted,
    /// Names were noted whose changes may not have been counted.
    wake_counter: tokio::sync::Notify,
    /// A layer was written back.
    wake_upkeep: tokio::sync::Notify,
    /// One step of the capacity tier's upkeep at a time.
    maintaining: tokio::sync::Mutex<()>,
    /// The map is being told where a layer's blocks are, or where records have gone: a place that HEAD has by now must be in the
    /// map before it is followed to another one.
    noting: tokio::sync::Mutex<()>,
}

impl<W: World> Tasks<W> {
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
    /// never leaves, with the pace for its upkeep; its error is returned.
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
        O: FnOnce(Pace) -> F + Send + 'static,
        F: Future<Output = io::Result<CapacityTier>>,
    {
        let (opened, told) = std::sync::mpsc::channel();
        let body = move || {
            crate::priority::work_beside();
            let failed = opened.clone();
            let work = async move {
                let budget = Rc::new(Budget::new());
                let capacity = match open(pace(budget.clone(), shared.clone())).await {
                    Ok(capacity) => capacity,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                let tasks = ready::<Real>(shared, capacity, FastFile::new(fast, slots_offset), budget);
                let _ = opened.send(Ok(()));
                run(tasks, asks).await;
            };
            // tokio-uring panics where it gets no ring; the caller is told of an error instead.
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio_uring::start(work)));
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

/// The pace of the capacity tier's upkeep: within the budget, and never urgent. What somebody asked for and is still under way
/// when the volume is closed is not held back.
pub(crate) fn pace(budget: Rc<Budget>, shared: Arc<Shared>) -> Pace {
    Rc::new(move |bytes| {
        let (budget, shared) = (budget.clone(), shared.clone());
        Box::pin(async move {
            if !shared.stopping() {
                budget.take(bytes, &shared.foreground, &AtomicBool::new(false)).await;
            }
        })
    })
}

/// What the background works with. Its snapshots are known to the other threads from here on, so that nobody who asks for
/// one, or gives a name, is told that there is none.
pub(crate) fn ready<W: World>(
    shared: Arc<Shared>,
    capacity: CapacityTier<W::Store>,
    fast: W::Slots,
    budget: Rc<Budget>,
) -> Rc<Tasks<W>> {
    let fetches = fetch::Fetches::default();
    let (counted, maintaining, noting) = (kept::Counted::default(), Default::default(), Default::default());
    let (wake_counter, wake_upkeep) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let tasks = Tasks {
        shared,
        capacity,
        fast,
        budget,
        fetches,
        counted,
        wake_counter,
        wake_upkeep,
        maintaining,
        noting,
    };
    kept::note_kept(&tasks);
    let found = tasks.capacity.conditional_writes();
    tasks.shared.note_progress(|progress| progress.conditional_writes = found.unwrap_or_default());
    Rc::new(tasks)
}

/// All that the background does: serves asks and looks for work, until [`Ask::Stop`] is done.
pub(crate) async fn run(tasks: Rc<Tasks<impl World>>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    upkeep::look_at_space(&tasks).await;
    let mut keepers = tokio::task::JoinSet::new();
    keepers.spawn_local(write_back::keep_writing_back(tasks.clone()));
    keepers.spawn_local(publish::keep_publishing(tasks.clone()));
    keepers.spawn_local(evict::keep_room(tasks.clone()));
    keepers.spawn_local(seal::keep_sealing(tasks.clone()));
    keepers.spawn_local(predict::keep_acting(tasks.clone()));
    keepers.spawn_local(warm::keep_warm(tasks.clone()));
    let counting = keepers.spawn_local(kept::keep_counting(tasks.clone()));
    let upkeep = keepers.spawn_local(upkeep::keep_up(tasks.clone()));
    loop {
        let ask = tokio::select! {
            biased;
            ask = asks.recv() => ask,
            ended = keepers.join_next() => {
                // None ends before it is told to, unless by a panic: without it the volume would fill up and hang.
                tracing::error!(?ended, "a background task ended: ending the process, to be recovered");
                std::process::abort();
            }
        };
        let Some(ask) = ask else { break };
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
    // But for these, which may be long at it. Nobody needs what the one reads; what the other leaves half done nobody refers
    // to, and the next writer deletes it.
    counting.abort();
    upkeep.abort();
    while let Some(ended) = keepers.join_next().await {
        if let Err(error) = ended
            && !error.is_cancelled()
        {
            tracing::error!(%error, "a background task failed");
        }
    }
    fetch::settle(&tasks).await;
    // Whoever was answered last may hold the tasks a moment longer.
    let mut tasks = tasks;
    for _ in 0..CLOSE_TRIES {
        match Rc::try_unwrap(tasks) {
            Ok(last) => return last.capacity.close().await,
            Err(held) => tasks = held,
        }
        tokio::time::sleep(TICK).await;
    }
    tracing::warn!("the capacity tier is left as after a crash: something still uses it");
}
