//! The fast tier's own sources, and a simulated tier of it: the list of `ublk-target`'s `fast_tier/mod.rs`, with what only
//! its tests have there.

#[path = "../../../../ublk-target/src/fast_tier/check.rs"]
pub mod check;
#[path = "../../../../ublk-target/src/fast_tier/checkpoint.rs"]
mod checkpoint;
#[path = "../../../../ublk-target/src/fast_tier/checkpointer.rs"]
mod checkpointer;
#[path = "../../../../ublk-target/src/fast_tier/commit.rs"]
mod commit;
#[path = "../../../../ublk-target/src/fast_tier/committer.rs"]
pub mod committer;
#[path = "../../../../ublk-target/src/fast_tier/delta.rs"]
pub mod delta;
#[path = "../../../../ublk-target/src/fast_tier/device.rs"]
pub mod device;
#[path = "../../../../ublk-target/src/fast_tier/error.rs"]
pub mod error;
#[path = "../../../../ublk-target/src/fast_tier/format.rs"]
mod format;
#[path = "../../../../ublk-target/src/fast_tier/grow.rs"]
mod grow;
#[path = "../../../../ublk-target/src/fast_tier/journal.rs"]
mod journal;
#[path = "../../../../ublk-target/src/fast_tier/layout.rs"]
pub mod layout;
#[path = "../../../../ublk-target/src/fast_tier/log.rs"]
pub mod log;
#[path = "../../../../ublk-target/src/fast_tier/pack.rs"]
mod pack;
#[path = "../../../../ublk-target/src/fast_tier/page.rs"]
mod page;
#[path = "../../../../ublk-target/src/fast_tier/page_io.rs"]
mod page_io;
#[path = "../../../../ublk-target/src/fast_tier/patient.rs"]
mod patient;
#[path = "../../../../ublk-target/src/fast_tier/pending.rs"]
pub mod pending;
#[path = "../../../../ublk-target/src/fast_tier/recovery.rs"]
mod recovery;
#[path = "../../../../ublk-target/src/fast_tier/ring.rs"]
mod ring;
#[allow(dead_code, reason = "for salvage, which is not compiled here")]
#[path = "../../../../ublk-target/src/fast_tier/ring_scan.rs"]
mod ring_scan;
#[path = "../../../../ublk-target/src/fast_tier/rounds.rs"]
mod rounds;
#[path = "../../../../ublk-target/src/fast_tier/state.rs"]
mod state;
#[path = "../../../../ublk-target/src/fast_tier/superblock.rs"]
mod superblock;
#[path = "../../../../ublk-target/src/fast_tier/tier.rs"]
pub mod tier;

#[allow(missing_docs, dead_code, reason = "made for the tests of the crate that it is in")]
#[allow(clippy::expect_used, clippy::should_implement_trait, reason = "as above")]
#[path = "../../../../ublk-target/src/fast_tier/sim.rs"]
pub mod sim;
pub mod simulated;

pub use commit::Commit;
pub use committer::{Committer, Facts, Health, JournalStatus, Work};
pub use device::{FastDevice, Lock, TierFile};
pub use error::FastTierError;
pub use pending::PendingState;
pub use superblock::Superblock;
pub use tier::{FastTier, LastEnd, OpenInfo, OpenOptions};
