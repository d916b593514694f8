//! What a clone says in its HEAD of the volumes whose objects it shares.
//!
//! Object numbers rise for as long as a volume lives, and a clone goes on from its origin's: objects numbered below
//! [`Origin::below`] are the origin's, those from there on the clone's own. A clone of a clone has an origin for each, the
//! oldest first, and each number has one owner. The clone reads what is not its own and never deletes it.
//!
//! A record, behind the layers of HEAD:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 16 | volume |
//! | 16 | 8 | objects numbered below this are its |
//! | 24 | 4 | epoch that was cloned |
//! | 28 | 4 | flags (bit 0: being promoted, bit 1: left) |
//! | 32 | 2 | length of the address |
//! | 34 | 30 | 0 |
//! | 64 | 960 | address: a path or URL |

use forerun::geometry::Epoch;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U16, U32, U64, Unaligned};

use super::fault::Fault;
use super::names::VolumeUuid;

/// Bytes of a record.
pub const ORIGIN_BYTES: usize = 1024;
/// The most origins a volume has: so many clones of clones until one is promoted.
pub const MAX_ORIGINS: usize = 16;
/// The longest address of a capacity tier, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 960;

const FLAG_PROMOTING: u32 = 1;
const FLAG_LEFT: u32 = 2;
const WHAT: &str = "HEAD";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawOrigin {
    volume: [u8; 16],
    below: U64<LE>,
    epoch: U32<LE>,
    flags: U32<LE>,
    address_len: U16<LE>,
    zero: [u8; 30],
    address: [u8; MAX_ADDRESS_BYTES],
}

const _: () = assert!(size_of::<RawOrigin>() == ORIGIN_BYTES);

/// A volume whose objects a clone shares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The volume.
    pub volume: VolumeUuid,
    /// Objects numbered below this, and not below that of an older origin, are its.
    pub below: u64,
    /// The epoch that was cloned.
    pub epoch: Epoch,
    /// Where its capacity tier is: a path or URL of 1 to [`MAX_ADDRESS_BYTES`] bytes.
    pub address: String,
    /// What is still shared with it is being copied.
    pub promoting: bool,
    /// Nothing here refers to it any more; its pin is about to be removed.
    pub left: bool,
}

impl Origin {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let flags = u32::from(self.promoting) * FLAG_PROMOTING + u32::from(self.left) * FLAG_LEFT;
        let (address_len, address) = pad(&self.address);
        let raw = RawOrigin {
            volume: self.volume.0,
            below: U64::new(self.below),
            epoch: U32::new(self.epoch.0),
            flags: U32::new(flags),
            address_len: U16::new(address_len),
            zero: [0; 30],
            address,
        };
        out.extend_from_slice(raw.as_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let have = bytes.len() as u64;
        let raw = RawOrigin::read_from_bytes(bytes).map_err(|_| Fault::Short {
            what: WHAT,
            have,
            need: ORIGIN_BYTES as u64,
        })?;
        let (len, flags) = (raw.address_len.get(), raw.flags.get());
        let range = Fault::Range { what: WHAT, field: "an origin's address", found: len.into() };
        Ok(Self {
            volume: VolumeUuid(raw.volume),
            below: raw.below.get(),
            epoch: Epoch(raw.epoch.get()),
            address: unpad(&raw.address, len).ok_or(range)?,
            promoting: flags & FLAG_PROMOTING != 0,
            left: flags & FLAG_LEFT != 0,
        })
    }
}

/// Whether an address can be kept.
#[must_use]
pub fn is_address(address: &str) -> bool {
    (1..=MAX_ADDRESS_BYTES).contains(&address.len()) && !address.chars().any(char::is_control)
}

/// An address in its field, with its length; one that is too long is cut, and then it cannot be read.
pub(super) fn pad(address: &str) -> (u16, [u8; MAX_ADDRESS_BYTES]) {
    let mut field = [0; MAX_ADDRESS_BYTES];
    let len = address.len().min(MAX_ADDRESS_BYTES);
    if let (Some(front), Some(text)) = (field.get_mut(..len), address.as_bytes().get(..len)) {
        front.copy_from_slice(text);
    }
    (u16::try_from(address.len()).unwrap_or(u16::MAX), field)
}

/// Reads an address back.
pub(super) fn unpad(field: &[u8], len: u16) -> Option<String> {
    let text = std::str::from_utf8(field.get(..usize::from(len))?).ok()?;
    is_address(text).then(|| text.to_owned())
}

/// Whose object has this number, of `origins` in their order; `None` for the volume's own.
#[cfg(test)]
pub fn owner(origins: &[Origin], number: u64) -> Option<&Origin> {
    origins.iter().find(|origin| number < origin.below)
}
