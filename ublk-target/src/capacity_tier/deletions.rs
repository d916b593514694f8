//! Objects that nothing refers to any more, until they are deleted.
//!
//! An object is deleted only when its time has come, HEAD in the store is the one known here, that HEAD
//! does not refer to it, nobody holds a lease on an epoch that could need it, and no clone's pin is on it. The queue is in
//! memory:
//! after a crash the next
//! writer finds the same objects by comparing what is there with HEAD.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use forerun::geometry::{Epoch, SegmentId};

use super::error::Result;
use super::head::Head;
use super::layer_page::{PAGE_BYTES, Page, TableIdentity, decode};
use super::names::{LayerId, ObjectKind, ObjectName};
use super::pin::Pin;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::state::{Inner, State};
use super::store::Store;

/// The most objects deleted in one go.
pub const DELETIONS_PER_STEP: usize = 64;

/// An object to be deleted.
#[derive(Clone, Copy, Debug)]
struct Deletion {
    name: ObjectName,
    bytes: u64,
    due: Duration,
    /// A lease on this epoch or a later one may need the object.
    from_epoch: Epoch,
    /// The last epoch of the layer that it was written for, once that was looked up in the object.
    written_for: Option<Epoch>,
    /// Whether a clone needed it when it was last looked at.
    pinned: bool,
}

/// The objects to be deleted.
#[derive(Default)]
pub(super) struct Deletions(VecDeque<Deletion>);

impl Deletions {
    /// Queues an object of a layer that begins at `from_epoch` (0 where that is not known).
    pub fn queue(&mut self, name: ObjectName, bytes: u64, due: Duration, from_epoch: Epoch) {
        let (written_for, pinned) = (None, false);
        self.0.push_back(Deletion { name, bytes, due, from_epoch, written_for, pinned });
    }

    /// All objects in the queue.
    pub fn names(&self) -> impl Iterator<Item = ObjectName> {
        self.0.iter().map(|deletion| deletion.name)
    }

    /// Bytes of all objects in the queue that no clone needs.
    pub fn bytes(&self) -> u64 {
        self.0.iter().filter(|deletion| !deletion.pinned).map(|deletion| deletion.bytes).sum()
    }

    /// Bytes of the objects in the queue that only clones need.
    pub fn pinned_bytes(&self) -> u64 {
        self.0.iter().filter(|deletion| deletion.pinned).map(|deletion| deletion.bytes).sum()
    }

    /// How many objects in the queue no clone needs.
    pub fn free_len(&self) -> usize {
        self.0.iter().filter(|deletion| !deletion.pinned).count()
    }

    /// How many objects are in the queue.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a step of deletions did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deleted {
    /// Objects deleted.
    pub objects: u32,
    /// Their bytes.
    pub bytes: u64,
}

fn refers(state: &State, head: &Head, name: ObjectName) -> bool {
    match name.kind {
        ObjectKind::Segment => state.usage.contains(SegmentId(name.number)),
        ObjectKind::Layer => head.layers.iter().any(|layer| layer.id == LayerId(name.number)),
        ObjectKind::Warm => false,
    }
}

impl<S: Store> Inner<S> {
    /// When an object that is queued now is due.
    pub fn due(&self) -> Duration {
        self.due_from()()
    }

    /// The same for one that is queued later, by a HEAD that is yet to be replaced: the delay counts from when it was.
    pub fn due_from(&self) -> impl Fn() -> Duration + use<S> {
        let (now, delay) = (Rc::clone(&self.options.now), self.options.deletion_delay);
        move || now() + delay
    }

    /// Deletes what is due, at most [`DELETIONS_PER_STEP`] objects.
    pub async fn delete_due(self: &Rc<Self>) -> Result<Deleted> {
        let now = (self.options.now)();
        let mut done = Deleted::default();
        if !self.state.borrow().deletions.0.iter().any(|deletion| deletion.due <= now) {
            return Ok(done);
        }
        if self.in_doubt() {
            // Nothing else may come to settle which HEAD is there, and space would never come back.
            self.update_head(|_| Ok(()), |_| ()).await?;
        }
        if !self.head_is_ours().await? {
            return Ok(done);
        }
        // Leases and pins are looked up after HEAD was read: whoever takes one later reads a HEAD without these objects.
        self.look_at_pins().await?;
        let leased = self.store.leased().await.map_err(|error| self.io_error("list", "leases", error))?;
        let newest_lease = leased.into_iter().max();
        let (queued, mut looked) = (self.state.borrow().deletions.len(), 0);
        for _ in 0..queued {
            let Some(mut deletion) = self.state.borrow_mut().deletions.0.pop_front() else { break };
            let held = newest_lease.is_some_and(|lease| lease >= deletion.from_epoch);
            let mut wait = deletion.due > now || held || done.objects as usize >= DELETIONS_PER_STEP;
            if !wait {
                // An object whose header cannot be read now stays in the queue.
                let pinned = self.is_pinned(&mut deletion, &mut looked).await;
                deletion.pinned = *pinned.as_ref().unwrap_or(&true);
                wait = deletion.pinned;
                if let Err(error) = pinned {
                    self.state.borrow_mut().deletions.0.push_back(deletion);
                    return Err(error);
                }
            }
            if wait {
                self.state.borrow_mut().deletions.0.push_back(deletion);
                continue;
            }
            let referred_to = {
                let state = self.state.borrow();
                refers(&state, &state.head, deletion.name)
            };
            if referred_to {
                // Queued and taken up again would be a defect; the data stays in any case.
                tracing::error!(object = %deletion.name, "an object in use was queued for deletion");
                continue;
            }
            if let Err(error) = self.store.delete(deletion.name).await {
                self.state.borrow_mut().deletions.0.push_back(deletion);
                return Err(self.io_error("delete", deletion.name, error));
            }
            done.objects += 1;
            done.bytes += deletion.bytes;
        }
        debug_assert!(done.objects as usize <= DELETIONS_PER_STEP);
        Ok(done)
    }
}

