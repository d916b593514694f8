//! A pin: a clone's word, in the store of its origin, of what it needs there.
//!
//! It is written before the clone has a HEAD and removed after the clone has one without references, so whatever a clone
//! can reach is pinned. It lies beside HEAD, not in it: HEAD has one writer, and a clone may be made while that runs, or on
//! another machine. What an origin's writer does about it is what it does about a lease: see `deletions.rs`.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | mark `FRclone1` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32C of bytes 0 to 11 and 16 to the end |
//! | 16 | 16 | origin: the volume in whose store it lies |
//! | 32 | 16 | clone |
//! | 48 | 8 | objects numbered below this may be needed |
//! | 56 | 4 | of layers up to this epoch |
//! | 60 | 2 | length of the address |
//! | 62 | 1 | length of the name |
//! | 63 | 1 | 0 |
//! | 64 | 8 | when it was made, in microseconds since 1970 |
//! | 72 | 56 | 0 |
//! | 128 | 64 | the clone's name on the machine where it was made |
//! | 192 | 960 | address of the clone's capacity tier |
//!
//! A pin that cannot be read keeps everything: nothing is deleted for want of knowledge.

use forerun::geometry::Epoch;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U16, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::fault::Fault;
use super::names::VolumeUuid;
use super::origin::{MAX_ADDRESS_BYTES, pad, unpad};

/// Bytes of a pin.
pub const PIN_BYTES: usize = 1152;
/// The version that is written and the newest that is read.
pub const PIN_VERSION: u32 = 1;

const MARK: [u8; 8] = *b"FRclone1";
const WHAT: &str = "the clone's pin";
const NAME_BYTES: usize = 64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawPin {
    mark: [u8; 8],
    version: U32<LE>,
    checksum: U32<LE>,
    origin: [u8; 16],
    clone: [u8; 16],
    below: U64<LE>,
    epoch: U32<LE>,
    address_len: U16<LE>,
    name_len: u8,
    zero_a: u8,
    created_us: U64<LE>,
    zero_b: [u8; 56],
    name: [u8; NAME_BYTES],
    address: [u8; MAX_ADDRESS_BYTES],
}

const _: () = assert!(size_of::<RawPin>() == PIN_BYTES);

/// What a clone needs of its origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The volume in whose store it lies.
    pub origin: VolumeUuid,
    /// The clone.
    pub clone: VolumeUuid,
    /// Objects numbered below this may be needed.
    pub below: u64,
    /// Of layers up to this epoch.
    pub epoch: Epoch,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: u64,
    /// The clone's name on the machine where it was made; for people.
    pub name: String,
    /// Where the clone's capacity tier is.
    pub address: String,
    /// Why it cannot be read, if it cannot: then it keeps everything.
    pub broken: Option<String>,
}

impl Pin {
    /// Whether the clone may need an object that was written for a layer up to `epoch`.
    #[must_use]
    pub fn needs(&self, number: u64, epoch: Epoch) -> bool {
        number < self.below && epoch <= self.epoch
    }

