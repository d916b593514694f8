//! What is learned of one kind of event, and where it is kept: changes are one lane, reads are another.
//!
//! Both learn with the same machinery. A lane's files lie side by side in the volume's state folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use forerun::change_vector::ChangeVector;
use forerun::geometry::Epoch;
use forerun::prediction::Horizon;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::history::{self, History, Opened};
use crate::learner::{Effort, Learner};

/// Stored epochs that the cheap predictors learn from again after a restart; older ones are only remembered.
const RELEARNED_EPOCHS: u32 = 48;
/// Stored epochs that are remembered again after a restart.
const REMEMBERED_EPOCHS: u32 = 512;
/// Epochs in which nothing has paid, after which learning rests: epochs are only remembered.
const RESTS_AFTER: u32 = 8;
/// While it rests, it works in one epoch of so many. What that one predicts of the next tells whether the workload has become
/// predictable: then it works again.
const WORKS_EVERY: u32 = 16;

/// What a lane is about, in messages, and the names of its files.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub events: &'static str,
    history: &'static str,
    weights: &'static str,
    scores: &'static str,
}

/// Blocks that change.
pub(super) const CHANGES: Names =
    Names { events: "changes", history: "history", weights: "weights.safetensors", scores: "scores.json" };
/// Blocks that are read and do not change.
pub(super) const READS: Names = Names {
    events: "reads",
    history: "read-history",
    weights: "read-weights.safetensors",
    scores: "read-scores.json",
};

/// A lane's state.
pub(super) struct Lane {
    names: Names,
    folder: PathBuf,
    opened: Option<Opened>,
    history: Option<History>,
    learner: Option<Learner>,
    /// Epochs in a row in which nothing paid, or looked as if it might.
    unpaid: u32,
}

