//! What a capacity tier has to be: a map of maps. The same steps are done on both and compared.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use forerun::change_vector::{Change, ChangeKind};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry, MIN_VOLUME_BYTES};

use super::super::memory_store::{MemoryStore, Trouble};
use super::super::*;

pub const VOLUME: VolumeUuid = VolumeUuid([9; 16]);
pub const BLOCK: usize = BLOCK_BYTES as usize;

pub fn geometry() -> Geometry {
    Geometry::new(MIN_VOLUME_BYTES, 4096).unwrap()
}

/// The content of a block by its number: mostly small, some of it incompressible, some zero.
pub fn content(id: u64) -> Vec<u8> {
    let mut data = vec![0; BLOCK];
    if id.is_multiple_of(11) {
        return data;
    }
    data[..8].copy_from_slice(&id.to_le_bytes());
    if id.is_multiple_of(5) {
        let mut state = id;
        for byte in &mut data[8..3000] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 33) as u8;
        }
    }
    data
}

pub type Content = BTreeMap<u32, u64>;

/// What one epoch does: block to new content, or `None` to delete it.
pub type Changes = BTreeMap<u32, Option<u64>>;

/// The truth.
#[derive(Clone, Default, Debug)]
pub struct Model {
    /// Every epoch that was written back: what it changed, and all content after it.
    pub epochs: BTreeMap<u32, (Changes, Content)>,
    pub snapshots: BTreeMap<String, u32>,
}

impl Model {
    pub fn newest(&self) -> u32 {
        self.epochs.keys().next_back().copied().unwrap_or(0)
    }

    pub fn content(&self, epoch: u32) -> Content {
        self.epochs.get(&epoch).map(|(_, content)| content.clone()).unwrap_or_default()
    }

    pub fn commit(&mut self, epoch: u32, changes: &Changes, snapshot: Option<&str>) {
        let mut content = self.content(self.newest());
        for (block, new) in changes {
            match new {
                Some(id) => content.insert(*block, *id),
                None => content.remove(block),
            };
        }
        self.epochs.insert(epoch, (changes.clone(), content));
        snapshot.map(|name| self.snapshots.insert(name.to_owned(), epoch));
    }

    /// The changes as the engine tells them, kinds included; a deletion of nothing is none.
    pub fn told(&self, changes: &Changes) -> Vec<(u32, ChangeKind, Option<u64>)> {
        let before = self.content(self.newest());
        let mut told = Vec::new();
        for (block, new) in changes {
            match (before.contains_key(block), new) {
                (false, Some(id)) => told.push((*block, ChangeKind::Added, Some(*id))),
                (true, Some(id)) => told.push((*block, ChangeKind::Modified, Some(*id))),
                (true, None) => told.push((*block, ChangeKind::Deleted, None)),
                (false, None) => {}
            }
        }
        told
    }

    pub fn diff(&self, from: u32, to: u32) -> Vec<(u32, ChangeKind)> {
        if from >= to {
            return Vec::new();
        }
        let (before, after) = (self.content(from), self.content(to));
        let mut touched = BTreeMap::new();
        for (_, (changes, _)) in self.epochs.range(from + 1..=to) {
            for block in changes.keys() {
                let kind = match (before.contains_key(block), after.contains_key(block)) {
                    (false, true) => ChangeKind::Added,
                    (true, true) => ChangeKind::Modified,
                    (true, false) => ChangeKind::Deleted,
                    (false, false) => continue,
                };
                touched.insert(*block, kind);
            }
        }
        // A block that an epoch 'deleted' while it held nothing was not touched by it.
        touched.retain(|block, kind| {
            *kind != ChangeKind::Modified
                || self.epochs.range(from + 1..=to).any(|(epoch, (changes, _))| {
                    let held = self
                        .epochs
                        .range(..*epoch)
                        .next_back()
                        .is_some_and(|(_, (_, c))| c.contains_key(block));
                    changes.get(block).is_some_and(|new| new.is_some() || held)
                })
        });
        touched.into_iter().collect()
    }
}

/// A clock that is set by hand.
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    pub fn new() -> Self {
        Self(Rc::new(Cell::new(Duration::ZERO)))
    }

    pub fn pass(&self, seconds: u64) {
        self.0.set(self.0.get() + Duration::from_secs(seconds));
    }

    pub fn options(&self) -> Options {
        let now = Rc::clone(&self.0);
        Options {
            deletion_delay: Duration::from_secs(30),
            unmerged_layers: 2,
            segment_bytes: 12 << 10,
            compaction_gain_bytes: 1,
            now: Rc::new(move || now.get()),
            ..Options::default()
        }
    }
}

pub type Tier = CapacityTier<MemoryStore>;

/// A place for a capacity tier that fails and crashes when it is told to. A test over it runs on every kind of store.
pub trait Bench: Sized {
    type Store: Store;
    fn new(seed: u64) -> Self;
    /// Access to it for one more writer or reader.
    fn store(&self) -> Self::Store;
    /// Lets the operation that comes after `later` others meet `trouble`.
    fn trouble(&self, later: u64, trouble: Trouble);
    fn heal(&self);
    fn operations(&self) -> u64;
    fn crashed(&self) -> bool;
    /// As the next process finds it.
    fn after_crash(&self) -> Self;
}

