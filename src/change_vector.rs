//! What changed in a volume during one epoch: the keys of a layer and what happened to each.
//!
//! A change vector is made from the layer itself when it is sealed and never differs from it.
//! Always true of one: its changes are sorted by block and no block occurs twice.

use crate::geometry::{BlockIndex, Epoch, SUB_BLOCKS_PER_BLOCK};
use thiserror::Error;

/// What happened to a block between two consistency points.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ChangeKind {
    /// The block held nothing before and holds data now.
    Added = 1,
    /// The block held data before and holds other data now.
    Modified = 2,
    /// The block held data before and was discarded or zeroed as a whole.
    Deleted = 3,
}

impl ChangeKind {
    /// Reads the kind's number on disk and on the wire; `None` where it is unknown.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Added),
            2 => Some(Self::Modified),
            3 => Some(Self::Deleted),
            _ => None,
        }
    }

    /// The kind's name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

/// One block of a change vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which block.
    pub block: BlockIndex,
    /// What happened to it.
    pub kind: ChangeKind,
    /// How many of its 16 sub-blocks were written (1 to 16); 16 for a deleted block.
    pub sub_blocks: u8,
}

/// A change vector that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ChangeVectorError {
    /// Changes are not strictly ascending by block.
    #[error("change {index}: block {block} does not come after the one before it")]
    Order {
        /// The position in the vector.
        index: usize,
        /// The block there.
        block: u32,
    },
    /// A count of sub-blocks that no block has.
    #[error("change {index}: {count} sub-blocks; a block has 1 to 16")]
    SubBlocks {
        /// The position in the vector.
        index: usize,
        /// The count there.
        count: u32,
    },
    /// An unknown kind.
    #[error("change {index}: unknown kind {kind}")]
    Kind {
        /// The position in the vector.
        index: usize,
        /// The kind's number there.
        kind: u32,
    },
}

/// What one sealed epoch changed, with the epoch's place in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeVector {
    /// The sealed epoch.
    pub epoch: Epoch,
    /// When the epoch was opened, in microseconds since 1970 (UTC).
    pub opened_us: u64,
    /// When the epoch was sealed, in microseconds since 1970 (UTC).
    pub sealed_us: u64,
    changes: Vec<Change>,
}

impl ChangeVector {
    /// Takes changes that are strictly ascending by block.
    ///
    /// # Errors
    /// Changes out of order, a block twice, or a count of sub-blocks outside of 1 to 16.
    pub fn new(
        epoch: Epoch,
        opened_us: u64,
        sealed_us: u64,
        changes: Vec<Change>,
    ) -> Result<Self, ChangeVectorError> {
        let mut last = None;
        for (index, change) in changes.iter().enumerate() {
            if last.is_some_and(|last| last >= change.block) {
                return Err(ChangeVectorError::Order { index, block: change.block.0 });
            }
            let count = u32::from(change.sub_blocks);
            if count == 0 || count > SUB_BLOCKS_PER_BLOCK {
                return Err(ChangeVectorError::SubBlocks { index, count });
            }
            last = Some(change.block);
        }
        Ok(Self { epoch, opened_us, sealed_us, changes })
    }

    /// The changes, strictly ascending by block.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many changes are of `kind`.
    #[must_use]
    pub fn count(&self, kind: ChangeKind) -> usize {
        self.changes.iter().filter(|change| change.kind == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(block: u32, sub_blocks: u8) -> Change {
        Change { block: BlockIndex(block), kind: ChangeKind::Added, sub_blocks }
    }

    #[test]
    fn order_and_counts_are_checked() {
        let make = |changes| ChangeVector::new(Epoch(1), 0, 1, changes);
        assert!(make(vec![change(1, 1), change(2, 16)]).is_ok());
        assert_eq!(
            make(vec![change(2, 1), change(2, 1)]),
            Err(ChangeVectorError::Order { index: 1, block: 2 })
        );
        assert_eq!(make(vec![change(2, 0)]), Err(ChangeVectorError::SubBlocks { index: 0, count: 0 }));
        assert_eq!(make(vec![change(2, 17)]), Err(ChangeVectorError::SubBlocks { index: 0, count: 17 }));
    }
}
