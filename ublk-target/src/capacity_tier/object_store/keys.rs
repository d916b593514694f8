//! The keys of a volume's objects, below its prefix.
//!
//! ```text
//! PREFIX/heads/<generation>-<sequence>      HEADs; the greatest one counts
//! PREFIX/writers/<generation>-<uuid>        a writer's claim
//! PREFIX/writers/<generation>-<uuid>.alive  rewritten by the writer as long as it lives
//! PREFIX/writers/<generation>-<uuid>.closed the writer ended; the claim has to stay
//! PREFIX/leases/<epoch>-<uuid>              rewritten by whoever reads a snapshot
//! PREFIX/clones/<uuid>                      the pin of a clone
//! PREFIX/segments/<number>                  as in a directory
//! PREFIX/layers/<number>
//! PREFIX/probes/<uuid>                      for a moment: what the server can do
//! PREFIX/repairs/<uuid>                     a repair of this volume writes here; gone when it has ended
//! ```
//! Generation, sequence and number are 16 lower-case hex digits, so that keys sort as they count; an epoch has 8,
//! a uuid 32. All but `.alive`, leases, pins, probes and repairs are written once and never changed. What is not of this form is left
//! alone.

use std::fmt;

use forerun::geometry::{Epoch, Generation};
use uuid::Uuid;

use super::super::store::HeadNumber;

pub const HEADS: &str = "heads";
pub const WRITERS: &str = "writers";
pub const LEASES: &str = "leases";
pub const CLONES: &str = "clones";
pub const PROBES: &str = "probes";
pub const REPAIRS: &str = "repairs";

/// Reads exactly `digits` lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let right = text.len() == digits && text.bytes().all(is_hex);
    if right { u128::from_str_radix(text, 16).ok() } else { None }
}

fn hex_u64(text: &str) -> Option<u64> {
    hex(text, 16).and_then(|number| u64::try_from(number).ok())
}

/// The last part of a HEAD's key.
pub fn head_name(number: HeadNumber) -> String {
    format!("{:016x}-{:016x}", number.generation.0, number.sequence)
}

/// Reads the last part of a HEAD's key.
pub fn parse_head(name: &str) -> Option<HeadNumber> {
    let (generation, sequence) = name.split_once('-')?;
    Some(HeadNumber { generation: Generation(hex_u64(generation)?), sequence: hex_u64(sequence)? })
}

/// Whose claim: ordered by generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimName {
    pub generation: Generation,
    pub uuid: Uuid,
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.generation.0, self.uuid.simple())
    }
}

/// What a key below `writers/` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimPart {
    Claim,
    Alive,
    Closed,
}

impl ClaimPart {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Claim => "",
            Self::Alive => ".alive",
            Self::Closed => ".closed",
        }
    }

    /// The key's last part.
    pub fn of(self, name: ClaimName) -> String {
        format!("{name}{}", self.suffix())
    }
}

/// Reads the last part of a key below `writers/`.
pub fn parse_claim(name: &str) -> Option<(ClaimName, ClaimPart)> {
    let (stem, part) = match name.split_once('.') {
        None => (name, ClaimPart::Claim),
        Some((stem, "alive")) => (stem, ClaimPart::Alive),
        Some((stem, "closed")) => (stem, ClaimPart::Closed),
        Some(_) => return None,
    };
    let (generation, uuid) = stem.split_once('-')?;
    let generation = Generation(hex_u64(generation)?);
    Some((ClaimName { generation, uuid: Uuid::from_u128(hex(uuid, 32)?) }, part))
}

/// The last part of a lease's key.
pub fn lease_name(epoch: Epoch, uuid: Uuid) -> String {
    format!("{:08x}-{}", epoch.0, uuid.simple())
}

/// Reads the last part of a lease's key.
pub fn parse_lease(name: &str) -> Option<Epoch> {
    let (epoch, uuid) = name.split_once('-')?;
    hex(uuid, 32)?;
    hex(epoch, 8).and_then(|epoch| u32::try_from(epoch).ok()).map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_sort_as_they_count_and_nothing_else_is_one() {
        let number = |generation, sequence| HeadNumber { generation: Generation(generation), sequence };
        let (a, b) = (number(2, 300), number(16, 4));
        assert!(a < b && head_name(a) < head_name(b));
        assert_eq!(parse_head(&head_name(b)), Some(b));
        let claim = ClaimName { generation: Generation(7), uuid: Uuid::from_u128(9) };
        for part in [ClaimPart::Claim, ClaimPart::Alive, ClaimPart::Closed] {
            assert_eq!(parse_claim(&part.of(claim)), Some((claim, part)));
        }
        assert_eq!(parse_lease(&lease_name(Epoch(31), Uuid::from_u128(1))), Some(Epoch(31)));
        for bad in ["", "-", "7-9", "0000000000000007-9.alive", "+000000000000007-0000000000000001"] {
            assert_eq!((parse_head(bad), parse_claim(bad), parse_lease(bad)), (None, None, None), "{bad}");
        }
        assert_eq!(parse_claim(&format!("{claim}.other")), None);
    }
}
