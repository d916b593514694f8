//! Several layers read as one: ascending by block, each block once, its changes composed oldest to newest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use forerun::geometry::BlockIndex;

use super::entry::Entry;
use super::error::Result;
use super::head::LayerInfo;
use super::layer_cursor::{LayerCursor, PAGES_PER_READ};
use super::place::Place;
use super::state::Inner;
use super::store::Store;

/// The pages that all cursors of one merge hold together, at most (16 MiB), as long as each holds one.
const PAGES_HELD: u32 = 4096;

/// A position in several layers at once.
pub(super) struct MergeCursor<S: Store> {
    cursors: Vec<LayerCursor<S>>,
    // The next block of each cursor that has one; of equal blocks the older layer comes first.
    heap: BinaryHeap<Reverse<(BlockIndex, usize)>>,
}

impl<S: Store> MergeCursor<S> {
    /// At the first block of `layers` (oldest first) behind `after`, or at the very first.
    pub async fn begin(tier: &Rc<Inner<S>>, layers: &[LayerInfo], after: Option<BlockIndex>) -> Result<Self> {
        let each =
            (PAGES_HELD / u32::try_from(layers.len()).unwrap_or(u32::MAX).max(1)).clamp(1, PAGES_PER_READ);
        let mut merge = Self { cursors: Vec::with_capacity(layers.len()), heap: BinaryHeap::new() };
        for (at, layer) in layers.iter().enumerate() {
            let mut cursor = LayerCursor::new(tier, layer, each);
            if let Some(after) = after {
                cursor.seek_behind(after).await?;
            }
            merge.cursors.push(cursor);
            merge.advance(at).await?;
        }
        Ok(merge)
    }

    async fn advance(&mut self, at: usize) -> Result<()> {
        let Some(cursor) = self.cursors.get_mut(at) else { return Ok(()) };
        cursor.fill().await?;
        if let Some(entry) = cursor.peek() {
            self.heap.push(Reverse((entry.block, at)));
        }
        Ok(())
    }

    async fn pop(&mut self) -> Result<Option<Entry>> {
        let Some(Reverse((_, at))) = self.heap.pop() else { return Ok(None) };
        let entry = self.cursors.get_mut(at).and_then(LayerCursor::take);
        self.advance(at).await?;
        Ok(entry)
    }

    /// The next block with what all layers together did to it; tells the places that newer ones took over.
    pub async fn next(&mut self, dropped: &mut impl FnMut(Place)) -> Result<Option<Entry>> {
        let Some(mut entry) = self.pop().await? else { return Ok(None) };
        while self.heap.peek().is_some_and(|Reverse((block, _))| *block == entry.block) {
            let Some(newer) = self.pop().await? else { break };
            entry.place.map(&mut *dropped);
            entry = entry.followed_by(&newer);
        }
        Ok(Some(entry))
    }
}
