//! Acting on predictions: reservations and prefetches for blocks above the threshold, and a score of what
//! came of them.
//!
//! The table is checked in full each time it is read. All a prediction can reach is `reserve`,
//! `prefetch` and the order of eviction; what is read from the volume does not depend on it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forerun::change_vector::{ChangeKind, ChangeVector};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch};
use forerun::prediction_table::{Table, TableReader};

use super::Tasks;
use super::shared::Shared;
use crate::volume::{Reservation, Volume, lock};

/// How often the table is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Epochs that precision and recall are over.
pub const SCORE_WINDOW_EPOCHS: usize = 32;
/// The share of all slots that may be held for predicted writes, as a divisor: a quarter.
const RESERVED_SHARE: u32 = 4;
/// The share of all slots whose blocks eviction leaves alone because they are predicted: a half.
const KEPT_SHARE: u32 = 2;
/// Blocks prefetched in one look at the table.
const PREFETCHES_A_LOOK: usize = 64;
/// Reservations given back at once when slots run short.
const GIVE_BACK_AT_ONCE: usize = 256;

/// One epoch's score.
#[derive(Clone, Copy, Default, Debug)]
struct Score {
    acted: u64,
    hit: u64,
    changed: u64,
}

/// What is done for predictions now, and since the start.
#[derive(Clone, Default, Debug)]
pub struct Acted {
    /// Tables taken and refused.
    pub tables_accepted: u64,
    /// Tables refused.
    pub tables_refused: u64,
    /// Why the last one was refused.
    pub last_refusal: String,
    /// Predictions in force.
    pub published: u64,
    /// Those at or above the threshold.
    pub above_threshold: u64,
    /// Predicted blocks that still wait for a slot or for data.
    pub queue_length: u64,
    /// The epoch that the table was made after, and when.
    pub table_epoch: u32,
    /// When the table was published, in microseconds since 1970.
    pub table_published_us: u64,
    /// Of the predictions acted on, the share that happened, over the window.
    pub precision: f64,
    /// Of what happened, the share predicted, over the window.
    pub recall: f64,
    /// Epochs scored, at most the window.
    pub scored_epochs: u32,
}

#[derive(Default)]
struct Inner {
    table: Option<Arc<Table>>,
    /// What was predicted above the threshold, by the epoch that the table was made after.
    expected: HashMap<Epoch, Arc<HashSet<BlockIndex>>>,
    kept: Arc<HashSet<BlockIndex>>,
    held: Vec<BlockIndex>,
    scores: VecDeque<Score>,
    acted: Acted,
    /// The trainer's advice against acting, with its reason.
    advised_off: Option<String>,
}

/// What is predicted and what came of it; shared with the status.
#[derive(Default)]
pub struct PredictionState {
    inner: Mutex<Inner>,
    /// Where the trainer publishes its table.
    pub table_path: PathBuf,
    /// The volume's uuid, which has to be in the table.
    pub uuid: [u8; 16],
}

impl PredictionState {
    /// Nothing predicted yet.
    pub fn new(table_path: PathBuf, uuid: [u8; 16]) -> Self {
        Self { inner: Mutex::default(), table_path, uuid }
    }

    /// The counts for the status.
    pub fn acted(&self) -> Acted {
        let inner = lock(&self.inner);
        let sum = inner.scores.iter().fold(Score::default(), |sum, score| Score {
            acted: sum.acted + score.acted,
            hit: sum.hit + score.hit,
            changed: sum.changed + score.changed,
        });
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        Acted {
            precision: share(sum.hit, sum.acted),
            recall: share(sum.hit, sum.changed),
            scored_epochs: inner.scores.len() as u32,
            ..inner.acted.clone()
        }
    }

    /// "on", or "off: why".
    pub fn state(&self, shared: &Shared) -> String {
        if !shared.settings.prediction {
            return "off: by the volume's configuration".to_owned();
        }
        let inner = lock(&self.inner);
        match (&inner.advised_off, &inner.table) {
            (Some(why), _) => format!("off: {why}"),
            (None, None) => "off: no predictions have been published yet".to_owned(),
            (None, Some(_)) => "on".to_owned(),
        }
    }

    /// Takes the trainer's advice on whether acting pays.
    pub fn advise(&self, pays: bool, reason: &str) {
        lock(&self.inner).advised_off = (!pays).then(|| reason.to_owned());
    }

    /// Blocks that eviction should rather keep.
    pub fn kept(&self) -> Arc<HashSet<BlockIndex>> {
        lock(&self.inner).kept.clone()
    }

