//! Naming consistency points, and giving names up.
//!
//! A name pins its layer: layers are only merged up to it. Deleting a snapshot is one replacement of HEAD;
//! maintenance then
//! merges the layer with the next one, which gives the space back.

use forerun::geometry::Epoch;

use super::error::{CapacityError, Result};
use super::names::SnapshotName;
use super::store::Store;
use super::tier::CapacityTier;

impl<S: Store> CapacityTier<S> {
    /// Keeps the consistency point at the end of `epoch` under `name`. The same again changes nothing.
    ///
    /// # Errors
    /// An epoch at which no layer ends, a name that is taken, an epoch with another name, a failing store.
    pub async fn name_snapshot(&self, epoch: Epoch, name: &SnapshotName) -> Result<()> {
        let exists = |name: &SnapshotName, epoch| CapacityError::SnapshotExists { name: name.clone(), epoch };
        if self.head().snapshot(name).is_some_and(|layer| layer.last_epoch == epoch) {
            return Ok(());
        }
        let name = name.clone();
        let change = move |head: &mut super::head::Head| {
            if let Some(there) = head.snapshot(&name) {
                return Err(exists(&name, there.last_epoch));
            }
            let layer = head.layers.iter_mut().find(|layer| layer.last_epoch == epoch);
            let layer = layer.ok_or(CapacityError::NoSuchEpoch { epoch })?;
            if let Some(other) = &layer.snapshot {
                return Err(exists(other, epoch));
            }
            layer.snapshot = Some(name);
            layer.reclaim = false;
            Ok(())
        };
        self.inner.update_head(change, |_| ()).await.map(|_| ())
    }

    /// Gives a snapshot's name up; its space comes back by [`CapacityTier::maintain`].
    ///
    /// # Errors
    /// An unknown name, a snapshot that somebody reads (a lease), a failing store.
    pub async fn delete_snapshot(&self, name: &SnapshotName) -> Result<()> {
        self.inner.writer()?;
        let missing = || CapacityError::NoSuchSnapshot { name: name.clone() };
        let epoch = self.head().snapshot(name).ok_or_else(missing)?.last_epoch;
        let leased = self.inner.store.leased().await;
        let leased = leased.map_err(|error| self.inner.io_error("list", "leases", error))?;
        if leased.contains(&epoch) {
            return Err(CapacityError::SnapshotInUse { name: name.clone() });
        }
        let name = name.clone();
        let change = move |head: &mut super::head::Head| {
            let layer = head.layers.iter_mut().find(|layer| layer.snapshot.as_ref() == Some(&name));
            let layer = layer.ok_or(CapacityError::NoSuchSnapshot { name })?;
            layer.snapshot = None;
            layer.reclaim = true;
            Ok(())
        };
        self.inner.update_head(change, |_| ()).await.map(|_| ())
    }
}
