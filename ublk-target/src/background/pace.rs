//! The rate at which first writes take slots while a layer is written back: a layer's slots come free all at once, when
//! HEAD names it, and what is free has to last until then.
//!
//! As long as more slots are available than the layer has blocks to go, nothing is held back. From there on a slot is
//! handed out for each block that goes into a segment, so writes go at the rate of write-back and the last slot is taken
//! when the layer is done. Where fewer were available than the layer has blocks, they are spread over all of it.

use super::Shared;

/// The pace for one layer; nothing is held back any more when it is dropped, on a failure too: while the capacity tier
/// takes nothing, what is free is of more use to writes.
pub(super) struct Pace<'a> {
    shared: &'a Shared,
    /// Slots that were available when it began, at most `blocks`.
    spread: u64,
    blocks: u64,
}

impl<'a> Pace<'a> {
    /// Begins a layer of so many blocks.
    pub fn begin(shared: &'a Shared, blocks: u64) -> Self {
        let pace = Self { shared, spread: u64::from(shared.volume.available_slots()).min(blocks), blocks };
        pace.done(0);
        pace
    }

    /// So many of the layer's blocks are in segments.
    pub fn done(&self, done: u64) {
        let keep = to_keep(self.spread, self.blocks, done);
        let volume = &self.shared.volume;
        volume.hold_back(keep.saturating_sub(volume.limbo_slots() + volume.evictable_slots()));
    }
}

impl Drop for Pace<'_> {
    fn drop(&mut self) {
        self.shared.volume.hold_back(0);
    }
}

/// Slots to be kept for the rest of the layer.
fn to_keep(spread: u64, blocks: u64, done: u64) -> u32 {
    debug_assert!(spread <= blocks && done <= blocks, "{spread} spread, {done} done of {blocks}");
    let left = blocks.saturating_sub(done);
    u32::try_from(spread * left / blocks.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_lasts_to_the_end_of_the_layer() {
        // As many as there are blocks: one for each.
        assert_eq!((0..=4).map(|done| to_keep(4, 4, done)).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        // Fewer: spread.
        assert_eq!((0..=4).map(|done| to_keep(2, 4, done)).collect::<Vec<_>>(), [2, 1, 1, 0, 0]);
        assert_eq!(to_keep(0, 0, 0), 0);
    }
}
