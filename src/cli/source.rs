//! Where a volume comes from: its capacity tier, a directory or an object store's address, and maybe one of its snapshots.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use forerun::config::{CapacityAddress, Paths, SnapshotName, VolumeConfig, VolumeName};
use serde::Deserialize;
use uuid::Uuid;

use super::programs;

/// A capacity tier, or one of its snapshots: `PLACE` or `PLACE@SNAPSHOT`, where a place is a directory or an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceRef {
    /// The capacity tier.
    pub capacity: CapacityAddress,
    /// The snapshot, where it is one.
    pub snapshot: Option<SnapshotName>,
}

impl FromStr for SourceRef {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, anyhow::Error> {
        // A directory may have an '@' in its name, and one that is there is meant.
        let parts = text.rsplit_once('@').filter(|(directory, snapshot)| {
            !directory.is_empty() && !snapshot.contains('/') && !Path::new(text).exists()
        });
        Ok(match parts {
            Some((directory, snapshot)) => {
                Self { capacity: directory.parse()?, snapshot: Some(snapshot.parse()?) }
            }
            None => Self { capacity: text.parse()?, snapshot: None },
        })
    }
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            None => write!(f, "{}", self.capacity),
            Some(snapshot) => write!(f, "{}@{snapshot}", self.capacity),
        }
    }
}

/// What a capacity tier says of its volume, as the target tells it.
#[derive(Deserialize, Debug)]
pub struct Seen {
    /// The volume's uuid.
    pub uuid: String,
    /// The bytes it shows.
    pub size_bytes: u64,
    /// Its smallest request.
    pub logical_block_bytes: u32,
    /// The newest epoch there.
    pub epoch: u32,
    /// When that ended, in microseconds since 1970.
    pub sealed_us: u64,
    /// The snapshots' names, oldest first.
    pub snapshots: Vec<String>,
}

/// Has the target read a capacity tier's HEAD.
///
/// # Errors
/// It cannot, and has said why.
pub fn look(capacity: &CapacityAddress) -> anyhow::Result<Seen> {
    let told = programs::ask_target(["look".into(), "--capacity".into(), capacity.to_string()])?;
    Ok(serde_json::from_slice(&told)?)
}

/// The volume of this machine with this uuid, if there is one.
///
/// # Errors
/// The volumes cannot be listed.
pub fn configured(paths: &Paths, uuid: &Uuid) -> anyhow::Result<Option<VolumeName>> {
    // What cannot be read is not it: its own commands will say so.
    let is_it = |name: &VolumeName| {
        VolumeConfig::load(name, &paths.volume(name)).is_ok_and(|config| config.uuid == *uuid)
    };
    Ok(paths.volumes()?.into_iter().find(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_directory_and_maybe_a_snapshot() {
        let source = |text: &str| {
            let source = text.parse::<SourceRef>().map_err(|error| error.to_string())?;
            Ok::<_, String>((source.capacity.to_string(), source.snapshot))
        };
        let name = |text: &str| Some(SnapshotName::new(text).expect("a name"));
        assert_eq!(source("/srv/data"), Ok(("/srv/data".into(), None)));
        assert_eq!(source("/srv/data@monday"), Ok(("/srv/data".into(), name("monday"))));
        assert_eq!(source("/srv/a@b/data"), Ok(("/srv/a@b/data".into(), None)));
        assert_eq!(source("/srv/a@b/data@c"), Ok(("/srv/a@b/data".into(), name("c"))));
        assert!(source("/srv/data@No Name").is_err());
        let dir = tempfile::tempdir().expect("a directory");
        let odd = dir.path().join("data@home");
        std::fs::create_dir(&odd).expect("made");
        let odd = odd.to_str().expect("text");
        assert_eq!(source(odd), Ok((odd.into(), None)));
        assert_eq!(source("s3://bucket/data@c"), Ok(("s3://bucket/data".into(), name("c"))));
    }
}
