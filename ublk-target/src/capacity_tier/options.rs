//! What can be set on a capacity tier, and where it gets the time from.

use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an object that HEAD no longer names stays, so that whoever just looked can still read it.
pub const DELETION_DELAY: Duration = Duration::from_secs(30);
/// How many of the newest layers are left unmerged, so that a trainer that was away finds single epochs.
pub const UNMERGED_LAYERS: usize = 8;
/// How many full segments of one layer may be on their way to the store at a time (8 MiB each).
pub const SEGMENTS_IN_FLIGHT: usize = 2;

/// A segment is closed before it grows beyond this many bytes (8 MiB).
pub const SEGMENT_BYTES: usize = 8 << 20;
/// Segments are compacted when this many dead bytes of one layer come free by it (1 MiB).
pub const COMPACTION_GAIN_BYTES: u64 = 1 << 20;
/// A segment below this many bytes counts as small (1 MiB).
pub const SMALL_SEGMENT_BYTES: u64 = 1 << 20;
/// So many small segments of one layer are put together.
pub const SMALL_SEGMENTS: usize = 16;

/// Settings of a capacity tier; the default ones are right but for tests.
#[derive(Clone)]
pub struct Options {
    /// How long an object stays after HEAD has stopped naming it.
    pub deletion_delay: Duration,
    /// How many of the newest layers are left unmerged.
    pub unmerged_layers: usize,
    /// A segment is closed before it grows beyond this many bytes; at most 16 MiB.
    pub segment_bytes: usize,
    /// Segments are compacted when this many dead bytes of one layer come free by it.
    pub compaction_gain_bytes: u64,
    /// The time since some fixed moment; only differences count.
    pub now: Rc<dyn Fn() -> Duration>,
    /// Asked before so many bytes are read or written for upkeep (merging, compaction): the work goes on when it is done.
    pub pace: Pace,
}

/// What upkeep waits for before it moves so many bytes.
pub type Pace = Rc<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()>>>>;

impl Default for Options {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            deletion_delay: DELETION_DELAY,
            unmerged_layers: UNMERGED_LAYERS,
            segment_bytes: SEGMENT_BYTES,
            compaction_gain_bytes: COMPACTION_GAIN_BYTES,
            now: Rc::new(move || start.elapsed()),
            pace: Rc::new(|_| Box::pin(std::future::ready(()))),
        }
    }
}
