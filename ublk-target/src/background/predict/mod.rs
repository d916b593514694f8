//! Acting on predictions: reservations and prefetches for blocks above the threshold, and a score of what
//! came of them.
//!
//! The table is checked in full each time it is read. All a prediction can reach is `reserve`,
//! `prefetch` and the order of eviction; what is read from the volume does not depend on it.
//!
//! ```text
//! table (shared memory) -> plan: what pays -> reserve, prefetch
//!                            |  '--> control group: left alone
//!        sealed epochs --> scores: precision, recall; growth
//!        misses ---------> benefit: act at all?
//!        evictions ------> regret: from which probability?
//! ```

mod benefit;
mod growth;
mod plan;
mod regret;
mod score;
mod state;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use forerun::prediction_table::TableReader;
use tokio::time::MissedTickBehavior;

use super::shared::Shared;
use super::{Tasks, World};
use crate::volume::{Volume, lock};
use plan::{Key, Plan};
use state::Inner;

pub use benefit::Group;
pub(super) use state::give_back_some;
pub use state::{Acted, PredictionState};

/// How often the table is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Blocks prefetched side by side.
const PREFETCHES_AT_ONCE: usize = 8;

/// Looks at the table and acts on it, for ever.
pub(super) async fn keep_acting(tasks: Rc<Tasks<impl World>>) {
    let shared = &tasks.shared;
    let mut reader = TableReader::new(&shared.prediction.table_path);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.stopping() {
        let began = looks.tick().await;
        if !shared.settings.prediction {
            continue;
        }
        look(shared, &mut reader);
        while act(shared) && !shared.stopping() {
            tokio::task::yield_now().await;
        }
        // Until it is time to look again.
        while began.elapsed() < LOOK_INTERVAL && !shared.stopping() && fetch(&tasks).await {}
    }
}

/// Fetches some blocks ahead, within the budget; returns whether there were any.
async fn fetch(tasks: &Rc<Tasks<impl World>>) -> bool {
    let shared = &tasks.shared;
    let blocks = prefetches(shared);
    if blocks.is_empty() {
        return false;
    }
    tasks.budget(2 * BLOCK_BYTES * blocks.len() as u64).await;
    let mut fetches = tokio::task::JoinSet::new();
    for block in blocks {
        let tasks = tasks.clone();
        fetches.spawn_local(async move {
            if super::fetch::prefetch(&tasks, block).await > 0 {
                tasks.shared.prediction.fetched();
            }
        });
    }
    while let Some(fetched) = fetches.join_next().await {
        if let Err(error) = fetched {
            tracing::error!(%error, "a prefetch ended by a panic");
        }
    }
    true
}

/// Takes a new table, if there is one that is sound.
fn look(shared: &Shared, reader: &mut TableReader) {
    let state = &shared.prediction;
    let read = reader.read(state.uuid, shared.volume.geometry().blocks());
    let mut inner = lock(&state.inner);
    let was_refusing = std::mem::take(&mut inner.refusing);
    match read {
        Ok(None) => {}
        Ok(Some(table)) => {
            inner.acted.tables_accepted += 1;
            inner.acted.published = table.predictions.len() as u64;
            inner.acted.table_epoch = table.info.epoch.0;
            inner.acted.table_published_us = table.info.published_us;
            inner.growth.expect(&table);
            inner.table = Some(Arc::new(table));
        }
        Err(error) => {
            let refusal = error.to_string();
            // The same table is looked at again and again; it counts once.
            if !was_refusing || inner.acted.last_refusal != refusal {
                tracing::warn!(%refusal, "the prediction table is refused");
                inner.acted.tables_refused += 1;
            }
            inner.refusing = true;
            inner.acted.last_refusal = refusal;
        }
    }
}

/// Does a step of what the table in force asks for; returns whether there is more to do at once.
fn act(shared: &Shared) -> bool {
    let volume = &shared.volume;
    let open = volume.layers().open_epoch();
    let threshold = shared.settings.threshold();
    let mut inner = lock(&shared.prediction.inner);
    inner.look_at_epoch(open, threshold, shared.settings.horizon());
    let in_force = inner.table.clone().filter(|table| {
        let last = u64::from(table.info.epoch.0) + u64::from(table.info.horizon.epochs());
        table.info.epoch < open && u64::from(open.0) <= last
    });
    let Some(table) = in_force else {
        inner.plan = None;
        inner.growth.expect_nothing();
        give_back_others(shared, &mut inner);
        return false;
    };
    let key = Key {
        generation: table.info.generation,
        from: inner.acts_from(threshold),
        acting: inner.off().is_none(),
        proven: inner.benefit.proven(),
        open,
    };
    if inner.plan.as_ref().is_none_or(|plan| plan.key != key) {
        let plan = Plan::new(key, &table, volume.slot_count(), inner.plan.as_ref());
        inner.scores.expect(table.info.epoch, table.info.horizon, &plan.changes);
        inner.read_scores.expect(table.info.epoch, table.info.horizon, &plan.reads);
        inner.plan = Some(plan);
        give_back_others(shared, &mut inner);
    }
    let Inner { plan, held, .. } = &mut *inner;
    plan.as_mut().is_some_and(|plan| plan.step(volume, keep_free(volume), held))
}

/// Slots that predictions leave to writes that nobody saw coming.
fn keep_free(volume: &Volume) -> u32 {
    super::evict::reserve(volume.slot_count()) / 2
}

/// Gives back what is held for blocks that the plan does not name, and forgets what has been used.
fn give_back_others(shared: &Shared, inner: &mut Inner) {
    let Inner { plan, held, .. } = inner;
    held.retain(|block| {
        if plan.as_ref().is_some_and(|plan| plan.acted_on.contains(block)) {
            return shared.volume.is_reserved(*block);
        }
        shared.volume.give_back_reservation(*block);
        false
    });
}

/// Blocks to be fetched now: as many as there is room for, since one that finds none is fetched for nothing.
fn prefetches(shared: &Shared) -> Vec<BlockIndex> {
    let volume = &shared.volume;
    let kept = keep_free(volume) + shared.prediction.growth_slots(shared);
    let room = volume.free_slots().saturating_sub(kept) as usize;
    let mut inner = lock(&shared.prediction.inner);
    inner.plan.as_mut().map(|plan| plan.take_fetches(room.min(PREFETCHES_AT_ONCE))).unwrap_or_default()
}

/// Whether a block is in a sample of one in `one_in`; with another `salt` it is another sample. (The finalizer of
/// SplitMix64; Steele, Lea, Flood, 2014.)
fn sampled(block: BlockIndex, salt: u32, one_in: u64) -> bool {
    let mut hash = (u64::from(salt) << 32 | u64::from(block.0)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (hash ^ (hash >> 31)).is_multiple_of(one_in)
}
