//! Warming up: after a restore the fast tier is empty, and everything that is asked for is fetched from the capacity tier.
//!
//! ```text
//! reads, changes, predictions, what is on the fast tier --list--> warm list (capacity tier)
//!                                                                     |
//!                       an empty fast tier <--hydrate-- in its order, then the rest
//! ```
//!
//! While the volume is in use the order of expected use is written to the capacity tier now and then ([`list`]), so that it
//! outlives the machine. When a volume is opened, what has no slot is fetched in that order, as long as slots are free
//! and within the one budget of all background work ([`hydrate`]). It is a hint: a list that is lost, old or wrong costs
//! time and no data.

mod hydrate;
mod list;
mod state;

use std::rc::Rc;
use std::time::Duration;

use super::{Shared, TICK, Tasks, World};
use crate::capacity_tier::WarmList;
pub use state::{Hydration, HydrationState, Warmth};

/// How often latency is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Hydrates, and writes the warm list, for ever.
pub(super) async fn keep_warm(tasks: Rc<Tasks<impl World>>) {
    let shared = tasks.shared.clone();
    let list = load(&tasks).await;
    let hydrating = tokio::task::spawn_local(hydrate::hydrate(tasks.clone(), list.clone()));
    let mut writer = list::ListWriter::new(&shared, list);
    let mut looked = tokio::time::Instant::now();
    while !shared.stopping() {
        tokio::time::sleep(TICK).await;
        if looked.elapsed() >= LOOK_INTERVAL {
            looked = tokio::time::Instant::now();
            shared.warmth.look(&shared);
            writer.write_if_due(&tasks).await;
        }
    }
    // It ends by itself, with no I/O under way.
    if let Err(error) = hydrating.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The warm list on the capacity tier, if there is one that can be read.
async fn load(tasks: &Tasks<impl World>) -> Option<WarmList> {
    if tasks.shared.volume.placed_blocks() == 0 {
        return None;
    }
    let list = until_stopping(&tasks.shared, tasks.capacity.warm_list()).await?;
    list.unwrap_or_else(|error| {
        tracing::warn!(%error, "the warm list cannot be read: the volume warms up in the order of addresses");
        None
    })
}

/// What a future gives, or nothing where the volume is closed before.
async fn until_stopping<T>(shared: &Shared, future: impl Future<Output = T>) -> Option<T> {
    let stopping = async {
        while !shared.stopping() {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        given = future => Some(given),
        () = stopping => None,
    }
}
