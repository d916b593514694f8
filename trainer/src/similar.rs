//! Epochs like the last one, and what changed after them.
//!
//! What is compared is the weighted Jaccard similarity (sum of minima over sum of maxima; Ioffe,
//! "Improved consistent sampling, weighted minhash and L1 sketching", 2010, uses the same measure) over
//! blocks, weighted by the sub-blocks written, and over regions of 1 MiB. A nightly batch is then
//! predicted from last night's, whatever happened in between.

use std::collections::HashMap;

use crate::epochs::{EpochView, RecentEpochs};

/// Blocks in a region of 1 MiB.
const MIB_BLOCKS: u32 = 16;
/// How many similar epochs speak.
const NEIGHBOURS: usize = 6;
/// Similarities are raised to this power, so that the most similar decide.
const SHARPNESS: i32 = 3;

/// An epoch reduced to what is compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    blocks: Vec<(u32, u32)>,
    regions: Vec<(u32, u32)>,
}

impl Signature {
    /// The signature of (block, sub-blocks written) pairs that ascend by block.
    #[must_use]
    pub fn new(pairs: impl Iterator<Item = (u32, u8)>) -> Self {
        let mut signature = Self::default();
        for (block, sub_blocks) in pairs {
            signature.blocks.push((block, u32::from(sub_blocks)));
            match signature.regions.last_mut() {
                Some((region, count)) if *region == block / MIB_BLOCKS => *count += 1,
                _ => signature.regions.push((block / MIB_BLOCKS, 1)),
            }
        }
        signature
    }

    /// Changed blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Similarity, 0 to 1: the mean of that over blocks and that over regions. Two empty epochs are alike.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> f64 {
        f64::midpoint(jaccard(&self.blocks, &other.blocks), jaccard(&self.regions, &other.regions))
    }
}

fn jaccard(a: &[(u32, u32)], b: &[(u32, u32)]) -> f64 {
    let total: u64 = a.iter().chain(b).map(|(_, weight)| u64::from(*weight)).sum();
    let mut shared = 0u64;
    let mut others = b.iter().peekable();
    for (key, weight) in a {
        while others.peek().is_some_and(|(other, _)| other < key) {
            others.next();
        }
        if let Some((_, other)) = others.peek().filter(|(other, _)| other == key) {
            shared += u64::from(*weight.min(other));
        }
    }
    if total == 0 { 1.0 } else { shared as f64 / (total - shared) as f64 }
}

fn signature_of(view: &EpochView) -> Signature {
    Signature::new(view.blocks.iter().copied().zip(view.sub_blocks.iter().copied()))
}

/// For each block, the weight (0 to 1) of the epochs like the last one after which it changed.
#[must_use]
pub fn after_similar_epochs(recent: &RecentEpochs) -> HashMap<u32, f32> {
    let views: Vec<&EpochView> = recent.iter().collect();
    let Some((last, earlier)) = views.split_last() else { return HashMap::new() };
    let last = signature_of(last);
    let mut ranked: Vec<(f32, &EpochView)> = earlier
        .iter()
        .zip(views.iter().skip(1))
        .map(|(view, next)| (last.similarity(&signature_of(view)).powi(SHARPNESS) as f32, *next))
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.truncate(NEIGHBOURS);
    let total: f32 = ranked.iter().map(|(weight, _)| weight).sum();
    let mut after = HashMap::new();
    if total > 0.0 {
        for (weight, next) in ranked {
            for &block in &next.blocks {
                *after.entry(block).or_insert(0.0) += weight / total;
            }
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    #[test]
    fn similarity_is_symmetric_and_bounded() {
        let make = |blocks: &[(u32, u8)]| Signature::new(blocks.iter().copied());
        let (a, b) = (make(&[(1, 4), (2, 4)]), make(&[(2, 8), (900, 1)]));
        assert_eq!(a.similarity(&a), 1.0);
        assert_eq!(a.similarity(&b), b.similarity(&a));
        // Blocks: 4 shared of 4 + 8 + 1; regions: 1 shared of 2 + 1.
        assert!((a.similarity(&b) - f64::midpoint(4.0 / 13.0, 1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(a.similarity(&make(&[])), 0.0);
        assert_eq!(make(&[]).similarity(&make(&[])), 1.0);
    }

    #[test]
    fn what_followed_the_like_of_it_follows_again() {
        let mut recent = RecentEpochs::default();
        for epoch in 1..=9 {
            let blocks: Vec<u32> = (0..10).map(|at| at + 1000 * (epoch % 3)).collect();
            recent.push(&vector_of(epoch, &blocks));
        }
        let after = after_similar_epochs(&recent);
        assert!(after[&1003] > 0.99 && !after.contains_key(&3));
    }
}
