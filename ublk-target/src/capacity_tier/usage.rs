//! How much of each segment is still referred to.
//!
//! Counted from the layers' tables when a writer opens and kept true with every replacement of HEAD: a
//! segment's live records are exactly the entries with a place in it, over all layers in HEAD. A segment is
//! referred to
//! by one layer only, the one whose epochs include the segment's epoch; merging keeps that, so no list
//! of users is needed. Memory: about 40 bytes a segment of 8 MiB.

use std::collections::BTreeMap;
use std::ops::Range;

use forerun::geometry::{Epoch, SegmentId};

use super::place::{Place, UNIT_BYTES};

/// What is known of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentUse {
    /// An epoch of the layer that refers to the segment.
    pub epoch: Epoch,
    /// Records that are referred to.
    pub live_records: u32,
    /// Their length, in units of 512 bytes.
    pub live_units: u32,
    /// The length of the whole segment, in units of 512 bytes.
    pub units: u32,
}

impl SegmentUse {
    /// Bytes that deleting the segment would give back beyond those that are still referred to.
    #[must_use]
    pub const fn dead_bytes(&self) -> u64 {
        self.units.saturating_sub(self.live_units) as u64 * UNIT_BYTES
    }
}

/// Records that stop being referred to, by segment: how many, and their units.
pub type Released = BTreeMap<SegmentId, (u32, u32)>;

/// Notes a record as released.
pub fn release(released: &mut Released, place: Place) {
    let (records, units) = released.entry(place.segment()).or_default();
    *records += 1;
    *units += place.len_units();
}

/// All segments that are referred to.
#[derive(Default)]
pub struct Usage(BTreeMap<SegmentId, SegmentUse>);

/// Counts references where most come segment by segment, as they do in a layer's table: one look-up for each run of them.
#[derive(Default)]
pub struct Counting {
    usage: Usage,
    run: Option<(SegmentId, SegmentUse)>,
}

impl Counting {
    /// Counts one reference, of a layer that includes `epoch`.
    pub fn refer(&mut self, place: Place, epoch: Epoch) {
        if self.run.is_none_or(|(segment, _)| segment != place.segment()) {
            self.end_run();
        }
        let none = SegmentUse { epoch, live_records: 0, live_units: 0, units: 0 };
        let (_, run) = self.run.get_or_insert((place.segment(), none));
        run.live_records += 1;
        run.live_units += place.len_units();
        // Until the length is known: at least what is referred to.
        run.units = run.units.max(place.offset_units() + place.len_units());
    }

    /// What was counted.
    pub fn end(mut self) -> Usage {
        self.end_run();
        self.usage
    }

    fn end_run(&mut self) {
        let Some((segment, run)) = self.run.take() else { return };
        let none = SegmentUse { live_records: 0, live_units: 0, units: 0, ..run };
        let usage = self.usage.0.entry(segment).or_insert(none);
        usage.live_records += run.live_records;
        usage.live_units += run.live_units;
        usage.units = usage.units.max(run.units);
    }
}

impl Usage {
    /// Notes a segment's length; `false` where nothing refers to it.
    pub fn set_len(&mut self, segment: SegmentId, len_bytes: u64) -> bool {
        let Some(usage) = self.0.get_mut(&segment) else { return false };
        usage.units = u32::try_from(len_bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        true
    }

    /// Takes a segment in.
    pub fn insert(&mut self, segment: SegmentId, usage: SegmentUse) {
        debug_assert!(
            usage.live_units <= usage.units && usage.live_records <= usage.live_units,
            "{segment}: {usage:?}"
        );
        let before = self.0.insert(segment, usage);
        debug_assert!(before.is_none(), "{segment} is taken in twice");
    }

    /// Takes released records off; gives the segments that nothing refers to any more, with their bytes.
    pub fn release(&mut self, released: &Released) -> Vec<(SegmentId, u64)> {
        let mut dead = Vec::new();
        for (segment, (records, units)) in released {
            let Some(usage) = self.0.get_mut(segment) else { continue };
            debug_assert!(usage.live_records >= *records, "{segment}: more released than referred to");
            debug_assert!(usage.live_units >= *units, "{segment}: more units released than referred to");
            usage.live_records = usage.live_records.saturating_sub(*records);
            usage.live_units = usage.live_units.saturating_sub(*units);
            debug_assert!(usage.live_records > 0 || usage.live_units == 0, "{segment}: units of no record");
            if usage.live_records == 0 {
                dead.push((*segment, u64::from(usage.units) * UNIT_BYTES));
                self.0.remove(segment);
            }
        }
        dead
    }

    /// Takes a segment out whose records have been copied elsewhere; gives its bytes.
    pub fn remove(&mut self, segment: SegmentId) -> Option<u64> {
        self.0.remove(&segment).map(|usage| u64::from(usage.units) * UNIT_BYTES)
    }

    /// Whether something refers to the segment.
    #[must_use]
    pub fn contains(&self, segment: SegmentId) -> bool {
        self.0.contains_key(&segment)
    }

    /// Whether something refers to any segment with such a number.
    #[must_use]
    pub fn has_any(&self, numbers: Range<u64>) -> bool {
        self.0.range(SegmentId(numbers.start)..SegmentId(numbers.end)).next().is_some()
    }

    /// Bytes that are referred to in segments with such a number.
    #[must_use]
    pub fn live_bytes_in(&self, numbers: Range<u64>) -> u64 {
        let segments = self.0.range(SegmentId(numbers.start)..SegmentId(numbers.end));
        segments.map(|(_, usage)| u64::from(usage.live_units) * UNIT_BYTES).sum()
    }

    /// All segments in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, &SegmentUse)> {
        self.0.iter().map(|(segment, usage)| (*segment, usage))
    }

    /// Bytes of all segments numbered from `own_from` on, and of those the bytes that are referred to.
    #[must_use]
    pub fn bytes(&self, own_from: u64) -> (u64, u64) {
        let own = || self.0.range(SegmentId(own_from)..).map(|(_, usage)| usage);
        let sum =
            |units: fn(&SegmentUse) -> u32| own().map(|usage| u64::from(units(usage)) * UNIT_BYTES).sum();
        (sum(|usage| usage.units), sum(|usage| usage.live_units))
    }
}
