//! An entry of a layer's table, and how the entries of one block in two layers become one.
//!
//! What happened to a block is two facts: did it hold data before, does it hold data after. Composing
//! two changes takes 'before' from the older and 'after' from the newer; nothing else is needed, and
//! data never depends on it: a block that is gone keeps a tombstone until nothing lies below.

use forerun::change_vector::{Change, ChangeKind};
use forerun::geometry::{BlockIndex, Epoch, SUB_BLOCKS_PER_BLOCK};

use super::place::Place;

/// What a layer says about one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The block.
    pub block: BlockIndex,
    /// The newest epoch of the layer that changed it.
    pub epoch: Epoch,
    /// What happened.
    pub kind: EntryKind,
    /// How many of its 16 sub-blocks were written, 1 to 16.
    pub sub_blocks: u8,
    /// Where its data is; `None` exactly for the kinds that leave no data.
    pub place: Option<Place>,
}

/// What happened to a block within a layer. The numbers are part of the format; the first three are those
/// of [`ChangeKind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing before, data after.
    Added = 1,
    /// Data before and after.
    Modified = 2,
    /// Data before, nothing after.
    Deleted = 3,
    /// Nothing before and nothing after, though it was written in between: a tombstone that no diff shows.
    Passed = 4,
}

impl EntryKind {
    /// Reads the kind's number; `None` where it is unknown.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Added),
            2 => Some(Self::Modified),
            3 => Some(Self::Deleted),
            4 => Some(Self::Passed),
            _ => None,
        }
    }

    /// Whether the block held data before.
    #[must_use]
    pub const fn before(self) -> bool {
        matches!(self, Self::Modified | Self::Deleted)
    }

    /// Whether the block holds data after.
    #[must_use]
    pub const fn after(self) -> bool {
        matches!(self, Self::Added | Self::Modified)
    }

    /// The kind with these two facts.
    #[must_use]
    pub const fn from_facts(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Added,
            (true, true) => Self::Modified,
            (true, false) => Self::Deleted,
            (false, false) => Self::Passed,
        }
    }

    /// The change that a diff shows; `None` where nothing came of it.
    #[must_use]
    pub const fn shown(self) -> Option<ChangeKind> {
        match self {
            Self::Added => Some(ChangeKind::Added),
            Self::Modified => Some(ChangeKind::Modified),
            Self::Deleted => Some(ChangeKind::Deleted),
            Self::Passed => None,
        }
    }
}

impl From<ChangeKind> for EntryKind {
    fn from(kind: ChangeKind) -> Self {
        match kind {
            ChangeKind::Added => Self::Added,
            ChangeKind::Modified => Self::Modified,
            ChangeKind::Deleted => Self::Deleted,
        }
    }
}

impl Entry {
    /// This entry and a later one of the same block, as one.
    #[must_use]
    pub fn followed_by(&self, newer: &Self) -> Self {
        debug_assert_eq!(self.block, newer.block, "only changes of one block compose");
        // After a deletion in between, all of the block is other than it was.
        let whole = !newer.kind.after() || (self.kind.before() && !self.kind.after());
        let sub_blocks =
            if whole { SUB_BLOCKS_PER_BLOCK as u8 } else { self.sub_blocks.max(newer.sub_blocks) };
        Self { kind: EntryKind::from_facts(self.kind.before(), newer.kind.after()), sub_blocks, ..*newer }
    }

    /// The change that a diff or a change vector shows; `None` where nothing came of it.
    #[must_use]
    pub fn shown(&self) -> Option<Change> {
        let kind = self.kind.shown()?;
        Some(Change { block: self.block, kind, sub_blocks: self.sub_blocks })
    }
}

/// How many entries of each kind a layer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EntryCounts {
    /// Blocks that held nothing before and hold data after.
    pub added: u32,
    /// Blocks that held data before and hold other data after.
    pub modified: u32,
    /// Blocks that held data before and nothing after.
    pub deleted: u32,
    /// Tombstones of blocks that came and went.
    pub passed: u32,
}

impl EntryCounts {
    /// Counts one entry.
    pub const fn count(&mut self, kind: EntryKind) {
        match kind {
            EntryKind::Added => self.added += 1,
            EntryKind::Modified => self.modified += 1,
            EntryKind::Deleted => self.deleted += 1,
            EntryKind::Passed => self.passed += 1,
        }
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        [self.added, self.modified, self.deleted, self.passed].iter().map(|count| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_compose() {
        use EntryKind::{Added, Deleted, Modified, Passed};
        let entry = |kind| Entry { block: BlockIndex(1), epoch: Epoch(1), kind, sub_blocks: 1, place: None };
        for (older, newer, both) in [
            (Added, Modified, Added),
            (Added, Deleted, Passed),
            (Modified, Modified, Modified),
            (Modified, Deleted, Deleted),
            (Deleted, Added, Modified),
            (Passed, Added, Added),
            (Passed, Passed, Passed),
        ] {
            assert_eq!(entry(older).followed_by(&entry(newer)).kind, both, "{older:?} then {newer:?}");
        }
        assert_eq!(entry(Deleted).followed_by(&entry(Added)).sub_blocks, 16);
        assert_eq!(entry(Added).followed_by(&entry(Modified)).sub_blocks, 1);
    }

    #[test]
    fn composition_is_associative() {
        let all = [1, 2, 3, 4].map(|number| {
            let kind = EntryKind::from_number(number).unwrap();
            Entry { block: BlockIndex(1), epoch: Epoch(number.into()), kind, sub_blocks: number, place: None }
        });
        for a in &all {
            for b in &all {
                for c in &all {
                    let (left, right) = (a.followed_by(b).followed_by(c), a.followed_by(&b.followed_by(c)));
                    assert_eq!((left.kind, left.epoch), (right.kind, right.epoch));
                }
            }
        }
    }
}
