//! How a clone comes to stand alone: what it shares is copied (promotion) or superseded; then its HEAD says that it has left
//! its origin; then the origin's pin is removed; then HEAD forgets the origin.
//!
//! A crash in between leaves a pin that is not needed any more, and a HEAD that says so: the next writer goes on there.
//! Readers that came before may still read from the origin, by an old map or with a lease, so the pin stays for the delay
//! of deletions, and for as long as any lease is held.

use std::ops::Range;
use std::rc::Rc;

use forerun::geometry::SegmentId;

use super::clone::pin_of;
use super::error::{CapacityError, Result};
use super::head::Head;
use super::names::{ObjectName, VolumeUuid};
use super::pin::Pin;
use super::state::{Inner, State};
use super::store::Store;
use super::tier::{CapacityTier, read_head};

/// What a clone still shares with an origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedData {
    /// The origin.
    pub volume: VolumeUuid,
    /// Where its capacity tier is.
    pub address: String,
    /// Bytes of records in its segments that are referred to.
    pub bytes: u64,
    /// Whether they are being copied.
    pub promoting: bool,
    /// Whether nothing is shared any more, and only the origin has to be told.
    pub left: bool,
}

impl<S: Store> CapacityTier<S> {
    /// Has maintenance copy what is shared with origins, until the volume stands alone. The same again changes nothing.
    ///
    /// # Errors
    /// A reader, a fenced writer, a failing store.
    pub async fn promote(&self) -> Result<()> {
        self.inner.writer()?;
        if self.head().origins.iter().all(|origin| origin.promoting || origin.left) {
            return Ok(());
        }
        let change = |head: &mut Head| {
            head.origins.iter_mut().for_each(|origin| origin.promoting = true);
            Ok(())
        };
        self.inner.update_head(change, |_| ()).await.map(|_| ())
    }

    /// What is shared with origins, the oldest first; known to a writer.
    #[must_use]
    pub fn shared(&self) -> Vec<SharedData> {
        let state = self.inner.state.borrow();
        let ranges = ranges(&state.head);
        let shared = state.head.origins.iter().zip(ranges).map(|(origin, range)| SharedData {
            volume: origin.volume,
            address: origin.address.clone(),
            bytes: state.usage.live_bytes_in(range),
            promoting: origin.promoting,
            left: origin.left,
        });
        shared.collect()
    }

    /// What this volume keeps for its clones; one pin a clone.
    ///
    /// # Errors
    /// A failing store.
    pub async fn clones(&self) -> Result<Vec<Pin>> {
        self.inner.read_pins().await
    }
}

/// The numbers of each origin's objects.
pub(super) fn ranges(head: &Head) -> Vec<Range<u64>> {
    let mut from = 0;
    let range = |origin: &super::origin::Origin| {
        let range = from..origin.below;
        from = origin.below;
        range
    };
    head.origins.iter().map(range).collect()
}

fn refers(state: &State, range: &Range<u64>) -> bool {
    state.usage.has_any(range.clone()) || state.head.layers.iter().any(|layer| range.contains(&layer.id.0))
}

impl<S: Store> Inner<S> {
    /// Sees that the origins know what is needed of them; a writer also tells them where this clone is by now.
    ///
    /// Without its pin an origin is not read: what is there may be gone already; and whoever can write to this volume's store
    /// alone, and put another one's address into HEAD, shall not come to read that.
    pub async fn check_pins(&self) -> Result<()> {
        let head = self.head();
        for (origin, open) in head.origins.iter().zip(&self.origins).filter(|(origin, _)| !origin.left) {
            let failed = |operation, source| {
                let place = format!("{}/clones/{}", origin.address, self.volume);
                CapacityError::Io { operation, place, source }
            };
            let store = open.store().map_err(|error| failed("read", error))?;
            // A mount point without its file system is not the origin.
            read_head(store, Some(origin.volume)).await?;
            let pins = store.pins().await.map_err(|error| failed("read", error))?;
            let found = pins.into_iter().find(|(clone, _)| *clone == self.volume);
            let found = found.map(|(_, bytes)| Pin::read(&bytes, origin.volume, self.volume));
            let keeps = |pin: &Pin| pin.below >= origin.below && pin.epoch >= origin.epoch;
            let Some(found) = found.filter(keeps) else {
                let (place, origin) = (self.store.place(), origin.address.clone());
                return Err(CapacityError::NotPinned { place, origin });
            };
            let pin = pin_of(origin, self.volume, found.name.clone(), self.store.place(), found.created_us);
            if self.generation.is_some() && pin != found {
                store.put_pin(self.volume, pin.encode()).await.map_err(|error| failed("write", error))?;
            }
        }
        Ok(())
    }

    /// Leaves the origins to whom nothing refers any more, and removes the pins that are not needed; whether anything was
    /// done.
    pub async fn leave_origins(self: &Rc<Self>) -> Result<bool> {
        let due = self.due();
        let leaving: Vec<VolumeUuid> = {
            let state = self.state.borrow();
            let origins = state.head.origins.iter().zip(ranges(&state.head));
            origins
                .filter(|(origin, range)| !origin.left && !refers(&state, range))
                .map(|(origin, _)| origin.volume)
                .collect()
        };
        if !leaving.is_empty() {
            let change = move |head: &mut Head| {
                let gone = head.origins.iter_mut().filter(|origin| leaving.contains(&origin.volume));
                gone.for_each(|origin| origin.left = true);
                Ok(())
            };
            self.update_head(change, move |state| state.unpin_due = Some(due)).await?;
            return Ok(true);
        }
        let head = self.head();
        if !head.origins.iter().any(|origin| origin.left) {
            return Ok(false);
        }
        let now = (self.options.now)();
        let is_due = *self.state.borrow_mut().unpin_due.get_or_insert(due) <= now;
        if !is_due || !self.head_is_ours().await? {
            return Ok(false);
        }
        // Looked up after HEAD was read: whoever takes one later reads a HEAD that has left.
        let leased = self.store.leased().await.map_err(|error| self.io_error("list", "leases", error))?;
        if !leased.is_empty() {
            return Ok(false);
        }
        let left: Vec<_> = head.origins.iter().filter(|origin| origin.left).collect();
        for origin in &left {
            let Some(open) = self.origins.iter().find(|open| open.volume == origin.volume) else { continue };
            let removed = match open.store() {
                Ok(store) => store.remove_pin(self.volume).await,
                Err(error) => Err(error),
            };
            removed.map_err(|source| {
                let place = format!("{}/clones/{}", origin.address, self.volume);
                CapacityError::Io { operation: "remove", place, source }
            })?;
        }
        let left: Vec<VolumeUuid> = left.iter().map(|origin| origin.volume).collect();
        let change = move |head: &mut Head| {
            head.origins.retain(|origin| !left.contains(&origin.volume));
            Ok(())
        };
        self.update_head(change, |state| state.unpin_due = None).await?;
        Ok(true)
    }
}

impl State {
    /// Queues a segment that nothing refers to any more; an origin's is only forgotten.
    pub fn queue_segment(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        due: std::time::Duration,
        from_epoch: forerun::geometry::Epoch,
    ) {
        if segment.0 >= self.own_from {
            self.deletions.queue(ObjectName::segment(segment), bytes, due, from_epoch);
        }
    }
}
