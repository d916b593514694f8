//! The other half of the map: from a block to its place on the capacity tier.
//!
//! The volume is cut into regions of 256 MiB. A region costs nothing while it has no places, about 13 bytes
//! a block while it has few, and 8 bytes for each of its 4,096 blocks once that is less. Leaves of
//! neighbouring blocks would cost a leaf for each lone block.
//!
//! Few places are kept in chunks of one size: regions that grow side by side in buffers of their own leave holes of all
//! sizes behind, which took half as much memory again (23 bytes a block, measured).
//!
//! Each region has a lock of its own, held for one look-up. A hit on the fast tier never comes here.

use std::cmp::Ordering;
use std::num::NonZeroU64;

use forerun::geometry::BlockIndex;

use super::lock;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;

/// Blocks in a region.
const REGION_BLOCKS: usize = 4096;
/// Places in a chunk: 80 bytes, with what the allocator adds 12 bytes a place.
const CHUNK: usize = 8;
/// From this many places on the dense form is the smaller: 4096 * 8 / 13.
const DENSE_FROM: usize = REGION_BLOCKS * 8 / 13;

#[derive(Default)]
enum Region {
    #[default]
    Empty,
    Sparse(Sparse),
    /// One word a block, 0 for none.
    Dense {
        places: Box<[u64]>,
        used: usize,
    },
}

/// Places sorted by key; every chunk but the last is full.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "chunks of their own, so that all memory is in pieces of one size")]
struct Sparse {
    chunks: Vec<Box<Chunk>>,
    len: usize,
}

#[derive(Default)]
struct Chunk {
    keys: [u16; CHUNK],
    places: [u64; CHUNK],
}

impl Sparse {
    fn entry(&self, at: usize) -> Option<(u16, u64)> {
        let chunk = self.chunks.get(at / CHUNK).filter(|_| at < self.len)?;
        Some((*chunk.keys.get(at % CHUNK)?, *chunk.places.get(at % CHUNK)?))
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (0..self.len).filter_map(|at| self.entry(at))
    }

    fn put(&mut self, at: usize, (key, place): (u16, u64)) {
        let Some(chunk) = self.chunks.get_mut(at / CHUNK) else { return };
        if let (Some(old_key), Some(old_place)) =
            (chunk.keys.get_mut(at % CHUNK), chunk.places.get_mut(at % CHUNK))
        {
            (*old_key, *old_place) = (key, place);
        }
    }

    /// Where the key is, or would be.
    fn find(&self, key: u16) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.entry(middle).map_or(Ordering::Greater, |(found, _)| found.cmp(&key)) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    fn insert(&mut self, at: usize, entry: (u16, u64)) {
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.reserve_exact(1);
            self.chunks.push(Box::default());
        }
        self.len += 1;
        for later in (at + 1..self.len).rev() {
            if let Some(moved) = self.entry(later - 1) {
                self.put(later, moved);
            }
        }
        self.put(at, entry);
    }

    fn remove(&mut self, at: usize) {
        for later in at + 1..self.len {
            if let Some(moved) = self.entry(later) {
                self.put(later - 1, moved);
            }
        }
        self.len -= 1;
        self.chunks.truncate(self.len.div_ceil(CHUNK));
    }
}

impl Region {
    fn get(&self, key: u16) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Sparse(sparse) => {
                let found = sparse.find(key).ok().and_then(|at| sparse.entry(at));
                found.map_or(0, |(_, place)| place)
            }
            Self::Dense { places, .. } => places.get(usize::from(key)).copied().unwrap_or(0),
        }
    }

    /// Stores `place` (0 for none) and returns what was there.
    fn replace(&mut self, key: u16, place: u64) -> u64 {
        match self {
            Self::Empty => {
                if place != 0 {
                    let mut sparse = Sparse::default();
                    sparse.insert(0, (key, place));
                    *self = Self::Sparse(sparse);
                }
                0
            }
            Self::Sparse(sparse) => {
                let old = match (sparse.find(key), place) {
                    (Ok(at), place) => {
                        let old = sparse.entry(at).map_or(0, |(_, old)| old);
                        if place == 0 {
                            sparse.remove(at)
                        } else {
                            sparse.put(at, (key, place))
                        }
                        old
                    }
                    (Err(_), 0) => 0,
                    (Err(at), _) => {
                        sparse.insert(at, (key, place));
                        0
                    }
                };
                if sparse.len == 0 {
                    *self = Self::Empty;
                } else if sparse.len > DENSE_FROM {
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
        if let Self::Sparse(sparse) = self {
            let mut dense = vec![0; REGION_BLOCKS].into_boxed_slice();
            for (key, place) in sparse.entries() {
                if let Some(word) = dense.get_mut(usize::from(key)) {
                    *word = place;
                }
            }
            *self = Self::Dense { places: dense, used: sparse.len };
        }
    }

    fn make_sparse(&mut self) {
        if let Self::Dense { places, .. } = self {
            let mut sparse = Sparse::default();
            for entry in (0u16..).zip(places.iter().copied()).filter(|(_, place)| *place != 0) {
                sparse.insert(sparse.len, entry);
            }
            *self = Self::Sparse(sparse);
        }
    }
}

/// Where each written-back block lies on the capacity tier.
pub struct PlaceMap {
    regions: Box<[Mutex<Region>]>,
    len: AtomicU64,
}

impl PlaceMap {
    /// An empty map for a volume of `blocks` blocks.
    pub fn new(blocks: u32) -> Self {
        let regions = (blocks as usize).div_ceil(REGION_BLOCKS);
        Self { regions: (0..regions).map(|_| Mutex::default()).collect(), len: AtomicU64::new(0) }
    }

    /// How many blocks have a place.
    pub fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Whether no block has a place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(clippy::indexing_slicing, reason = "blocks are checked against the volume's size at the door")]
    fn region(&self, block: BlockIndex) -> (&Mutex<Region>, u16) {
        let block = block.0 as usize;
        (&self.regions[block / REGION_BLOCKS], (block % REGION_BLOCKS) as u16)
    }

    /// The block's place.
    pub fn get(&self, block: BlockIndex) -> Option<NonZeroU64> {
        let (region, key) = self.region(block);
        NonZeroU64::new(lock(region).get(key))
    }

    /// Sets or (with `None`) removes the block's place; returns the one before.
    pub fn set(&self, block: BlockIndex, place: Option<NonZeroU64>) -> Option<NonZeroU64> {
        let (region, key) = self.region(block);
        let old = NonZeroU64::new(lock(region).replace(key, place.map_or(0, NonZeroU64::get)));
        match (old, place) {
            (None, Some(_)) => self.len.fetch_add(1, Relaxed),
            (Some(_), None) => self.len.fetch_sub(1, Relaxed),
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
            for block in 0..10_000 {
                prop_assert_eq!(map.get(BlockIndex(block)).map(NonZeroU64::get), model.get(&block).copied());
            }
        }
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
