//! Objects that nothing refers to any more, until they are deleted.
//!
//! An object is deleted only when its time has come, HEAD in the store is the one known here, that HEAD
//! does not refer to it, and nobody holds a lease on an epoch that could need it. The queue is in memory:
//! after a crash the next
//! writer finds the same objects by comparing what is there with HEAD.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use forerun::geometry::{Epoch, SegmentId};

use super::error::Result;
use super::head::Head;
use super::names::{LayerId, ObjectKind, ObjectName};
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
}

/// The objects to be deleted.
#[derive(Default)]
pub(super) struct Deletions(VecDeque<Deletion>);

impl Deletions {
    /// Queues an object of a layer that begins at `from_epoch` (0 where that is not known).
    pub fn queue(&mut self, name: ObjectName, bytes: u64, due: Duration, from_epoch: Epoch) {
        self.0.push_back(Deletion { name, bytes, due, from_epoch });
    }

    /// Bytes of all objects in the queue.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|deletion| deletion.bytes).sum()
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
    }
}

impl<S: Store> Inner<S> {
    /// When an object that is queued now is due.
    pub fn due(&self) -> Duration {
        (self.options.now)() + self.options.deletion_delay
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
        // Leases are looked up after HEAD was read: whoever takes one later reads a HEAD without these objects.
        let leased = self.store.leased().await.map_err(|error| self.io_error("list", "leases", error))?;
        let newest_lease = leased.into_iter().max();
        let queued = self.state.borrow().deletions.len();
        for _ in 0..queued {
            let Some(deletion) = self.state.borrow_mut().deletions.0.pop_front() else { break };
            let held = newest_lease.is_some_and(|lease| lease >= deletion.from_epoch);
            if deletion.due > now || held || done.objects as usize >= DELETIONS_PER_STEP {
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
        Ok(done)
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
        // Never borrowed while something that can be dropped with it runs; a missed object is found at the
        // next opening.
        if let Ok(mut state) = tier.state.try_borrow_mut() {
            state.deletions.queue(self.name, 0, due, Epoch(0));
        }
    }
}
