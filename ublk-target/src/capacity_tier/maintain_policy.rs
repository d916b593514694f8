//! What maintenance does next: which layers to merge, which segments to compact. Pure: it looks at HEAD and
//! at the segments' use.
//!
//! Merging is size-tiered: neighbours are merged when the older one is not much larger than the newer ones
//! together. So each entry is rewritten O(log n) times over a volume's life, and what is superseded but not yet
//! merged away stays below a quarter of the layers' entries. A deleted snapshot is merged at once: it was
//! deleted for its space.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use forerun::geometry::SegmentId;

use super::head::{Head, LayerInfo, MAX_LAYERS};
use super::layer_page::PAGE_BYTES;
use super::names::{LayerId, ObjectName};
use super::options::{Options, SMALL_SEGMENT_BYTES, SMALL_SEGMENTS};
use super::pin::Pin;
use super::place::UNIT_BYTES;
use super::usage::{SegmentUse, Usage};

/// The most layers merged in one step.
pub const MERGE_WIDTH: usize = 16;
/// An older layer is merged with the newer ones when it has at most so many times their entries.
pub const MERGE_RATIO: u64 = 4;
/// From so many layers on all that can be merged are, whether it pays or not: HEAD has room for twice as many.
pub const CROWDED_LAYERS: usize = MAX_LAYERS / 2;
/// Live bytes copied in one step of compaction, at most, unless the table alone is larger (64 MiB).
pub const COMPACTION_STEP_BYTES: u64 = 64 << 20;

/// How pressing space is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Urgency {
    /// There is room: merge and compact where it pays.
    #[default]
    Relaxed,
    /// The store runs full: merge and compact whatever gives space back.
    SpaceShort,
}

/// Segments of one layer to be compacted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compaction {
    /// The layer that refers to them.
    pub layer: LayerId,
    /// The segments whose live records are to be copied.
    pub segments: BTreeSet<SegmentId>,
}

/// Chooses neighbouring layers to merge, as positions in HEAD; at least two, none but the last with a snapshot.
pub fn choose_merge(
    head: &Head,
    damaged: &BTreeSet<ObjectName>,
    options: &Options,
    urgency: Urgency,
) -> Option<Range<usize>> {
    let layers = head.layers();
    let whole = |layer: &LayerInfo| !damaged.contains(&ObjectName::layer(layer.id));
    // A layer can be merged with the next one.
    let joins = |at: usize| {
        let (this, next) = (layers.get(at), layers.get(at + 1));
        this.is_some_and(|layer| layer.snapshot.is_none() && whole(layer)) && next.is_some_and(whole)
    };
    let kept = if urgency == Urgency::SpaceShort { 0 } else { options.unmerged_layers };
    let old = layers.len().saturating_sub(kept);
    let reclaims = |at: usize| joins(at) && layers.get(at).is_some_and(|layer| layer.reclaim);
    if let Some(found) = (0..layers.len()).find(|at| reclaims(*at)) {
        // What the snapshot was the last to need may lie in the epochs before it, and be superseded in those after it: of the
        // newest layers all that can be merged with it are, or an idle volume would keep their space for good.
        let (mut first, mut last) = (found, found);
        while first > old && joins(first - 1) {
            first -= 1;
        }
        while joins(last) && (reclaims(last) || last >= old) && last + 1 < first + MERGE_WIDTH {
            last += 1;
        }
        debug_assert!(first <= found && found <= last && first < last, "{first}, {found}, {last}");
        return Some(first..last + 1);
    }
    let entries = |at: usize| layers.get(at).map_or(0, |layer| layer.counts.entries());
    for first in 0..old {
        let mut last = first;
        while joins(last) && last + 1 < old && last + 1 < first + MERGE_WIDTH {
            last += 1;
        }
        let newer: u64 = (first + 1..=last).map(entries).sum();
        let short = urgency == Urgency::SpaceShort || layers.len() >= CROWDED_LAYERS;
        let pays = short || entries(first) <= newer.saturating_mul(MERGE_RATIO);
        debug_assert!(last - first < MERGE_WIDTH);
        if last > first && pays {
            return Some(first..last + 1);
        }
    }
    None
}

