//! The line between the engine, which changes the map, and the journal, which makes changes durable.

use super::delta::Delta;

/// How far the log had come after a delta: counts deltas from the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogPosition(pub u64);

/// Takes deltas in the order in which they happened.
///
/// A delta that was appended survives the end of the process; it survives the end of the machine once
/// [`DeltaLog::durable`] has reached its position.
pub trait DeltaLog: Send + Sync {
    /// Appends a delta. Waits for the journal where [`DeltaLog::has_room`] was not heeded.
    fn append(&self, delta: &Delta) -> LogPosition;
    /// The position after the newest delta.
    fn appended(&self) -> LogPosition;
    /// Up to where deltas are durable.
    fn durable(&self) -> LogPosition;
    /// Whether a request may begin that will append a delta when it completes, while `promised` others that have
    /// begun will do so as well. Who heeds it never waits in [`DeltaLog::append`], where locks may be held.
    fn has_room(&self, promised: u32) -> bool;
    /// Whether the log takes nothing any more, for good: what is appended is lost with the process, and no
    /// request that needs it may be acknowledged.
    fn has_failed(&self) -> bool;
}
