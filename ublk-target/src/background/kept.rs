//! The snapshots on the capacity tier, with what changed since the one before, for the other threads.
//!
//! Where several layers lie between two snapshots their changes are counted together: a block that changed in each of
//! them is one. That takes reading their tables, once: the counts are kept as long as the layers are there, and
//! do not change when they are merged.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use forerun::config::SnapshotName;
use forerun::geometry::Epoch;

use super::{Tasks, World};
use crate::capacity_tier::{EntryCounts, LayerId, LayerInfo};
use crate::volume::lock;

/// A kept epoch on the capacity tier, as HEAD tells it.
#[derive(Clone, Debug)]
pub struct KeptLayer {
    /// Its name.
    pub name: SnapshotName,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was sealed, in microseconds since 1970.
    pub sealed_us: u64,
    /// Bytes the volume held.
    pub data_bytes: u64,
    /// Changes since the snapshot before it.
    pub added: u64,
    /// As `added`.
    pub modified: u64,
    /// As `added`.
    pub deleted: u64,
    /// When the first of those layers began.
    pub since_us: u64,
}

/// Counts of runs of layers, by what they are made of.
pub(super) type Counted = RefCell<HashMap<Vec<LayerId>, EntryCounts>>;

/// Tells the other threads which snapshots HEAD has, at once; they are counted by [`keep_counting`].
pub(super) fn note_kept(tasks: &Tasks<impl World>) {
    note_names(tasks);
    tasks.wake_counter.notify_one();
}

/// As [`note_kept`]: what has not been counted yet is the sum over its layers.
fn note_names(tasks: &Tasks<impl World>) {
    let (head, mut counted) = (tasks.capacity.head(), tasks.counted.borrow_mut());
    let mut kept = Vec::new();
    let mut known = HashMap::new();
    for run in runs(head.layers()) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let name = last.snapshot.as_ref().and_then(|name| SnapshotName::new(name.as_str()).ok());
        let Some(name) = name else { continue };
        let ids = ids(run);
        let counts = counted.get(&ids).copied();
        if let Some(counts) = counts {
            known.insert(ids, counts);
        }
        let counts = counts.unwrap_or_else(|| sum(run));
        kept.push(KeptLayer {
            name,
            epoch: last.last_epoch,
            sealed_us: last.sealed_us,
            data_bytes: last.mapped_bytes(),
            added: counts.added.into(),
            modified: counts.modified.into(),
            deleted: counts.deleted.into(),
            since_us: first.opened_us,
        });
    }
    *counted = known;
    *lock(&tasks.shared.kept) = kept;
}

/// Counts what has not been counted whenever names were noted, and tells of that too; for ever, until it is aborted. It reads,
/// so that nobody waits for it.
pub(super) async fn keep_counting(tasks: Rc<Tasks<impl World>>) {
    loop {
        // Those that were noted before this began have left their word.
        tasks.wake_counter.notified().await;
        count(&tasks).await;
    }
}

async fn count(tasks: &Tasks<impl World>) {
    let mut told = true;
    for run in runs(tasks.capacity.head().layers()) {
        let ids = ids(run);
        let named = run.last().is_some_and(|layer| layer.snapshot.is_some());
        // A layer by itself is its own count.
        if !named || run.len() == 1 || tasks.counted.borrow().contains_key(&ids) {
            continue;
        }
        let counts = tasks.capacity.counts(run).await.unwrap_or_else(|error| {
            // The snapshot is there all the same; reading it will say more.
            tracing::warn!(%error, "the changes of a snapshot cannot be counted: its layers are counted one by one");
            sum(run)
        });
        tasks.counted.borrow_mut().insert(ids, counts);
        told = false;
    }
    if !told {
        // HEAD may be another one by now.
        note_names(tasks);
    }
}

/// Layers up to a snapshot each; the last ones may have none.
fn runs(layers: &[LayerInfo]) -> impl Iterator<Item = &[LayerInfo]> {
    layers.split_inclusive(|layer| layer.snapshot.is_some())
}

fn ids(run: &[LayerInfo]) -> Vec<LayerId> {
    run.iter().map(|layer| layer.id).collect()
}

/// Counts of layers taken by themselves: a block that changed in two of them is two changes.
fn sum(run: &[LayerInfo]) -> EntryCounts {
    run.iter().fold(EntryCounts::default(), |mut sum, layer| {
        sum.added = sum.added.saturating_add(layer.counts.added);
        sum.modified = sum.modified.saturating_add(layer.counts.modified);
        sum.deleted = sum.deleted.saturating_add(layer.counts.deleted);
        sum
    })
}
