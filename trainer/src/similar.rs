//! Epochs like the last one, and what changed after them.
//!
//! Two epochs are alike in five parts: the blocks they changed, weighted by the sub-blocks written; the regions of 1 MiB;
//! how long their runs are; what kinds of change there were; and how much changed. Blocks and regions are compared as
//! what both have over the geometric mean of what each has (Ochiai, 1957), which forgives that one epoch is larger: a
//! batch that did half as much as last night's, in the same place, is 0.7 alike by it and 0.5 by the share of the union.
//! Runs and kinds are compared as shares (what both have of each class, added up), volumes by the root of their ratio.
//! The likeness as a whole is a mean of the five, in which places count for more than half. A nightly batch is then
//! predicted from last night's, whatever happened in between.

use crate::epochs::{EpochView, RecentEpochs};
use forerun::change_vector::ChangeKind;

/// Blocks in a region of 1 MiB.
const MIB_BLOCKS: u32 = 16;
/// How many similar epochs speak.
const NEIGHBOURS: usize = 6;
/// Epochs of a horizon that are looked at, at most.
const LATER_EPOCHS: u32 = 16;
/// Blocks of epochs after similar ones, at which no more of them are taken: the least alike are left out.
const MOST_LATER: usize = 1 << 20;
/// Similarities are raised to this power, so that the most similar decide.
const SHARPNESS: i32 = 3;
/// Classes of run lengths: 1, 2-3, 4-7, ... 128 blocks and more.
const RUN_CLASSES: usize = 8;

/// How alike two epochs are, by part; each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likeness {
    /// The same blocks.
    pub blocks: f64,
    /// The same regions of 1 MiB.
    pub regions: f64,
    /// Runs of the same lengths.
    pub runs: f64,
    /// The same kinds of change.
    pub kinds: f64,
    /// As much change.
    pub volume: f64,
}

impl Likeness {
    /// What an epoch is to itself.
    pub const SAME: Self = Self { blocks: 1.0, regions: 1.0, runs: 1.0, kinds: 1.0, volume: 1.0 };

    /// The whole, 0 to 1.
    #[must_use]
    pub fn total(&self) -> f64 {
        0.35 * self.blocks + 0.25 * self.regions + 0.15 * self.runs + 0.1 * self.kinds + 0.15 * self.volume
    }

    /// The mean of several; [`Self::SAME`] of none.
    #[must_use]
    pub fn mean(all: impl Iterator<Item = Self>) -> Self {
        let (mut sum, mut count) = (Self::default(), 0.0);
        for one in all {
            sum.blocks += one.blocks;
            sum.regions += one.regions;
            sum.runs += one.runs;
            sum.kinds += one.kinds;
            sum.volume += one.volume;
            count += 1.0;
        }
        if count == 0.0 {
            return Self::SAME;
        }
        Self {
            blocks: sum.blocks / count,
            regions: sum.regions / count,
            runs: sum.runs / count,
            kinds: sum.kinds / count,
            volume: sum.volume / count,
        }
    }
}

/// An epoch reduced to what is compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    blocks: Vec<(u32, u8)>,
    regions: Vec<(u32, u32)>,
    /// Changed blocks by length of the run that they are in, as shares.
    runs: [f32; RUN_CLASSES],
    /// Added, modified, deleted, as shares.
    kinds: [f32; 3],
    changes: usize,
}

impl Signature {
    /// The signature of an epoch's changes, (block, sub-blocks written, kind) ascending by block; blocks that are not `kept`
    /// are left out of what is compared block by block.
    #[must_use]
    pub fn new(changes: impl Iterator<Item = (u32, u8, ChangeKind)>, kept: impl Fn(u32) -> bool) -> Self {
        let mut signature = Self::default();
        let mut run: Option<(u32, u32)> = None;
        let ended = |runs: &mut [f32; RUN_CLASSES], run: Option<(u32, u32)>| {
            let len = run.map_or(0, |(start, end)| end - start);
            if let Some(class) =
                len.checked_ilog2().and_then(|class| runs.get_mut((class as usize).min(RUN_CLASSES - 1)))
            {
                *class += len as f32;
            }
        };
        for (block, sub_blocks, kind) in changes {
            signature.changes += 1;
            run = match run {
                Some((start, end)) if end == block => Some((start, block + 1)),
                before => {
                    ended(&mut signature.runs, before);
                    Some((block, block + 1))
                }
            };
            let [added, modified, deleted] = &mut signature.kinds;
            *match kind {
                ChangeKind::Added => added,
                ChangeKind::Modified => modified,
                ChangeKind::Deleted => deleted,
            } += 1.0;
            if !kept(block) {
                continue;
            }
            signature.blocks.push((block, sub_blocks));
            match signature.regions.last_mut() {
                Some((region, count)) if *region == block / MIB_BLOCKS => *count += 1,
                _ => signature.regions.push((block / MIB_BLOCKS, 1)),
            }
        }
        ended(&mut signature.runs, run);
        // Chains hold many of them for long.
        signature.blocks.shrink_to_fit();
        signature.regions.shrink_to_fit();
        let all = signature.changes.max(1) as f32;
        signature.runs.iter_mut().chain(&mut signature.kinds).for_each(|share| *share /= all);
        signature
    }