impl<S: Store> Inner<S> {
    /// Looks up which clones there are.
    pub async fn look_at_pins(&self) -> Result<()> {
        let pins = self.read_pins().await?;
        self.state.borrow_mut().pins = pins;
        Ok(())
    }

    /// Whether a clone may need the object. `looked` counts how many objects were read for that in this step.
    async fn is_pinned(&self, deletion: &mut Deletion, looked: &mut usize) -> Result<bool> {
        let number = deletion.name.number;
        let needs = |epoch| self.state.borrow().pins.iter().any(|pin| pin.needs(number, epoch));
        if !needs(deletion.from_epoch) {
            return Ok(false);
        }
        if deletion.written_for.is_none() {
            if *looked >= DELETIONS_PER_STEP {
                return Ok(true);
            }
            *looked += 1;
            match self.written_for(deletion.name).await {
                Ok(epoch) => deletion.written_for = Some(epoch),
                Err(error) if error.is_not_found() => return Ok(false),
                // It may be one that a clone needs, or had needed.
                Err(error) if super::damage::is_damage(&error) => deletion.written_for = Some(Epoch(0)),
                Err(error) => return Err(error),
            }
        }
        Ok(deletion.written_for.is_some_and(needs))
    }

    /// Whether one of these clones may need an object that HEAD does not.
    pub async fn is_needed_by(&self, pins: &[Pin], name: ObjectName) -> Result<bool> {
        if !pins.iter().any(|pin| pin.needs(name.number, Epoch(0))) {
            return Ok(false);
        }
        match self.written_for(name).await {
            Ok(epoch) => Ok(pins.iter().any(|pin| pin.needs(name.number, epoch))),
            Err(error) if super::damage::is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The last epoch of the layer that an object of this volume was written for, as it says itself.
    async fn written_for(&self, name: ObjectName) -> Result<Epoch> {
        let len = match name.kind {
            ObjectKind::Segment => SEGMENT_HEADER_BYTES,
            ObjectKind::Layer => PAGE_BYTES,
            // A clone needs none of its origin's.
            ObjectKind::Warm => return Ok(Epoch(u32::MAX)),
        };
        let bytes = self.read_range(name, 0, len, Vec::new()).await?;
        let epoch = match name.kind {
            ObjectKind::Segment => {
                SegmentHeader::decode(&bytes, self.volume, SegmentId(name.number)).map(|header| header.epoch)
            }
            ObjectKind::Layer => {
                let table = TableIdentity { volume: self.volume, layer: LayerId(name.number) };
                decode(&bytes, table, 0).map(|page| match page {
                    Page::Opening(opening) => opening.last_epoch,
                    _ => Epoch(0),
                })
            }
            ObjectKind::Warm => Ok(Epoch(u32::MAX)),
        };
        epoch.map_err(|fault| self.corrupt(name, fault))
    }
}

/// An object that is being written: queued for deletion unless it is kept.
pub(super) struct Provisional<S: Store> {
    tier: Weak<Inner<S>>,
    pub name: ObjectName,
    kept: std::cell::Cell<bool>,
}

impl<S: Store> Provisional<S> {
    /// Notes an object that is about to be written.
    pub fn new(tier: &Rc<Inner<S>>, name: ObjectName) -> Rc<Self> {
        Rc::new(Self { tier: Rc::downgrade(tier), name, kept: std::cell::Cell::new(false) })
    }

    /// HEAD refers to the object now.
    pub fn keep(&self) {
        self.kept.set(true);
    }
}

impl<S: Store> Drop for Provisional<S> {
    fn drop(&mut self) {
        let Some(tier) = self.tier.upgrade().filter(|_| !self.kept.get()) else { return };
        let due = tier.due();
        // Never borrowed while something that can be dropped with it runs; a missed object is found after
        // the next opening.
        if let Ok(mut state) = tier.state.try_borrow_mut() {
            state.deletions.queue(self.name, 0, due, Epoch(0));
        }
    }
}
