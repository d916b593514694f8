//! The other half of the map: from a block to its place on the capacity tier.
//!
//! The volume is cut into regions of 256 MiB. A region costs nothing while it has no places, 10 bytes
//! a block (12.5 with spare room) while it has few, and 8 bytes for each of its 4,096 blocks once that is less:
//! at most 12.5 bytes a mapped block however sparsely the volume is written, where leaves of
//! neighbouring blocks would cost a leaf for each lone block. (Chunks of one size, which leave no holes in the heap, were no
//! smaller when measured, and a terabyte's places took five times as long to build.)
//!
//! Each region has a lock of its own, held for one look-up. A hit on the fast tier never comes here. The regions come in chunks
//! that are made when one of their blocks is first asked for, so that a volume can grow while others look.

use std::num::NonZeroU64;
use std::sync::OnceLock;

use forerun::geometry::{BLOCK_BYTES, BlockIndex, MAX_VOLUME_BYTES};

use super::lock;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Blocks in a region.
const REGION_BLOCKS: usize = 4096;
/// Regions in a chunk: 16 GiB of a volume.
const CHUNK_REGIONS: usize = 64;
/// Chunks of the largest volume.
const CHUNKS: usize = (MAX_VOLUME_BYTES / BLOCK_BYTES) as usize / REGION_BLOCKS / CHUNK_REGIONS;
/// From this many places on the dense form is the smaller: 4096 * 8 / 10.
const DENSE_FROM: usize = REGION_BLOCKS * 8 / 10;

#[derive(Default)]
enum Region {
    #[default]
    Empty,
    /// Sorted by key; `places` runs parallel to `keys`.
    Sparse { keys: Vec<u16>, places: Vec<u64> },
    /// One word a block, 0 for none.
    Dense { places: Box<[u64]>, used: usize },
}

impl Region {
    fn get(&self, key: u16) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Sparse { keys, places } => {
                keys.binary_search(&key).ok().and_then(|at| places.get(at)).copied().unwrap_or(0)
            }
            Self::Dense { places, .. } => places.get(usize::from(key)).copied().unwrap_or(0),
        }
    }

    /// Stores `place` (0 for none) and returns what was there.
    fn replace(&mut self, key: u16, place: u64) -> u64 {
        match self {
            Self::Empty => {
                if place != 0 {
                    *self = Self::Sparse { keys: vec![key], places: vec![place] };
                }
                0
            }
            Self::Sparse { keys, places } => {
                let old = match (keys.binary_search(&key), place) {
                    (Ok(at), 0) => {
                        keys.remove(at);
                        places.remove(at)
                    }
                    (Ok(at), _) => places.get_mut(at).map_or(0, |old| std::mem::replace(old, place)),
                    (Err(_), 0) => 0,
                    (Err(at), _) => {
                        if keys.len() == keys.capacity() {
                            // A quarter of spare room instead of the doubling of Vec.
                            let spare = keys.len() / 4 + 1;
                            keys.reserve_exact(spare);
                            places.reserve_exact(spare);
                        }
                        keys.insert(at, key);
                        places.insert(at, place);
                        0
                    }
                };
                if keys.is_empty() {
                    *self = Self::Empty;
                } else if keys.len() > DENSE_FROM {
                    self.make_dense();
                }
                old
            }
            Self::Dense { places, used } => {
                let Some(word) = places.get_mut(usize::from(key)) else { return 0 };
                let old = std::mem::replace(word, place);
                *used = *used + usize::from(place != 0) - usize::from(old != 0);
                // A wide gap between the two limits, so that a region does not flap.
                if *used < DENSE_FROM / 2 {
                    self.make_sparse();
                }
                old
            }
        }
    }

    fn make_dense(&mut self) {
        if let Self::Sparse { keys, places } = self {
            let mut dense = vec![0; REGION_BLOCKS].into_boxed_slice();
            for (key, place) in keys.iter().zip(places.iter()) {
                if let Some(word) = dense.get_mut(usize::from(*key)) {
                    *word = *place;
                }
            }
            *self = Self::Dense { places: dense, used: keys.len() };
        }
    }

    fn make_sparse(&mut self) {
        if let Self::Dense { places, .. } = self {
            let entries: Vec<(u16, u64)> =
                (0u16..).zip(places.iter().copied()).filter(|(_, place)| *place != 0).collect();
            *self = Self::Sparse {
                keys: entries.iter().map(|(key, _)| *key).collect(),
                places: entries.iter().map(|(_, place)| *place).collect(),
            };
        }
    }
}

type Chunk = Box<[Mutex<Region>]>;

/// Where each written-back block lies on the capacity tier.
pub struct PlaceMap {
    // `OnceLock` of `std`, also under a model checker: what it makes is the same whoever comes first.
    chunks: Box<[OnceLock<Chunk>]>,
    /// How many regions the volume has.
    regions: AtomicU32,
    len: AtomicU64,
}