    /// Blocks that are compared one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// How alike two epochs are. Two empty ones are the same.
    #[must_use]
    pub fn likeness(&self, other: &Self) -> Likeness {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() && other.is_empty() { Likeness::SAME } else { Likeness::default() };
        }
        debug_assert!(self.blocks.is_sorted() && other.blocks.is_sorted(), "blocks are compared in order");
        let (less, more) = (self.changes.min(other.changes), self.changes.max(other.changes));
        Likeness {
            blocks: shared(&self.blocks, &other.blocks),
            regions: shared(&self.regions, &other.regions),
            runs: common(&self.runs, &other.runs),
            kinds: common(&self.kinds, &other.kinds),
            volume: (less as f64 / more as f64).sqrt(),
        }
    }
}

/// What two weighted sets share, over the geometric mean of both.
fn shared<W: Copy + Ord + Into<u64>>(a: &[(u32, W)], b: &[(u32, W)]) -> f64 {
    let weight = |set: &[(u32, W)]| set.iter().map(|(_, weight)| (*weight).into()).sum::<u64>() as f64;
    let mut shared = 0u64;
    let mut others = b.iter().peekable();
    for (key, own) in a {
        while others.next_if(|(other, _)| other < key).is_some() {}
        if let Some((_, other)) = others.peek().filter(|(other, _)| other == key) {
            shared += (*own.min(other)).into();
        }
    }
    let mean = (weight(a) * weight(b)).sqrt();
    if mean > 0.0 { (shared as f64 / mean).min(1.0) } else { 0.0 }
}

/// What two lists of shares have in common.
fn common(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.min(*b))).sum::<f64>().min(1.0)
}

fn signature_of(view: &EpochView) -> Signature {
    let changes = view.blocks.iter().zip(&view.sub_blocks).zip(&view.kinds);
    Signature::new(changes.map(|((block, sub_blocks), kind)| (*block, *sub_blocks, *kind)), |_| true)
}

/// Weights (0 to 1) by block, ascending; blocks without any are not there.
pub type Weights = Vec<(u32, f32)>;

/// The sum by block of epochs' weights: what each block has of those in which it changed.
#[must_use]
pub fn weigh<'a>(epochs: impl Iterator<Item = (f32, &'a EpochView)>) -> Weights {
    let mut weights: Weights = Vec::new();
    for (weight, view) in epochs {
        weights.extend(view.blocks.iter().map(|block| (*block, weight)));
    }
    summed(weights)
}

fn summed(mut weights: Weights) -> Weights {
    weights.sort_unstable_by_key(|(block, _)| *block);
    weights.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 += later.1;
        }
        same
    });
    weights
}

/// What changed after the epochs that were most like the last one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AfterSimilar {
    /// For each block, the weight of those after which it changed in the next epoch.
    pub next: Weights,
    /// The same for the rest of the horizon, the next epoch left out.
    pub later: Weights,
}

/// What changed after the epochs like the last one, within a horizon.
#[must_use]
pub fn after_similar_epochs(recent: &RecentEpochs, horizon: u32) -> AfterSimilar {
    let views: Vec<&EpochView> = recent.iter().collect();
    let Some((last, earlier)) = views.split_last() else { return AfterSimilar::default() };
    let last = signature_of(last);
    let mut ranked: Vec<(f32, usize)> = earlier
        .iter()
        .enumerate()
        .map(|(at, view)| (last.likeness(&signature_of(view)).total().powi(SHARPNESS) as f32, at))
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let after = |(weight, at): &(f32, usize)| Some((*weight, *views.get(at + 1)?));
    let next: Vec<_> = ranked.iter().take(NEIGHBOURS).filter_map(after).collect();
    AfterSimilar { next: weigh(shares(&next)), later: later(&ranked, &views, horizon) }
}

