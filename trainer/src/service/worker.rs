//! The learning thread: takes change vectors, keeps, learns, publishes, and says how it does.
//!
//! It is a thread of its own because an epoch takes CPU seconds, during which the connection has to live.
//! Whatever fails here is said and survived: without a history it learns from what comes, without a
//! table it goes on learning. Dying at any point loses at most what the last epoch taught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anyhow::{Context, Result};
use forerun::api::v1;
use forerun::change_vector::ChangeVector;
use forerun::geometry::Epoch;
use forerun::prediction::Horizon;
use forerun::prediction_table::TableWriter;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::Paths;
use crate::chain::Chain;
use crate::config::{ChainConfig, Config};
use crate::history::{self, History, Opened};
use crate::learner::{Effort, Learner};
use crate::predictors::Predictor;
use crate::select::WINDOW_EPOCHS;

/// Stored epochs that the cheap predictors learn from again after a restart; older ones are only remembered.
const RELEARNED_EPOCHS: u32 = 48;
/// Stored epochs that are remembered again after a restart.
const REMEMBERED_EPOCHS: u32 = 512;
/// Epochs of a chain that are reported, the newest.
const REPORTED_CHAIN_EPOCHS: usize = 1000;

/// What the connection hands over.
pub(super) enum Work {
    /// The volume that the target serves; answered with the last epoch that is known of it.
    Volume { uuid: [u8; 16], blocks: u32, horizon: Horizon, last: oneshot::Sender<Epoch> },
    /// A sealed epoch of that volume.
    Vector { vector: ChangeVector, horizon: Horizon },
    /// Another horizon.
    Horizon(Horizon),
}

/// The thread's state.
pub(super) struct Worker {
    volume_id: String,
    paths: Paths,
    config: Config,
    reports: watch::Sender<Option<v1::ReportTrainerRequest>>,
    opened: Option<Opened>,
    history: Option<History>,
    table: Option<TableWriter>,
    learner: Option<(Learner, [u8; 16], u32)>,
    horizon: Horizon,
}