impl Bench for MemoryStore {
    type Store = Self;

    fn new(seed: u64) -> Self {
        Self::new(seed)
    }

    fn store(&self) -> Self {
        self.clone()
    }

    fn trouble(&self, later: u64, trouble: Trouble) {
        Self::trouble(self, later, trouble);
    }

    fn heal(&self) {
        Self::heal(self);
    }

    fn operations(&self) -> u64 {
        Self::operations(self)
    }

    fn crashed(&self) -> bool {
        Self::crashed(self)
    }

    fn after_crash(&self) -> Self {
        Self::after_crash(self)
    }
}

pub async fn open_on<B: Bench>(bench: &B, clock: &Clock) -> Result<CapacityTier<B::Store>> {
    CapacityTier::open_writer_in(bench.store(), VOLUME, geometry(), clock.options()).await
}

pub async fn open(store: &MemoryStore, clock: &Clock) -> Result<Tier> {
    open_volume(store, clock, VOLUME).await
}

pub async fn open_volume(store: &MemoryStore, clock: &Clock, volume: VolumeUuid) -> Result<Tier> {
    CapacityTier::open_writer_in(store.clone(), volume, geometry(), clock.options()).await
}

pub fn name(text: &str) -> SnapshotName {
    SnapshotName::new(text).unwrap()
}

/// Writes an epoch back as the engine would; the model is not changed.
pub async fn write_back<S: Store>(
    tier: &CapacityTier<S>,
    model: &Model,
    epoch: u32,
    changes: &Changes,
    snapshot: Option<&str>,
) -> Result<Vec<(BlockIndex, Option<Place>)>> {
    let mut layer = tier.begin_layer(Epoch(epoch), 1000 * u64::from(epoch), 1000 * u64::from(epoch) + 999)?;
    // In no particular order.
    for (block, kind, id) in model.told(changes).into_iter().rev() {
        match id {
            Some(id) => layer.put(BlockIndex(block), kind, (id % 16) as u8 + 1, &content(id)).await?,
            None => layer.delete(BlockIndex(block))?,
        }
    }
    let mut after = model.clone();
    after.commit(epoch, changes, None);
    let mapped = after.content(epoch).len() as u32;
    layer.commit(snapshot.map(name).as_ref(), mapped).await
}

/// Reads everything at a consistency point.
pub async fn read_all<S: Store>(
    tier: &CapacityTier<S>,
    upto: Option<Epoch>,
) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut places = BTreeMap::new();
    tier.load_places(upto, &mut |block, _, place| {
        match place {
            Some(place) => places.insert(block, place),
            None => places.remove(&block),
        };
    })
    .await?;
    let mut blocks = BTreeMap::new();
    for (block, place) in places {
        let mut out = vec![0xee; BLOCK];
        tier.read_block(place, block, &mut out).await?;
        blocks.insert(block.0, out);
    }
    Ok(blocks)
}

/// Compares everything that can be asked with the model.
pub async fn compare<S: Store>(tier: &CapacityTier<S>, model: &Model) {
    let head = tier.head();
    assert_eq!(head.written_back_epoch().0, model.newest());
    let named: BTreeMap<String, u32> =
        head.snapshots().map(|(name, layer)| (name.as_str().to_owned(), layer.last_epoch.0)).collect();
    assert_eq!(named, model.snapshots);
    let mut points: Vec<u32> = model.snapshots.values().copied().collect();
    points.push(model.newest());
    for point in &points {
        let upto = (*point != 0).then_some(Epoch(*point));
        let blocks = read_all(tier, upto).await.unwrap();
        let expected = model.content(*point);
        assert_eq!(
            blocks.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "at epoch {point}"
        );
        for (block, id) in &expected {
            assert!(blocks[block] == content(*id), "block {block} at epoch {point}");
        }
        if let Some(layer) = head.layers().iter().find(|layer| layer.last_epoch.0 == *point) {
            assert_eq!(layer.mapped_blocks as usize, expected.len());
        }
    }
    points.sort_unstable();
    points.dedup();
    points.insert(0, 0);
    for pair in points.windows(2) {
        let whole = all_pages(tier, pair[0], pair[1]).await;
        assert_eq!(whole, model.diff(pair[0], pair[1]), "from {} to {}", pair[0], pair[1]);
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    assert_eq!(all_pages(tier, first, last).await, model.diff(first, last));
}

async fn all_pages<S: Store>(tier: &CapacityTier<S>, from: u32, to: u32) -> Vec<(u32, ChangeKind)> {
    let from = (from != 0).then_some(Epoch(from));
    let (mut all, mut after): (Vec<Change>, _) = (Vec::new(), None);
    loop {
        let page = tier.diff(from, Epoch(to), after, 7).await.unwrap();
        all.extend(&page);
        after = page.last().map(|change| change.block);
        if page.len() < 7 {
            return all.into_iter().map(|change| (change.block.0, change.kind)).collect();
        }
    }
}

/// Runs a test as the background thread would, without io_uring. Waiting takes no time.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
