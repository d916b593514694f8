//! Chains: epochs of one volume linked because their change vectors are alike.
//!
//! An epoch joins the chain with whose newest members it is most similar, or starts one. Members leave by age, by
//! number and by divergence: when they are less like the newest than the limit, the chain has moved on. All
//! is bounded: chains, epochs a chain, members whose signature is held. Chains hold no data.
//!
//! They predict, too: [`after_chain`] says what the chain that comes next is used to change. The chain of the last
//! epoch was followed by certain chains; each of them counts as often as it followed, with its own last epochs.

use std::collections::VecDeque;

use forerun::change_vector::ChangeVector;
use forerun::geometry::Epoch;

use crate::config::ChainConfig;
use crate::epochs::{EpochView, RecentEpochs};
use crate::similar::{Likeness, Signature, Weights, weigh};

/// Members of a chain that are compared with, the newest.
const COMPARED_MEMBERS: usize = 6;
/// Changes in one signature, about; of larger epochs only the blocks whose hash is low are compared. That of 32 chains (the
/// default), each with all members that are compared: about 50 MB.
const MAX_SIGNATURE_BLOCKS: usize = 1 << 14;
const US_PER_HOUR: u64 = 3_600_000_000;
/// Chains that may come next, the likeliest, and the epochs of each that speak, the newest.
const NEXT_CHAINS: usize = 3;
const SPEAKING_MEMBERS: usize = 8;
/// How much each epoch of a chain, and each time that one followed another, counts less than the one after it.
const MEMBER_KEPT: f32 = 0.8;
const FOLLOWED_KEPT: f32 = 0.9;

#[derive(Clone, Debug)]
struct Member {
    epoch: Epoch,
    sealed_us: u64,
    changed_blocks: u64,
    /// Likeness to the newest member when it joined.
    likeness: Likeness,
    /// Held for the newest members only.
    signature: Option<Signature>,
}

/// Epochs that are alike.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its number, never used twice.
    pub id: u32,
    members: VecDeque<Member>,
    /// Members that left because they were too old.
    pub pruned_by_age: u32,
    /// Members that left because there were too many.
    pub pruned_by_number: u32,
    /// Members that left because the chain had moved on.
    pub pruned_by_divergence: u32,
}

impl Chain {
    /// Its epochs, oldest first.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.members.iter().map(|member| member.epoch)
    }

    /// When its oldest and its newest epoch were sealed, in microseconds since 1970.
    #[must_use]
    pub fn time_us(&self) -> (u64, u64) {
        let at = |member: Option<&Member>| member.map_or(0, |member| member.sealed_us);
        (at(self.members.front()), at(self.members.back()))
    }

    /// Mean likeness of neighbours; that of an epoch to itself for a single one.
    #[must_use]
    pub fn likeness(&self) -> Likeness {
        Likeness::mean(self.members.iter().skip(1).map(|member| member.likeness))
    }

    /// When each of its epochs was sealed, in microseconds since 1970, oldest first.
    pub fn times_us(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.sealed_us)
    }

    /// Mean changed blocks of its epochs.
    #[must_use]
    pub fn mean_changed_blocks(&self) -> u64 {
        let sum: u64 = self.members.iter().map(|member| member.changed_blocks).sum();
        sum / (self.members.len() as u64).max(1)
    }

    /// The most similar of the members that are compared.
    fn best_likeness(&self, signature: &Signature) -> f64 {
        let held = self.members.iter().filter_map(|member| member.signature.as_ref());
        held.map(|other| signature.likeness(other).total()).fold(0.0, f64::max)
    }

    fn prune_diverged(&mut self, below: f64) {
        let Some(newest) = self.members.back().and_then(|member| member.signature.clone()) else { return };
        let before = self.members.len();
        self.members.retain(|member| {
            member.signature.as_ref().is_none_or(|signature| newest.likeness(signature).total() >= below)
        });
        self.pruned_by_divergence += (before - self.members.len()) as u32;
    }

    fn prune_aged(&mut self, oldest_us: u64) {
        while self.members.front().is_some_and(|member| member.sealed_us < oldest_us) {
            self.members.pop_front();
            self.pruned_by_age += 1;
        }
    }

    fn prune_surplus(&mut self, most: usize) {
        while self.members.len() > most {
            self.members.pop_front();
            self.pruned_by_number += 1;
        }
    }
}

