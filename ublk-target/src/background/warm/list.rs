//! Making the warm list: a score for each block, which fades from list to list, and grows with each read and change, with
//! what is predicted, and with being on the fast tier.

use std::collections::HashMap;
use std::time::Duration;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::PredictedKind;
use tokio::time::Instant;

use super::super::{Shared, Tasks, World, now_us};
use super::{HydrationState, until_stopping};
use crate::capacity_tier::{MAX_WARM_BLOCKS, WarmList};
use crate::volume::lock;

/// How often a list is written, where the volume is used.
const INTERVAL: Duration = Duration::from_secs(300);
/// So long after the one before it is written at once where there is another snapshot: who restores that wants it.
const INTERVAL_OF_SNAPSHOTS: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(60);
/// What is left of a score from one list to the next: half after half an hour.
const FADE: f32 = 0.9;
/// What a change counts, where a read counts one: what is written over needs no fetch, but is often read as well.
const CHANGE: f32 = 0.25;
/// What a prediction that is certain counts, in reads.
const PREDICTED: f32 = 4.0;
/// What being on the fast tier counts, and each hit there that eviction remembers.
const RESIDENT: f32 = 0.02;
/// The score of the first band; each one has half of the score that the one two before has.
const TOP: f32 = 64.0;
/// Bands of scores.
const BANDS: usize = 32;
/// The bands down to a score of a half: of what was read of late, or changed again and again, or is predicted.
pub(super) const USED_BANDS: usize = 14;
/// Blocks in a band of what was read first: so finely is the order kept.
const FIRST_BAND: usize = 64;
/// Blocks looked at before other tasks of the thread get a turn.
const LOOKS_A_TURN: usize = 4096;

/// Writes the warm list when it is time to.
pub(super) struct ListWriter {
    last: Option<WarmList>,
    due: Instant,
    written: Instant,
    snapshots: usize,
    /// Reads and first writes in an epoch so far, when the last list was made.
    used: u64,
    /// Epochs up to this one are in the scores.
    counted: Epoch,
}

impl ListWriter {
    /// Goes on from the list that is there.
    pub fn new(shared: &Shared, last: Option<WarmList>) -> Self {
        let now = Instant::now();
        let counted = *shared.sealed().borrow();
        Self {
            last,
            due: now + INTERVAL,
            written: now,
            snapshots: lock(&shared.kept).len(),
            used: used(shared),
            counted,
        }
    }

    /// Writes a list if one is due and the volume was used since the last one.
    pub async fn write_if_due(&mut self, tasks: &Tasks<impl World>) {
        let shared = &tasks.shared;
        let now = Instant::now();
        let snapshots = lock(&shared.kept).len();
        let for_snapshot = snapshots > self.snapshots && now >= self.written + INTERVAL_OF_SNAPSHOTS;
        if now < self.due && !for_snapshot {
            return;
        }
        // Until what the last list names is there, that list is the better one.
        let hydrating =
            matches!(shared.warmth.hydration().state, HydrationState::Waiting | HydrationState::Listed);
        if hydrating || used(shared) == self.used {
            return;
        }
        let (list, counted) = self.make(shared).await;
        self.due = now + INTERVAL;
        self.written = now;
        match until_stopping(shared, tasks.capacity.put_warm_list(&list)).await {
            None => {}
            Some(Ok(())) => {
                tracing::debug!(blocks = list.len(), epoch = %list.epoch, "wrote the warm list");
                self.used = used(shared);
                self.snapshots = snapshots;
                self.counted = counted;
                self.last = Some(list);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the warm list cannot be written; it is tried again");
                self.due = now + RETRY;
                self.written = now + RETRY;
            }
        }
    }

