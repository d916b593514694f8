//! A capacity tier that nobody writes to while it is looked at: the writer's lock is held, and HEAD is left as it is.
//!
//! For what is done with a volume that is stopped, or whose machine is lost. Only HEAD is read, so it takes no longer
//! with much data than with little.

use super::error::{CapacityError, Result};
use super::head::Head;
use super::names::VolumeUuid;
use super::store::Store;
use super::tier::read_head;

/// A capacity tier with its writer's lock held.
pub struct Alone<S: Store> {
    /// What HEAD says, durably.
    pub head: Head,
    // Holds the lock.
    _store: S,
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
        let failed = |source| {
            let place = format!("{}/HEAD", store.place());
            CapacityError::Io { operation: "make durable", place, source }
        };
        store.settle_head().await.map_err(failed)?;
        let (head, _) = read_head(&store, volume).await?;
        Ok(Self { head, _store: store })
    }
}

/// Takes the writer's lock, for as long as the store lives.
pub(super) async fn lock<S: Store>(store: &S) -> Result<()> {
    let place = store.place();
    let locked = store.lock_writer().map_err(|source| {
        let place = format!("{place}/LOCK");
        CapacityError::Io { operation: "lock", place, source }
    })?;
    locked.map_err(|holder| CapacityError::InUse { place, holder })
}