/// All chains of a volume.
#[derive(Clone, Debug)]
pub struct Chains {
    chains: Vec<Chain>,
    next_id: u32,
    config: ChainConfig,
}

impl Chains {
    /// None yet.
    #[must_use]
    pub const fn new(config: ChainConfig) -> Self {
        Self { chains: Vec::new(), next_id: 1, config }
    }

    /// The chains, the one joined last first.
    #[must_use]
    pub fn list(&self) -> &[Chain] {
        &self.chains
    }

    /// Links an epoch; returns its chain's number. Epochs without changes join none.
    pub fn push(&mut self, vector: &ChangeVector) -> Option<u32> {
        let signature = sampled(vector);
        self.prune(vector.sealed_us);
        if signature.is_empty() {
            return None;
        }
        let best = self
            .chains
            .iter()
            .enumerate()
            .map(|(at, chain)| (at, chain.best_likeness(&signature)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, likeness)| *likeness >= self.config.link_from_similarity);
        let mut chain = match best {
            Some((at, _)) => self.chains.remove(at),
            None => {
                self.next_id += 1;
                let id = self.next_id - 1;
                Chain {
                    id,
                    members: VecDeque::new(),
                    pruned_by_age: 0,
                    pruned_by_number: 0,
                    pruned_by_divergence: 0,
                }
            }
        };
        let newest = chain.members.back().and_then(|member| member.signature.as_ref());
        let likeness = newest.map_or(Likeness::SAME, |newest| signature.likeness(newest));
        debug_assert!((0.0..=1.0).contains(&likeness.total()), "{likeness:?}");
        chain.members.push_back(Member {
            epoch: vector.epoch,
            sealed_us: vector.sealed_us,
            changed_blocks: vector.changes().len() as u64,
            likeness,
            signature: Some(signature),
        });
        chain.prune_diverged(self.config.prune_below_similarity);
        for member in chain.members.iter_mut().rev().skip(COMPARED_MEMBERS) {
            member.signature = None;
        }
        chain.prune_surplus(self.config.max_epochs);
        let id = chain.id;
        debug_assert!(!chain.members.is_empty() && chain.members.len() <= self.config.max_epochs.max(1));
        self.chains.insert(0, chain);
        self.chains.truncate(self.config.max_chains);
        Some(id)
    }

    fn prune(&mut self, now_us: u64) {
        let oldest_us = now_us.saturating_sub(u64::from(self.config.max_age_hours) * US_PER_HOUR);
        for chain in &mut self.chains {
            chain.prune_aged(oldest_us);
        }
        self.chains.retain(|chain| !chain.members.is_empty());
    }
}

/// A signature of bounded size: the same blocks are left out of every epoch of about that size, so that what is
/// left stays comparable.
fn sampled(vector: &ChangeVector) -> Signature {
    let skip_bits =
        vector.changes().len().div_ceil(MAX_SIGNATURE_BLOCKS).next_power_of_two().trailing_zeros();
    // Multiplicative hashing (Knuth, volume 3, 6.4).
    let kept = |block: u32| skip_bits == 0 || block.wrapping_mul(2_654_435_769) >> (32 - skip_bits) == 0;
    let changes = vector.changes().iter().map(|change| (change.block.0, change.sub_blocks, change.kind));
    Signature::new(changes, kept)
}