#[derive(Default)]
struct Candidate {
    mostly_dead: Vec<(SegmentId, SegmentUse)>,
    small: Vec<(SegmentId, SegmentUse)>,
}

/// Chooses what is copied next from an origin that is to be left: segments of one layer, or only its table.
pub fn choose_promotion(
    head: &Head,
    usage: &Usage,
    damaged: &BTreeSet<ObjectName>,
    own_from: u64,
) -> Option<Compaction> {
    if !head.origins.iter().any(|origin| origin.promoting && !origin.left) {
        return None;
    }
    let mut of_layers: BTreeMap<LayerId, BTreeSet<SegmentId>> = BTreeMap::new();
    let mut copied: BTreeMap<LayerId, u64> = BTreeMap::new();
    for (segment, used) in usage.iter().take_while(|(segment, _)| segment.0 < own_from) {
        let Some(layer) = head.layer_holding(used.epoch) else { continue };
        let live_bytes = u64::from(used.live_units) * UNIT_BYTES;
        let all = copied.entry(layer.id).or_default();
        // A table that is larger than a step is rewritten for as much at a time.
        let step_bytes = COMPACTION_STEP_BYTES.max(u64::from(layer.pages) * PAGE_BYTES as u64);
        if damaged.contains(&ObjectName::segment(segment)) || (*all > 0 && *all + live_bytes > step_bytes) {
            continue;
        }
        *all += live_bytes;
        of_layers.entry(layer.id).or_default().insert(segment);
    }
    let whole = |layer: &&LayerInfo| !damaged.contains(&ObjectName::layer(layer.id));
    head.layers().iter().filter(whole).find_map(|layer| {
        let segments = of_layers.remove(&layer.id).unwrap_or_default();
        (!segments.is_empty() || layer.id.0 < own_from).then_some(Compaction { layer: layer.id, segments })
    })
}

/// Chooses segments of one layer whose live records are worth copying together. What clones need is left alone, since that
/// gives no space back, and so is what is an origin's.
pub fn choose_compaction(
    head: &Head,
    usage: &Usage,
    damaged: &BTreeSet<ObjectName>,
    pins: &[Pin],
    own_from: u64,
    options: &Options,
    urgency: Urgency,
) -> Option<Compaction> {
    let mut candidates: BTreeMap<LayerId, (&LayerInfo, Candidate)> = BTreeMap::new();
    for (segment, used) in usage.iter() {
        let Some(layer) = head.layer_holding(used.epoch) else { continue };
        if segment.0 < own_from || pins.iter().any(|pin| pin.needs(segment.0, layer.first_epoch)) {
            continue;
        }
        let hurt = |name| damaged.contains(&name);
        if hurt(ObjectName::segment(segment)) || hurt(ObjectName::layer(layer.id)) {
            continue;
        }
        let (live, all) = (u64::from(used.live_units), u64::from(used.units.saturating_sub(1)));
        let mostly_dead = match urgency {
            Urgency::Relaxed => live * 2 < all,
            Urgency::SpaceShort => live * 8 < all * 7,
        };
        let small =
            u64::from(used.units) * UNIT_BYTES < SMALL_SEGMENT_BYTES.min(options.segment_bytes as u64 / 2);
        if mostly_dead || small {
            let (_, candidate) = candidates.entry(layer.id).or_insert((layer, Candidate::default()));
            if mostly_dead { &mut candidate.mostly_dead } else { &mut candidate.small }
                .push((segment, *used));
        }
    }
    let mut best: Option<(u64, Compaction)> = None;
    for (layer, candidate) in candidates.into_values() {
        let table_bytes = u64::from(layer.pages) * PAGE_BYTES as u64;
        let step_bytes = COMPACTION_STEP_BYTES.max(table_bytes);
        let many_small = candidate.small.len() >= SMALL_SEGMENTS;
        let (mut copied, mut gained, mut segments) = (0, 0, BTreeSet::new());
        let small = candidate.small.into_iter().filter(|_| many_small);
        for (segment, used) in candidate.mostly_dead.into_iter().chain(small) {
            let live_bytes = u64::from(used.live_units) * UNIT_BYTES;
            if copied > 0 && copied + live_bytes > step_bytes {
                break;
            }
            copied += live_bytes;
            gained += used.dead_bytes();
            segments.insert(segment);
        }
        // Rewriting a large table for little would only wear the store.
        let pays = gained >= options.compaction_gain_bytes.max(1) && gained >= table_bytes.min(step_bytes);
        let pays = pays || (urgency == Urgency::SpaceShort && gained > table_bytes) || many_small;
        if pays && !segments.is_empty() && best.as_ref().is_none_or(|(most, _)| gained > *most) {
            best = Some((gained, Compaction { layer: layer.id, segments }));
        }
    }
    best.map(|(_, compaction)| compaction)
}

