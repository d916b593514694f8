//! Scoring all candidates for the next epoch.
//!
//! The cheap predictors score every candidate. The network scores those that the cheap ones think likeliest, as
//! many as the CPU time allows; of the others it says what the linear predictor says. So do the boosted trees, before it.

use super::{Costs, Learner};
use crate::contexts::{Cells, cells, from_logit};
use crate::cpu::{Budget, Stopwatch};
use crate::epochs::SEQUENCE_EPOCHS;
use crate::facts::{FactSource, Facts};
use crate::inputs::{PER_EPOCH, SequenceSource, WIDE, wide};
use crate::model::Scores;
use crate::predictors::{PREDICTORS, Predictor, simple_score};

/// Candidates the network scores at a time: 512 were a third to a half fewer in the same time, and 16 MB more.
const BATCH: usize = 256;
/// Candidates whose facts are held at a time.
const CHUNK: usize = 4096;
/// Candidates scored to learn how long one takes on this machine, before anything depends on it.
const PROBE: usize = 64;
/// The most candidates the boosted trees score.
const MAX_BY_TREES: usize = 1 << 15;
/// Candidates they score before they look at the CPU time.
const TREES_PIECE: usize = 1024;
/// The most candidates the network scores, whatever the CPU time.
const MAX_BY_NETWORK: usize = 1 << 18;

/// The candidates of an epoch with every predictor's scores.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    /// Ascending.
    pub blocks: Vec<u32>,
    /// Whether they hold no data, as far as is known.
    pub empty: Vec<bool>,
    /// Their cells in the context tables.
    pub cells: Vec<Cells>,
    /// By predictor; empty where it did not score.
    scores: [Vec<f32>; PREDICTORS],
    /// What the network says of those that it scored: their indices, ascending, each with its scores.
    by_net: Vec<(u32, Scores)>,
}

impl Scored {
    /// A predictor's scores, one a candidate; `None` where it did not score.
    pub fn of(&self, predictor: Predictor) -> Option<&[f32]> {
        let scores = self.scores.get(predictor as usize)?;
        (scores.len() == self.blocks.len()).then_some(scores.as_slice())
    }

    /// What the network says of the candidate with this index, if it scored it.
    pub fn net(&self, at: usize) -> Option<&Scores> {
        let found = self.by_net.binary_search_by_key(&u32::try_from(at).ok()?, |(own, _)| *own).ok()?;
        self.by_net.get(found).map(|(_, scores)| scores).filter(|scores| scores.change > 0.0)
    }

    /// How many candidates the network scored.
    pub const fn by_network(&self) -> usize {
        self.by_net.len()
    }

    /// The candidates that the predictors of all of them think likeliest, at most so many, the likeliest first, by index.
    fn likeliest(&self, most: usize) -> Vec<(f32, u32)> {
        let linear = self.of(Predictor::Linear).unwrap_or_default();
        let contexts = self.of(Predictor::ContextTables).unwrap_or_default();
        let mut order: Vec<(f32, u32)> =
            linear.iter().zip(contexts).map(|(a, b)| a.max(*b)).zip(0..).collect();
        let likelier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if order.len() > most {
            order.select_nth_unstable_by(most, likelier);
            order.truncate(most);
            order.shrink_to_fit();
        }
        order.sort_unstable_by(likelier);
        order
    }

    fn take(&mut self, predictor: Predictor, scores: Vec<f32>) {
        if let Some(slot) = self.scores.get_mut(predictor as usize) {
            *slot = scores;
        }
    }
}

impl Learner {
    pub(super) fn score_candidates(
        &mut self,
        with_network: bool,
        budget: &Budget,
        costs: &mut Costs,
    ) -> candle_core::Result<Scored> {
        let mut watch = Stopwatch::start();
        let candidates = self.state.candidates(self.config.frontier_candidates, self.volume_blocks);
        let mut scored = Scored {
            blocks: Vec::with_capacity(candidates.len()),
            empty: Vec::with_capacity(candidates.len()),
            cells: Vec::with_capacity(candidates.len()),
            scores: std::array::from_fn(|_| Vec::with_capacity(candidates.len())),
            by_net: Vec::new(),
        };
        let mut source = FactSource::new(&self.state);
        // In chunks, so that the facts of all candidates are never held at once.
        for blocks in candidates.chunks(CHUNK) {
            let facts: Vec<Facts> = blocks.iter().filter_map(|block| source.facts(*block)).collect();
            watch.lap(&mut costs.facts);
            for (list, predictor) in scored.scores.iter_mut().zip(Predictor::ALL) {
                if predictor.is_simple() {
                    list.extend(facts.iter().map(|facts| simple_score(predictor, facts)));
                }
            }
            watch.lap(&mut costs.simple);
            self.score_by_tables(&facts, &mut scored);
            watch.lap(&mut costs.tables);
        }
        // Nor is their list, once the scores have one of their own.
        drop(candidates);
        if with_network {
            self.score_by_trees(&mut scored, budget);
            watch.lap(&mut costs.trees);
        }
        if with_network && !self.replay.is_empty() {
            self.score_by_network(&mut scored, budget)?;
            let blend = self.blend(&scored);
            scored.take(Predictor::Blend, blend);
        }
        for (predictor, calibration) in Predictor::ALL.into_iter().zip(&mut self.calibrations) {
            if let Some(scores) = scored.of(predictor) {
                calibration.prepare(scores);
            }
        }
        let pool = self.pool(&scored);
        scored.take(Predictor::Pool, pool);
        watch.lap(&mut costs.network);
        Ok(scored)
    }

