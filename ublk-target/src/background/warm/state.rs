//! How warm the volume is, as the status sees it, and what was read first after a cold start.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use forerun::geometry::BlockIndex;
use tokio::time::Instant;

use super::super::budget::MeanTime;
use super::super::shared::Shared;
use crate::capacity_tier::WarmList;
use crate::volume::lock;

/// What was read first is noted for so long after a cold start, at most.
const FIRST_READS_FOR: Duration = Duration::from_secs(300);
/// So many blocks of it are kept (1 GiB of them).
pub(super) const FIRST_READS_MAX: usize = 16_384;
/// The weight of a second in the means of latency and hits: they follow within some ten seconds.
const GAIN: f64 = 0.2;
/// Steady again: a request takes no more than this many times what it took before.
const STEADY: f64 = 1.5;
/// For so many looks in a row, with requests in them.
const STEADY_LOOKS: u32 = 3;

/// How far hydration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HydrationState {
    /// It has not begun yet.
    #[default]
    Waiting,
    /// The volume is configured without.
    Off,
    /// What the warm list names is being fetched.
    Listed,
    /// What the warm list names is there; the rest is being fetched in the order of addresses.
    Rest,
    /// All that was asked for is on the fast tier.
    Done,
    /// The fast tier is full.
    Full,
}

/// What hydration has done so far.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Hydration {
    /// How far it is.
    pub state: HydrationState,
    /// Blocks that the warm list names, and how many of them have been looked at.
    pub listed: u64,
    /// See `listed`.
    pub listed_done: u64,
    /// Blocks that have a place on the capacity tier, and how many of them have been looked at after the listed ones.
    pub rest: u64,
    /// See `rest`.
    pub rest_done: u64,
    /// Bytes fetched.
    pub fetched_bytes: u64,
    /// Blocks that could not be fetched; they are fetched when they are asked for.
    pub failed: u64,
    /// Seconds it has taken so far.
    pub seconds: f64,
    /// Seconds it will take as it goes on now; 0 where that is not known.
    pub eta_seconds: f64,
    /// When the list in use was made, in microseconds since 1970; 0 where there is none.
    pub list_made_us: u64,
    /// Mean time of a request, in nanoseconds: now and when the list was made; 0 where not known.
    pub request_ns: f64,
    /// See `request_ns`.
    pub steady_request_ns: f64,
    /// The share of the blocks read that came from the fast tier: now and when the list was made.
    pub read_hits: f64,
    /// See `read_hits`.
    pub steady_read_hits: f64,
    /// Requests were as quick as before after so many bytes had been fetched; `None` before that.
    pub steady_after_bytes: Option<u64>,
}

#[derive(Default)]
struct Inner {
    hydration: Hydration,
    began: Option<Instant>,
    ended: Option<Instant>,
    first: Vec<BlockIndex>,
    first_set: HashSet<BlockIndex>,
    /// Reads are noted until then.
    noting_until: Option<Instant>,
    mean: MeanTime,
    hits_seen: u64,
    misses_seen: u64,
    steady_looks: u32,
}

/// How warm a volume is.
#[derive(Default)]
pub struct Warmth(Mutex<Inner>);

impl Warmth {
    /// How hydration does.
    pub fn hydration(&self) -> Hydration {
        let inner = lock(&self.0);
        let mut hydration = inner.hydration.clone();
        let end = inner.ended.unwrap_or_else(Instant::now);
        hydration.seconds = inner.began.map_or(0.0, |began| end.duration_since(began).as_secs_f64());
        let all = hydration.listed + hydration.rest;
        let done = hydration.listed_done + hydration.rest_done;
        let under_way = matches!(hydration.state, HydrationState::Listed | HydrationState::Rest);
        if under_way && done > 0 && all > done {
            hydration.eta_seconds = hydration.seconds * (all - done) as f64 / done as f64;
        }
        hydration
    }

    /// Hydration begins; `cold` where what is read first is worth noting.
    pub(super) fn begin(&self, list: Option<&WarmList>, rest: u64, cold: bool) {
        let mut inner = lock(&self.0);
        let now = Instant::now();
        inner.began = Some(now);
        inner.noting_until = cold.then(|| now + FIRST_READS_FOR);
        inner.hydration.rest = rest;
        inner.hydration.listed = list.map_or(0, |list| list.len() as u64);
    }

