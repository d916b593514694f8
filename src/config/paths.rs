//! Every file of a volume, by its path.
//!
//! ```text
//! <state>/<VOLUME>/volume.toml      the configuration; survives a reboot
//! <state>/<VOLUME>/trainer/         the trainer's database and weights; can be rebuilt
//! <run>/<VOLUME>/api.sock           the API
//! <run>/<VOLUME>/predictions        the prediction table (shared memory)
//! <run>/<VOLUME>/pending            the engine's own
//! <run>/<VOLUME>/device.json        the volume's device, written by its target
//! <run>/<VOLUME>/device@SNAP.json   the device of an attached snapshot
//! <run>/<VOLUME>/target.log         what the target prints
//! <run>/<VOLUME>/trainer.log        what a trainer started by `forerun add` prints
//! ```

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use super::{SnapshotName, VolumeName};

/// The variable that sets another state directory.
pub const STATE_DIR_VARIABLE: &str = "FORERUN_STATE_DIR";
/// The variable that sets another run directory.
pub const RUN_DIR_VARIABLE: &str = "FORERUN_RUN_DIR";
/// The state directory where nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/forerun";
/// The run directory where nothing else is said.
pub const DEFAULT_RUN_DIR: &str = "/run/forerun";

/// The directories that hold the volumes of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    state: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// The directories that the environment names, or the default ones.
    #[must_use]
    pub fn from_env() -> Self {
        let or = |variable, default: &str| {
            env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map_or_else(|| default.into(), PathBuf::from)
        };
        Self::new(or(STATE_DIR_VARIABLE, DEFAULT_STATE_DIR), or(RUN_DIR_VARIABLE, DEFAULT_RUN_DIR))
    }

    /// These directories.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), run: run.into() }
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The run directory.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The files of one volume.
    #[must_use]
    pub fn volume(&self, name: &VolumeName) -> VolumePaths {
        VolumePaths { state: self.state.join(name.as_str()), run: self.run.join(name.as_str()) }
    }

    /// The volumes that have a configuration here, sorted by name; none where the directory is missing.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn volumes(&self) -> io::Result<Vec<VolumeName>> {
        let entries = match std::fs::read_dir(&self.state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file_name = entry?.file_name();
            let Some(name) = file_name.to_str().and_then(|name| VolumeName::new(name).ok()) else { continue };
            if self.volume(&name).config_file().is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The files of one volume. Nothing here touches the disk but [`VolumePaths::device_files`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumePaths {
    state: PathBuf,
    run: PathBuf,
}

impl VolumePaths {
    /// `<state>/<VOLUME>`.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// `<run>/<VOLUME>`, mode 0700.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The volume's configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.state.join("volume.toml")
    }

    /// Its retention policy.
    #[must_use]
    pub fn retention_file(&self) -> PathBuf {
        self.state.join("retention.toml")
    }

    /// The trainer's directory: database and weights.
    #[must_use]
    pub fn trainer_dir(&self) -> PathBuf {
        self.state.join("trainer")
    }

    /// The API's unix socket.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// The prediction table.
    #[must_use]
    pub fn predictions(&self) -> PathBuf {
        self.run.join("predictions")
    }

    /// What the engine keeps between a kill and a recovery.
    #[must_use]
    pub fn pending(&self) -> PathBuf {
        self.run.join("pending")
    }

    /// The record of the volume's device, or of the device of one of its snapshots.
    #[must_use]
    pub fn device_file(&self, snapshot: Option<&SnapshotName>) -> PathBuf {
        // '@' is in no name, so the two never meet.
        match snapshot {
            None => self.run.join("device.json"),
            Some(name) => self.run.join(format!("device@{name}.json")),
        }
    }

    /// The records of the volume's and its snapshots' devices that are there, the volume's first.
    ///
    /// # Errors
    /// The run directory is there and cannot be read.
    pub fn device_files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.run) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let is_record = entry.file_name().to_str().is_some_and(|name| {
                name == "device.json" || (name.starts_with("device@") && name.ends_with(".json"))
            });
            if is_record {
                files.push(entry.path());
            }
        }
        // '.' sorts before '@'.
        files.sort();
        Ok(files)
    }

    /// Where the target's messages go when it runs detached.
    #[must_use]
    pub fn target_log(&self) -> PathBuf {
        self.run.join("target.log")
    }

    /// Where the trainer's messages go when `forerun add` started it.
    #[must_use]
    pub fn trainer_log(&self) -> PathBuf {
        self.run.join("trainer.log")
    }

    /// The process id of a trainer that `forerun add` started.
    #[must_use]
    pub fn trainer_pid(&self) -> PathBuf {
        self.run.join("trainer.pid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_below_the_volumes_own_directories() {
        let paths = Paths::new("/s", "/r").volume(&VolumeName::new("data").expect("a name"));
        let snapshot = SnapshotName::new("mon").expect("a name");
        assert_eq!(paths.config_file(), Path::new("/s/data/volume.toml"));
        assert_eq!(paths.api_socket(), Path::new("/r/data/api.sock"));
        assert_eq!(paths.device_file(None), Path::new("/r/data/device.json"));
        assert_eq!(paths.device_file(Some(&snapshot)), Path::new("/r/data/device@mon.json"));
    }

    #[test]
    fn volumes_are_directories_with_a_configuration() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path(), dir.path().join("run"));
        assert_eq!(Paths::new(dir.path().join("none"), "/r").volumes().expect("empty"), []);
        for (name, configured) in [("b", true), ("a", true), ("c", false), ("Not.A.Name", true)] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
            if configured {
                std::fs::write(dir.path().join(name).join("volume.toml"), "").expect("written");
            }
        }
        let names: Vec<_> = paths.volumes().expect("read").iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn the_volumes_device_comes_before_its_snapshots() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new("/s", dir.path()).volume(&VolumeName::new("v").expect("a name"));
        assert_eq!(paths.device_files().expect("none"), Vec::<PathBuf>::new());
        std::fs::create_dir(paths.run_dir()).expect("made");
        for file in ["device@a.json", "device.json", "target.log", "device@b.json.new"] {
            std::fs::write(paths.run_dir().join(file), "").expect("written");
        }
        let expected = [paths.run_dir().join("device.json"), paths.run_dir().join("device@a.json")];
        assert_eq!(paths.device_files().expect("read"), expected);
    }
}
