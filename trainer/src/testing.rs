//! Change vectors for tests.

use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};

/// An epoch of 10 s in which the given blocks, ascending, were modified.
pub fn vector_of(epoch: u32, blocks: &[u32]) -> ChangeVector {
    let change = |&block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 4 };
    let opened_us = u64::from(epoch) * 10_000_000;
    ChangeVector::new(Epoch(epoch), opened_us, opened_us + 10_000_000, blocks.iter().map(change).collect())
        .expect("ascending")
}