    /// What a list says of the time when it was made, and what was read first when a fast tier was last empty.
    pub(super) fn remember(&self, list: &WarmList) {
        let mut inner = lock(&self.0);
        inner.hydration.list_made_us = list.made_us;
        inner.hydration.steady_request_ns = list.request_ns as f64;
        inner.hydration.steady_read_hits = f64::from(list.read_hits_ppm) / 1e6;
        for block in list.bands.iter().take(list.first_bands).flatten() {
            inner.note_first(*block);
        }
    }

    /// Changes what hydration tells of itself.
    pub(super) fn note(&self, change: impl FnOnce(&mut Hydration)) {
        let mut inner = lock(&self.0);
        change(&mut inner.hydration);
        if matches!(inner.hydration.state, HydrationState::Done | HydrationState::Full)
            && inner.ended.is_none()
        {
            inner.ended = Some(Instant::now());
        }
    }

    /// A request waits for a block of the capacity tier.
    pub fn missed(&self, block: BlockIndex) {
        let mut inner = lock(&self.0);
        if inner.noting_until.is_some_and(|until| Instant::now() < until) {
            inner.note_first(block);
        }
    }

    /// What was read first after the starts with an empty fast tier, in order.
    pub(super) fn first_reads(&self) -> Vec<BlockIndex> {
        lock(&self.0).first.clone()
    }

    /// Looks at latency and hits of the last second.
    pub(super) fn look(&self, shared: &Shared) {
        let stats = shared.volume.stats();
        let (hits, misses) = (stats.read_hits.get(), stats.read_misses.get());
        let mut inner = lock(&self.0);
        let (new_hits, new_misses) = (hits - inner.hits_seen, misses - inner.misses_seen);
        (inner.hits_seen, inner.misses_seen) = (hits, misses);
        let towards = |mean: f64, value: f64| if mean > 0.0 { mean + GAIN * (value - mean) } else { value };
        if new_hits + new_misses > 0 {
            let share = new_hits as f64 / (new_hits + new_misses) as f64;
            inner.hydration.read_hits = towards(inner.hydration.read_hits, share);
        }
        let Some(mean) = inner.mean.take(&shared.foreground) else { return };
        inner.hydration.request_ns = towards(inner.hydration.request_ns, mean);
        let Hydration { request_ns, steady_request_ns, .. } = inner.hydration;
        if inner.began.is_none() || inner.hydration.steady_after_bytes.is_some() || steady_request_ns <= 0.0 {
            return;
        }
        inner.steady_looks =
            if request_ns <= STEADY * steady_request_ns { inner.steady_looks + 1 } else { 0 };
        if inner.steady_looks >= STEADY_LOOKS {
            inner.hydration.steady_after_bytes = Some(inner.hydration.fetched_bytes);
        }
    }
}

impl Inner {
    fn note_first(&mut self, block: BlockIndex) {
        if self.first.len() < FIRST_READS_MAX && self.first_set.insert(block) {
            self.first.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use forerun::geometry::Epoch;

    use super::*;

    #[test]
    fn what_is_read_first_after_a_cold_start_is_kept_in_order_behind_that_of_the_starts_before() {
        let warmth = Warmth::default();
        let block = BlockIndex;
        let bands = vec![vec![block(5), block(6)], vec![block(1)], vec![block(9)]];
        let list =
            WarmList { epoch: Epoch(3), first_bands: 2, bands, request_ns: 500, ..WarmList::default() };
        warmth.remember(&list);
        warmth.missed(block(7));
        assert_eq!(warmth.first_reads(), [5, 6, 1].map(block), "a miss before hydration is no start's");
        warmth.begin(Some(&list), 10, true);
        for missed in [8, 6, 2, 8] {
            warmth.missed(block(missed));
        }
        assert_eq!(warmth.first_reads(), [5, 6, 1, 8, 2].map(block));
        assert_eq!(warmth.hydration().listed, 4);
        let warm = Warmth::default();
        warm.begin(None, 10, false);
        warm.missed(block(1));
        assert!(warm.first_reads().is_empty(), "the fast tier was not empty");
    }
}
