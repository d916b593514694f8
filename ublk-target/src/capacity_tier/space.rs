//! How much room a volume takes on the capacity tier, and how much there is.

use super::error::Result;
use super::head::MAX_HEAD_BYTES;
use super::layer_page::PAGE_BYTES;
use super::names::ObjectKind;
use super::store::Store;
use super::tier::CapacityTier;

/// Room on the capacity tier, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// The size of the store.
    pub total_bytes: u64,
    /// What can still be written to it, by anyone.
    pub free_bytes: u64,
    /// What this volume takes: segments, tables, HEAD, what waits to be deleted, and what clones need. What a clone shares
    /// is its origin's.
    pub used_bytes: u64,
    /// Of that, records that some snapshot or the volume itself needs.
    pub live_bytes: u64,
    /// Of that, objects that wait to be deleted.
    pub deleting_bytes: u64,
    /// Of that, objects that only clones need.
    pub pinned_bytes: u64,
}

impl<S: Store> CapacityTier<S> {
    /// Tells the room. A reader does not know live and deleted bytes apart: it counts all as live.
    ///
    /// # Errors
    /// A failing store.
    pub async fn space(&self) -> Result<Space> {
        let inner = &self.inner;
        let room = inner.store.space().await.map_err(|error| inner.io_error("examine", "", error))?;
        let head = self.head();
        let own_from = inner.own_from();
        let own = head.layers().iter().filter(|layer| layer.id.0 >= own_from);
        let pages: u64 = own.map(|layer| u64::from(layer.pages)).sum();
        let head_bytes = (head.encode().len()).min(MAX_HEAD_BYTES) as u64;
        let tables = pages * PAGE_BYTES as u64 + head_bytes;
        let (segments, live, deleting, pinned) = if inner.generation.is_some() {
            let state = inner.state.borrow();
            let (segments, live) = state.usage.bytes(own_from);
            (segments, live, state.deletions.bytes(), state.deletions.pinned_bytes())
        } else {
            let kind = ObjectKind::Segment;
            let listed = inner.store.list(kind).await;
            let listed = listed.map_err(|error| inner.io_error("list", kind.folder(), error))?;
            let bytes = listed.iter().map(|(_, bytes)| bytes).sum();
            (bytes, bytes, 0, 0)
        };
        Ok(Space {
            total_bytes: room.total_bytes,
            free_bytes: room.free_bytes,
            used_bytes: segments + tables + deleting + pinned,
            live_bytes: live,
            deleting_bytes: deleting,
            pinned_bytes: pinned,
        })
    }
}
