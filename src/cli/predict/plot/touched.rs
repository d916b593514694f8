//! A set of blocks, a bit each, in chunks that are there only where something is in them.

use std::collections::BTreeMap;

/// Blocks in a chunk (8 KiB of bits).
const CHUNK_BLOCKS: u32 = 1 << 16;

/// A set of blocks.
#[derive(Default)]
pub struct Touched(BTreeMap<u32, Vec<u64>>);

impl Touched {
    /// Puts a block into the set.
    pub fn add(&mut self, block: u32) {
        let words = self.0.entry(block / CHUNK_BLOCKS).or_insert_with(|| vec![0; CHUNK_BLOCKS as usize / 64]);
        let bit = block % CHUNK_BLOCKS;
        if let Some(word) = words.get_mut(bit as usize / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    /// The blocks, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|(chunk, words)| {
            let first = chunk * CHUNK_BLOCKS;
            words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(move |(index, word)| {
                let first = first + index as u32 * 64;
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
            })
        })
    }
}
