//! Writing and reading the warm list: one object, in the place of the one before.
//!
//! It is written whole under a number of its own, and the older ones are deleted then; a crash in between leaves two, of
//! which the one with the higher number counts. Nothing refers to it and nothing waits for it. In a directory it appears
//! before it is whole: one that cannot be read is passed over for an older one.

use std::io;
use std::rc::Rc;

use super::error::Result;
use super::names::{ObjectKind, ObjectName};
use super::origins::OpenOrigin;
use super::state::Inner;
use super::store::Store;
use super::tier::CapacityTier;
use super::warm_list::{MAX_WARM_BYTES, WarmList};

impl<S: Store> CapacityTier<S> {
    /// Writes a warm list in the place of the one that is there.
    ///
    /// # Errors
    /// A reader, a fenced writer, a failing store; the list before is still there then.
    pub async fn put_warm_list(&self, list: &WarmList) -> Result<()> {
        let inner = &self.inner;
        let number = inner.take_number().await?;
        let name = ObjectName { kind: ObjectKind::Warm, number };
        let (put, _) = inner.store.put(name, list.encode(inner.volume, number)).await;
        put.map_err(|error| inner.object_error("write", name, error))?;
        let listed = inner.store.list(ObjectKind::Warm).await;
        let listed = listed.map_err(|error| inner.io_error("list", ObjectKind::Warm.folder(), error))?;
        for (older, _) in listed.into_iter().filter(|(other, _)| other.number < number) {
            inner.store.delete(older).await.map_err(|error| inner.object_error("delete", older, error))?;
        }
        Ok(())
    }

    /// The newest warm list: the volume's own, or for a clone that has none its origin's.
    ///
    /// # Errors
    /// A failing store; damage, with its place.
    pub async fn warm_list(&self) -> Result<Option<WarmList>> {
        warm_list(&self.inner).await
    }
}

/// The newest warm list of a tier that can be read; where none of a volume's can, the newest one's damage.
pub(super) async fn warm_list<S: Store>(inner: &Rc<Inner<S>>) -> Result<Option<WarmList>> {
    let own = std::iter::once((&inner.store, inner.volume));
    let theirs = inner
        .origins
        .iter()
        .rev()
        .filter_map(|origin: &OpenOrigin<S>| Some((origin.store().ok()?, origin.volume)));
    for (store, volume) in own.chain(theirs) {
        let place = |name: &dyn std::fmt::Display| format!("{}/{name}", store.place());
        let failed = |operation, name: &dyn std::fmt::Display, source| super::CapacityError::Io {
            operation,
            place: place(name),
            source,
        };
        let listed = store.list(ObjectKind::Warm).await;
        let listed = listed.map_err(|error| failed("list", &ObjectKind::Warm.folder(), error))?;
        let mut newest_first = listed;
        newest_first.sort_unstable_by_key(|(name, _)| std::cmp::Reverse(name.number));
        let mut damage = None;
        for (name, bytes) in newest_first {
            let len = bytes.min(MAX_WARM_BYTES) as usize;
            let bytes = match store.read_range(name, 0, len, Vec::new()).await {
                Ok(bytes) => bytes,
                // Its writer has written a newer one, and deleted it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &name, error)),
            };
            match WarmList::decode(&bytes, volume, name.number, inner.geometry.get()) {
                Ok(list) => return Ok(Some(list)),
                Err(fault) => {
                    damage.get_or_insert_with(|| super::CapacityError::faulty(place(&name), fault));
                }
            }
        }
        if let Some(damage) = damage {
            return Err(damage);
        }
    }
    Ok(None)
}
