//! Keeping history small: merging layers, compacting segments, deleting what nothing refers to.
//!
//! [`CapacityTier::maintain`] does one step; whoever calls it paces it. A step reads and writes at most a few
//! layers' tables and
//! about 64 MiB of records, in a few MiB of memory. Every step is: write new objects, replace HEAD, queue the
//! old ones. A crash in
//! the middle leaves objects that nobody refers to, which the next writer deletes. Commits, snapshots and
//! reads go on meanwhile;
//! when they change the very layers a step works on, the step gives up and its objects are deleted.

use std::ops::Range;
use std::rc::Rc;

use forerun::geometry::{BlockIndex, Epoch};

use super::deletions::Deleted;
use super::error::{CapacityError, Result};
use super::head::{Head, LayerInfo};
use super::layer_page::{ENTRY_BYTES, Opening, PAGE_BYTES};
use super::maintain_policy::{Urgency, choose_compaction, choose_merge, choose_promotion};
use super::merge_cursor::MergeCursor;
use super::names::ObjectName;
use super::paced::Paced;
use super::place::Place;
use super::state::{Inner, State};
use super::store::Store;
use super::table_writer::TableWriter;
use super::tier::CapacityTier;
use super::usage::{Released, release};

/// A record that was copied: whoever holds the old place takes the new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    /// The block.
    pub block: BlockIndex,
    /// Where its record was; it stays readable for the delay of deletions.
    pub old: Place,
    /// Where it is now.
    pub new: Place,
}

/// What a step of maintenance did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Maintained {
    /// What was deleted.
    pub deleted: Deleted,
    /// How many layers became one.
    pub merged_layers: u32,
    /// How many segments were compacted.
    pub compacted_segments: u32,
    /// The records that were copied, to be followed before the next step.
    pub relocations: Vec<Relocation>,
    /// Whether there may be more to do at once.
    pub more: bool,
}

/// A step is under way.
pub(super) struct Busy<'a>(pub &'a std::cell::Cell<bool>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<S: Store> CapacityTier<S> {
    /// Does one step: deletes what is due, looks once for what earlier writers left, then merges some layers, or else compacts
    /// some segments.
    ///
    /// Relocations have to be followed before the next step, and at the latest when the delay of deletions
    /// has passed: then
    /// the old places are gone.
    ///
    /// # Errors
    /// A reader, a fenced writer, a failing store, damage (the damaged object is left alone from then on).
    /// Whatever the
    /// error, everything reads as before.
    pub async fn maintain(&self, urgency: Urgency) -> Result<Maintained> {
        let inner = &self.inner;
        inner.writer()?;
        if inner.maintaining.replace(true) {
            return Err(CapacityError::Misuse("two steps of maintenance at a time".to_owned()));
        }
        let _busy = Busy(&inner.maintaining);
        // First, so that what this step replaces is not deleted before its caller knows.
        let mut done = Maintained { deleted: inner.delete_due().await?, ..Maintained::default() };
        if let Err(error) = inner.store.replenish().await {
            tracing::debug!(%error, "no room is kept for HEAD");
        }
        inner.survey().await;
        let head = self.head();
        let merge = choose_merge(&head, &inner.state.borrow().damaged, &inner.options, urgency);
        let stepped = if let Some(range) = merge {
            done.merged_layers = range.len() as u32;
            inner.merge(&head, range).await
        } else {
            let chosen = {
                let state = inner.state.borrow();
                let State { usage, damaged, pins, own_from, .. } = &*state;
                choose_promotion(&head, usage, damaged, *own_from).or_else(|| {
                    choose_compaction(&head, usage, damaged, pins, *own_from, &inner.options, urgency)
                })
            };
            let Some(chosen) = chosen else {
                done.more = inner.leave_origins().await?;
                return Ok(done);
            };
            done.compacted_segments = chosen.segments.len() as u32;
            inner.compact(&head, &chosen).await.map(|relocations| done.relocations = relocations)
        };
        match stepped {
            Ok(()) => {}
            Err(CapacityError::Overtaken) => (done.merged_layers, done.compacted_segments) = (0, 0),
            Err(error) => return Err(error),
        }
        done.more = true;
        Ok(done)
    }
}