    /// A list for now, and up to which epoch it counts.
    async fn make(&self, shared: &Shared) -> (WarmList, Epoch) {
        let mut scores = HashMap::new();
        if let Some(last) = &self.last {
            for (band, blocks) in last.bands.iter().skip(last.first_bands).enumerate() {
                let score = FADE * band_score(band);
                scores.extend(blocks.iter().map(|block| (*block, score)));
                tokio::task::yield_now().await;
            }
        }
        let mut counted = self.counted;
        while let Some(sealed) = shared.next_vector(counted) {
            counted = sealed.vector.epoch;
            for block in sealed.reads.iter().flat_map(|reads| reads.iter()) {
                add(&mut scores, *block, 1.0);
            }
            for change in sealed.vector.changes() {
                if change.kind != ChangeKind::Deleted {
                    add(&mut scores, change.block, CHANGE);
                }
            }
            tokio::task::yield_now().await;
        }
        if let Some(table) = shared.prediction.table() {
            for prediction in &table.predictions {
                let kind = match prediction.kind {
                    PredictedKind::Read => 1.0,
                    PredictedKind::Added | PredictedKind::Modified => CHANGE,
                    PredictedKind::Deleted => 0.0,
                };
                add(&mut scores, prediction.block, PREDICTED * kind * prediction.probability.get());
            }
        }
        for first in (0..shared.volume.slot_count()).step_by(LOOKS_A_TURN) {
            for (block, hits) in shared.volume.residents(first..first + LOOKS_A_TURN as u32) {
                add(&mut scores, block, RESIDENT * f32::from(1 + hits));
            }
            tokio::task::yield_now().await;
        }
        let first = shared.warmth.first_reads();
        let hydration = shared.warmth.hydration();
        let bands = bands(&first, scores);
        let list = WarmList {
            epoch: shared.volume.layers().open_epoch(),
            made_us: now_us(),
            request_ns: hydration.request_ns as u64,
            read_hits_ppm: (hydration.read_hits * 1e6) as u32,
            first_bands: first.len().div_ceil(FIRST_BAND),
            bands,
        };
        (list, counted)
    }
}

/// Grows with each request that may change the list.
fn used(shared: &Shared) -> u64 {
    let stats = shared.volume.stats();
    stats.read_requests.get() + stats.redirects.get()
}

fn add(scores: &mut HashMap<BlockIndex, f32>, block: BlockIndex, score: f32) {
    let full = scores.len() >= MAX_WARM_BLOCKS;
    match scores.get_mut(&block) {
        Some(sum) => *sum += score,
        None if full || score <= 0.0 => {}
        None => {
            scores.insert(block, score);
        }
    }
}

/// The score that a band stands for.
fn band_score(band: usize) -> f32 {
    TOP * (-0.5 * (band as f32 + 0.5)).exp2()
}

/// What was read first in its order, then the others by score.
fn bands(first: &[BlockIndex], mut scores: HashMap<BlockIndex, f32>) -> Vec<Vec<BlockIndex>> {
    let mut bands: Vec<Vec<BlockIndex>> = first.chunks(FIRST_BAND).map(<[BlockIndex]>::to_vec).collect();
    let mut scored = vec![Vec::new(); BANDS];
    for block in first {
        scores.remove(block);
    }
    for (block, score) in scores {
        let band = (-2.0 * (score / TOP).log2()).clamp(0.0, (BANDS - 1) as f32) as usize;
        if let Some(band) = scored.get_mut(band) {
            band.push(block);
        }
    }
    bands.extend(scored);
    bands.iter_mut().for_each(|band| band.sort_unstable());
    bands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_more_comes_first_and_what_a_start_read_before_all() {
        let block = BlockIndex;
        let scores: HashMap<_, _> =
            [(1, 0.02), (2, 7.9), (3, 8.1), (4, 500.0), (5, 1.0), (9, 64.0), (7, 3.0)]
                .map(|(at, score)| (block(at), score))
                .into();
        let bands = bands(&[block(9), block(7)], scores);
        assert_eq!(bands.first(), Some(&vec![block(7), block(9)]));
        let order: Vec<u32> = bands.iter().skip(1).flatten().map(|block| block.0).collect();
        assert_eq!(order, [4, 3, 2, 5, 1]);
        assert_eq!(bands.len(), 1 + BANDS);
    }

    #[test]
    fn a_score_fades_and_falls_from_band_to_band() {
        for band in 0..BANDS - 1 {
            let score = band_score(band);
            let of = |score: f32| (-2.0 * (score / TOP).log2()) as usize;
            assert_eq!(of(score), band);
            assert_eq!(of(FADE.powi(4) * score), band + 1);
        }
    }
}
