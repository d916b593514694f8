//! How a block's 64 KiB become the stored data of a record, and back.
//!
//! lz4 where that saves at least one unit of 512 bytes, nothing at all for a block of zeros, raw otherwise.
//! Pure: no I/O, no state but the compressor's scratch memory (about 80 KiB).

use forerun::geometry::BLOCK_BYTES;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::fault::Fault;
use super::place::UNIT_BYTES;

/// How a record's data is stored. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Codec {
    /// The block as it is.
    Raw = 0,
    /// One lz4 block without a size in front.
    Lz4 = 1,
    /// A block of zeros: no data at all.
    Zero = 2,
}

impl Codec {
    /// Reads the codec's number; `None` where it is unknown.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zero),
            _ => None,
        }
    }
}

/// Compresses blocks, one after the other.
pub struct Compressor {
    table: CompressTable,
    scratch: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        let scratch = vec![0; get_maximum_output_size(BLOCK_BYTES as usize)];
        Self { table: CompressTable::large(), scratch }
    }
}

impl Compressor {
    /// Chooses the codec for a block and gives what is to be stored.
    pub fn compress<'a>(&'a mut self, block: &'a [u8]) -> (Codec, &'a [u8]) {
        if is_zero(block) {
            return (Codec::Zero, &[]);
        }
        let worth_it = block.len().saturating_sub(UNIT_BYTES as usize);
        match compress_into_with_table(block, &mut self.scratch, &mut self.table) {
            Ok(len) if len <= worth_it => (Codec::Lz4, self.scratch.get(..len).unwrap_or_default()),
            // The scratch memory is large enough for any block; raw is right in any case.
            Ok(_) | Err(_) => (Codec::Raw, block),
        }
    }
}

/// Whether a block holds nothing but zeros.
#[must_use]
pub fn is_zero(block: &[u8]) -> bool {
    // Piecewise, so that the inner loop has no exit and becomes vector code.
    block.chunks(512).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Turns stored data back into the block; `block` is wholly written or the fault is told.
///
/// # Errors
/// Data that does not give exactly `block.len()` bytes.
pub fn restore(codec: Codec, stored: &[u8], block: &mut [u8]) -> Result<(), Fault> {
    match codec {
        Codec::Zero if stored.is_empty() => block.fill(0),
        Codec::Raw if stored.len() == block.len() => block.copy_from_slice(stored),
        Codec::Lz4 => match decompress_into(stored, block) {
            Ok(len) if len == block.len() => {}
            Ok(_) | Err(_) => return Err(Fault::Compression),
        },
        Codec::Zero | Codec::Raw => return Err(Fault::Compression),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..len).map(|_| step()).collect()
    }

    #[test]
    fn zeros_vanish_text_shrinks_and_noise_stays_raw() {
        let mut compressor = Compressor::default();
        assert_eq!(compressor.compress(&vec![0; BLOCK]), (Codec::Zero, &[][..]));
        let text: Vec<u8> = b"forerun ".iter().copied().cycle().take(BLOCK).collect();
        let (codec, stored) = compressor.compress(&text);
        assert_eq!(codec, Codec::Lz4);
        assert!(stored.len() < BLOCK / 50);
        assert_eq!(compressor.compress(&noise(BLOCK)).0, Codec::Raw);
    }

    proptest! {
        #[test]
        fn every_block_comes_back(runs in prop::collection::vec((any::<u8>(), 1usize..4096), 1..64), noisy in 0..BLOCK) {
            let mut block = vec![0; BLOCK];
            let mut at = 0;
            for (byte, len) in runs {
                let end = (at + len).min(BLOCK);
                block[at..end].fill(byte);
                at = end;
            }
            block[noisy..].copy_from_slice(&noise(BLOCK - noisy));
            let mut compressor = Compressor::default();
            let (codec, stored) = compressor.compress(&block);
            let mut back = vec![0xaa; BLOCK];
            restore(codec, stored, &mut back).unwrap();
            prop_assert!(back == block);
        }

        #[test]
        fn arbitrary_bytes_never_panic(stored in prop::collection::vec(any::<u8>(), 0..2000), number: u8) {
            if let Some(codec) = Codec::from_number(number) {
                let _ = restore(codec, &stored, &mut vec![0; BLOCK]);
            }
        }
    }
}
