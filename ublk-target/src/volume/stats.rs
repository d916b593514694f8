//! What the engine counts. Counters only go up, and reset with the process.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A count that any thread adds to.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start of the process.
        #[derive(Default, Debug)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)*
        }
    };
}

counters! {
    /// Read requests.
    read_requests,
    /// Bytes read by requests.
    read_bytes,
    /// Write requests.
    write_requests,
    /// Bytes written by requests.
    write_bytes,
    /// Discard and write-zeroes requests.
    discard_requests,
    /// Flush requests.
    flush_requests,
    /// Requests that ended in an error.
    failed_requests,
    /// Spans read wholly from the fast tier, or zeros.
    read_hits,
    /// Spans that had to wait for the capacity tier.
    read_misses,
    /// First writes of a block in an epoch.
    redirects,
    /// Blocks copied to the fast tier: because they were read, ahead of that, or because there was room.
    promotions,
    /// Clean slots given up.
    evictions,
    /// Slots set aside for predicted writes.
    reservations_made,
    /// Reservations that the predicted write took.
    reservations_used,
    /// Reservations given back unused.
    reservations_wasted,
    /// Bytes fetched ahead because of a prediction.
    prefetched_bytes,
    /// Prefetched bytes that were read or written over before they left.
    prefetched_used_bytes,
    /// Bytes of blocks written to the capacity tier, before compression.
    written_back_bytes,
    /// Times a write had to wait for a free slot.
    waits_for_room,
    /// I/O on the fast tier that failed for a request.
    fast_tier_errors,
    /// Rounds of the fast tier's journal that failed.
    journal_failures,
    /// Blocks whose place on the capacity tier the map has followed, after compaction.
    followed,
    /// Attempts at writing a layer back that failed.
    write_back_failures,
    /// Blocks that could not be read from the capacity tier.
    capacity_read_errors,
}

/// How many slots are in which state, at one moment, nearly.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SlotCounts {
    /// Hold data that is on the capacity tier as well.
    pub clean: u64,
    /// Hold data of sealed epochs that are not written back.
    pub sealed: u64,
    /// Hold data of the open epoch.
    pub open: u64,
    /// Sub-blocks that are not on the capacity tier.
    pub dirty_sub_blocks: u64,
}

impl super::Volume {
    /// Counts the slots. Looks at every one: for a status, not for a hot path.
    pub fn slot_counts(&self) -> SlotCounts {
        let open = self.layers.open();
        let mut counts = SlotCounts::default();
        for (_, record) in self.slots.iter() {
            if record.block.load(Ordering::Relaxed) == super::slots::NO_BLOCK {
                continue;
            }
            match record.layer.load(Ordering::Relaxed) {
                super::slots::CLEAN => counts.clean += 1,
                layer if layer == open.0 => counts.open += 1,
                _ => counts.sealed += 1,
            }
            counts.dirty_sub_blocks += u64::from(record.bits().dirty.count());
        }
        counts
    }
}