impl PlaceMap {
    /// An empty map for a volume of `blocks` blocks.
    pub fn new(blocks: u32) -> Self {
        let map = Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            regions: AtomicU32::new(0),
            len: AtomicU64::new(0),
        };
        map.grow(blocks);
        map
    }

    /// The volume has `blocks` blocks from now on, which are more than before.
    pub fn grow(&self, blocks: u32) {
        self.regions.store(blocks.div_ceil(REGION_BLOCKS as u32), Ordering::Release);
    }

    /// How many blocks have a place.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no block has a place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(clippy::indexing_slicing, reason = "blocks are checked against the volume's size at the door")]
    fn region(&self, block: BlockIndex) -> (&Mutex<Region>, u16) {
        let block = block.0 as usize;
        let region = block / REGION_BLOCKS;
        let chunk = self.chunks[region / CHUNK_REGIONS]
            .get_or_init(|| (0..CHUNK_REGIONS).map(|_| Mutex::default()).collect());
        (&chunk[region % CHUNK_REGIONS], (block % REGION_BLOCKS) as u16)
    }

    /// The block's place.
    pub fn get(&self, block: BlockIndex) -> Option<NonZeroU64> {
        let (region, key) = self.region(block);
        NonZeroU64::new(lock(region).get(key))
    }

    /// The blocks of a region that have a place, ascending; `None` beyond the last region.
    pub fn in_region(&self, region: usize) -> Option<Vec<BlockIndex>> {
        if region >= self.regions.load(Ordering::Acquire) as usize {
            return None;
        }
        let first = (region * REGION_BLOCKS) as u32;
        // A chunk that was never made has no places.
        let Some(chunk) = self.chunks.get(region / CHUNK_REGIONS)?.get() else { return Some(Vec::new()) };
        let keys: Vec<u16> = match &*lock(chunk.get(region % CHUNK_REGIONS)?) {
            Region::Empty => Vec::new(),
            Region::Sparse { keys, .. } => keys.clone(),
            Region::Dense { places, .. } => {
                (0u16..).zip(places.iter()).filter(|(_, place)| **place != 0).map(|(key, _)| key).collect()
            }
        };
        Some(keys.into_iter().map(|key| BlockIndex(first + u32::from(key))).collect())
    }

    /// Sets or (with `None`) removes the block's place; returns the one before.
    pub fn set(&self, block: BlockIndex, place: Option<NonZeroU64>) -> Option<NonZeroU64> {
        let (region, key) = self.region(block);
        let old = NonZeroU64::new(lock(region).replace(key, place.map_or(0, NonZeroU64::get)));
        match (old, place) {
            (None, Some(_)) => self.len.fetch_add(1, Ordering::Relaxed),
            (Some(_), None) => self.len.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_plain_map(steps in proptest::collection::vec((0u32..10_000, 0u64..4), 1..4000), dense in any::<bool>()) {
            let map = PlaceMap::new(10_000);
            let mut model = HashMap::new();
            if dense {
                for block in 0..DENSE_FROM as u32 + 10 {
                    map.set(BlockIndex(block), NonZeroU64::new(9));
                    model.insert(block, 9);
                }
            }
            for (block, place) in steps {
                let place = NonZeroU64::new(place);
                let old = map.set(BlockIndex(block), place);
                let expected = match place {
                    Some(place) => model.insert(block, place.get()),
                    None => model.remove(&block),
                };
                prop_assert_eq!(old.map(NonZeroU64::get), expected);
            }
            prop_assert_eq!(map.len(), model.len() as u64);
            let told: Vec<u32> = (0..).map_while(|region| map.in_region(region)).flatten().map(|block| block.0).collect();
            let mut expected: Vec<u32> = model.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(told, expected);
            for block in 0..10_000 {
                prop_assert_eq!(map.get(BlockIndex(block)).map(NonZeroU64::get), model.get(&block).copied());
            }
        }
    }

    #[test]
    fn grows() {
        let map = PlaceMap::new(1024);
        map.set(BlockIndex(1000), NonZeroU64::new(1));
        assert!(map.in_region(0).is_some() && map.in_region(1).is_none());
        let blocks = (2 * CHUNK_REGIONS * REGION_BLOCKS) as u32 + 1;
        map.grow(blocks);
        map.set(BlockIndex(blocks - 1), NonZeroU64::new(2));
        let last = 2 * CHUNK_REGIONS;
        assert_eq!(map.in_region(last), Some(vec![BlockIndex(blocks - 1)]));
        assert_eq!(map.in_region(CHUNK_REGIONS), Some(Vec::new()), "of a chunk that nobody asked for");
        assert!(map.in_region(last + 1).is_none());
        assert_eq!((map.get(BlockIndex(1000)), map.len()), (NonZeroU64::new(1), 2));
    }

    #[test]
    fn goes_dense_and_back() {
        let map = PlaceMap::new(4096);
        for block in 0..4096 {
            map.set(BlockIndex(block), NonZeroU64::new(u64::from(block) + 1));
        }
        for block in 1..4096 {
            assert_eq!(map.set(BlockIndex(block), None).map(NonZeroU64::get), Some(u64::from(block) + 1));
        }
        assert_eq!(map.get(BlockIndex(0)).map(NonZeroU64::get), Some(1));
        assert_eq!(map.len(), 1);
    }
}
