//! Where a volume's files are and how it is configured.
//!
//! A volume is known by its [`VolumeName`]. What has to survive a reboot is in the state directory
//! (`$FORERUN_STATE_DIR`, else `/var/lib/forerun`), what lives as long as its processes in the run
//! directory (`$FORERUN_RUN_DIR`, else `/run/forerun`); [`Paths`] knows every file in both.
//!
//! Always true: a name that was accepted is one path component and leads nowhere else; a
//! configuration that was loaded has been checked whole; a crash while one is stored leaves the old
//! file or the new one.

mod atomic_file;
mod capacity_address;
mod device_record;
mod name;
mod paths;
mod private_dir;
mod size;
mod small_file;
mod volume;

pub use atomic_file::replace_file;
pub use capacity_address::{AddressError, CapacityAddress, ObjectAddress, Scheme};
pub use device_record::DeviceRecord;
pub use name::{NAME_BYTES_MAX, NameError, SnapshotName, VolumeName};
pub use paths::{
    DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, Paths, RUN_DIR_VARIABLE, STATE_DIR_VARIABLE, VolumePaths,
};
pub use private_dir::make_private_dir;
pub use size::{SizeError, format_size, parse_size};
pub use small_file::read_small_file;
pub use volume::{
    CapacityTierConfig, ConfigError, FORMAT_VERSION, FastTierConfig, HydrateOrder, SyncInterval, ValueError,
    VolumeConfig,
};
