//! What a capacity tier holds that is not needed any more, and what giving it back would take.

use super::maintain_policy::{Urgency, choose_compaction, choose_merge};
use super::place::UNIT_BYTES;
use super::state::State;
use super::store::Store;
use super::tier::CapacityTier;

/// What could be given back. Segments and tables of origins are not counted: they are theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// Bytes of the volume's own segments.
    pub segment_bytes: u64,
    /// Of those, bytes that some layer refers to.
    pub live_bytes: u64,
    /// Objects that nothing refers to, no clone either, and that wait for their deletion.
    pub queued_objects: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Bytes of objects that only clones need: they go when the clones go, or stand alone.
    pub pinned_bytes: u64,
    /// Segments that would be copied and given back if space were short, in the first step.
    pub compacted_segments: u64,
    /// What that step would have to copy, in bytes.
    pub copied_bytes: u64,
    /// What it would give back beyond that, in bytes.
    pub gained_bytes: u64,
    /// Layers that the first step would merge, if space were short; what they supersede is known only then.
    pub merged_layers: u64,
}

impl<S: Store> CapacityTier<S> {
    /// What could be given back, as it is known without reading anything.
    #[must_use]
    pub fn garbage(&self) -> Garbage {
        let (head, state) = (self.head(), self.inner.state.borrow());
        let State { usage, deletions, damaged, pins, own_from, .. } = &*state;
        let (segment_bytes, live_bytes) = usage.bytes(*own_from);
        let options = &self.inner.options;
        let merge = choose_merge(&head, damaged, options, Urgency::SpaceShort);
        let chosen = choose_compaction(&head, usage, damaged, pins, *own_from, options, Urgency::SpaceShort);
        let segments = chosen.map(|chosen| chosen.segments).unwrap_or_default();
        let (mut copied_bytes, mut gained_bytes) = (0, 0);
        for (_, used) in usage.iter().filter(|(segment, _)| segments.contains(segment)) {
            copied_bytes += u64::from(used.live_units) * UNIT_BYTES;
            gained_bytes += used.dead_bytes();
        }
        Garbage {
            segment_bytes,
            live_bytes,
            queued_objects: deletions.free_len() as u64,
            queued_bytes: deletions.bytes(),
            pinned_bytes: deletions.pinned_bytes(),
            compacted_segments: segments.len() as u64,
            copied_bytes,
            gained_bytes,
            merged_layers: merge.map_or(0, |range| range.len() as u64),
        }
    }
}
