//! A volume that is open: tiers, map, background and API put together.
//!
//! ```text
//! open: fast tier (lock, recover) -> capacity tier (lock, fence, places) -> map -> background -> API
//! close: API and background end -> checkpoint, clean mark -> locks released
//! ```
//!
//! A crash in between leaves what the journal and HEAD say; the next opening begins there.

pub(crate) mod assemble;
pub(crate) mod backend;
mod control;
mod create;
mod grow_fast;
mod health;
mod open;
mod snapshot;

pub use backend::VolumeBackend;
pub use control::{DeviceFacts, Resize, VolumeControl};
pub use create::create;
pub use open::{Open, OpenError, Opened};
pub use snapshot::SnapshotBackend;
