//! What is predicted, what is done for it and what came of it, as the status and the other tasks see it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forerun::change_vector::ChangeVector;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use forerun::prediction_table::Table;

use super::super::shared::Shared;
use super::benefit::{Benefit, FETCH_PRICE, Group};
use super::growth::Growth;
use super::plan::Plan;
use super::regret::Regret;
use super::score::Scores;
use crate::volume::{Leaver, lock};

/// Reservations given back at once when slots run short.
const GIVE_BACK_AT_ONCE: usize = 256;
/// The weight of a read in the capacity tier's mean latency.
const LATENCY_GAIN: f64 = 1.0 / 64.0;
/// The share of all slots that may be kept free for growth, as a divisor: an eighth.
const GROWTH_SHARE: u32 = 8;
/// Blocks read in an epoch that are told of, at most: 16 GiB of blocks, as many as an epoch can change.
const READS_MAX: usize = 262_144;
/// Slots that are freed ahead of fetches, at most.
const DEMAND_MAX: usize = 512;

/// What is done for predictions now, and since the start.
#[derive(Clone, Default, Debug)]
pub struct Acted {
    /// Tables taken.
    pub tables_accepted: u64,
    /// Tables refused.
    pub tables_refused: u64,
    /// Why the last one was refused.
    pub last_refusal: String,
    /// Predictions in force.
    pub published: u64,
    /// Those that are acted on, or would be.
    pub above_threshold: u64,
    /// Predicted blocks that still wait for a slot or for data.
    pub queue_length: u64,
    /// The epoch that the table was made after.
    pub table_epoch: u32,
    /// When the table was published, in microseconds since 1970.
    pub table_published_us: u64,
    /// Of the predictions acted on, the share that happened, over the window.
    pub precision: f64,
    /// Of what happened, the share predicted, over the window.
    pub recall: f64,
    /// Tables scored, at most the window.
    pub scored_epochs: u32,
    /// As `precision`, of blocks that were expected to be read and not changed.
    pub read_precision: f64,
    /// As `recall`, of those.
    pub read_recall: f64,
    /// The probability from which acting pays.
    pub acts_from: f64,
    /// The share of evicted blocks that were missed within the horizon.
    pub missed_after_eviction: f64,
    /// Predicted blocks that were acted on, and those of them that requests waited for.
    pub acted: Group,
    /// The same for those that were left alone.
    pub control: Group,
    /// The mean time that a block of the capacity tier takes.
    pub capacity_read: Duration,
    /// Blocks expected to be added within the horizon.
    pub growth_blocks: u64,
    /// Slots kept free for them.
    pub growth_slots: u32,
}

#[derive(Default)]
pub(super) struct Inner {
    pub table: Option<Arc<Table>>,
    pub plan: Option<Plan>,
    /// Blocks that a slot was reserved for, the most probable first.
    pub held: Vec<BlockIndex>,
    pub scores: Scores,
    /// Of the blocks expected to be read.
    pub read_scores: Scores,
    pub benefit: Benefit,
    pub regret: Regret,
    pub growth: Growth,
    pub acted: Acted,
    /// The last look at the table refused it.
    pub refusing: bool,
    /// The trainer's advice against acting, with its reason.
    pub advised_off: Option<String>,
    /// The open epoch when it was last looked at.
    open: Epoch,
    /// What a slot is worth otherwise: the share of evicted blocks that were missed, as it was when the epoch began, so that
    /// it does not move within one.
    slot_worth: f64,
    /// Blocks that were read in this epoch and that no slot's mark tells of: missed, or evicted since.
    reads: HashSet<BlockIndex>,
    /// In microseconds; 0 while unknown.
    capacity_read_us: f64,
}

impl Inner {
    /// Takes note of the open epoch.
    pub fn look_at_epoch(&mut self, open: Epoch, threshold: Threshold, horizon: Horizon) {
        if open == self.open {
            return;
        }
        self.open = open;
        let from = f64::from(self.acts_from(threshold));
        self.benefit.epoch_over(self.plan.as_ref(), open, from, [&self.scores, &self.read_scores]);
        self.regret.epoch_over(open, horizon);
        self.slot_worth = self.regret.share();
    }

