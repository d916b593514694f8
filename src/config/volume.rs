//! A volume's configuration, `volume.toml`.
//!
//! ```toml
//! version = 1
//! name = "data"
//! uuid = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
//! size_bytes = 10737418240
//! logical_block_bytes = 4096
//! sync_interval_seconds = 60
//! threshold = 0.5
//! prediction_horizon = 1
//! prediction = true
//! hydrate = "expected"
//! created_us = 1795426800000000
//!
//! [fast]
//! path = "/dev/nvme0n1p3"
//!
//! [capacity]
//! path = "/srv/forerun/data"   # or: url = "s3://bucket/prefix"
//! ```
//!
//! An unknown key is an error, so that a misspelt one is found and a newer version's file is not
//! read by halves. Size, logical block size, uuid and paths describe what is on the tiers and do not
//! change; threshold and horizon follow the API.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{
    AddressError, CapacityAddress, NameError, VolumeName, VolumePaths, read_small_file, replace_file,
};
use crate::geometry::{Geometry, GeometryError};
use crate::prediction::{Horizon, RangeError, Threshold};

/// The version of the file that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The largest file that is read at all, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A configuration that could not be loaded, checked or stored.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no file.
    #[error(
        "there is no volume {name:?} here ({path} is missing); `forerun list` shows the volumes, `forerun create` makes one"
    )]
    Unknown {
        /// The volume asked for.
        name: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not of the expected form, or a value in it is out of its range.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place or the allowed range.
        problem: String,
    },
    /// A value was out of its range.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// A value of a configuration that was refused.
#[derive(Debug, Error)]
pub enum ValueError {
    /// The volume's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Size or logical block size.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Threshold or horizon.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The sync interval.
    #[error("the sync interval is {0} seconds; the range is 1 to 3600")]
    SyncInterval(u32),
    /// The uuid.
    #[error("{0:?} is not a uuid")]
    Uuid(String),
    /// A version that this program does not know.
    #[error("the configuration has version {0}; this program knows version {FORMAT_VERSION}")]
    Version(u32),
    /// A tier's path.
    #[error("the {tier} tier's path {path:?} is not absolute")]
    RelativePath {
        /// "fast" or "capacity".
        tier: &'static str,
        /// The path.
        path: PathBuf,
    },
}

/// The longest time between two epochs' ends, 1 to 3600 seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncInterval(u32);

impl SyncInterval {
    /// The shortest interval, in seconds.
    pub const MIN_SECONDS: u32 = 1;
    /// The longest interval, in seconds.
    pub const MAX_SECONDS: u32 = 3600;
    /// The interval of a new volume: a minute.
    pub const DEFAULT: Self = Self(60);

    /// Checks and takes an interval in seconds.
    ///
    /// # Errors
    /// A value outside of 1 to 3600.
    pub fn new(seconds: u32) -> Result<Self, ValueError> {
        if (Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(ValueError::SyncInterval(seconds))
        }
    }

    /// The interval in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

/// In which order an empty fast tier is filled, beside what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HydrateOrder {
    /// What is expected to be used first, then the rest, as long as there is room.
    #[default]
    Expected,
    /// Only what is expected to be used.
    Hot,
    /// Everything, in the order of addresses.
    Address,
    /// Nothing: data comes as it is asked for.
    Off,
}

impl FromStr for HydrateOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "expected" => Ok(Self::Expected),
            "hot" => Ok(Self::Hot),
            "address" => Ok(Self::Address),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?} is no order; there are expected, hot, address and off")),
        }
    }
}

/// Where the fast tier is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastTierConfig {
    /// A block device or a file; absolute.
    pub path: PathBuf,
    /// The size of a file that is to be made, in bytes; `None` for a device, whose own size counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// Where the capacity tier is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "CapacityTierFile", into = "CapacityTierFile")]
pub struct CapacityTierConfig {
    /// A directory, absolute, or a place on an object store.
    pub address: CapacityAddress,
}

/// As it is in the file: one of the two.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityTierFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl TryFrom<CapacityTierFile> for CapacityTierConfig {
    type Error = String;

    fn try_from(file: CapacityTierFile) -> Result<Self, String> {
        let address = match (file.path, file.url) {
            (Some(path), None) => CapacityAddress::Directory(path),
            (None, Some(url)) if url.contains("://") => {
                url.parse().map_err(|error: AddressError| error.to_string())?
            }
            (None, Some(url)) => return Err(format!("the url {url:?} of the capacity tier has no scheme")),
            _ => return Err("the capacity tier has one of path and url".to_owned()),
        };
        Ok(Self { address })
    }
}

impl From<CapacityTierConfig> for CapacityTierFile {
    fn from(config: CapacityTierConfig) -> Self {
        match config.address {
            CapacityAddress::Directory(path) => Self { path: Some(path), url: None },
            CapacityAddress::Objects(address) => Self { path: None, url: Some(address.to_string()) },
        }
    }
}

