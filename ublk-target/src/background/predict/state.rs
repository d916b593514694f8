//! What is predicted, what is done for it and what came of it, as the status and the other tasks see it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use forerun::change_vector::ChangeVector;
use forerun::geometry::BlockIndex;
use forerun::prediction_table::Table;

use super::super::shared::Shared;
use super::plan::Plan;
use super::score::Scores;
use crate::volume::lock;

/// Reservations given back at once when slots run short.
const GIVE_BACK_AT_ONCE: usize = 256;

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
    /// Those at or above the threshold.
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
}

#[derive(Default)]
pub(super) struct Inner {
    pub table: Option<Arc<Table>>,
    pub plan: Option<Plan>,
    /// Blocks that a slot was reserved for, the most probable first.
    pub held: Vec<BlockIndex>,
    pub scores: Scores,
    pub acted: Acted,
    /// The last look at the table refused it.
    pub refusing: bool,
    /// The trainer's advice against acting, with its reason.
    pub advised_off: Option<String>,
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
    pub fn acted(&self) -> Acted {
        let inner = lock(&self.inner);
        let (precision, recall, scored_epochs) = inner.scores.totals();
        let plan = inner.plan.as_ref();
        Acted {
            above_threshold: plan.map_or(0, Plan::above),
            queue_length: plan.map_or(0, Plan::waiting),
            precision,
            recall,
            scored_epochs,
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
        lock(&self.inner).plan.as_ref().map(|plan| plan.blocks.clone()).unwrap_or_default()
    }

    /// Scores what was predicted for an epoch, now that it is over.
    pub fn score(&self, vector: &ChangeVector) {
        lock(&self.inner).scores.happened(vector);
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
