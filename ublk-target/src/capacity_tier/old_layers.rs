//! Which layers a damaged capacity tier has: as HEAD tells, or, where HEAD is lost, as the tables themselves do.
//!
//! Without HEAD the tables that are there may overlap: what was merged stays for a while beside what it was merged
//! into, and a crash can leave the result before HEAD names it. Both say the same about the newest epoch of the wider
//! one, so the widest sound table wins, and of two of the same epochs the one with the higher number, which was written later.
//! Merging never crosses a snapshot, so no named point is lost by this, but the names are: only HEAD has them.

use std::collections::BTreeMap;

use forerun::geometry::Epoch;

use super::entry::EntryCounts;
use super::error::Result;
use super::head::LayerInfo;
use super::names::{LayerId, ObjectKind, SnapshotName};
use super::segment_scan::RecordIndex;
use super::state::Inner;
use super::store::Store;
use super::table_scan::{Expected, TableScan, scan_table};

/// A layer to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OldLayer {
    /// Its table's object; `None` where only records tell of its epochs.
    pub id: Option<LayerId>,
    pub first_epoch: Epoch,
    pub last_epoch: Epoch,
    pub opened_us: u64,
    pub sealed_us: u64,
    /// Its entries by kind, if HEAD or its last page tells.
    pub counts: Option<EntryCounts>,
    /// Its pages, if HEAD tells.
    pub pages: Option<u32>,
    pub snapshot: Option<SnapshotName>,
    pub reclaim: bool,
}

impl From<&LayerInfo> for OldLayer {
    fn from(info: &LayerInfo) -> Self {
        Self {
            id: Some(info.id),
            first_epoch: info.first_epoch,
            last_epoch: info.last_epoch,
            opened_us: info.opened_us,
            sealed_us: info.sealed_us,
            counts: Some(info.counts),
            pages: Some(info.pages),
            snapshot: info.snapshot.clone(),
            reclaim: info.reclaim,
        }
    }
}

impl OldLayer {
    /// Reads its table, whatever its state.
    pub async fn scan<S: Store>(&self, tier: &Inner<S>, lens: &BTreeMap<u64, u64>) -> Result<TableScan> {
        let id = self.id.unwrap_or(LayerId(0));
        let len = self.id.and_then(|id| lens.get(&id.0)).copied();
        let expected = Expected { pages: self.pages, epochs: Some((self.first_epoch, self.last_epoch)) };
        scan_table(tier, id, len, expected).await
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first_epoch <= other.last_epoch && other.first_epoch <= self.last_epoch
    }
}

/// The lengths of the objects of a kind, by number.
pub(super) async fn lengths<S: Store>(tier: &Inner<S>, kind: ObjectKind) -> Result<BTreeMap<u64, u64>> {
    match tier.list_all(kind).await {
        Ok(listed) => Ok(listed.into_iter().map(|(name, len)| (name.number, len)).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(tier.io_error("list", kind.folder(), error)),
    }
}

/// Pieces the layers together without HEAD, oldest first.
pub(super) async fn find_layers<S: Store>(
    tier: &Inner<S>,
    lens: &BTreeMap<u64, u64>,
    notes: &mut Vec<String>,
) -> Result<Vec<OldLayer>> {
    let mut candidates: Vec<(bool, OldLayer)> = Vec::new();
    for (number, len) in lens {
        let id = LayerId(*number);
        let scan = scan_table(tier, id, Some(*len), Expected { pages: None, epochs: None }).await?;
        let Some(opening) = scan.opening else {
            notes.push(format!("layers/{number:016x} does not tell its epochs and is left out"));
            continue;
        };
        let layer = OldLayer {
            id: Some(id),
            first_epoch: opening.first_epoch,
            last_epoch: opening.last_epoch,
            opened_us: opening.opened_us,
            sealed_us: opening.sealed_us,
            counts: scan.closing.map(|closing| closing.counts),
            pages: scan.closing.map(|closing| closing.pages),
            snapshot: None,
            reclaim: false,
        };
        candidates.push((scan.is_sound(), layer));
    }
    let width = |layer: &OldLayer| layer.last_epoch.0 - layer.first_epoch.0;
    candidates
        .sort_by_key(|(sound, layer)| std::cmp::Reverse((*sound, width(layer), layer.id.map(|id| id.0))));
    let mut chosen: Vec<OldLayer> = Vec::new();
    for (_, layer) in candidates {
        if !chosen.iter().any(|other| other.overlaps(&layer)) {
            chosen.push(layer);
        }
    }
    chosen.sort_unstable_by_key(|layer| layer.first_epoch);
    Ok(chosen)
}

/// Adds a layer for each run of epochs of which only records tell, before the newest layer; what is newer than that may
/// be a write-back that did not come to its end, and is only told of. Where no table is left at all, records are all
/// there is.
pub(super) fn add_lost_layers(layers: &mut Vec<OldLayer>, index: &RecordIndex, notes: &mut Vec<String>) {
    let newest = layers.last().map(|layer| layer.last_epoch);
    let mut lost: Vec<OldLayer> = Vec::new();
    for epoch in index.epochs() {
        if layers.iter().any(|layer| (layer.first_epoch..=layer.last_epoch).contains(&epoch)) {
            continue;
        }
        if newest.is_some_and(|newest| epoch > newest) {
            notes.push(format!("records of epoch {epoch} are there without a table, and are left out"));
            continue;
        }
        let between =
            |a: Epoch, b: Epoch| layers.iter().any(|layer| layer.first_epoch > a && layer.last_epoch < b);
        match lost.last_mut() {
            Some(layer) if !between(layer.last_epoch, epoch) => layer.last_epoch = epoch,
            _ => lost.push(OldLayer {
                id: None,
                first_epoch: epoch,
                last_epoch: epoch,
                opened_us: 0,
                sealed_us: 0,
                counts: None,
                pages: None,
                snapshot: None,
                reclaim: false,
            }),
        }
    }
    layers.append(&mut lost);
    layers.sort_unstable_by_key(|layer| layer.first_epoch);
}
