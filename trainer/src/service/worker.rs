//! The learning thread: takes change vectors and what was read, keeps, learns, publishes, and says how it does.
//!
//! It is a thread of its own because an epoch takes CPU seconds, during which the connection has to live.
//! Whatever fails here is said and survived: without a history it learns from what comes, without a
//! table it goes on learning. Dying at any point loses at most what the last epoch taught.

use anyhow::Result;
use forerun::api::v1;
use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::Horizon;
use forerun::prediction_table::TableWriter;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::Paths;
use super::lane::{self, Lane};
use crate::chain::Chain;
use crate::config::{ChainConfig, Config};
use crate::learner::{Effort, Learner};
use crate::predictors::Predictor;
use crate::publish::together;
use crate::select::WINDOW_EPOCHS;

/// Epochs of a chain that are reported, the newest.
const REPORTED_CHAIN_EPOCHS: usize = 1000;
/// The share of the CPU time that reads may use where there are any.
const READS_SHARE: f64 = 0.5;

/// What the connection hands over.
pub(super) enum Work {
    /// The volume that the target serves; answered with the last epoch that is known of it.
    Volume { uuid: [u8; 16], blocks: u32, horizon: Horizon, last: oneshot::Sender<Epoch> },
    /// A sealed epoch of that volume: what changed, and what was read and not changed, if that is known.
    Vector { vector: ChangeVector, reads: Option<Vec<BlockIndex>>, horizon: Horizon },
    /// Another horizon.
    Horizon(Horizon),
}

/// The thread's state.
pub(super) struct Worker {
    volume_id: String,
    paths: Paths,
    config: Config,
    reports: watch::Sender<Option<v1::ReportTrainerRequest>>,
    changes: Lane,
    reads: Lane,
    table: Option<TableWriter>,
    /// The volume's uuid and size in blocks.
    volume: Option<([u8; 16], u32)>,
    horizon: Horizon,
}

impl Worker {
    pub fn new(
        volume_id: String,
        paths: Paths,
        config: Config,
        reports: watch::Sender<Option<v1::ReportTrainerRequest>>,
    ) -> Result<Self> {
        Ok(Self {
            volume_id,
            changes: Lane::open(&paths.state_dir, lane::CHANGES)?,
            reads: Lane::open(&paths.state_dir, lane::READS)?,
            paths,
            config,
            reports,
            table: None,
            volume: None,
            horizon: Horizon::DEFAULT,
        })
    }

    /// Works until the connection's side is gone.
    pub fn run(mut self, mut work: mpsc::Receiver<Work>) {
        while let Some(next) = work.blocking_recv() {
            let result = match next {
                Work::Volume { uuid, blocks, horizon, last } => {
                    self.horizon = horizon;
                    let done = self.begin(uuid, blocks);
                    let known = self.changes.last();
                    let _ = last.send(known.unwrap_or(Epoch(0)));
                    done
                }
                Work::Vector { vector, reads, horizon } => {
                    self.horizon = horizon;
                    let effort = if work.is_empty() { Effort::Full } else { Effort::CatchUp };
                    self.learn(&vector, reads.as_deref(), effort)
                }
                Work::Horizon(horizon) if horizon != self.horizon => {
                    self.horizon = horizon;
                    for lane in [&mut self.changes, &mut self.reads] {
                        if let Some(learner) = lane.learner_mut() {
                            learner.set_horizon(horizon);
                        }
                    }
                    info!("predicting {} epochs ahead from now on", horizon.epochs());
                    self.publish()
                }
                Work::Horizon(_) => Ok(()),
            };
            if let Err(error) = result {
                warn!("{}", forerun::told(&error));
            }
        }
        info!("stopping: what was learned is stored");
    }

    /// Makes ready for a volume.
    fn begin(&mut self, uuid: [u8; 16], blocks: u32) -> Result<()> {
        if self.volume.is_some_and(|(same, before)| same == uuid && before <= blocks) {
            self.changes.grow(blocks);
            self.reads.grow(blocks);
            self.volume = Some((uuid, blocks));
            return Ok(());
        }
        self.table = None;
        self.volume = None;
        let same_volume = self.changes.begin(uuid, blocks, &self.config, self.horizon)?;
        self.reads.begin(uuid, blocks, &self.config, self.horizon)?;
        self.volume = Some((uuid, blocks));
        let last = self.changes.last();
        info!("{}: epochs up to {} are known", self.volume_id, last.map_or(0, |epoch| epoch.0));
        if same_volume { self.publish() } else { Ok(()) }
    }