/// A volume's configuration. Every value is in its range.
#[derive(Clone, PartialEq, Debug)]
pub struct VolumeConfig {
    /// The volume's name on this machine.
    pub name: VolumeName,
    /// What the tiers know the volume by; never changes.
    pub uuid: Uuid,
    /// Size and logical block size.
    pub geometry: Geometry,
    /// The fast tier.
    pub fast: FastTierConfig,
    /// The capacity tier.
    pub capacity: CapacityTierConfig,
    /// The longest time between two epochs' ends.
    pub sync_interval: SyncInterval,
    /// The probability from which a prediction is acted on.
    pub threshold: Threshold,
    /// How many epochs ahead is predicted.
    pub horizon: Horizon,
    /// Whether predictions are acted on at all.
    pub prediction: bool,
    /// In which order an empty fast tier is filled.
    pub hydrate: HydrateOrder,
    /// When the volume was created, in microseconds since 1970 (UTC).
    pub created_us: u64,
}

/// The file, before its values are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeFile {
    version: u32,
    name: String,
    uuid: String,
    size_bytes: u64,
    logical_block_bytes: u32,
    sync_interval_seconds: u32,
    threshold: f64,
    prediction_horizon: u32,
    prediction: bool,
    #[serde(default)]
    hydrate: HydrateOrder,
    created_us: u64,
    fast: FastTierConfig,
    capacity: CapacityTierConfig,
}

/// The file's version alone, read first: a newer version may have other keys.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl VolumeConfig {
    /// Reads the configuration of the volume called `name`.
    ///
    /// # Errors
    /// No such volume; a file that cannot be read, is malformed, of another version or of another
    /// volume, or holds a value out of its range.
    pub fn load(name: &VolumeName, paths: &VolumePaths) -> Result<Self, ConfigError> {
        let path = paths.config_file();
        let config = Self::load_file(&path).map_err(|error| match error {
            ConfigError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ConfigError::Unknown { name: name.to_string(), path: path.clone() }
            }
            other => other,
        })?;
        if config.name != *name {
            let problem = format!("it is the configuration of volume {}, not of {name}", config.name);
            return Err(ConfigError::Content { path, problem });
        }
        Ok(config)
    }

    /// Reads the configuration in the file at `path`.
    ///
    /// # Errors
    /// As for [`VolumeConfig::load`].
    pub fn load_file(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Io { action: "read", path: path.into(), source };
        let content = |problem: String| ConfigError::Content { path: path.into(), problem };
        let bytes = read_small_file(path, FILE_BYTES_MAX).map_err(read_error)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| content(format!("it is no text: {error}")))?;
        Self::from_toml(text).map_err(content)
    }

    /// Reads a configuration from TOML.
    ///
    /// # Errors
    /// A message that says what is wrong and where.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let VersionOnly { version } = toml::from_str(text).map_err(|error| error.to_string())?;
        if version != FORMAT_VERSION {
            return Err(ValueError::Version(version).to_string());
        }
        let file: VolumeFile = toml::from_str(text).map_err(|error| error.to_string())?;
        Self::check(file).map_err(|error| error.to_string())
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// A number that TOML has no room for (sizes above 2^63).
    pub fn to_toml(&self) -> Result<String, String> {
        let file = VolumeFile {
            version: FORMAT_VERSION,
            name: self.name.to_string(),
            uuid: self.uuid.to_string(),
            size_bytes: self.geometry.size_bytes(),
            logical_block_bytes: self.geometry.logical_block_bytes(),
            sync_interval_seconds: self.sync_interval.seconds(),
            threshold: self.threshold.as_f64(),
            prediction_horizon: self.horizon.epochs(),
            prediction: self.prediction,
            hydrate: self.hydrate,
            created_us: self.created_us,
            fast: self.fast.clone(),
            capacity: self.capacity.clone(),
        };
        toml::to_string(&file).map_err(|error| error.to_string())
    }

    /// Stores the configuration durably as the volume's, making its state directory (mode 0700) where it is
    /// missing. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn store(&self, paths: &VolumePaths) -> Result<(), ConfigError> {
        let path = paths.config_file();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(paths.state_dir())
            .map_err(|source| ConfigError::Io { action: "write", path: path.clone(), source })?;
        self.store_at(&path)
    }

    /// Stores the configuration durably in the file at `path`; its directory must be there.
    ///
    /// # Errors
    /// The directory is missing or cannot be written.
    pub fn store_at(&self, path: &Path) -> Result<(), ConfigError> {
        let text = self.to_toml().map_err(|problem| ConfigError::Content { path: path.into(), problem })?;
        replace_file(path, text.as_bytes(), 0o600).map_err(|source| ConfigError::Io {
            action: "write",
            path: path.into(),
            source,
        })
    }

    fn check(file: VolumeFile) -> Result<Self, ValueError> {
        let paths =
            [("fast", Some(file.fast.path.as_path())), ("capacity", file.capacity.address.directory())];
        for (tier, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(ValueError::RelativePath { tier, path: path.to_owned() });
            }
        }
        Ok(Self {
            name: VolumeName::new(file.name)?,
            uuid: Uuid::parse_str(&file.uuid).map_err(|_| ValueError::Uuid(file.uuid))?,
            geometry: Geometry::new(file.size_bytes, file.logical_block_bytes)?,
            fast: file.fast,
            capacity: file.capacity,
            sync_interval: SyncInterval::new(file.sync_interval_seconds)?,
            threshold: Threshold::new(file.threshold)?,
            horizon: Horizon::new(file.prediction_horizon)?,
            prediction: file.prediction,
            hydrate: file.hydrate,
            created_us: file.created_us,
        })
    }
}

#[cfg(test)]
mod tests;
