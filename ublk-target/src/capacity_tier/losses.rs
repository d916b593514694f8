//! What a rebuilt capacity tier does not have that the old one had: by block, and by consistency point.

use std::collections::BTreeMap;

use forerun::geometry::{BlockIndex, Epoch, SubBlockMask};

use super::names::SnapshotName;
use super::table_scan::BlockRange;

/// A block whose data of an epoch is lost; it reads as zeros there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostBlock {
    /// The block.
    pub block: BlockIndex,
    /// Its sub-blocks that are lost.
    pub sub_blocks: SubBlockMask,
    /// From the end of this epoch on.
    pub since: Epoch,
    /// Up to, and not including, the point at which a later epoch wrote it anew; `None`: up to the newest.
    pub until: Option<Epoch>,
}

/// Blocks of which it is not known whether an epoch changed or discarded them; they read as they were before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubtful {
    /// The blocks.
    pub range: BlockRange,
    /// From the end of this epoch on.
    pub since: Epoch,
    /// Why.
    pub why: String,
}

/// A snapshot that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangedSnapshot {
    /// Its name; `None` where that is lost.
    pub name: Option<SnapshotName>,
    /// Its epoch.
    pub epoch: Epoch,
    /// The name under which it is kept.
    pub kept_as: SnapshotName,
    /// What is the matter with it.
    pub why: String,
}

/// All that is lost of a capacity tier.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Blocks whose data is lost at some point.
    pub blocks: Vec<LostBlock>,
    /// Blocks that may not be what they were.
    pub doubtful: Vec<Doubtful>,
    /// Of these, the blocks that no later epoch wrote anew.
    pub doubtful_now: Vec<BlockRange>,
    /// Snapshots that are not what they were.
    pub snapshots: Vec<ChangedSnapshot>,
    /// What else was met; for people.
    pub notes: Vec<String>,
}

impl Losses {
    /// Whether no point of the tier has lost anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.doubtful.is_empty() && self.snapshots.is_empty()
    }
}

/// Keeps account while layers are gone through, oldest first.
#[derive(Default)]
pub(super) struct Account {
    open: BTreeMap<BlockIndex, LostBlock>,
    closed: Vec<LostBlock>,
    doubtful: Vec<Doubtful>,
    /// Doubtful and not written since: last block by first block; they do not overlap.
    now: BTreeMap<BlockIndex, BlockIndex>,
}

impl Account {
    /// An epoch, `at` the end of its layer, wrote or deleted the block: what was said of it ends there.
    pub fn written(&mut self, block: BlockIndex, at: Epoch) {
        if let Some(lost) = self.open.remove(&block) {
            self.closed.push(LostBlock { until: Some(at), ..lost });
        }
        self.settle(block);
    }

    /// The block's data is lost from this point on.
    pub fn lost(&mut self, block: BlockIndex, sub_blocks: SubBlockMask, since: Epoch) {
        self.open.insert(block, LostBlock { block, sub_blocks, since, until: None });
    }

    /// The blocks may have been changed at this point.
    pub fn doubt(&mut self, range: BlockRange, since: Epoch, why: &str) {
        self.doubtful.push(Doubtful { range, since, why: why.to_owned() });
        let (mut first, mut last) = (range.first, range.last);
        // Taken together with what it overlaps.
        let overlapping: Vec<_> =
            self.now.range(..=last).filter(|(_, end)| **end >= first).map(|(a, b)| (*a, *b)).collect();
        for (from, to) in overlapping {
            self.now.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.now.insert(first, last);
    }

    fn settle(&mut self, block: BlockIndex) {
        let Some((first, last)) = self.now.range(..=block).next_back().map(|(a, b)| (*a, *b)) else { return };
        if last < block {
            return;
        }
        self.now.remove(&first);
        if first < block {
            self.now.insert(first, BlockIndex(block.0 - 1));
        }
        if block < last {
            self.now.insert(BlockIndex(block.0 + 1), last);
        }
    }

    /// Whether a point is not what it was.
    pub fn touches(&self, point: Epoch) -> bool {
        let lost = |lost: &LostBlock| lost.since <= point && lost.until.is_none_or(|until| point < until);
        self.closed.iter().chain(self.open.values()).any(lost)
            || self.doubtful.iter().any(|doubtful| doubtful.since <= point)
    }

    /// All of it.
    pub fn finish(self) -> Losses {
        let mut blocks: Vec<LostBlock> = self.closed.into_iter().chain(self.open.into_values()).collect();
        blocks.sort_unstable_by_key(|lost| (lost.block, lost.since));
        let now = self.now.into_iter().map(|(first, last)| BlockRange { first, last });
        Losses { blocks, doubtful: self.doubtful, doubtful_now: now.collect(), ..Losses::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> BlockRange {
        BlockRange { first: BlockIndex(first), last: BlockIndex(last) }
    }

    #[test]
    fn a_later_write_ends_a_loss_and_a_doubt() {
        let mut account = Account::default();
        account.lost(BlockIndex(5), SubBlockMask::FULL, Epoch(2));
        account.doubt(range(3, 9), Epoch(2), "lost");
        account.doubt(range(8, 12), Epoch(3), "lost too");
        account.written(BlockIndex(5), Epoch(4));
        account.written(BlockIndex(12), Epoch(4));
        account.written(BlockIndex(40), Epoch(4));
        assert!(!account.touches(Epoch(1)) && account.touches(Epoch(2)) && account.touches(Epoch(4)));
        let losses = account.finish();
        assert_eq!(losses.blocks.len(), 1);
        assert_eq!(losses.blocks[0].until, Some(Epoch(4)));
        assert_eq!(losses.doubtful_now, [range(3, 4), range(6, 11)]);
    }
}