impl Worker {
    pub fn new(
        volume_id: String,
        paths: Paths,
        config: Config,
        reports: watch::Sender<Option<v1::ReportTrainerRequest>>,
    ) -> Result<Self> {
        let folder = paths.state_dir.join("history");
        let opened = history::open(&folder)?;
        if let Some((aside, why)) = &opened.quarantined {
            warn!(
                "the history was damaged ({why}) and put aside as {}; it is asked for again",
                aside.display()
            );
        }
        Ok(Self {
            volume_id,
            paths,
            config,
            reports,
            opened: Some(opened),
            history: None,
            table: None,
            learner: None,
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
                    let known = self.learner.as_ref().and_then(|(learner, ..)| learner.last());
                    let _ = last.send(known.unwrap_or(Epoch(0)));
                    done
                }
                Work::Vector { vector, horizon } => {
                    self.horizon = horizon;
                    let effort = if work.is_empty() { Effort::Full } else { Effort::CatchUp };
                    self.learn(&vector, effort)
                }
                Work::Horizon(horizon) if horizon != self.horizon => {
                    self.horizon = horizon;
                    if let Some((learner, ..)) = &mut self.learner {
                        learner.set_horizon(horizon);
                    }
                    info!("predicting {} epochs ahead from now on", horizon.epochs());
                    self.publish()
                }
                Work::Horizon(_) => Ok(()),
            };
            if let Err(error) = result {
                warn!("{error:#}");
            }
        }
        info!("stopping: what was learned is stored");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.paths.state_dir.join(name)
    }

    /// Makes ready for a volume: its history, and a learner that has been through it.
    fn begin(&mut self, uuid: [u8; 16], blocks: u32) -> Result<()> {
        if self.learner.as_ref().is_some_and(|(_, of, size)| (*of, *size) == (uuid, blocks)) {
            return Ok(());
        }
        if self.opened.is_none() && self.history.as_ref().is_none_or(|history| history.volume() != uuid) {
            self.history = None;
            self.opened = Some(history::open(&self.file("history"))?);
        }
        self.table = None;
        let mut learner = Learner::new(self.config.clone(), blocks)?;
        let mut same_volume = true;
        if let Some(opened) = self.opened.take() {
            // A history that was lost says nothing; the folder is this volume's, so that the weights are.
            same_volume = opened.volume.is_none_or(|of| of == uuid);
            match opened.of_volume(uuid, self.config.history_epochs) {
                Ok(history) => self.history = Some(history),
                Err(error) => warn!("{error}; nothing is stored until the trainer is restarted"),
            }
        }
        if same_volume {
            // Whatever of it cannot be used is said and made anew.
            match learner.load_weights(&self.file("weights.safetensors")) {
                Ok(true) => info!("going on with the weights learned before"),
                Ok(false) => {}
                Err(error) => warn!("{error}; the network starts afresh"),
            }
        }
        self.relearn(&mut learner)?;
        if same_volume {
            match learner.load_scores(&self.file("scores.json")) {
                Ok(_) => {}
                Err(error) => warn!("{error}; the predictors are scored afresh"),
            }
        }
        learner.score_again()?;
        info!("{}: epochs up to {} are known", self.volume_id, learner.last().map_or(0, |epoch| epoch.0));
        self.learner = Some((learner, uuid, blocks));
        if same_volume { self.publish() } else { Ok(()) }
    }

    fn relearn(&self, learner: &mut Learner) -> Result<()> {
        let Some(history) = &self.history else { return Ok(()) };
        let Some(last) = history.last() else { return Ok(()) };
        let from = Epoch(last.0.saturating_sub(REMEMBERED_EPOCHS));
        for vector in history.from(from) {
            let vector = vector?;
            let recent = last.0 - vector.epoch.0 < RELEARNED_EPOCHS;
            learner.observe(&vector, if recent { Effort::CatchUp } else { Effort::Remember })?;
        }
        Ok(())
    }

    fn learn(&mut self, vector: &ChangeVector, effort: Effort) -> Result<()> {
        self.keep(vector);
        let (learner, ..) = self.learner.as_mut().context("a change vector came before its volume")?;
        learner.set_horizon(self.horizon);
        let report = learner.observe(vector, effort).context("learning failed")?;
        info!(
            "epoch {}: {} changes, {} candidates ({} by the network), {} steps; {}",
            vector.epoch,
            vector.changes().len(),
            report.candidates,
            report.scored_by_network,
            report.training.steps,
            learner.reason(),
        );
        if report.training.restarted {
            warn!("the network's weights were no numbers any more: it starts afresh");
        }
        if effort == Effort::CatchUp {
            return Ok(());
        }
        let published = self.publish();
        self.report();
        if let Some((learner, ..)) = &self.learner {
            learner.save_weights(&self.file("weights.safetensors"))?;
            learner.save_scores(&self.file("scores.json"))?;
        }
        published
    }

    /// Stores a vector. sled panics on some damage: then there is no more storing until the next start,
    /// which will find the damage and put it aside.
    fn keep(&mut self, vector: &ChangeVector) {
        let Some(history) = &mut self.history else { return };
        match catch_unwind(AssertUnwindSafe(|| history.append(vector))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("epoch {} is not stored: {error}", vector.epoch),
            Err(_) => {
                warn!("the history is damaged; nothing more is stored until the trainer is restarted");
                self.history = None;
            }
        }
    }

    fn publish(&mut self) -> Result<()> {
        let Some((learner, uuid, _)) = &self.learner else { return Ok(()) };
        let Some(epoch) = learner.last() else { return Ok(()) };
        let (serving, predictions) = learner.predictions(self.horizon);
        let table = match self.table.take().filter(TableWriter::is_in_place) {
            Some(table) => table,
            None => TableWriter::create(&self.paths.table, *uuid)?,
        };
        let table = self.table.insert(table);
        let published = table.publish(serving.name(), epoch, self.horizon, &predictions)?;
        debug!("published {} predictions as generation {}", predictions.len(), published.generation);
        Ok(())
    }

    fn report(&self) {
        let Some((learner, ..)) = &self.learner else { return };
        let board = learner.scoreboard();
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
        let report = v1::ReportTrainerRequest {
            volume_id: self.volume_id.clone(),
            serving_predictor: board.serving().name().to_owned(),
            serving_reason: learner.reason(),
            pays: board.pays(),
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