    /// The pin's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (address_len, address) = pad(&self.address);
        let mut name = [0; NAME_BYTES];
        let name_len = self.name.len().min(NAME_BYTES);
        if let (Some(front), Some(text)) = (name.get_mut(..name_len), self.name.as_bytes().get(..name_len)) {
            front.copy_from_slice(text);
        }
        let mut raw = RawPin {
            mark: MARK,
            version: U32::new(PIN_VERSION),
            checksum: U32::new(0),
            origin: self.origin.0,
            clone: self.clone.0,
            below: U64::new(self.below),
            epoch: U32::new(self.epoch.0),
            address_len: U16::new(address_len),
            name_len: name_len as u8,
            zero_a: 0,
            created_us: U64::new(self.created_us),
            zero_b: [0; 56],
            name,
            address,
        };
        raw.checksum = U32::new(sum(raw.as_bytes()));
        raw.as_bytes().to_vec()
    }

    /// Reads the pin that lies in the store of `origin` under the name of `clone`.
    ///
    /// # Errors
    /// Any byte that is not as it was written, a newer format, another clone's or another volume's pin.
    pub fn decode(bytes: &[u8], origin: VolumeUuid, clone: VolumeUuid) -> Result<Self, Fault> {
        let have = bytes.len() as u64;
        let raw = RawPin::read_from_bytes(bytes).map_err(|_| Fault::Short {
            what: WHAT,
            have,
            need: PIN_BYTES as u64,
        })?;
        if raw.mark != MARK {
            return Err(Fault::Mark { what: WHAT });
        }
        if raw.checksum.get() != sum(bytes) {
            return Err(Fault::Checksum { what: WHAT });
        }
        let (found, supported) = (raw.version.get(), PIN_VERSION);
        if found == 0 || found > supported {
            return Err(Fault::NewerFormat { what: WHAT, found, supported });
        }
        for (found, expected) in [(raw.origin, origin), (raw.clone, clone)] {
            if found != expected.0 {
                return Err(Fault::OtherVolume { what: WHAT, found: VolumeUuid(found), expected });
            }
        }
        let range = |field, found: u64| Fault::Range { what: WHAT, field, found };
        let (address_len, name_len) = (raw.address_len.get(), raw.name_len);
        let name = raw.name.get(..usize::from(name_len)).and_then(|name| std::str::from_utf8(name).ok());
        Ok(Self {
            origin,
            clone,
            below: raw.below.get(),
            epoch: Epoch(raw.epoch.get()),
            created_us: raw.created_us.get(),
            name: name.ok_or_else(|| range("name", name_len.into()))?.to_owned(),
            address: unpad(&raw.address, address_len).ok_or_else(|| range("address", address_len.into()))?,
            broken: None,
        })
    }

    /// Reads a pin; one that cannot be read keeps everything.
    #[must_use]
    pub fn read(bytes: &[u8], origin: VolumeUuid, clone: VolumeUuid) -> Self {
        Self::decode(bytes, origin, clone).unwrap_or_else(|fault| Self {
            origin,
            clone,
            below: u64::MAX,
            epoch: Epoch(u32::MAX),
            created_us: 0,
            name: String::new(),
            address: String::new(),
            broken: Some(fault.to_string()),
        })
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let parts = [bytes.get(..12).unwrap_or_default(), bytes.get(16..).unwrap_or_default()];
    checksum(Salt::Pin, 0, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Pin {
        Pin {
            origin: VolumeUuid([1; 16]),
            clone: VolumeUuid([2; 16]),
            below: 77,
            epoch: Epoch(5),
            created_us: 9,
            name: "copy".to_owned(),
            address: "/srv/copy".to_owned(),
            broken: None,
        }
    }

    #[test]
    fn a_pin_reads_back_and_every_flipped_bit_is_found() {
        let pin = sample();
        let mut bytes = pin.encode();
        assert_eq!(Pin::decode(&bytes, pin.origin, pin.clone), Ok(pin.clone()));
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << (at % 8);
            let read = Pin::read(&bytes, pin.origin, pin.clone);
            assert!(read.broken.is_some() && read.needs(u64::MAX - 1, Epoch(u32::MAX)), "byte {at}");
            bytes[at] ^= 1 << (at % 8);
        }
        assert!(Pin::decode(&bytes, pin.clone, pin.clone).is_err());
        assert!(Pin::decode(&bytes, pin.origin, pin.origin).is_err());
        assert!(Pin::decode(&bytes[1..], pin.origin, pin.clone).is_err());
    }

    #[test]
    fn a_pin_needs_what_was_there_at_its_epoch() {
        let pin = sample();
        assert!(pin.needs(76, Epoch(5)));
        assert!(!pin.needs(77, Epoch(5)) && !pin.needs(76, Epoch(6)));
    }
}
