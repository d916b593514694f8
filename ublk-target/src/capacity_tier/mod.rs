//! The capacity tier: a volume's history as immutable objects, and one HEAD that names them.
//!
//! Segments hold blocks, compressed and checksummed one by one; layers say which blocks an epoch changed and
//! where they are; HEAD lists the layers. Written in this order, deleted in the other: what HEAD names is
//! always there and complete, so the capacity tier alone can always be restored.
//! `docs/format-capacity-tier.md` draws
//! the formats and argues what a crash at each step leaves.
//!
//! This module knows bytes, not policy: what is written back when, and how hard the background works, is
//! decided
//! above. Everything runs on one thread, inside a tokio `LocalSet` (`tokio_uring::start` is one).

mod alone;
mod any_store;
mod check;
mod checksum;
mod clone;
mod codec;
mod compact;
mod damage;
mod deletions;
mod diff;
mod directory_create;
mod directory_lock;
mod directory_pins;
mod directory_store;
mod entry;
mod error;
mod fault;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod garbage;
mod head;
mod inspect;
mod layer_cursor;
mod layer_page;
mod layer_writer;
mod leave;
mod losses;
mod maintain;
mod maintain_policy;
mod merge_cursor;
mod names;
mod object_store;
mod old_layers;
mod open_files;
mod options;
mod origin;
mod origins;
mod paced;
mod pin;
mod place;
mod plain_file;
mod rebuild;
mod record;
mod reserve;
mod segment;
mod segment_scan;
mod segment_writer;
mod snapshots;
mod space;
mod state;
mod store;
mod survey;
mod table_scan;
mod table_writer;
mod tier;
mod usage;
mod warm;
mod warm_list;

pub use alone::Alone;
pub use any_store::{AnyLease, AnyStore, AnyUpload, remove_created};
pub use check::{CheckProgress, CheckReport, Finding, Severity, check_store};
pub use clone::{CloneOrder, CloneState, clone_snapshot, clone_state, forget_clone};
pub use codec::Codec;
pub use deletions::Deleted;
pub use diff::MAX_DIFF_PAGE;
pub use directory_create::prepare_directory;
pub use directory_store::DirectoryStore;
pub use entry::{Entry, EntryCounts, EntryKind};
pub use error::{CapacityError, Result};
pub use fault::Fault;
pub use garbage::Garbage;
pub use head::{Head, LayerInfo, MAX_HEAD_BYTES, MAX_SNAPSHOTS};
pub use inspect::{Inspector, Newest, SeenPage};
pub use layer_page::{Closing, Opening, Page};
pub use layer_writer::LayerWriter;
pub use leave::SharedData;
pub use losses::{ChangedSnapshot, Doubtful, Losses, LostBlock};
pub use maintain::{Maintained, Relocation};
pub use maintain_policy::Urgency;
pub use names::{LayerId, ObjectKind, ObjectName, SnapshotName, VolumeUuid};
pub use options::{Options, Pace};
pub use origin::{MAX_ORIGINS, Origin};
pub use origins::origin_addresses;
pub use pin::{PIN_BYTES, Pin};
pub use place::Place;
pub use rebuild::{BlockSet, DAMAGED, NoSupply, Rebuilt, Supply, free_name, marked, rebuild};
pub use segment_scan::{FoundRecord, SegmentScan};
pub use space::Space;
pub use store::{HeadNumber, ReplaceError, Store, StoreSpace, UNLIMITED, Upload};
pub use table_scan::BlockRange;
pub use tier::{CapacityTier, Counted, volume_in};
pub use warm_list::{MAX_WARM_BLOCKS, WarmList};

#[cfg(test)]
pub(crate) mod memory_store;
#[cfg(test)]
mod tests;
