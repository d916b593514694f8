//! The snapshots on the capacity tier, with what changed since the one before, for the other threads.
//!
//! Where several layers lie between two snapshots their changes are counted together: a block that changed in each of
//! them is one. That takes reading their tables, once: the counts are kept as long as the layers are there, and
//! do not change when they are merged.

use std::cell::RefCell;
use std::collections::HashMap;

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

/// Tells the other threads which snapshots HEAD has.
pub(super) async fn note_kept(tasks: &Tasks<impl World>) {
    let head = tasks.capacity.head();
    let (mut kept, mut counted) = (Vec::new(), HashMap::new());
    for run in head.layers().split_inclusive(|layer| layer.snapshot.is_some()) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let name = last.snapshot.as_ref().and_then(|name| SnapshotName::new(name.as_str()).ok());
        let Some(name) = name else { continue };
        let (ids, counts) = count(tasks, run).await;
        counted.insert(ids, counts);
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
    *tasks.counted.borrow_mut() = counted;
    *lock(&tasks.shared.kept) = kept;
}

async fn count(tasks: &Tasks<impl World>, run: &[LayerInfo]) -> (Vec<LayerId>, EntryCounts) {
    let ids: Vec<LayerId> = run.iter().map(|layer| layer.id).collect();
    let known = tasks.counted.borrow().get(&ids).copied();
    if let Some(counts) = known {
        return (ids, counts);
    }
    let counts = tasks.capacity.counts(run).await.unwrap_or_else(|error| {
        // The snapshot is there all the same; reading it will say more.
        tracing::warn!(%error, "the changes of a snapshot cannot be counted: its layers are counted one by one");
        run.iter().fold(EntryCounts::default(), |mut sum, layer| {
            sum.added = sum.added.saturating_add(layer.counts.added);
            sum.modified = sum.modified.saturating_add(layer.counts.modified);
            sum.deleted = sum.deleted.saturating_add(layer.counts.deleted);
            sum
        })
    });
    (ids, counts)
}