impl State {
    /// Queues the table of a layer that HEAD does not name any more; an origin's is only forgotten.
    pub fn queue_table(&mut self, layer: &LayerInfo, due: std::time::Duration, from_epoch: Epoch) {
        if layer.id.0 < self.own_from {
            return;
        }
        let bytes = u64::from(layer.pages) * PAGE_BYTES as u64;
        self.deletions.queue(ObjectName::layer(layer.id), bytes, due, from_epoch);
    }
}

impl<S: Store> Inner<S> {
    async fn merge(self: &Rc<Self>, head: &Head, range: Range<usize>) -> Result<()> {
        let from_bottom = range.start == 0;
        let layers = head.layers().get(range).unwrap_or_default().to_vec();
        let (Some(first), Some(last)) = (layers.first().cloned(), layers.last()) else { return Ok(()) };
        let opening = Opening {
            first_epoch: first.first_epoch,
            last_epoch: last.last_epoch,
            opened_us: first.opened_us,
            sealed_us: last.sealed_us,
            generation: self.writer()?,
        };
        let mut released = Released::new();
        let mut table = TableWriter::begin(self, opening).await?;
        let mut merge = MergeCursor::begin(self, &layers, None).await?;
        let mut paced = Paced::new(&self.options.pace);
        while let Some(entry) = merge.next(&mut |place| release(&mut released, place)).await? {
            // Read in one table at least, and written.
            paced.moved(2 * ENTRY_BYTES as u64).await;
            // Where nothing lies below, a tombstone hides nothing.
            if entry.place.is_some() || !from_bottom {
                table.push(entry).await?;
            }
        }
        let table = table.finish().await?;
        let (object, id, pages, counts) = (table.object, table.id, table.pages, table.counts);
        let merged = LayerInfo {
            id,
            pages,
            counts,
            first_epoch: opening.first_epoch,
            opened_us: opening.opened_us,
            ..last.clone()
        };
        let (due_from, from_epoch) = (self.due_from(), opening.first_epoch);
        let inputs: Vec<_> = layers.iter().map(|layer| layer.id).collect();
        let change = move |head: &mut Head| replace_run(head, &inputs, merged);
        let note = move |state: &mut State| {
            object.keep();
            let due = due_from();
            for (segment, bytes) in state.usage.release(&released) {
                state.queue_segment(segment, bytes, due, from_epoch);
            }
            for layer in &layers {
                state.queue_table(layer, due, from_epoch);
            }
        };
        self.update_head(change, note).await.map(|_| ())
    }
}

/// Puts one layer in the place of a run of layers, if they are all still there and only the last one has a
/// name.
fn replace_run(head: &mut Head, inputs: &[super::names::LayerId], mut merged: LayerInfo) -> Result<()> {
    let first = head.layers.iter().position(|layer| Some(&layer.id) == inputs.first());
    let first = first.ok_or(CapacityError::Overtaken)?;
    let run = head.layers.get(first..first + inputs.len()).ok_or(CapacityError::Overtaken)?;
    let same = run.iter().map(|layer| layer.id).eq(inputs.iter().copied());
    let Some((last, inner)) = run.split_last().filter(|_| same) else { return Err(CapacityError::Overtaken) };
    if inner.iter().any(|layer| layer.snapshot.is_some()) {
        return Err(CapacityError::Overtaken);
    }
    // The name may have come or gone meanwhile.
    merged.snapshot.clone_from(&last.snapshot);
    merged.reclaim = last.reclaim;
    head.layers.splice(first..first + inputs.len(), [merged]);
    Ok(())
}
