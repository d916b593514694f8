//! CRC-32C with a salt: the same bytes have another checksum as another kind of structure or under another
//! number.
//!
//! So a block that lies in the place of another one, of its own kind or not, is found by its
//! checksum even where every byte of it is as it was written.

use crc_fast::{CrcAlgorithm, Digest};

/// The kind of structure a checksum belongs to. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Salt {
    /// HEAD, number 0.
    Head = 0x4845_4144,
    /// A segment's header; the number is the segment's.
    SegmentHeader = 0x5345_474d,
    /// A record's header; the number is its offset in the segment in 512-byte units.
    RecordHeader = 0x5245_4348,
    /// A record's stored data with the padding behind; the number is the block's.
    RecordData = 0x5245_4344,
    /// A page of a layer's table; the number is the page's.
    LayerPage = 0x4c41_5950,
    /// A clone's pin, number 0.
    Pin = 0x434c_4f4e,
    /// A warm list; the number is the object's.
    WarmList = 0x5741_524d,
}

/// The salted CRC-32C of `parts`, as if they followed each other.
#[must_use]
pub fn checksum(salt: Salt, number: u64, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut prefix = [0; 12];
    prefix[..4].copy_from_slice(&(salt as u32).to_le_bytes());
    prefix[4..].copy_from_slice(&number.to_le_bytes());
    digest.update(&prefix);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_number_and_content_all_count() {
        let sum = checksum(Salt::Head, 0, &[b"abc"]);
        assert_eq!(sum, checksum(Salt::Head, 0, &[b"a", b"bc"]));
        assert_ne!(sum, checksum(Salt::Head, 1, &[b"abc"]));
        assert_ne!(sum, checksum(Salt::LayerPage, 0, &[b"abc"]));
        assert_ne!(sum, checksum(Salt::Head, 0, &[b"abd"]));
    }

    #[test]
    fn the_polynomial_is_castagnoli() {
        // The check value of CRC-32C over "123456789", here with the salt in front.
        let mut salted = Vec::from((Salt::Head as u32).to_le_bytes());
        salted.extend_from_slice(&0u64.to_le_bytes());
        salted.extend_from_slice(b"123456789");
        assert_eq!(checksum(Salt::Head, 0, &[b"123456789"]), crc_fast::crc32_iscsi(&salted));
        assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    }
}
