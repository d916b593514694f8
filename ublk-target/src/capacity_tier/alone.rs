//! A capacity tier that nobody writes to while it is looked at: the writer's lock is held.
//!
//! For a volume whose machine is lost. Only HEAD is read and replaced, so it takes no longer with much data than with little.

use forerun::geometry::Generation;

use super::error::{CapacityError, Result};
use super::head::Head;
use super::names::VolumeUuid;
use super::store::{HeadNumber, ReplaceError, Store};
use super::tier::{read_head, release};

/// A capacity tier with its writer's lock held.
pub struct Alone<S: Store> {
    /// What HEAD says, durably.
    pub head: Head,
    bytes: Vec<u8>,
    /// The least generation that the writer may have.
    least: Generation,
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
        let least = lock(&store).await?;
        match Self::read(&store, volume).await {
            Ok((head, bytes)) => Ok(Self { head, bytes, least, store }),
            Err(error) => {
                release(&store).await;
                Err(error)
            }
        }
    }

    async fn read(store: &S, volume: Option<VolumeUuid>) -> Result<(Head, Vec<u8>)> {
        let failed = |source| {
            let place = format!("{}/HEAD", store.place());
            CapacityError::Io { operation: "make durable", place, source }
        };
        store.settle_head().await.map_err(failed)?;
        read_head(store, volume).await
    }

    /// Fences off whoever wrote to it before, for good: HEAD says what it said, by a writer of a higher generation.
    /// The next writer finds nobody to wait for.
    ///
    /// # Errors
    /// Somebody else has taken over meanwhile; a failing store, where it may have happened or may yet happen.
    pub async fn supersede(&mut self) -> Result<()> {
        let generation = Generation(self.head.generation.0 + 1).max(self.least);
        let sequence = self.head.sequence + 1;
        let head = Head { generation, sequence, ..self.head.clone() };
        let bytes = head.encode();
        let number = HeadNumber { generation, sequence };
        let replaced = self.store.replace_head(&[&self.bytes], bytes.clone(), number).await;
        let place = || self.store.place();
        replaced.map_err(|error| match error {
            ReplaceError::Unchanged(source) | ReplaceError::InDoubt(source) => {
                CapacityError::Io { operation: "replace", place: format!("{}/HEAD", place()), source }
            }
            ReplaceError::Fenced(theirs) => {
                CapacityError::Fenced { place: place(), ours: generation, theirs }
            }
            ReplaceError::Conflict => CapacityError::InUse {
                place: place(),
                holder: "somebody who has just replaced HEAD".to_owned(),
            },
        })?;
        (self.head, self.bytes) = (head, bytes);
        Ok(())
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