    /// The scores that come from weights, but for the network's.
    fn score_by_tables(&self, facts: &[Facts], scored: &mut Scored) {
        for facts in facts {
            let cells = cells(facts);
            let logits = self.contexts.logits(&cells);
            let by_tables = self.contexts.probability(&logits);
            let by_linear = from_logit(self.linear.logit(&wide(facts, &logits)));
            scored.scores[Predictor::ContextTables as usize].push(by_tables);
            scored.scores[Predictor::Linear as usize].push(by_linear);
            scored.blocks.push(facts.block);
            scored.empty.push(facts.empty);
            scored.cells.push(cells);
        }
    }

    /// Lets the boosted trees, where there are any, score the likeliest candidates, until half of what is left of the budget is spent.
    fn score_by_trees(&self, scored: &mut Scored, budget: &Budget) {
        if !self.trees.are_there() {
            return;
        }
        let mut scores = scored.of(Predictor::Linear).unwrap_or_default().to_vec();
        let enough = budget.left() / 2;
        let chosen = scored.likeliest(MAX_BY_TREES);
        // The likeliest first, in pieces that are gone through in the order of blocks, as facts are.
        for (at, piece) in chosen.chunks(TREES_PIECE).enumerate() {
            // Some are scored whatever is left, as by the network.
            if at > 0 && budget.left() <= enough {
                break;
            }
            let mut piece: Vec<u32> = piece.iter().map(|(_, at)| *at).collect();
            piece.sort_unstable();
            let mut facts = FactSource::new(&self.state);
            for batch in piece.chunks(BATCH) {
                let inputs = |at: &u32| {
                    let (block, cells) =
                        scored.blocks.get(*at as usize).zip(scored.cells.get(*at as usize))?;
                    Some((*at, wide(&facts.facts(*block)?, &self.contexts.logits(cells))))
                };
                let (known, wides): (Vec<u32>, Vec<_>) = batch.iter().filter_map(inputs).unzip();
                for (at, own) in known.into_iter().zip(self.trees.score(&wides)) {
                    if let Some(score) = scores.get_mut(at as usize) {
                        *score = own;
                    }
                }
            }
        }
        scored.take(Predictor::BoostedTrees, scores);
    }

    fn score_by_network(&mut self, scored: &mut Scored, budget: &Budget) -> candle_core::Result<()> {
        let order = scored.likeliest(MAX_BY_NETWORK);
        let mut chosen: Vec<u32> = order.into_iter().map(|(_, at)| at).collect();
        let seconds = match self.network_seconds {
            Some(seconds) => seconds,
            None => {
                let probe = chosen.get(..PROBE.min(chosen.len())).unwrap_or_default();
                self.score_in_order(scored, probe, budget)?.1
            }
        };
        // One pass in ascending order is cheapest, so that the number is settled beforehand.
        let affordable = budget.left().as_secs_f64() / seconds.max(1e-7);
        chosen.truncate((affordable as usize).max(PROBE));
        // The list of all would be held while the network scores some of them.
        chosen.shrink_to_fit();
        chosen.sort_unstable();
        let (by_net, measured) = self.score_in_order(scored, &chosen, budget)?;
        if by_net.len() >= PROBE {
            self.network_seconds = Some(f64::midpoint(seconds, measured));
        }
        let mut scores = scored.of(Predictor::Linear).unwrap_or_default().to_vec();
        for (at, own) in &by_net {
            if let Some(score) = scores.get_mut(*at as usize).filter(|_| own.change > 0.0) {
                *score = own.change;
            }
        }
        scored.by_net = by_net;
        scored.take(Predictor::Lstm, scores);
        Ok(())
    }

    /// Lets the network score these candidates, ascending, until the budget is spent; returns those that it did with their
    /// scores, and the CPU seconds that each took.
    fn score_in_order(
        &self,
        scored: &Scored,
        chosen: &[u32],
        budget: &Budget,
    ) -> candle_core::Result<(Vec<(u32, Scores)>, f64)> {
        let started = budget.used();
        let (mut facts, mut sequences) = (FactSource::new(&self.state), SequenceSource::new(&self.state));
        let mut found = Vec::with_capacity(chosen.len());
        for batch in chosen.chunks(BATCH) {
            // The estimate was too good: what is left keeps the linear predictor's score.
            if !found.is_empty() && budget.spent() {
                break;
            }
            let mut sequence = Vec::with_capacity(batch.len() * SEQUENCE_EPOCHS * PER_EPOCH);
            let mut wides = Vec::with_capacity(batch.len() * WIDE);
            for at in batch.iter().map(|at| *at as usize) {
                let Some((block, cells)) = scored.blocks.get(at).zip(scored.cells.get(at)) else {
                    continue;
                };
                let Some(known) = facts.facts(*block) else { continue };
                wides.extend_from_slice(&wide(&known, &self.contexts.logits(cells)));
                sequences.append(*block, &mut sequence);
            }
            let scores = self.trainer.score(sequence, wides, batch.len())?;
            found.extend(batch.iter().copied().zip(scores));
        }
        let took = budget.used().saturating_sub(started).as_secs_f64();
        let each = took / found.len().max(1) as f64;
        Ok((found, each))
    }
}