    /// The probability from which acting pays: a slot has to be worth more with the predicted block than with the one that
    /// is evicted for it, by the price of the fetch. Both save the same wait. Never below the threshold.
    pub fn acts_from(&self, threshold: Threshold) -> f32 {
        threshold.get().max((self.slot_worth + FETCH_PRICE).min(1.0) as f32)
    }

    fn note_read(&mut self, block: BlockIndex) {
        // One more than is told: so it shows that there were too many.
        if self.reads.len() <= READS_MAX {
            self.reads.insert(block);
        }
    }

    /// Why nothing is acted on, where that is so.
    pub fn off(&self) -> Option<&str> {
        self.advised_off.as_deref().or_else(|| self.benefit.off())
    }

    fn growth_slots(&self, slots: u32, reserved: u32) -> u32 {
        if self.off().is_some() {
            return 0;
        }
        let epoch = u32::try_from(self.growth.forecast(Horizon::DEFAULT)).unwrap_or(u32::MAX);
        epoch.saturating_sub(reserved).min(slots / GROWTH_SHARE)
    }
}

/// What is predicted and what came of it; shared with the status.
#[derive(Default)]
pub struct PredictionState {
    pub(super) inner: Mutex<Inner>,
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
    pub fn acted(&self, shared: &Shared) -> Acted {
        let inner = lock(&self.inner);
        let (precision, recall, scored_epochs) = inner.scores.totals();
        let plan = inner.plan.as_ref();
        let (read_precision, read_recall, _) = inner.read_scores.totals();
        let (acted, control) = inner.benefit.groups();
        let volume = &shared.volume;
        Acted {
            above_threshold: plan.map_or(0, Plan::above),
            queue_length: plan.map_or(0, Plan::waiting),
            precision,
            recall,
            scored_epochs,
            read_precision,
            read_recall,
            acts_from: f64::from(inner.acts_from(shared.settings.threshold())),
            missed_after_eviction: inner.slot_worth,
            acted,
            control,
            capacity_read: Duration::from_secs_f64(inner.capacity_read_us / 1e6),
            growth_blocks: inner.growth.forecast(shared.settings.horizon()),
            growth_slots: inner.growth_slots(volume.slot_count(), volume.reserved_slots()),
            ..inner.acted.clone()
        }
    }

    /// "on", or "off: why".
    pub fn state(&self, shared: &Shared) -> String {
        if !shared.settings.prediction {
            return "off: by the volume's configuration".to_owned();
        }
        let inner = lock(&self.inner);
        match (inner.off(), &inner.table) {
            (Some(why), _) => format!("off: {why}"),
            (None, None) => "off: no predictions have been published yet".to_owned(),
            (None, Some(_)) => "on".to_owned(),
        }
    }

    /// Takes the trainer's advice on whether acting pays.
    pub fn advise(&self, pays: bool, reason: &str) {
        lock(&self.inner).advised_off = (!pays).then(|| reason.to_owned());
    }

    /// The newest predictions, whether or not they are acted on.
    pub fn table(&self) -> Option<Arc<Table>> {
        lock(&self.inner).table.clone()
    }

    /// Blocks that eviction should rather keep.
    pub fn kept(&self) -> Arc<HashSet<BlockIndex>> {
        lock(&self.inner).plan.as_ref().map(|plan| plan.acted_on.clone()).unwrap_or_default()
    }

    /// Slots to be kept free for what is going to be added, beyond those that are reserved.
    pub fn growth_slots(&self, shared: &Shared) -> u32 {
        if !shared.settings.prediction {
            return 0;
        }
        let volume = &shared.volume;
        lock(&self.inner).growth_slots(volume.slot_count(), volume.reserved_slots())
    }

