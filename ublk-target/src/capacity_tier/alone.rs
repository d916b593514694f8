//! A capacity tier that nobody writes to while it is looked at: the writer's lock is held, and HEAD is left as it is.
//!
//! For what is done with a volume that is stopped, or whose machine is lost. Only HEAD is read, so it takes no longer
//! with much data than with little.

use forerun::geometry::Generation;

use super::error::{CapacityError, Result};
use super::head::Head;
use super::names::VolumeUuid;
use super::store::Store;
use super::tier::{read_head, release};

/// A capacity tier with its writer's lock held.
pub struct Alone<S: Store> {
    /// What HEAD says, durably.
    pub head: Head,
    // Holds the lock.
    store: S,
}

impl<S: Store> Alone<S> {
    /// Takes the lock and reads HEAD.
    ///
    /// # Errors
    /// No volume there, another one than expected, a writer, damage, a failing store.
    pub async fn take(store: S, volume: Option<VolumeUuid>) -> Result<Self> {
        // Looked at before the lock is taken, so that a foreign directory is left as it is.
        read_head(&store, volume).await?;
        lock(&store).await?;
        match Self::read(&store, volume).await {
            Ok(head) => Ok(Self { head, store }),
            Err(error) => {
                release(&store).await;
                Err(error)
            }
        }
    }

    async fn read(store: &S, volume: Option<VolumeUuid>) -> Result<Head> {
        let failed = |source| {
            let place = format!("{}/HEAD", store.place());
            CapacityError::Io { operation: "make durable", place, source }
        };
        store.settle_head().await.map_err(failed)?;
        Ok(read_head(store, volume).await?.0)
    }

    /// Gives the lock back.
    pub async fn end(self) {
        release(&self.store).await;
    }
}

/// Takes the writer's lock, for as long as the store lives or until it is released; gives the least generation that the
/// writer may have.
pub(super) async fn lock<S: Store>(store: &S) -> Result<Generation> {
    let place = store.place();
    let locked = store.lock_writer().await.map_err(|source| {
        let place = format!("{place}/LOCK");
        CapacityError::Io { operation: "lock", place, source }
    })?;
    locked.map_err(|holder| CapacityError::InUse { place, holder })
}
