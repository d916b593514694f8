//! Acting on predictions: reservations and prefetches for blocks above the threshold, and a score of what
//! came of them.
//!
//! The table is checked in full each time it is read. All a prediction can reach is `reserve`,
//! `prefetch` and the order of eviction; what is read from the volume does not depend on it.
//!
//! ```text
//! table (shared memory) -> plan: above the threshold -> reserve, prefetch
//!                                      |
//!        sealed epochs ----------> scores: precision, recall
//! ```

mod plan;
mod score;
mod state;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use forerun::prediction_table::TableReader;

use super::shared::Shared;
use super::{Tasks, World};
use crate::volume::lock;
use plan::{Key, Plan};
use state::Inner;

pub(super) use state::give_back_some;
pub use state::{Acted, PredictionState};

/// How often the table is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Blocks prefetched side by side.
const PREFETCHES_AT_ONCE: usize = 8;
/// Blocks prefetched in one look at the table.
const PREFETCHES_A_LOOK: usize = 64;

/// Looks at the table and acts on it, for ever.
pub(super) async fn keep_acting(tasks: Rc<Tasks<impl World>>) {
    let shared = &tasks.shared;
    let mut reader = TableReader::new(&shared.prediction.table_path);
    while !shared.stopping() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !shared.settings.prediction {
            continue;
        }
        look(shared, &mut reader);
        while act(shared) && !shared.stopping() {
            tokio::task::yield_now().await;
        }
        for blocks in prefetches(shared).chunks(PREFETCHES_AT_ONCE) {
            tasks.budget(2 * BLOCK_BYTES * blocks.len() as u64).await;
            if shared.stopping() {
                break;
            }
            let mut fetches = tokio::task::JoinSet::new();
            for block in blocks.iter().copied() {
                let tasks = tasks.clone();
                fetches.spawn_local(async move { super::fetch::prefetch(&tasks, block).await });
            }
            while let Some(fetched) = fetches.join_next().await {
                if let Err(error) = fetched {
                    tracing::error!(%error, "a prefetch ended by a panic");
                }
            }
        }
    }
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
    let mut inner = lock(&shared.prediction.inner);
    let in_force = inner.table.clone().filter(|table| {
        let last = u64::from(table.info.epoch.0) + u64::from(table.info.horizon.epochs());
        table.info.epoch < open && u64::from(open.0) <= last && inner.advised_off.is_none()
    });
    let Some(table) = in_force else {
        inner.plan = None;
        give_back_others(shared, &mut inner);
        return false;
    };
    let key = Key { generation: table.info.generation, threshold: shared.settings.threshold(), open };
    if inner.plan.as_ref().is_none_or(|plan| plan.key != key) {
        let plan = Plan::new(key, &table, volume.slot_count());
        inner.scores.expect(table.info.epoch, table.info.horizon, &plan.blocks);
        inner.plan = Some(plan);
        give_back_others(shared, &mut inner);
    }
    let keep_free = super::evict::reserve(volume.slot_count()) / 2;
    let Inner { plan, held, .. } = &mut *inner;
    plan.as_mut().is_some_and(|plan| plan.step(volume, keep_free, held))
}

/// Gives back what is held for blocks that the plan does not name, and forgets what has been used.
fn give_back_others(shared: &Shared, inner: &mut Inner) {
    let Inner { plan, held, .. } = inner;
    held.retain(|block| {
        if plan.as_ref().is_some_and(|plan| plan.blocks.contains(block)) {
            return shared.volume.is_reserved(*block);
        }
        shared.volume.give_back_reservation(*block);
        false
    });
}

fn prefetches(shared: &Shared) -> Vec<BlockIndex> {
    let mut inner = lock(&shared.prediction.inner);
    inner.plan.as_mut().map(|plan| plan.take_prefetches(PREFETCHES_A_LOOK)).unwrap_or_default()
}
