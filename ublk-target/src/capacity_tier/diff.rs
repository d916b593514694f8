//! What changed between two consistency points, and the change vectors that the layers still tell.
//!
//! Both come from the layers' tables alone; no block is read. Kinds compose over the layers in between: a
//! block that came and went is
//! not shown. A block rewritten with the same content counts as modified.

use forerun::change_vector::{Change, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};

use super::entry::EntryCounts;
use super::error::{CapacityError, Result};
use super::head::LayerInfo;
use super::layer_cursor::{LayerCursor, PAGES_PER_READ};
use super::merge_cursor::MergeCursor;
use super::store::Store;
use super::tier::CapacityTier;

/// The most changes in one page of a diff.
pub const MAX_DIFF_PAGE: usize = 65_536;

impl<S: Store> CapacityTier<S> {
    /// The blocks that differ between the consistency points `from` (`None`: the empty volume) and `to`,
    /// ascending, those behind `after` only, at most `limit` (and [`MAX_DIFF_PAGE`]).
    ///
    /// A page shorter than that is the last one; the next begins behind the last block of this one.
    ///
    /// # Errors
    /// A point at which no layer ends, points in the wrong order, a failing store, damage.
    pub async fn diff(
        &self,
        from: Option<Epoch>,
        to: Epoch,
        after: Option<BlockIndex>,
        limit: usize,
    ) -> Result<Vec<Change>> {
        let head = self.head();
        let from = from.unwrap_or(Epoch(0));
        let up_to = |epoch| head.layers_up_to(epoch).ok_or(CapacityError::NoSuchEpoch { epoch });
        let (below, all) = (up_to(from)?, up_to(to)?);
        let Some(layers) = all.get(below.len()..) else {
            return Err(CapacityError::EpochRange { from, to });
        };
        let limit = limit.min(MAX_DIFF_PAGE);
        let mut merge = MergeCursor::begin(&self.inner, layers, after).await?;
        let mut changes = Vec::new();
        while changes.len() < limit {
            let Some(entry) = merge.next(&mut |_| ()).await? else { break };
            changes.extend(entry.shown());
        }
        Ok(changes)
    }

    /// The changes of layers that follow each other, taken together, by kind.
    ///
    /// # Errors
    /// A failing store, damage.
    pub async fn counts(&self, layers: &[LayerInfo]) -> Result<EntryCounts> {
        if let [only] = layers {
            return Ok(only.counts);
        }
        let mut merge = MergeCursor::begin(&self.inner, layers, None).await?;
        let mut counts = EntryCounts::default();
        while let Some(entry) = merge.next(&mut |_| ()).await? {
            counts.count(entry.kind);
        }
        Ok(counts)
    }

    /// The change vector of one layer of [`super::Head::layers`]; of a merged run, one vector with its last
    /// epoch.
    ///
    /// Takes 8 bytes of memory a change; [`LayerInfo::counts`] tells how many there are.
    ///
    /// # Errors
    /// A failing store, damage.
    pub async fn change_vector(&self, layer: &LayerInfo) -> Result<ChangeVector> {
        let mut changes = Vec::new();
        let mut cursor = LayerCursor::new(&self.inner, layer, PAGES_PER_READ);
        while let Some(entry) = cursor.next().await? {
            changes.extend(entry.shown());
        }
        ChangeVector::new(layer.last_epoch, layer.opened_us, layer.sealed_us, changes)
            .map_err(|error| CapacityError::Misuse(error.to_string()))
    }

    /// The change vectors of the layers that end after `from`, oldest first, at most `limit` of them.
    ///
    /// # Errors
    /// A failing store, damage.
    pub async fn change_vectors(&self, from: Epoch, limit: usize) -> Result<Vec<ChangeVector>> {
        let head = self.head();
        let mut vectors = Vec::new();
        for layer in head.layers().iter().filter(|layer| layer.last_epoch > from).take(limit) {
            vectors.push(self.change_vector(layer).await?);
        }
        Ok(vectors)
    }
}
