//! A volume's retention policy, `retention.toml` in its state directory.
//!
//! ```toml
//! version = 1
//! keep_last = 12
//! hourly = 48
//! daily = 14
//! weekly = 8
//! monthly = 12
//! yearly = 0
//! named = false
//! chains = true
//! max_count = 2000
//! max_bytes = 0
//! ```
//!
//! A file of its own, since the running target is the one that writes the volume's configuration. An unknown key is an
//! error, so that a misspelt one does not delete what somebody meant to keep.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{read_small_file, replace_file};

/// The version of the file that this program reads and writes.
const FORMAT_VERSION: u32 = 1;
/// The largest file that is read at all, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A policy that cannot be read or stored.
#[derive(Debug, Error)]
pub enum PolicyError {
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
    /// The file is not of the expected form, or says what cannot be meant.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What is kept. Of the snapshots that were made without a name (`auto-...`) the last `keep_last`, and of each hour, day,
/// ISO week, month and year (UTC) the newest, for as many of them as are given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub(super) version: u32,
    /// The newest snapshots, whatever their time.
    pub keep_last: u32,
    /// Hours of which the newest is kept.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks (from Monday).
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
    /// Whether snapshots that were given a name are under the policy too. Without it they are kept until they are deleted.
    pub named: bool,
    /// Whether chains count: what belongs to a long and stable chain is kept twice as long, what belongs to one that
    /// diverges fast half as long.
    pub chains: bool,
    /// The most snapshots kept, named ones included; the oldest that may go, go. 0: no limit.
    pub max_count: u32,
    /// The most bytes that the changes of all snapshots kept may add up to (of whole blocks, not compressed). 0: no limit.
    pub max_bytes: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: FORMAT_VERSION,
            keep_last: 12,
            hourly: 48,
            daily: 14,
            weekly: 8,
            monthly: 12,
            yearly: 0,
            named: false,
            chains: true,
            // An eighth of what a volume may have.
            max_count: 2000,
            max_bytes: 0,
        }
    }
}

impl Policy {
    /// Reads the policy in the file at `path`; `None` where there is none.
    ///
    /// # Errors
    /// The file cannot be read, is malformed or of another version, or would keep nothing.
    pub fn load(path: &Path) -> Result<Option<Self>, PolicyError> {
        let bytes = match read_small_file(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PolicyError::Io { action: "read", path: path.into(), source }),
            Ok(bytes) => bytes,
        };
        let content = |problem| PolicyError::Content { path: path.into(), problem };
        let text = String::from_utf8(bytes).map_err(|error| content(format!("it is no text: {error}")))?;
        let policy: Self = toml::from_str(&text).map_err(|error| content(error.to_string()))?;
        if policy.version != FORMAT_VERSION {
            let found = policy.version;
            return Err(content(format!(
                "it has version {found}; this program knows version {FORMAT_VERSION}"
            )));
        }
        policy.checked().map(Some).map_err(content)
    }

    /// The policy, if it can be meant.
    ///
    /// # Errors
    /// It would keep nothing; with the reason.
    pub fn checked(self) -> Result<Self, String> {
        let rules = [self.keep_last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        if rules.iter().all(|kept| *kept == 0) {
            return Err("it would keep nothing: at least one of keep_last, hourly, daily, weekly, monthly and yearly \
                        has to be above 0"
                .to_owned());
        }
        Ok(self)
    }

    /// Stores the policy durably at `path`, in a directory that is there. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// The directory is missing or cannot be written.
    pub fn store(&self, path: &Path) -> Result<(), PolicyError> {
        let text = toml::to_string(self)
            .map_err(|error| PolicyError::Content { path: path.into(), problem: error.to_string() })?;
        replace_file(path, text.as_bytes(), 0o600).map_err(|source| PolicyError::Io {
            action: "write",
            path: path.into(),
            source,
        })
    }

    /// Forgets the policy of a volume, so that the default one is in force again.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn forget(path: &Path) -> Result<(), PolicyError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(PolicyError::Io { action: "remove", path: path.into(), source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_and_a_misspelt_key_does_not_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("retention.toml");
        assert_eq!(Policy::load(&path).expect("readable"), None);
        let policy = Policy { hourly: 3, max_bytes: 1 << 40, max_count: 0, ..Policy::default() };
        policy.store(&path).expect("stored");
        assert_eq!(Policy::load(&path).expect("readable"), Some(policy));

        for (text, expected) in [
            ("version = 1\ndayly = 3\n", "dayly"),
            ("version = 2\n", "version 2"),
            ("version = 1\nkeep_last = 0\nhourly = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n", "keep nothing"),
            ("keep_last = -1\n", "keep_last"),
        ] {
            fs::write(&path, text).expect("written");
            let told = Policy::load(&path).expect_err(text).to_string();
            assert!(told.contains(expected) && told.contains("retention.toml"), "{told}");
        }
        Policy::forget(&path).expect("removed");
        Policy::forget(&path).expect("nothing to remove");
        assert_eq!(Policy::load(&path).expect("readable"), None);
    }
}