impl Lane {
    /// Opens what is kept in a volume's state folder.
    ///
    /// # Errors
    /// The history cannot be opened, for another reason than damage.
    pub fn open(folder: &Path, names: Names) -> Result<Self> {
        let opened = history::open(&folder.join(names.history))?;
        if let Some((aside, why)) = &opened.quarantined {
            warn!(
                "the history of {} was damaged ({why}) and put aside as {}; what the target still has comes again",
                names.events,
                aside.display()
            );
        }
        Ok(Self {
            names,
            folder: folder.to_owned(),
            opened: Some(opened),
            history: None,
            learner: None,
            unpaid: 0,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What has been learned; `None` before [`Self::begin`].
    pub const fn learner(&self) -> Option<&Learner> {
        self.learner.as_ref()
    }

    /// The newest epoch that was learned from.
    pub fn last(&self) -> Option<Epoch> {
        self.learner.as_ref().and_then(Learner::last)
    }

    /// As [`Self::learner`].
    pub const fn learner_mut(&mut self) -> Option<&mut Learner> {
        self.learner.as_mut()
    }

    /// The volume has grown; what was learned of it stays.
    pub const fn grow(&mut self, blocks: u32) {
        if let Some(learner) = &mut self.learner {
            learner.grow(blocks);
        }
    }

    /// Makes ready for a volume: its history, and a learner that has been through it. Returns whether what was kept is
    /// of this volume.
    ///
    /// # Errors
    /// The history cannot be opened or read, or candle refuses.
    pub fn begin(&mut self, uuid: [u8; 16], blocks: u32, config: &Config, horizon: Horizon) -> Result<bool> {
        self.learner = None;
        if self.opened.is_none() && self.history.as_ref().is_none_or(|history| history.volume() != uuid) {
            self.history = None;
            self.opened = Some(history::open(&self.file(self.names.history))?);
        }
        let mut learner = Learner::new(config.clone(), blocks)?;
        learner.set_horizon(horizon);
        let mut same_volume = true;
        if let Some(opened) = self.opened.take() {
            // A history that was lost says nothing; the folder is this volume's, so that the weights are.
            same_volume = opened.volume.is_none_or(|of| of == uuid);
            match opened.of_volume(uuid, config.history_epochs) {
                Ok(history) => self.history = Some(history),
                Err(error) => warn!("{error}; nothing is stored until the trainer is restarted"),
            }
        }
        if same_volume {
            // Whatever of it cannot be used is said and made anew.
            match learner.load_weights(&self.file(self.names.weights)) {
                Ok(true) => info!("{}: going on with the weights learned before", self.names.events),
                Ok(false) => {}
                Err(error) => warn!("{error}; the network starts afresh"),
            }
        }
        self.relearn(&mut learner)?;
        if same_volume {
            match learner.load_scores(&self.file(self.names.scores)) {
                Ok(_) => {}
                Err(error) => warn!("{error}; the predictors are scored afresh"),
            }
        }
        learner.score_again()?;
        self.learner = Some(learner);
        Ok(same_volume)
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

    /// Keeps an epoch and learns from it, within `cpu_seconds`; says whether there is something new to be predicted from it.
    ///
    /// # Errors
    /// It came before [`Self::begin`], or candle refuses.
    pub fn learn(
        &mut self,
        vector: &ChangeVector,
        effort: Effort,
        horizon: Horizon,
        cpu_seconds: f64,
    ) -> Result<bool> {
        self.keep(vector);
        // Where nothing pays, the processor is somebody else's.
        let effort = if rests(self.unpaid) { Effort::Remember } else { effort };
        let learner = self.learner.as_mut().context("an epoch came before its volume")?;
        learner.set_horizon(horizon);
        learner.set_cpu_seconds(cpu_seconds);
        let report = learner.observe(vector, effort).context("learning failed")?;
        let hopeful = learner.scoreboard().pays() || learner.might_pay(&report);
        self.unpaid = if hopeful { 0 } else { self.unpaid.saturating_add(1) };
        if effort == Effort::Remember {
            debug!("epoch {}: remembered; {}", vector.epoch, learner.reason());
            return Ok(false);
        }
        info!(
            "epoch {}: {} {}, {} candidates ({} by the network), {} steps; {}",
            vector.epoch,
            vector.changes().len(),
            self.names.events,
            report.candidates,
            report.scored_by_network,
            report.training.steps,
            learner.reason(),
        );
        if report.training.restarted {
            warn!("the network's weights were no numbers any more: it starts afresh");
        }
        Ok(true)
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

    /// Writes what was learned durably.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save(&self) -> Result<()> {
        if let Some(learner) = &self.learner {
            learner.save_weights(&self.file(self.names.weights))?;
            learner.save_scores(&self.file(self.names.scores))?;
        }
        Ok(())
    }
}

/// Whether learning rests after so many epochs in a row in which nothing paid.
const fn rests(unpaid: u32) -> bool {
    unpaid >= RESTS_AFTER && !unpaid.is_multiple_of(WORKS_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rests_where_nothing_pays_but_looks_up_now_and_then() {
        assert!((0..RESTS_AFTER).all(|unpaid| !rests(unpaid)));
        let worked = (RESTS_AFTER..RESTS_AFTER + 100).filter(|unpaid| !rests(*unpaid)).count();
        assert_eq!(worked, 6);
    }

    #[test]
    fn a_lane_at_rest_wakes_when_the_workload_becomes_predictable() {
        let dir = tempfile::tempdir().expect("a folder");
        let (blocks, config) = (1u32 << 20, Config { cpu_seconds_per_epoch: 0.05, ..Config::default() });
        let mut lane = Lane::open(dir.path(), CHANGES).expect("opened");
        lane.begin([1; 16], blocks, &config, Horizon::DEFAULT).expect("begun");
        let mut rng = crate::rng::Rng::new(1);
        let mut learn = |epoch, blocks: Vec<u32>| {
            let vector = crate::testing::vector_of(epoch, &blocks);
            lane.learn(&vector, Effort::Full, Horizon::DEFAULT, 0.05).expect("learned")
        };
        let noise = |rng: &mut crate::rng::Rng| {
            let mut noise: Vec<u32> = (0..100).map(|_| rng.below(blocks as usize) as u32).collect();
            noise.sort_unstable();
            noise.dedup();
            noise
        };
        let worked = (1..=60).filter(|epoch| learn(*epoch, noise(&mut rng))).count();
        assert!((9..=17).contains(&worked), "it worked in {worked} of 60 epochs of noise");
        let worked = (61..=110).filter(|epoch| learn(*epoch, (0..100).map(|at| at * 40).collect())).count();
        assert!(worked >= 30, "it worked in {worked} of 50 epochs that were all the same");
        assert!(lane.learner().expect("begun").scoreboard().pays());
    }
}
