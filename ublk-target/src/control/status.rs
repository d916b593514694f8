//! The numbers that the API shows, in plain types. Field by field they mean what the schema
//! (`proto/forerun/v1/forerun.proto`) says of the fields of the same names.
//!
//! Times are microseconds since 1970 (UTC), sizes are bytes, `0` and empty mean "none" or "not known".

use forerun::prediction::{Horizon, Threshold};

/// The volume, its device, its tiers and what is under way.
#[derive(Clone, PartialEq, Default, Debug)]
#[allow(missing_docs, reason = "named as in the schema, which says what each one is")]
pub struct VolumeStatus {
    pub device: String,
    pub size_bytes: u64,
    pub logical_block_bytes: u32,
    pub queues: u32,
    pub queue_depth: u32,
    pub transfer_mode: String,
    pub not_granted: String,
    pub started_us: u64,
    pub health: String,
    pub open_epoch: u32,
    pub open_epoch_since_us: u64,
    pub sync_interval_seconds: u32,
    pub epochs_not_written_back: u32,
    pub written_back_epoch: u32,
    pub write_back_remaining_bytes: u64,
    pub write_back_eta_seconds: f64,
    pub written_back_bytes: u64,
    pub write_back_error: String,
    pub mapped_bytes: u64,
    pub dirty_bytes: u64,
    pub fast_tier: TierStatus,
    pub capacity_tier: TierStatus,
    pub memory_bytes: u64,
    pub read_requests: u64,
    pub read_bytes: u64,
    pub write_requests: u64,
    pub write_bytes: u64,
    pub discard_requests: u64,
    pub flush_requests: u64,
    pub failed_requests: u64,
    pub read_hits: u64,
    pub read_misses: u64,
    pub promotions: u64,
    pub evictions: u64,
    pub waits_for_room: u64,
    pub fast_tier_errors: u64,
    pub journal_failures: u64,
    pub write_back_failures: u64,
    pub capacity_read_errors: u64,
    pub origins: Vec<OriginStatus>,
    pub hydration: crate::background::Hydration,
}

/// A volume whose data this one, its clone, shares.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OriginStatus {
    /// Its uuid, as text.
    pub uuid: String,
    /// Where its capacity tier is.
    pub address: String,
    /// Bytes of its records that are still referred to.
    pub shared_bytes: u64,
    /// Whether they are being copied.
    pub promoting: bool,
}

/// One tier's fill.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TierStatus {
    /// Where it is.
    pub path: String,
    /// What it can hold, in bytes; 0 where it has no limit (an object store).
    pub total_bytes: u64,
    /// What it holds, in bytes.
    pub used_bytes: u64,
    /// Of the used bytes, what can be given up at once (fast tier only).
    pub clean_bytes: u64,
    /// What the server makes of conditional writes (capacity tier on an object store only).
    pub conditional_writes: String,
}

/// How prediction does, as the engine counts it. Who serves and why comes from the [`TrainerReport`].
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "named as in the schema, which says what each one is")]
pub struct PrefetchStatus {
    pub threshold: Threshold,
    pub horizon: Horizon,
    pub state: String,
    pub predictions_published: u64,
    pub predictions_above_threshold: u64,
    pub tables_accepted: u64,
    pub tables_refused: u64,
    pub last_refusal: String,
    pub queue_length: u64,
    pub reservations_held: u64,
    pub reservations_made: u64,
    pub reservations_used: u64,
    pub reservations_wasted: u64,
    pub redirects: u64,
    pub prefetched_bytes: u64,
    pub prefetched_used_bytes: u64,
    pub precision: f64,
    pub recall: f64,
    pub score_window_epochs: u32,
    pub read_precision: f64,
    pub read_recall: f64,
    pub table_epoch: u32,
    pub table_published_us: u64,
    pub acts_from: f64,
    pub missed_after_eviction: f64,
    pub acted_blocks: f64,
    pub acted_missed: f64,
    pub control_blocks: f64,
    pub control_missed: f64,
    pub capacity_read_seconds: f64,
    pub growth_blocks: u64,
    pub growth_slots: u32,
}

impl Default for PrefetchStatus {
    fn default() -> Self {
        Self {
            threshold: Threshold::DEFAULT,
            horizon: Horizon::DEFAULT,
            state: String::new(),
            predictions_published: 0,
            predictions_above_threshold: 0,
            tables_accepted: 0,
            tables_refused: 0,
            last_refusal: String::new(),
            queue_length: 0,
            reservations_held: 0,
            reservations_made: 0,
            reservations_used: 0,
            reservations_wasted: 0,
            redirects: 0,
            prefetched_bytes: 0,
            prefetched_used_bytes: 0,
            precision: 0.0,
            recall: 0.0,
            score_window_epochs: 0,
            read_precision: 0.0,
            read_recall: 0.0,
            table_epoch: 0,
            table_published_us: 0,
            acts_from: 0.0,
            missed_after_eviction: 0.0,
            acted_blocks: 0.0,
            acted_missed: 0.0,
            control_blocks: 0.0,
            control_missed: 0.0,
            capacity_read_seconds: 0.0,
            growth_blocks: 0,
            growth_slots: 0,
        }
    }
}

/// What the trainer says of itself: who serves, why, whether it pays, and the chains.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainerReport {
    /// When it arrived, in microseconds since 1970 (UTC).
    pub received_us: u64,
    /// Which predictor serves.
    pub serving_predictor: String,
    /// Why that one.
    pub serving_reason: String,
    /// False: the trainer advises against acting on predictions, for the reason given.
    pub pays: bool,
    /// All predictors' scores over the window.
    pub predictors: Vec<PredictorScore>,
    /// The chains.
    pub chains: Vec<Chain>,
    /// The last epoch that was learned from.
    pub epoch: u32,
    /// The epochs that the scores are over.
    pub score_window_epochs: u32,
}

/// One predictor's score, each value 0 to 1.
#[derive(Clone, PartialEq, Debug)]
pub struct PredictorScore {
    /// The predictor.
    pub name: String,
    /// Mean average precision over the window.
    pub mean_average_precision: f64,
    /// Of what it predicted, the share that happened.
    pub precision: f64,
    /// Of what happened, the share it predicted.
    pub recall: f64,
    /// The epochs that it was scored on.
    pub epochs: u32,
}

/// Epochs linked because their change vectors are alike.
#[derive(Clone, PartialEq, Debug)]
pub struct Chain {
    /// The chain's number.
    pub id: u32,
    /// Its epochs, oldest first; at most the 1,000 newest.
    pub epochs: Vec<u32>,
    /// When its first epoch was sealed, in microseconds since 1970 (UTC).
    pub first_us: u64,
    /// When its last epoch was sealed.
    pub last_us: u64,
    /// Mean similarity of neighbours, 0 to 1.
    pub similarity: f64,
    /// Changed blocks an epoch, on average.
    pub mean_changed_blocks: u64,
    /// Epochs pruned from it so far because of their age.
    pub pruned_by_age: u32,
    /// Epochs pruned from it so far because they diverged.
    pub pruned_by_divergence: u32,
    /// Epochs pruned from it so far because there were too many.
    pub pruned_by_number: u32,
    /// The similarity by part, each 0 to 1: blocks, regions, run lengths, kinds, volume; `None` if the trainer does not say.
    pub likeness: Option<[f64; 5]>,
    /// The similarities from which an epoch is linked, and below which it is pruned.
    pub similarity_limits: [f64; 2],
    /// The hours after which an epoch is pruned, and the number of epochs above which the oldest is.
    pub age_and_number_limits: [u32; 2],
}