    /// Slots that fetches are waiting for.
    pub fn demand(&self) -> u32 {
        let inner = lock(&self.inner);
        inner.plan.as_ref().map_or(0, |plan| plan.fetches().min(DEMAND_MAX) as u32)
    }

    /// Scores what was predicted for an epoch, now that it is over.
    pub fn score(&self, vector: &ChangeVector, reads: &[BlockIndex]) {
        let mut inner = lock(&self.inner);
        inner.scores.happened(vector.epoch, vector.changes().iter().map(|change| change.block));
        inner.read_scores.happened(vector.epoch, reads.iter().copied());
        inner.growth.happened(vector);
    }

    /// A request waits for a block of the capacity tier.
    pub fn missed(&self, block: BlockIndex) {
        let mut inner = lock(&self.inner);
        inner.regret.missed(block);
        inner.note_read(block);
        let Inner { plan, benefit, .. } = &mut *inner;
        if let Some(plan) = plan {
            benefit.missed(plan, block);
        }
    }

    /// A block was evicted.
    pub fn evicted(&self, leaver: Leaver) {
        let mut inner = lock(&self.inner);
        let open = inner.open;
        inner.regret.evicted(leaver.block, open);
        if leaver.read {
            inner.note_read(leaver.block);
        }
    }

    /// Takes what was read in a sealed epoch and not changed, ascending. What was read since the seal counts as well; where
    /// more was read than can be learned from, nothing is told: such an epoch is a scan of everything.
    pub fn take_reads(&self, shared: &Shared, vector: &ChangeVector) -> Option<Arc<[BlockIndex]>> {
        if !shared.settings.prediction {
            return None;
        }
        let mut reads = shared.volume.take_reads();
        reads.extend(lock(&self.inner).reads.drain());
        told_reads(reads, vector)
    }

    /// A block was fetched ahead.
    pub fn fetched(&self) {
        lock(&self.inner).benefit.fetched();
    }

    /// A block of the capacity tier took so long.
    pub fn capacity_read(&self, took: Duration) {
        let (mut inner, us) = (lock(&self.inner), took.as_secs_f64() * 1e6);
        let mean = inner.capacity_read_us;
        inner.capacity_read_us = if mean > 0.0 { mean + LATENCY_GAIN * (us - mean) } else { us };
    }
}

/// Gives reservations back because slots run short: the least probable ones.
pub(in super::super) fn give_back_some(shared: &Shared) {
    let mut inner = lock(&shared.prediction.inner);
    let mut given_back = 0;
    while let Some(block) = inner.held.pop() {
        given_back += usize::from(shared.volume.give_back_reservation(block));
        if given_back == GIVE_BACK_AT_ONCE {
            break;
        }
    }
}

/// Of what was read in an epoch, what the trainer is told.
fn told_reads(mut reads: Vec<BlockIndex>, vector: &ChangeVector) -> Option<Arc<[BlockIndex]>> {
    let changes = vector.changes();
    reads.sort_unstable();
    reads.dedup();
    reads.retain(|block| changes.binary_search_by_key(block, |change| change.block).is_err());
    (reads.len() <= READS_MAX).then(|| reads.into())
}

#[cfg(test)]
mod tests {
    use forerun::change_vector::{Change, ChangeKind};

    use super::*;

    #[test]
    fn what_was_read_is_told_once_in_order_without_what_changed_and_not_a_scan() {
        let change = |block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 1 };
        let vector = ChangeVector::new(Epoch(3), 1, 2, vec![change(4), change(7)]).expect("a sound vector");
        let told = |reads: &[u32]| told_reads(reads.iter().copied().map(BlockIndex).collect(), &vector);
        assert_eq!(told(&[9, 7, 2, 9, 4]).as_deref(), Some(&[BlockIndex(2), BlockIndex(9)][..]));
        assert_eq!(told(&[]).as_deref(), Some(&[][..]));
        let all: Vec<u32> = (0..READS_MAX as u32 + 3).collect();
        assert_eq!(told(&all), None, "two of them changed, and one more is too many");
        assert!(told(&all[1..]).is_some());
    }
}
