//! Which blocks follow which: a block that begins to change one epoch after certain others did.
//!
//! Each block remembers a few others that had begun to change in the epoch before it did. When it begins again, those that
//! had begun again as well gain, the others lose and make room for new ones. So of the many blocks that changed before it by
//! chance only those stay that come before it each time. That finds the pairs that Mithril looks for (Yang, Karimi,
//! Saemundsson, Wildani, Vigfusson, SoCC 2017: sporadic associations), in epochs instead of requests, with memory for a
//! handful a block and no table of pairs.

use crate::rng::Rng;

/// Blocks remembered for each one.
pub const LEADERS: usize = 4;
/// The largest count of a leader.
const MAX_HITS: u8 = 200;
/// From so many times on it says something: once is chance.
const FROM_HITS: u8 = 2;
/// Where `NO_BLOCK` stands there is no leader.
const NO_BLOCK: u32 = u32::MAX;

/// The blocks that come before one.
#[derive(Clone, Copy, Debug)]
pub struct Leaders {
    blocks: [u32; LEADERS],
    hits: [u8; LEADERS],
}

impl Default for Leaders {
    fn default() -> Self {
        Self { blocks: [NO_BLOCK; LEADERS], hits: [0; LEADERS] }
    }
}

impl Leaders {
    /// The block begins to change in the epoch after `began`, in which these blocks, ascending, had begun to.
    pub fn follow(&mut self, block: u32, began: &[u32], rng: &mut Rng) {
        for (leader, hits) in self.blocks.iter_mut().zip(&mut self.hits) {
            if *leader == NO_BLOCK {
                continue;
            }
            if began.binary_search(leader).is_ok() {
                *hits = hits.saturating_add(1).min(MAX_HITS);
            } else {
                // Halved, not gone: one epoch's end may have come between them.
                *hits /= 2;
                if *hits == 0 {
                    *leader = NO_BLOCK;
                }
            }
        }
        for at in 0..LEADERS {
            // One of the nearest first, since what belongs together often lies together; the others by chance.
            let drawn =
                if at == 0 { nearest(began, block) } else { began.get(rng.below(began.len())).copied() };
            if let (Some(NO_BLOCK), Some(new)) = (self.blocks.get(at).copied(), drawn)
                && new != block
                && !self.blocks.contains(&new)
            {
                self.blocks[at] = new;
                self.hits[at] = 1;
            }
        }
    }

    /// How much the leaders that have just begun to change speak for this block, 0 to 1, and how many of its leaders did.
    /// `began` as for [`Self::follow`]; `times` says how often a leader has begun to change.
    #[must_use]
    pub fn speak(&self, began: &[u32], times: impl Fn(u32) -> u32) -> (f32, u32) {
        let (mut best, mut count) = (0.0f32, 0);
        for (leader, hits) in self.blocks.iter().zip(self.hits) {
            if hits >= FROM_HITS && began.binary_search(leader).is_ok() {
                count += 1;
                // Of the times that the leader changed, those that this block followed.
                let times = times(*leader).max(u32::from(hits)) as f32;
                best = best.max(f32::from(hits) / (times + 1.0));
            }
        }
        (best, count)
    }
}

fn nearest(sorted: &[u32], block: u32) -> Option<u32> {
    let above = sorted.partition_point(|other| *other < block);
    let (below, above) = (above.checked_sub(1).and_then(|at| sorted.get(at)), sorted.get(above));
    [below, above].into_iter().flatten().copied().min_by_key(|other| other.abs_diff(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_each_time_stays_and_chance_goes() {
        let (mut leaders, mut rng) = (Leaders::default(), Rng::new(1));
        for round in 0..40 {
            // Block 7 and 5,000 begin before 100 each time, 50 others by chance.
            let mut began: Vec<u32> = (0..50).map(|_| 10_000 + rng.below(100_000) as u32).collect();
            began.extend([7, 5000]);
            began.sort_unstable();
            began.dedup();
            leaders.follow(100, &began, &mut rng);
            if round == 39 {
                let (share, count) = leaders.speak(&[7], |_| 40);
                assert!(count == 1 && share > 0.5, "{leaders:?}");
                assert_eq!(leaders.speak(&[8], |_| 40), (0.0, 0));
            }
        }
        assert_eq!(nearest(&[3, 9, 20], 10), Some(9));
        assert_eq!(nearest(&[], 10), None);
    }
}