/// For each block, how much the chains that usually follow the last epoch's speak for a change, 0 to 1.
#[must_use]
pub fn after_chain(recent: &RecentEpochs) -> Weights {
    let views: Vec<&EpochView> = recent.iter().collect();
    let Some(current) = views.last().and_then(|view| view.chain) else { return Vec::new() };
    // Which chains followed this one, the latest times counting most.
    let mut next: Vec<(u32, f32)> = Vec::new();
    let (mut count, mut all) = (1.0, 0.0);
    for pair in views.windows(2).rev() {
        let [view, follower] = pair else { continue };
        if view.chain != Some(current) {
            continue;
        }
        all += count;
        // After an epoch that joined no chain because nothing changed, nothing is expected: it has a share, and no blocks.
        if let Some(chain) = follower.chain {
            match next.iter_mut().find(|(id, _)| *id == chain) {
                Some((_, weight)) => *weight += count,
                None => next.push((chain, count)),
            }
        }
        count *= FOLLOWED_KEPT;
    }
    if next.is_empty() {
        // Nothing is known of what follows: more of the same.
        (next, all) = (vec![(current, 1.0)], 1.0);
    }
    next.sort_by(|a, b| b.1.total_cmp(&a.1));
    next.truncate(NEXT_CHAINS);
    let mut speaking = Vec::new();
    for (chain, weight) in next {
        let members = views.iter().rev().filter(|view| view.chain == Some(chain)).take(SPEAKING_MEMBERS);
        let members: Vec<(f32, &EpochView)> =
            members.zip(0..).map(|(view, age)| (MEMBER_KEPT.powi(age), *view)).collect();
        let total: f32 = members.iter().map(|(own, _)| own).sum();
        speaking.extend(members.into_iter().map(|(own, view)| (weight / all * own / total, view)));
    }
    weigh(speaking.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::score::{Truth, qualities};
    use crate::testing::vector_of;
    use forerun::change_vector::{Change, ChangeKind};
    use forerun::geometry::BlockIndex;

    /// Each kind of epoch has its own 300 blocks, of which each time about 80 % change.
    fn epoch_of(kind: u32, epoch: u32, rng: &mut Rng) -> ChangeVector {
        let all = (0..300).map(|at| kind * 100_000 + at * 5);
        vector_of(epoch, &all.filter(|_| rng.unit() < 0.8).collect::<Vec<_>>())
    }

    #[test]
    fn day_and_night_come_apart() {
        let (mut chains, mut rng) = (Chains::new(ChainConfig::default()), Rng::new(1));
        let night = |epoch: u32| epoch % 24 < 6;
        for epoch in 1..=96 {
            chains.push(&epoch_of(u32::from(night(epoch)), epoch, &mut rng));
        }
        assert_eq!(chains.list().len(), 2);
        for chain in chains.list() {
            let nights = chain.epochs().filter(|epoch| night(epoch.0)).count();
            assert!(nights == 0 || nights == chain.epochs().count(), "day and night in one chain");
            assert!(chain.likeness().total() > 0.5);
        }
    }

    /// Hour after hour over a year: office days, quiet nights and weekends, a batch at two each night, and one at the end of
    /// the month. Each writes much the same each time, but not quite, and not as much of it.
    #[test]
    fn day_night_weekend_and_month_end_come_apart() {
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum Kind {
            Office,
            Quiet,
            Batch,
            MonthEnd,
        }
        let kind_of = |hour: u32| match (hour / 24 % 7, hour % 24, hour / 24 % 30) {
            (_, 2, _) => Kind::Batch,
            (_, 22..=23, 29) => Kind::MonthEnd,
            (5..=6, ..) | (_, ..=7 | 19.., _) => Kind::Quiet,
            _ => Kind::Office,
        };
        let (mut chains, mut rng) = (Chains::new(ChainConfig::default()), Rng::new(5));
        let (mut recent, mut by_chains, mut by_last) = (RecentEpochs::default(), 0.0, 0.0);
        for hour in 0..365 * 24 {
            let kind = kind_of(hour);
            let (start, step, count) = match kind {
                Kind::Office => (0, 7, 400),
                Kind::Quiet => (0, 7, 12),
                Kind::Batch => (200_000, 1, 900),
                Kind::MonthEnd => (500_000, 3, 500),
            };
            let share = 0.6 + 0.4 * rng.unit();
            let blocks: Vec<u32> =
                (0..count).filter(|_| rng.unit() < share).map(|at| start + at * step).collect();
            let change =
                |&block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 4 };
            let sealed_us = u64::from(hour + 1) * US_PER_HOUR;
            let changes = blocks.iter().map(change).collect();
            let vector = ChangeVector::new(Epoch(hour + 1), sealed_us - US_PER_HOUR, sealed_us, changes);
            let vector = vector.expect("ascending");
            if hour > 24 * 14 {
                let precision = |said: Weights| {
                    let (candidates, scores): (Vec<u32>, Vec<f32>) = said.into_iter().unzip();
                    let truth = Truth::new(&candidates, vec![false; candidates.len()], &vector);
                    qualities(&scores, &truth, [0; 2])[0].map_or(0.0, |quality| quality.average_precision)
                };
                by_chains += precision(after_chain(&recent)) / f64::from(365 * 24 - 24 * 14);
                by_last += precision(weigh(recent.last().map(|view| (1.0, view)).into_iter()))
                    / f64::from(365 * 24 - 24 * 14);
            }
            let chain = chains.push(&vector);
            recent.push(&vector, chain);
        }
        let mut kinds = Vec::new();
        for chain in chains.list().iter().filter(|chain| chain.epochs().count() > 1) {
            let mut own: Vec<Kind> = chain.epochs().map(|epoch| kind_of(epoch.0 - 1)).collect();
            own.dedup();
            assert_eq!(own.len(), 1, "chain {} has {own:?}", chain.id);
            kinds.push(own[0]);
        }
        for kind in [Kind::Office, Kind::Quiet, Kind::Batch, Kind::MonthEnd] {
            assert!(kinds.contains(&kind), "{kind:?} has no chain: {kinds:?}");
        }
        assert!(by_chains > by_last + 0.1, "mean average precision {by_chains} against {by_last}");
    }

    #[test]
    fn chains_are_pruned_by_age_by_number_and_by_divergence() {
        let config = ChainConfig { max_chains: 3, max_epochs: 5, max_age_hours: 1, ..ChainConfig::default() };
        let (mut chains, mut rng) = (Chains::new(config), Rng::new(1));
        for epoch in 1..=20 {
            chains.push(&epoch_of(0, epoch, &mut rng));
        }
        let chain = &chains.list()[0];
        assert_eq!((chain.epochs().count(), chain.pruned_by_number, chain.pruned_by_age), (5, 15, 0));
        for epoch in 21..=30 {
            chains.push(&epoch_of(epoch, epoch, &mut rng));
        }
        assert_eq!(chains.list().len(), 3);
        chains.push(&epoch_of(9, 1000, &mut rng));
        assert_eq!(chains.list().len(), 1, "the rest is hours old");

        // A pattern that wanders: each epoch is like the last and unlike the tenth before.
        let mut chains = Chains::new(ChainConfig::default());
        for epoch in 1..=30u32 {
            let blocks: Vec<u32> = (epoch * 60..epoch * 60 + 300).collect();
            chains.push(&vector_of(epoch, &blocks));
        }
        let [chain] = chains.list() else { panic!("{} chains", chains.list().len()) };
        assert!(chain.pruned_by_divergence > 15);
        assert!(chain.epochs().count() < 10);
    }

    #[test]
    fn a_huge_epoch_is_sampled_and_still_compared() {
        let blocks: Vec<u32> = (0..500_000).collect();
        assert!(sampled(&vector_of(1, &blocks)).len() <= 2 * MAX_SIGNATURE_BLOCKS);
        let mut chains = Chains::new(ChainConfig::default());
        let first = chains.push(&vector_of(1, &blocks));
        assert_eq!(chains.push(&vector_of(2, &blocks)), first);
        assert_eq!(chains.push(&vector_of(3, &[])), None);
    }
}
