//! Chains: epochs of one volume linked because their change vectors are alike.
//!
//! An epoch joins the chain with whose newest members it is most similar, or starts one. Members leave by age
//! and by divergence: when they are less like the newest than the limit, the chain has moved on. All
//! is bounded: chains, epochs a chain, members whose signature is held. Chains explain and compare; they
//! hold no data.

use std::collections::VecDeque;

use forerun::change_vector::ChangeVector;
use forerun::geometry::Epoch;

use crate::config::ChainConfig;
use crate::similar::Signature;

/// Members of a chain that are compared with, the newest.
const COMPARED_MEMBERS: usize = 6;
/// Changes in one signature; of larger epochs only the blocks whose hash is low are compared.
const MAX_SIGNATURE_BLOCKS: usize = 1 << 16;
const US_PER_HOUR: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
struct Member {
    epoch: Epoch,
    sealed_us: u64,
    changed_blocks: u64,
    /// Similarity to the newest member when it joined.
    similarity: f64,
    /// Held for the newest members only.
    signature: Option<Signature>,
}

/// Epochs that are alike.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its number, never used twice.
    pub id: u32,
    members: VecDeque<Member>,
    /// Members that left because they were too old, or one too many.
    pub pruned_by_age: u32,
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

    /// Mean similarity of neighbours, 0 to 1; 1 for a single epoch.
    #[must_use]
    pub fn similarity(&self) -> f64 {
        let joined = self.members.len().saturating_sub(1);
        let sum: f64 = self.members.iter().skip(1).map(|member| member.similarity).sum();
        if joined == 0 { 1.0 } else { sum / joined as f64 }
    }

    /// Mean changed blocks of its epochs.
    #[must_use]
    pub fn mean_changed_blocks(&self) -> u64 {
        let sum: u64 = self.members.iter().map(|member| member.changed_blocks).sum();
        sum / (self.members.len() as u64).max(1)
    }

    /// The most similar of the members that are compared.
    fn likeness(&self, signature: &Signature) -> f64 {
        let held = self.members.iter().filter_map(|member| member.signature.as_ref());
        held.map(|other| signature.similarity(other)).fold(0.0, f64::max)
    }

    fn prune_diverged(&mut self, below: f64) {
        let Some(newest) = self.members.back().and_then(|member| member.signature.clone()) else { return };
        let before = self.members.len();
        self.members.retain(|member| {
            member.signature.as_ref().is_none_or(|signature| newest.similarity(signature) >= below)
        });
        self.pruned_by_divergence += (before - self.members.len()) as u32;
    }

    fn prune_aged(&mut self, oldest_us: u64, most: usize) {
        let old = |member: &Member| member.sealed_us < oldest_us;
        while self.members.len() > most || self.members.front().is_some_and(old) {
            self.members.pop_front();
            self.pruned_by_age += 1;
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
            .map(|(at, chain)| (at, chain.likeness(&signature)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, likeness)| *likeness >= self.config.link_from_similarity);
        let mut chain = match best {
            Some((at, _)) => self.chains.remove(at),
            None => {
                self.next_id += 1;
                let id = self.next_id - 1;
                Chain { id, members: VecDeque::new(), pruned_by_age: 0, pruned_by_divergence: 0 }
            }
        };
        let newest = chain.members.back().and_then(|member| member.signature.as_ref());
        let similarity = newest.map_or(1.0, |newest| signature.similarity(newest));
        chain.members.push_back(Member {
            epoch: vector.epoch,
            sealed_us: vector.sealed_us,
            changed_blocks: vector.changes().len() as u64,
            similarity,
            signature: Some(signature),
        });
        chain.prune_diverged(self.config.prune_below_similarity);
        for member in chain.members.iter_mut().rev().skip(COMPARED_MEMBERS) {
            member.signature = None;
        }
        chain.prune_aged(0, self.config.max_epochs);
        let id = chain.id;
        self.chains.insert(0, chain);
        self.chains.truncate(self.config.max_chains);
        Some(id)
    }

    fn prune(&mut self, now_us: u64) {
        let oldest_us = now_us.saturating_sub(u64::from(self.config.max_age_hours) * US_PER_HOUR);
        for chain in &mut self.chains {
            chain.prune_aged(oldest_us, self.config.max_epochs);
        }
        self.chains.retain(|chain| !chain.members.is_empty());
    }
}

/// A signature of bounded size: the same blocks are left out of every epoch of about that size, so that what is
/// left stays comparable.
fn sampled(vector: &ChangeVector) -> Signature {
    let skip_bits = (vector.changes().len() / MAX_SIGNATURE_BLOCKS).next_power_of_two().trailing_zeros();
    // Multiplicative hashing (Knuth, volume 3, 6.4).
    let kept = |block: u32| skip_bits == 0 || block.wrapping_mul(2_654_435_769) >> (32 - skip_bits) == 0;
    let pairs = vector.changes().iter().map(|change| (change.block.0, change.sub_blocks));
    Signature::new(pairs.filter(|(block, _)| kept(*block)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::testing::vector_of;

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
            assert!(chain.similarity() > 0.5);
        }
    }

    #[test]
    fn chains_are_pruned_by_age_by_number_and_by_divergence() {
        let config = ChainConfig { max_chains: 3, max_epochs: 5, max_age_hours: 1, ..ChainConfig::default() };
        let (mut chains, mut rng) = (Chains::new(config), Rng::new(1));
        for epoch in 1..=20 {
            chains.push(&epoch_of(0, epoch, &mut rng));
        }
        assert_eq!((chains.list()[0].epochs().count(), chains.list()[0].pruned_by_age), (5, 15));
        for epoch in 21..=30 {
            chains.push(&epoch_of(epoch, epoch, &mut rng));
        }
        assert_eq!(chains.list().len(), 3);
        chains.push(&epoch_of(9, 1000, &mut rng));
        assert_eq!(chains.list().len(), 1, "the rest is hours old");

        // A pattern that wanders: each epoch is like the last and unlike the tenth before.
        let config = ChainConfig { prune_below_similarity: 0.25, ..ChainConfig::default() };
        let mut chains = Chains::new(config);
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
