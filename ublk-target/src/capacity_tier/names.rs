//! The names in a capacity tier: of volumes, of snapshots, and of the objects in the store.
//!
//! Always true: a [`SnapshotName`] is 1 to 63 bytes of a small alphabet, so that it fits into HEAD
//! and needs no quoting anywhere; an object's name is made from its kind and number alone.

use std::fmt;

use forerun::geometry::SegmentId;
use thiserror::Error;

/// The most bytes a snapshot's name has.
pub const MAX_SNAPSHOT_NAME_BYTES: usize = 63;

/// Which volume something belongs to: 16 random bytes, made when the volume is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct VolumeUuid(pub [u8; 16]);

impl fmt::Display for VolumeUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

/// A layer's object, numbered from 1 in the same row as segments and never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LayerId(pub u64);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the two kinds of immutable object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKind {
    /// Block records.
    Segment,
    /// A table of changes.
    Layer,
}

impl ObjectKind {
    /// The directory, or key prefix, that holds the objects of this kind.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Segment => "segments",
            Self::Layer => "layers",
        }
    }
}

/// An immutable object of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    /// What it holds.
    pub kind: ObjectKind,
    /// Its number, from 1.
    pub number: u64,
}

impl ObjectName {
    /// The object of a segment.
    #[must_use]
    pub const fn segment(id: SegmentId) -> Self {
        Self { kind: ObjectKind::Segment, number: id.0 }
    }

    /// The object of a layer's table.
    #[must_use]
    pub const fn layer(id: LayerId) -> Self {
        Self { kind: ObjectKind::Layer, number: id.0 }
    }

    /// Reads the last part of a name, 16 lower-case hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(kind: ObjectKind, file_name: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if file_name.len() != 16 || !file_name.bytes().all(hex) {
            return None;
        }
        let number = u64::from_str_radix(file_name, 16).ok()?;
        (number != 0).then_some(Self { kind, number })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.kind.folder(), self.number)
    }
}

/// A snapshot's name: 1 to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName(String);

/// A snapshot name that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' cannot name a snapshot: 1 to 63 of a-z 0-9 . _ - and beginning with a letter or digit")]
pub struct SnapshotNameError(String);

impl SnapshotName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// A name that is empty, too long, or has a character outside of the alphabet.
    pub fn new(name: impl Into<String>) -> Result<Self, SnapshotNameError> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = name.len() <= MAX_SNAPSHOT_NAME_BYTES
            && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
            && name.bytes().next().is_some_and(plain);
        if good {
            Ok(Self(name))
        } else {
            // A hostile name must not flood the message.
            Err(SnapshotNameError(name.chars().take(MAX_SNAPSHOT_NAME_BYTES + 1).collect()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_read_back_and_nothing_else_does() {
        let name = ObjectName::segment(SegmentId(0x2a));
        assert_eq!(name.to_string(), "segments/000000000000002a");
        assert_eq!(ObjectName::parse(ObjectKind::Segment, "000000000000002a"), Some(name));
        for bad in
            ["", "2a", "000000000000002A", "0000000000000000", "+00000000000002a", "000000000000002a.tmp"]
        {
            assert_eq!(ObjectName::parse(ObjectKind::Segment, bad), None, "{bad}");
        }
    }

    #[test]
    fn snapshot_names_are_short_and_plain() {
        for good in ["a", "2026-11-23", "before_upgrade", &"x".repeat(63)] {
            assert!(SnapshotName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "-n", "A", "a/b", "a b", "a@b", "ä", &"x".repeat(64)] {
            assert!(SnapshotName::new(bad).is_err(), "{bad}");
        }
    }
}
