//! The fast tier: superblocks, journal, checkpoint and slots.
//!
//! It keeps bytes and facts, not policy: it does not know what a read or a prediction is. The format, with
//! the crash argument at each step, is in `docs/format-fast-tier.md`.
//!
//! ```text
//! engine --append--> committer --> pending log (shared memory)      tier: open, close
//!                        |                                            |
//!                     rounds --> journal <--------------------- recovery, check
//!                  checkpointer --> checkpoint <----------------------|
//!                                   page, layout, superblock, device
//! ```

pub mod check;
mod checkpoint;
mod checkpointer;
mod commit;
pub mod committer;
pub mod delta;
pub mod device;
pub mod error;
pub(crate) mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grow;
pub mod inspect;
mod journal;
pub mod layout;
pub mod log;
mod pack;
mod page;
mod page_io;
mod patient;
pub mod pending;
pub mod rebuild;
mod recovery;
mod ring;
mod ring_scan;
mod rounds;
pub mod salvage;
mod state;
mod superblock;
pub mod tier;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub use commit::Commit;
pub use committer::{Committer, Facts, Health, JournalStatus, Work};
pub use device::{FastDevice, Lock, TierFile};
pub use error::FastTierError;
pub use pending::PendingState;
pub use superblock::Superblock;
pub use tier::{FastTier, LastEnd, OpenInfo, OpenOptions, OpenSuperblock};
