//! Hydration: blocks that have no slot are fetched before they are asked for, in the order of the warm list, then the rest in
//! the order of addresses, as long as slots are free.
//!
//! What was used lately comes as fast as the budget allows. For what only lies there, and for the rest, requests go first: while
//! there are any, it gets no more than what the budget gives all background work at its slowest, and few blocks are fetched side
//! by side, since each takes some of the processor and of both tiers from them.
//!
//! No slot is given up for it: a fast tier that is full, as it is after an ordinary restart, ends it at once.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use forerun::config::HydrateOrder;
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::budget::RATE_MIN;
use super::super::{Shared, TICK, Tasks, World, evict, fetch};
use super::HydrationState;
use super::list::USED_BANDS;
use crate::capacity_tier::WarmList;

/// Blocks fetched side by side, at most: an object store that takes 30 ms a request gives 64 MiB a second then.
const FETCHES_AT_ONCE: usize = 32;
/// The share of them, as a divisor, while there are requests, of what was not used lately.
const GENTLE_SHARE: usize = 8;
/// How long a request counts.
const BUSY_FOR: Duration = Duration::from_millis(200);
/// Blocks looked at before other tasks of the thread get a turn.
const LOOKS_A_TURN: usize = 1024;
/// After a fetch that failed the next one waits, longer each time up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Fetches what is to be fetched, once.
pub(super) async fn hydrate(tasks: Rc<Tasks<impl World>>, list: Option<WarmList>) {
    let shared = tasks.shared.clone();
    let (volume, warmth) = (&shared.volume, &shared.warmth);
    if let Some(list) = &list {
        warmth.remember(list);
    }
    let order = shared.settings.hydrate;
    let listed = list.filter(|_| matches!(order, HydrateOrder::Expected | HydrateOrder::Hot));
    let rest = match order {
        HydrateOrder::Off | HydrateOrder::Hot => 0,
        HydrateOrder::Expected | HydrateOrder::Address => volume.placed_blocks(),
    };
    let cold = volume.placed_blocks() > 0 && volume.free_slots() > volume.slot_count() / 2;
    warmth.begin(listed.as_ref(), rest, cold);
    if order == HydrateOrder::Off {
        return warmth.note(|hydration| hydration.state = HydrationState::Off);
    }
    let mut run = Run {
        at_once: at_once(volume.slot_count()),
        tasks,
        fetches: JoinSet::new(),
        retry: RETRY_FIRST,
        gentle: false,
        requests: (Instant::now(), 0),
        busy: false,
        next: Instant::now(),
    };
    let end = run.all(listed, rest > 0).await;
    run.settle().await;
    warmth.note(|hydration| hydration.state = end.unwrap_or(hydration.state));
    let done = warmth.hydration();
    if done.fetched_bytes > 0 {
        tracing::info!(bytes = done.fetched_bytes, seconds = done.seconds, state = ?done.state, "hydration has ended");
    }
}

fn at_once(slots: u32) -> usize {
    (slots as usize / 16).clamp(1, FETCHES_AT_ONCE)
}

struct Run<W: World> {
    tasks: Rc<Tasks<W>>,
    fetches: JoinSet<io::Result<u64>>,
    at_once: usize,
    retry: Duration,
    /// Requests go first.
    gentle: bool,
    /// How many requests there had been, and when.
    requests: (Instant, u64),
    busy: bool,
    /// When the next block may be fetched, where requests go first.
    next: Instant,
}

impl<W: World> Run<W> {
    /// Gives how it ended; `None` where the volume is being closed.
    async fn all(&mut self, listed: Option<WarmList>, rest: bool) -> Option<HydrationState> {
        let shared = self.tasks.shared.clone();
        if let Some(list) = listed {
            shared.warmth.note(|hydration| hydration.state = HydrationState::Listed);
            for (number, band) in list.bands.into_iter().enumerate() {
                self.gentle = number >= list.first_bands + USED_BANDS;
                for blocks in band.chunks(LOOKS_A_TURN) {
                    if let Some(end) = self.some(blocks).await? {
                        return Some(end);
                    }
                    shared.warmth.note(|hydration| hydration.listed_done += blocks.len() as u64);
                }
            }
            self.settle().await;
        }
        shared.warmth.note(|hydration| hydration.state = HydrationState::Rest);
        self.gentle = true;
        for region in 0.. {
            let Some(blocks) = shared.volume.placed_in(region).filter(|_| rest) else { break };
            for blocks in blocks.chunks(LOOKS_A_TURN) {
                if let Some(end) = self.some(blocks).await? {
                    return Some(end);
                }
                shared.warmth.note(|hydration| hydration.rest_done += blocks.len() as u64);
            }
        }
        Some(HydrationState::Done)
    }

    /// Fetches those of some blocks that have no slot. `None`: the volume is being closed; `Some(Some(_))`: hydration is over.
    async fn some(&mut self, blocks: &[BlockIndex]) -> Option<Option<HydrationState>> {
        let shared = self.tasks.shared.clone();
        for block in blocks.iter().filter(|block| shared.volume.is_incomplete(**block)) {
            while self.fetches.len() >= self.at_once_now() {
                self.join_one().await;
            }
            if shared.stopping() {
                return None;
            }
            if !has_room(&shared, self.fetches.len() + 1) {
                return Some(Some(HydrationState::Full));
            }
            if self.gentle && self.busy {
                tokio::time::sleep_until(self.next).await;
                self.next = Instant::now() + Duration::from_secs_f64(BLOCK_BYTES as f64 / RATE_MIN);
            }
            // Read from the capacity tier, written to the fast one.
            self.tasks.budget(2 * BLOCK_BYTES).await;
            let (tasks, block) = (self.tasks.clone(), *block);
            self.fetches.spawn_local(async move { fetch::hydrate(&tasks, block).await });
        }
        tokio::task::yield_now().await;
        Some(None)
    }

    fn at_once_now(&mut self) -> usize {
        if !self.gentle {
            return self.at_once;
        }
        let (at, before) = self.requests;
        if at.elapsed() >= BUSY_FOR {
            let stats = self.tasks.shared.volume.stats();
            let now = stats.read_requests.get() + stats.write_requests.get();
            self.busy = now != before;
            self.requests = (Instant::now(), now);
        }
        if self.busy { (self.at_once / GENTLE_SHARE).max(1) } else { self.at_once }
    }

    async fn join_one(&mut self) {
        match self.fetches.join_next().await {
            Some(Ok(Ok(bytes))) => {
                self.retry = RETRY_FIRST;
                self.tasks.shared.warmth.note(|hydration| hydration.fetched_bytes += bytes);
            }
            // Why is in the log and in the status. The block is fetched when it is asked for.
            Some(Ok(Err(_))) => {
                self.tasks.shared.warmth.note(|hydration| hydration.failed += 1);
                let until = Instant::now() + self.retry;
                while Instant::now() < until && !self.tasks.shared.stopping() {
                    tokio::time::sleep(TICK).await;
                }
                self.retry = (self.retry * 2).min(RETRY_MAX);
            }
            Some(Err(error)) => tracing::error!(%error, "a fetch ended by a panic"),
            None => {}
        }
    }

    async fn settle(&mut self) {
        while !self.fetches.is_empty() {
            self.join_one().await;
        }
    }
}

/// Whether so many slots can be taken without one having to be given up.
fn has_room(shared: &Shared, slots: usize) -> bool {
    let volume = &shared.volume;
    let kept = evict::reserve(volume.slot_count()) + shared.prediction.growth_slots(shared);
    volume.free_slots() as usize > kept as usize + slots
}