#[cfg(test)]
mod tests {
    use forerun::geometry::{Epoch, Geometry};

    use super::super::entry::EntryCounts;
    use super::super::names::{SnapshotName, VolumeUuid};
    use super::*;

    /// Layers of one epoch each; every `named`th is a snapshot, and each is far larger than the next one, so that
    /// merging does not pay.
    fn head(layers: u32, named: u32) -> Head {
        let layer = |epoch: u32| LayerInfo {
            id: LayerId(epoch.into()),
            first_epoch: Epoch(epoch),
            last_epoch: Epoch(epoch),
            opened_us: 0,
            sealed_us: 0,
            counts: EntryCounts { added: 100_000 >> (4 * (epoch % named)), ..EntryCounts::default() },
            mapped_blocks: 1,
            pages: 1,
            reclaim: false,
            snapshot: (epoch % named == named - 1)
                .then(|| SnapshotName::new(format!("s{epoch}")).expect("a name")),
        };
        let geometry = Geometry::new(1 << 30, 4096).expect("a geometry");
        Head { layers: (0..layers).map(layer).collect(), ..Head::new(VolumeUuid([0; 16]), geometry) }
    }

    #[test]
    fn layers_are_merged_when_they_run_short_even_if_it_does_not_pay() {
        let choose =
            |head: &Head| choose_merge(head, &BTreeSet::new(), &Options::default(), Urgency::Relaxed);
        assert_eq!(choose(&head(100, 4)), None);
        let crowded = head(CROWDED_LAYERS as u32, 4);
        assert_eq!(choose(&crowded), Some(0..4), "up to the first snapshot, and not beyond");
        assert_eq!(choose(&head(CROWDED_LAYERS as u32, 1)), None, "snapshots are never merged");
    }

    #[test]
    fn a_deleted_snapshot_takes_the_newest_layers_around_it_along() {
        let choose =
            |head: &Head| choose_merge(head, &BTreeSet::new(), &Options::default(), Urgency::Relaxed);
        let deleted = |layers: u32, named: u32, at: usize| {
            let mut head = head(layers, named);
            head.layers[at] = LayerInfo { reclaim: true, snapshot: None, ..head.layers[at].clone() };
            head
        };
        assert_eq!(
            choose(&deleted(8, 4, 3)),
            Some(0..8),
            "a whole volume that is young: up to the next snapshot"
        );
        assert_eq!(choose(&deleted(10, 4, 5)), Some(4..8), "not beyond a snapshot on either side");
        assert_eq!(choose(&deleted(100, 7, 20)), Some(20..22), "old layers: only the next one");
        let mut two = deleted(100, 7, 20);
        two.layers[21].reclaim = true;
        assert_eq!(choose(&two), Some(20..23), "and the one after that, if it is to give space back as well");
    }
}