    fn learn(&mut self, vector: &ChangeVector, reads: Option<&[BlockIndex]>, effort: Effort) -> Result<()> {
        let whole = self.config.cpu_seconds_per_epoch;
        // Nothing read is a lesson only where something was read before; what is known comes again where the other history
        // was lost.
        let known = self.reads.last();
        let reads = reads
            .filter(|reads| !reads.is_empty() || known.is_some())
            .filter(|_| known.is_none_or(|known| known < vector.epoch));
        let for_reads = if reads.is_some() { whole * READS_SHARE } else { 0.0 };
        let mut new = self.changes.learn(vector, effort, self.horizon, whole - for_reads)?;
        if let Some(reads) = reads {
            new |= self.reads.learn(&as_vector(vector, reads)?, effort, self.horizon, for_reads)?;
        }
        if effort == Effort::CatchUp {
            return Ok(());
        }
        self.report();
        if !new {
            // At rest: the table stays as it is, and nobody acts on it.
            return Ok(());
        }
        let published = self.publish();
        self.changes.save()?;
        self.reads.save()?;
        published
    }

    /// Publishes the changes that are expected, and the reads where predicting them pays.
    fn publish(&mut self) -> Result<()> {
        let (Some((uuid, _)), Some(learner)) = (self.volume, self.changes.learner()) else { return Ok(()) };
        let Some(epoch) = learner.last() else { return Ok(()) };
        let (serving, mut predictions) = learner.predictions(self.horizon);
        let up_to_date = |reads: &&Learner| reads.last() == Some(epoch) && reads.scoreboard().pays();
        if let Some(reads) = self.reads.learner().filter(up_to_date) {
            if !learner.scoreboard().pays() {
                // The target acts on all that there is.
                predictions.clear();
            }
            predictions = together(predictions, &reads.predictions(self.horizon).1);
        }
        let table = match self.table.take().filter(TableWriter::is_in_place) {
            Some(table) => table,
            None => TableWriter::create(&self.paths.table, uuid)?,
        };
        let table = self.table.insert(table);
        let published = table.publish(serving.name(), epoch, self.horizon, &predictions)?;
        debug!("published {} predictions as generation {}", predictions.len(), published.generation);
        Ok(())
    }

    fn report(&self) {
        let Some(learner) = self.changes.learner() else { return };
        let board = learner.scoreboard();
        let reads = self.reads.learner().filter(|reads| reads.last().is_some());
        let score = |predictor: Predictor| {
            let tally = board.tally(predictor);
            v1::PredictorScore {
                name: predictor.name().to_owned(),
                mean_average_precision: tally.mean_average_precision(),
                precision: tally.precision(),
                recall: tally.recall(),
                epochs: tally.epochs,
            }
        };
        let of_reads = reads.map_or_else(String::new, |reads| format!("; reads: {}", reads.reason()));
        let report = v1::ReportTrainerRequest {
            volume_id: self.volume_id.clone(),
            serving_predictor: board.serving().name().to_owned(),
            serving_reason: format!("{}{of_reads}", learner.reason()),
            pays: board.pays() || reads.is_some_and(|reads| reads.scoreboard().pays()),
            predictors: Predictor::ALL.into_iter().map(score).collect(),
            chains: learner
                .chains()
                .list()
                .iter()
                .map(|chain| chain_message(chain, &self.config.chain))
                .collect(),
            epoch: learner.last().map_or(0, |epoch| epoch.0),
            score_window_epochs: WINDOW_EPOCHS,
        };
        let _ = self.reports.send(Some(report));
    }
}

/// What was read, in the form that the learner takes.
fn as_vector(of: &ChangeVector, reads: &[BlockIndex]) -> Result<ChangeVector> {
    let read = |block: &BlockIndex| Change { block: *block, kind: ChangeKind::Modified, sub_blocks: 1 };
    Ok(ChangeVector::new(of.epoch, of.opened_us, of.sealed_us, reads.iter().map(read).collect())?)
}

fn chain_message(chain: &Chain, config: &ChainConfig) -> v1::Chain {
    let (first_us, last_us) = chain.time_us();
    let likeness = chain.likeness();
    let epochs: Vec<u32> = chain.epochs().map(|epoch| epoch.0).collect();
    let skip = epochs.len().saturating_sub(REPORTED_CHAIN_EPOCHS);
    v1::Chain {
        id: chain.id,
        epochs: epochs.into_iter().skip(skip).collect(),
        first_us,
        last_us,
        similarity: likeness.total(),
        mean_changed_blocks: chain.mean_changed_blocks(),
        pruned_by_age: chain.pruned_by_age,
        pruned_by_divergence: chain.pruned_by_divergence,
        likeness: Some(v1::ChainLikeness {
            blocks: likeness.blocks,
            regions: likeness.regions,
            run_lengths: likeness.runs,
            kinds: likeness.kinds,
            volume: likeness.volume,
        }),
        pruned_by_number: chain.pruned_by_number,
        linked_from_similarity: config.link_from_similarity,
        pruned_below_similarity: config.prune_below_similarity,
        pruned_after_hours: config.max_age_hours,
        pruned_above_epochs: config.max_epochs as u32,
    }
}
