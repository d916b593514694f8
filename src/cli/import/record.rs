//! What is noted of an import: how far it has come, and what the volume is a copy of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use forerun::config::{VolumePaths, read_small_file, replace_file};
use forerun::geometry::BlockIndex;
use forerun::stream::{Header, Side};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE_BYTES_MAX: u64 = 4096;

/// A stream that a volume is half-way through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Importing {
    volume: String,
    from_epoch: u32,
    to_epoch: u32,
    to_name: String,
    to_us: u64,
    /// All blocks below this one are durable.
    pub done_blocks: u32,
}

/// The snapshot that a volume was made by an import.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Imported {
    volume: String,
    epoch: u32,
    name: String,
    created_us: u64,
}

impl Importing {
    /// `importing.json` in the state directory.
    pub fn path(files: &VolumePaths) -> PathBuf {
        files.state_dir().join("importing.json")
    }

    /// None of the stream is there yet.
    pub fn begin(header: &Header) -> Self {
        Self {
            volume: Uuid::from_bytes(header.volume).to_string(),
            from_epoch: header.from.as_ref().map_or(0, |from| from.epoch),
            to_epoch: header.to.epoch,
            to_name: header.to.name.to_string(),
            to_us: header.to.created_us,
            done_blocks: 0,
        }
    }

    /// The same stream, with all blocks up to this one durable.
    pub fn up_to(&self, last: BlockIndex) -> Self {
        Self { done_blocks: last.0 + 1, ..self.clone() }
    }

    /// Whether both are of one stream, however far each has come.
    pub fn is_same_stream(&self, other: &Self) -> bool {
        Self { done_blocks: 0, ..self.clone() } == Self { done_blocks: 0, ..other.clone() }
    }

    /// The stream in words.
    pub fn what(&self) -> String {
        format!("snapshot {} (epoch {}) of volume {}", self.to_name, self.to_epoch, self.volume)
    }
}

impl Imported {
    /// `imported.json` in the state directory.
    pub fn path(files: &VolumePaths) -> PathBuf {
        files.state_dir().join("imported.json")
    }

    /// What the volume is after this stream.
    pub fn of(header: &Header) -> Self {
        Self {
            volume: Uuid::from_bytes(header.volume).to_string(),
            epoch: header.to.epoch,
            name: header.to.name.to_string(),
            created_us: header.to.created_us,
        }
    }

    /// Whether it is this snapshot of this volume.
    pub fn is(&self, volume: &[u8; 16], side: &Side) -> bool {
        self.volume == Uuid::from_bytes(*volume).to_string()
            && (self.epoch, self.name.as_str(), self.created_us)
                == (side.epoch, side.name.as_str(), side.created_us)
    }

    /// In words.
    pub fn what(&self) -> String {
        format!("what was imported last is {} (epoch {}) of volume {}", self.name, self.epoch, self.volume)
    }
}

/// A note beside the volume's configuration.
pub trait Note: Serialize + DeserializeOwned {
    /// Reads it; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read or is no such note.
    fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let bytes = match read_small_file(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let note = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is damaged; remove it to import from the beginning", path.display())
        })?;
        Ok(Some(note))
    }

    /// Stores it durably.
    ///
    /// # Errors
    /// The state directory cannot be written.
    fn store(&self, path: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        replace_file(path, &bytes, 0o600).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes it.
    ///
    /// # Errors
    /// The state directory cannot be written.
    fn forget(path: &Path) -> anyhow::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Note for Importing {}
impl Note for Imported {}
