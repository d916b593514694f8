//! The names in a capacity tier: of volumes and of the objects in the store.
//!
//! Always true: an object's name is made from its kind and number alone.

use std::fmt;

use forerun::config::NAME_BYTES_MAX;
pub use forerun::config::SnapshotName;
use forerun::geometry::SegmentId;

/// The bytes that HEAD has for a snapshot's name.
pub const MAX_SNAPSHOT_NAME_BYTES: usize = 63;

const _: () = assert!(NAME_BYTES_MAX <= MAX_SNAPSHOT_NAME_BYTES, "every name fits into HEAD");

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

/// Which kind of immutable object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKind {
    /// Block records.
    Segment,
    /// A table of changes.
    Layer,
    /// A warm list. Nothing refers to it.
    Warm,
}

impl ObjectKind {
    /// The directory, or key prefix, that holds the objects of this kind.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Segment => "segments",
            Self::Layer => "layers",
            Self::Warm => "warm",
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
}
