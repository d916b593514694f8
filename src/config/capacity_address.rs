//! Where a capacity tier is: a directory, or a place on an object store.
//!
//! An address of an object store is `SCHEME://BUCKET/PREFIX`. Credentials do not belong in it: it is stored, listed and
//! logged. Always true: an address has no user, no query, no fragment, and no empty or dotted part.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 1024;

/// An address that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{address:?} is no place for a capacity tier: {problem}")]
pub struct AddressError {
    address: String,
    problem: &'static str,
}

/// The kinds of object stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// S3, or a server that speaks it.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A directory that is used as an object store.
    File,
}

impl Scheme {
    /// As it is written in an address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::File => "file",
        }
    }
}

/// A place on an object store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectAddress {
    scheme: Scheme,
    bucket: String,
    prefix: String,
}

impl ObjectAddress {
    /// Which kind of store.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket (Azure says container); empty for `file`.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The prefix of all keys, without slashes at its ends; empty where there is none.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the two are one place, or one is within the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let parts = |address: &Self| -> Vec<String> {
            address.prefix.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let (ours, theirs) = (parts(self), parts(other));
        (self.scheme, &self.bucket) == (other.scheme, &other.bucket)
            && (ours.starts_with(&theirs) || theirs.starts_with(&ours))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" => Scheme::Az,
            "file" => Scheme::File,
            _ => return Err("the schemes are s3://, gs://, az:// and file://"),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if bucket.contains('@') {
            return Err(
                "it has a user in it; credentials come from the environment, and an address is shown to everyone",
            );
        }
        if text.contains(['?', '#', '%', '\\', '*'])
            || text.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err("it has a character that is not allowed there (? # % \\ * or white space)");
        }
        if prefix.split('/').any(|part| matches!(part, "." | ".."))
            || prefix.contains("//")
            || prefix.starts_with('/')
        {
            return Err("a part of its path is empty, . or ..");
        }
        match scheme {
            Scheme::S3 if bucket.is_empty() => return Err("it names no bucket: s3://BUCKET/PREFIX"),
            Scheme::Gs if bucket.is_empty() => return Err("it names no bucket: gs://BUCKET/PREFIX"),
            Scheme::Az if bucket.is_empty() => return Err("it names no container: az://CONTAINER/PREFIX"),
            Scheme::File if !bucket.is_empty() => {
                return Err("file:// takes an absolute path: file:///srv/objects");
            }
            Scheme::File if prefix.is_empty() => return Err("it names no directory: file:///srv/objects"),
            _ => {}
        }
        Ok(Self { scheme, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{}{slash}{}", self.scheme.as_str(), self.bucket, self.prefix)
    }
}

/// Where a capacity tier is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CapacityAddress {
    /// A directory.
    Directory(PathBuf),
    /// A place on an object store.
    Objects(ObjectAddress),
}

impl CapacityAddress {
    /// Where it is among this machine's files, if it is: a directory, used as one or as an object store.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(path) => Some(path.clone()),
            Self::Objects(address) => {
                (address.scheme == Scheme::File).then(|| Path::new("/").join(&address.prefix))
            }
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Objects(_) => None,
        }
    }
}

/// What has `://` in it is an object store's address, all else a path.
impl FromStr for CapacityAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |problem| {
            // What was typed may have a key in it.
            let address = match text.split_once('@') {
                Some((before, after)) if before.contains("://") => format!("...@{after}"),
                _ => text.to_owned(),
            };
            AddressError { address, problem }
        };
        if !text.contains("://") {
            return Ok(Self::Directory(text.into()));
        }
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        ObjectAddress::parse(text).map(Self::Objects).map_err(refuse)
    }
}

impl fmt::Display for CapacityAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Objects(address) => address.fmt(f),
        }
    }
}

impl Serialize for CapacityAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<&Self> for CapacityAddress {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl From<PathBuf> for CapacityAddress {
    fn from(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}

impl From<&Path> for CapacityAddress {
    fn from(path: &Path) -> Self {
        Self::Directory(path.to_owned())
    }
}

impl From<&PathBuf> for CapacityAddress {
    fn from(path: &PathBuf) -> Self {
        Self::Directory(path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for (text, scheme, bucket, prefix) in [
            ("s3://bucket/a/b", Scheme::S3, "bucket", "a/b"),
            ("s3://bucket", Scheme::S3, "bucket", ""),
            ("gs://bucket/a", Scheme::Gs, "bucket", "a"),
            ("az://container/a/b", Scheme::Az, "container", "a/b"),
            ("file:///srv/objects", Scheme::File, "", "srv/objects"),
        ] {
            let CapacityAddress::Objects(address) = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!((address.scheme(), address.bucket(), address.prefix()), (scheme, bucket, prefix));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("s3://bucket/a/".parse::<CapacityAddress>().unwrap().to_string(), "s3://bucket/a");
        let path: CapacityAddress = "/srv/s3:/x".parse().unwrap();
        assert_eq!(path.directory(), Some(Path::new("/srv/s3:/x")));
        assert_eq!(path.local_path(), Some("/srv/s3:/x".into()));
    }

    #[test]
    fn places_that_are_one_or_within_each_other_overlap() {
        let address = |text: &str| match text.parse::<CapacityAddress>().unwrap() {
            CapacityAddress::Objects(address) => address,
            CapacityAddress::Directory(_) => panic!("{text}"),
        };
        for (a, b, expected) in [
            ("s3://b/a", "s3://b/a/", true),
            ("s3://b/a", "s3://b/a/c", true),
            ("s3://b", "s3://b/a", true),
            ("s3://b/a", "s3://b/ab", false),
            ("s3://b/a", "s3://c/a", false),
            ("s3://b/a", "gs://b/a", false),
        ] {
            assert_eq!(address(a).overlaps(&address(b)), expected, "{a} {b}");
            assert_eq!(address(b).overlaps(&address(a)), expected, "{b} {a}");
        }
        let local: CapacityAddress = "file:///srv/objects".parse().unwrap();
        assert_eq!(local.local_path(), Some("/srv/objects".into()));
        assert_eq!("s3://b/a".parse::<CapacityAddress>().unwrap().local_path(), None);
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_key_in_it_not_repeated() {
        for bad in [
            "s3://",
            "s3:///a",
            "gs:///a",
            "az://",
            "ftp://host/a",
            "s3://b/../a",
            "s3://b//a",
            "s3://b/a?x=1",
            "s3://b/a b",
            "file://host/a",
            "file:///",
            "://x",
            "s3://b/a%2e",
        ] {
            bad.parse::<CapacityAddress>().unwrap_err();
        }
        let told = "s3://key:secret@bucket/a".parse::<CapacityAddress>().unwrap_err().to_string();
        assert!(!told.contains("secret") && told.contains("environment"), "{told}");
    }
}