    /// Scores the predictions that were made for an epoch before it.
    pub fn score(&self, vector: &ChangeVector) {
        let mut inner = lock(&self.inner);
        let made_after = Epoch(vector.epoch.0.saturating_sub(1));
        let Some(expected) = inner.expected.get(&made_after).cloned() else { return };
        let hit = vector.changes().iter().filter(|change| expected.contains(&change.block)).count();
        let (acted, changed) = (expected.len() as u64, vector.changes().len() as u64);
        inner.scores.push_back(Score { acted, hit: hit as u64, changed });
        while inner.scores.len() > SCORE_WINDOW_EPOCHS {
            inner.scores.pop_front();
        }
        inner.expected.retain(|epoch, _| *epoch > made_after);
    }
}

/// Gives reservations back because slots run short.
pub(super) fn give_back_some(shared: &Shared) {
    let mut inner = lock(&shared.prediction.inner);
    let from = inner.held.len().saturating_sub(GIVE_BACK_AT_ONCE);
    // The least probable are at the end.
    for block in inner.held.split_off(from) {
        shared.volume.give_back_reservation(block);
    }
}

/// Looks at the table and acts on it, for ever.
pub(super) async fn keep_acting(tasks: Rc<Tasks>) {
    let shared = &tasks.shared;
    let mut reader = TableReader::new(&shared.prediction.table_path);
    while !shared.stopping() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !shared.settings.prediction {
            continue;
        }
        look(shared, &mut reader);
        let wanted = act(shared);
        for block in wanted {
            tasks.budget(2 * BLOCK_BYTES).await;
            super::fetch::prefetch(&tasks, block).await;
            if shared.stopping() {
                break;
            }
        }
    }
}

/// Takes a new table, if there is one that is sound.
fn look(shared: &Shared, reader: &mut TableReader) {
    let state = &shared.prediction;
    let read = reader.read(state.uuid, shared.volume.geometry().blocks());
    let mut inner = lock(&state.inner);
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
            if inner.acted.last_refusal != refusal {
                tracing::warn!(%refusal, "the prediction table is refused");
            }
            inner.acted.tables_refused += 1;
            inner.acted.last_refusal = refusal;
        }
    }
}

/// Reserves for what is predicted above the threshold; returns the blocks to prefetch.
fn act(shared: &Shared) -> Vec<BlockIndex> {
    let volume = &shared.volume;
    let open = volume.layers().open_epoch();
    let mut inner = lock(&shared.prediction.inner);
    let threshold = shared.settings.threshold();
    let table = inner.table.clone();
    let in_force = table.filter(|table| {
        let last = u64::from(table.info.epoch.0) + u64::from(table.info.horizon.epochs());
        table.info.epoch < open && u64::from(open.0) <= last && inner.advised_off.is_none()
    });
    let Some(table) = in_force else {
        give_back_unless(volume, &mut inner, &HashSet::new());
        inner.kept = Arc::default();
        (inner.acted.queue_length, inner.acted.above_threshold) = (0, 0);
        return Vec::new();
    };
    let most = volume.slot_count() as usize / KEPT_SHARE as usize;
    // Sorted by probability: those above the threshold are in front.
    let above: Vec<_> = table
        .predictions
        .iter()
        .take_while(|prediction| threshold.admits(prediction.probability))
        .take(most)
        .collect();
    let blocks: Arc<HashSet<BlockIndex>> =
        Arc::new(above.iter().map(|prediction| prediction.block).collect());
    inner.acted.above_threshold = above.len() as u64;
    inner.expected.entry(table.info.epoch).or_insert_with(|| blocks.clone());
    give_back_unless(volume, &mut inner, &blocks);
    inner.kept = blocks;
    let keep_free = super::evict::reserve(volume.slot_count()) / 2;
    let most_reserved = volume.slot_count() / RESERVED_SHARE;
    let (mut waiting, mut wanted) = (0, Vec::new());
    for prediction in above {
        let block = prediction.block;
        if prediction.kind != ChangeKind::Deleted {
            let made = if volume.reserved_slots() < most_reserved {
                volume.reserve(block, keep_free)
            } else {
                Reservation::NoRoom
            };
            match made {
                Reservation::Made => inner.held.push(block),
                Reservation::NotNeeded => {}
                Reservation::NoRoom => waiting += 1,
            }
        }
        if prediction.kind == ChangeKind::Modified && volume.lies_below_only(block) {
            if wanted.len() < PREFETCHES_A_LOOK { wanted.push(block) } else { waiting += 1 }
        }
    }
    inner.acted.queue_length = waiting + wanted.len() as u64;
    wanted
}

/// Gives back what is held for blocks that are not in `blocks` and have not been written.
fn give_back_unless(volume: &Volume, inner: &mut Inner, blocks: &HashSet<BlockIndex>) {
    inner.held.retain(|block| {
        if blocks.contains(block) {
            volume.is_reserved(*block)
        } else {
            volume.give_back_reservation(*block);
            false
        }
    });
}