/// Each epoch with its share of all weights.
fn shares<T: Copy>(weighted: &[(f32, T)]) -> impl Iterator<Item = (f32, T)> {
    let total: f32 = weighted.iter().map(|(weight, _)| weight).sum();
    weighted.iter().map(move |(weight, of)| (weight / total, *of))
}

/// What changed from the second epoch after similar ones on, to the end of the horizon. Only epochs speak whose horizon has
/// ended.
fn later(ranked: &[(f32, usize)], views: &[&EpochView], horizon: u32) -> Weights {
    let horizon = horizon.min(LATER_EPOCHS) as usize;
    if horizon < 2 {
        return Weights::new();
    }
    let ended: Vec<_> =
        ranked.iter().filter(|(_, at)| at + horizon < views.len()).take(NEIGHBOURS).copied().collect();
    let mut weights = Weights::new();
    for (share, at) in shares(&ended) {
        let mut blocks: Vec<u32> = Vec::new();
        for view in views.get(at + 2..=at + horizon).unwrap_or_default() {
            blocks.extend(&view.blocks);
        }
        blocks.sort_unstable();
        blocks.dedup();
        weights.extend(blocks.into_iter().map(|block| (block, share)));
        if weights.len() > MOST_LATER {
            break;
        }
    }
    summed(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    fn make(blocks: &[(u32, u8, ChangeKind)]) -> Signature {
        Signature::new(blocks.iter().copied(), |_| true)
    }

    #[test]
    fn likeness_is_symmetric_and_bounded() {
        let modified = ChangeKind::Modified;
        let a = make(&[(1, 4, modified), (2, 4, modified)]);
        let b = make(&[(2, 8, modified), (900, 1, ChangeKind::Added)]);
        assert!((a.likeness(&a).total() - 1.0).abs() < 1e-9);
        assert_eq!(a.likeness(&b), b.likeness(&a));
        // Blocks: 4 shared of 8 and 9; regions: 1 of 2 and 2; runs of 2 and of 1; kinds: half; two blocks each.
        let found = a.likeness(&b);
        assert!((found.blocks - 4.0 / 72f64.sqrt()).abs() < 1e-12, "{found:?}");
        assert_eq!((found.regions, found.runs, found.kinds, found.volume), (0.5, 0.0, 0.5, 1.0));
        assert_eq!(a.likeness(&make(&[])).total(), 0.0);
        assert_eq!(make(&[]).likeness(&make(&[])), Likeness::SAME);
    }

    #[test]
    fn size_alone_does_not_part_what_is_in_one_place() {
        let batch =
            |blocks: u32| make(&(0..blocks).map(|at| (at * 3, 4, ChangeKind::Modified)).collect::<Vec<_>>());
        let (whole, half, noon) = (batch(600), batch(300), make(&[(90_000, 4, ChangeKind::Modified)]));
        assert!(whole.likeness(&half).total() > 0.7, "{:?}", whole.likeness(&half));
        assert!(whole.likeness(&noon).total() < 0.4, "{:?}", whole.likeness(&noon));
        // Elsewhere, but of the same build: more alike than what is elsewhere and of another.
        let moved = make(&(0..600).map(|at| (50_000 + at * 3, 4, ChangeKind::Modified)).collect::<Vec<_>>());
        let copied = make(&(0..600).map(|at| (50_000 + at, 16, ChangeKind::Added)).collect::<Vec<_>>());
        assert!(whole.likeness(&moved).total() > whole.likeness(&copied).total() + 0.2);
    }

    #[test]
    fn what_followed_the_like_of_it_follows_again() {
        let mut recent = RecentEpochs::default();
        for epoch in 1..=9 {
            let blocks: Vec<u32> = (0..10).map(|at| at + 1000 * (epoch % 3)).collect();
            recent.push(&vector_of(epoch, &blocks), None);
        }
        let after = after_similar_epochs(&recent, 1).next;
        let weight = |block| after.iter().find(|(own, _)| *own == block).map_or(0.0, |(_, weight)| *weight);
        // Unlike ones are alike in structure, and speak a little.
        assert!(weight(1003) > 0.85 && weight(3) < 0.15, "{after:?}");
    }
}
