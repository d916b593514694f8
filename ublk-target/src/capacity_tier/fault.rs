//! What can be wrong with bytes read from the capacity tier, told without knowing where they came from.
//!
//! The parsers here are pure: they get bytes and say what is wrong. Whoever did the I/O adds the
//! object's name ([`super::error::CapacityError::Corrupt`]).

use thiserror::Error;

use super::names::VolumeUuid;

/// Why some bytes are not what they should be.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum Fault {
    /// Fewer bytes than the structure needs.
    #[error("{what} is cut short: {have} bytes of {need}")]
    Short {
        /// The structure.
        what: &'static str,
        /// The bytes that are there.
        have: u64,
        /// The bytes it needs.
        need: u64,
    },
    /// The first bytes are not the structure's mark.
    #[error("{what} does not begin with its mark: this is something else, or overwritten")]
    Mark {
        /// The structure.
        what: &'static str,
    },
    /// The checksum does not match the content.
    #[error("the checksum of {what} does not match its content")]
    Checksum {
        /// The structure.
        what: &'static str,
    },
    /// Written by a newer forerun.
    #[error("{what} has format version {found}; this forerun reads up to {supported}")]
    NewerFormat {
        /// The structure.
        what: &'static str,
        /// The version it states.
        found: u32,
        /// The newest version that is understood here.
        supported: u32,
    },
    /// Of another volume.
    #[error("{what} belongs to volume {found}, not to {expected}")]
    OtherVolume {
        /// The structure.
        what: &'static str,
        /// The volume that it names.
        found: VolumeUuid,
        /// The volume that was asked for.
        expected: VolumeUuid,
    },
    /// A field has another value than the place it was read from asks for.
    #[error("{what}: {field} is {found}, expected {expected}")]
    Field {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The value it has to have.
        expected: u64,
    },
    /// A field has a value that none may have.
    #[error("{what}: {field} cannot be {found}")]
    Range {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// The compressed data does not give back a block.
    #[error("the stored data does not decompress to a block")]
    Compression,
}
