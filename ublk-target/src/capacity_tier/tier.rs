//! An open capacity tier: creating, opening, reading blocks, and handing out layer writers.
//!
//! One thread uses it, for many things at a time: methods take `&self`, and reads go on while layers are
//! written and merged. All work on immutable objects; only HEAD changes, in one place (`state`).
//!
//! A reader sees the HEAD that was there when it opened. What it reads stays for as long as it holds a
//! lease (a snapshot's reader does), else for [`super::options::DELETION_DELAY`] after something else
//! replaced it.

use std::rc::Rc;
use std::time::Duration;

use forerun::config::CapacityAddress;
use forerun::geometry::{BlockIndex, Epoch, Generation, Geometry};

use super::alone::lock;
use super::any_store::AnyStore;
use super::entry::Entry;
use super::error::{CapacityError, Result};
use super::head::{Head, LayerInfo, MAX_HEAD_BYTES};
use super::layer_cursor::read_tables;
use super::layer_writer::LayerWriter;
use super::names::{ObjectName, SnapshotName, VolumeUuid};
use super::options::Options;
use super::place::Place;
use super::record::read_record;
use super::state::{Inner, take_numbers};
use super::store::{HeadNumber, ReplaceError, Store};
use super::usage::{Counting, Usage};

/// How long closing waits for a replacement of HEAD.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The capacity tier of one volume.
pub struct CapacityTier<S: Store = AnyStore> {
    pub(super) inner: Rc<Inner<S>>,
    lease: Option<S::Lease>,
    found: HeadNumber,
}

/// What refers to each segment, as of one HEAD.
pub struct Counted {
    found: HeadNumber,
    usage: Usage,
}

impl CapacityTier {
    /// Creates the capacity tier of a new volume at `address`, where nothing else is.
    ///
    /// # Errors
    /// A place that holds something else, or that cannot be written; nothing there is changed then.
    pub async fn create(
        address: impl Into<CapacityAddress>,
        volume: VolumeUuid,
        geometry: Geometry,
    ) -> Result<()> {
        let address = address.into();
        let store = AnyStore::at(&address)?;
        store.prepare(&address).await?;
        Self::create_in(&store, volume, geometry).await
    }

    /// Opens a volume's capacity tier for writing: takes the lock and fences earlier writers off.
    ///
    /// # Errors
    /// No volume there, another one or another geometry than expected, another writer, damage, a failing store.
    pub async fn open_writer(
        address: impl Into<CapacityAddress>,
        volume: VolumeUuid,
        geometry: Geometry,
    ) -> Result<Self> {
        Self::open_writer_in(AnyStore::at(&address.into())?, volume, geometry, Options::default()).await
    }

    /// Opens a volume's capacity tier for reading, whoever writes to it meanwhile.
    ///
    /// # Errors
    /// No volume there, another one than expected, damage, a failing store.
    pub async fn open_reader(
        address: impl Into<CapacityAddress>,
        volume: Option<VolumeUuid>,
    ) -> Result<Self> {
        Self::open_reader_in(AnyStore::at(&address.into())?, volume).await
    }

    /// Opens a volume's capacity tier for reading, to build the map from it. What it says is durable then.
    ///
    /// # Errors
    /// As [`Self::open_reader`], or HEAD cannot be made durable.
    pub async fn open_for_recovery(address: impl Into<CapacityAddress>, volume: VolumeUuid) -> Result<Self> {
        Self::open_for_recovery_in(AnyStore::at(&address.into())?, volume).await
    }

    /// Opens a snapshot for reading; while this lives nothing that the snapshot needs is deleted, by any
    /// process.
    ///
    /// # Errors
    /// As [`Self::open_reader`], or no snapshot of this name.
    pub async fn open_snapshot(
        address: impl Into<CapacityAddress>,
        volume: Option<VolumeUuid>,
        name: &SnapshotName,
    ) -> Result<(Self, Epoch)> {
        let address = address.into();
        Self::open_snapshot_in(|| AnyStore::at(&address), volume, name).await
    }
}

impl<S: Store> CapacityTier<S> {
    /// Creates a volume's first HEAD in an empty store.
    ///
    /// # Errors
    /// A store that has a HEAD already, or that fails.
    pub async fn create_in(store: &S, volume: VolumeUuid, geometry: Geometry) -> Result<()> {
        write_first_head(store, Head::new(volume, geometry)).await.map(drop)
    }

    /// Opens for writing, over any store.
    ///
    /// # Errors
    /// As [`CapacityTier::open_writer`].
    pub async fn open_writer_in(
        store: S,
        volume: VolumeUuid,
        geometry: Geometry,
        options: Options,
    ) -> Result<Self> {
        Self::open_writer_counted(store, volume, geometry, options, None).await
    }

    /// The same by whoever has just read the map, which counted.
    ///
    /// # Errors
    /// As [`CapacityTier::open_writer`].
    pub async fn open_writer_counted(
        store: S,
        volume: VolumeUuid,
        geometry: Geometry,
        options: Options,
        counted: Option<Counted>,
    ) -> Result<Self> {
        // Looked at before the lock is taken, so that a foreign directory is left as it is. Who counted has read all of it.
        if counted.is_none() {
            read_head(&store, Some(volume)).await?;
        }
        let least = lock(&store).await?;
        Self::open_locked(store, volume, geometry, options, least, counted).await
    }

    /// The writer's lock is ours; it is given back where this fails.
    async fn open_locked(
        store: S,
        volume: VolumeUuid,
        geometry: Geometry,
        options: Options,
        least: Generation,
        counted: Option<Counted>,
    ) -> Result<Self> {
        let (head, bytes) = match read_head(&store, Some(volume)).await {
            Ok(read) => read,
            Err(error) => {
                release(&store).await;
                return Err(error);
            }
        };
        if !head.geometry.grows_into(geometry) {
            let text = |geometry: Geometry| {
                let (size, logical) = (geometry.size_bytes(), geometry.logical_block_bytes());
                format!("{size} bytes in logical blocks of {logical}")
            };
            let (found, expected) = (text(head.geometry), text(geometry));
            let place = store.place();
            release(&store).await;
            return Err(CapacityError::OtherGeometry { place, found, expected });
        }
        let generation = Generation(head.generation.0 + 1).max(least);
        let found = HeadNumber { generation: head.generation, sequence: head.sequence };
        let inner = Rc::new(Inner::new(store, head, bytes, options, Some(generation)));
        inner.geometry.set(geometry);
        let tier = Self { inner, lease: None, found };
        if let Err(error) = tier.take_over(counted).await {
            tier.close().await;
            return Err(error);
        }
        if let Err(error) = tier.inner.store.replenish().await {
            tracing::debug!(%error, "no room is kept for HEAD");
        }
        Ok(tier)
    }

    /// What a writer does first: its own numbers, in a HEAD of its generation; what its clones need; what is used.
    async fn take_over(&self, counted: Option<Counted>) -> Result<()> {
        self.inner.update_head(take_numbers, |_| ()).await?;
        let first_own = self.inner.next_number();
        self.inner.state.borrow_mut().unsurveyed_below = Some(first_own);
        self.inner.check_pins().await?;
        self.count_usage(counted).await?;
        self.inner.look_at_pins().await
    }

    /// Opens for reading, over any store.
    ///
    /// # Errors
    /// As [`CapacityTier::open_reader`].
    pub async fn open_reader_in(store: S, volume: Option<VolumeUuid>) -> Result<Self> {
        let (head, bytes) = read_head(&store, volume).await?;
        let found = HeadNumber { generation: head.generation, sequence: head.sequence };
        let inner = Rc::new(Inner::new(store, head, bytes, Options::default(), None));
        inner.check_pins().await?;
        Ok(Self { inner, lease: None, found })
    }

    /// Opens for reading, to build the map from it, over any store.
    ///
    /// A process that is killed between the replacement of HEAD and the word that it is durable leaves a HEAD that a power cut
    /// still takes back. Who forgets on the fast tier what such a HEAD has would lose it.
    ///
    /// # Errors
    /// As [`CapacityTier::open_for_recovery`].
    pub async fn open_for_recovery_in(store: S, volume: VolumeUuid) -> Result<Self> {
        let tier = Self::open_reader_in(store, Some(volume)).await?;
        let store = &tier.inner.store;
        store.settle_head().await.map_err(|source| {
            let place = format!("{}/HEAD", store.place());
            CapacityError::Io { operation: "make durable", place, source }
        })?;
        Ok(tier)
    }

    /// Opens a snapshot for reading, over any store; `store` gives access to the same one each time.
    ///
    /// # Errors
    /// As [`CapacityTier::open_snapshot`].
    pub async fn open_snapshot_in(
        store: impl Fn() -> Result<S>,
        volume: Option<VolumeUuid>,
        name: &SnapshotName,
    ) -> Result<(Self, Epoch)> {
        let missing = || CapacityError::NoSuchSnapshot { name: name.clone() };
        let (head, _) = read_head(&store()?, volume).await?;
        let epoch = head.snapshot(name).ok_or_else(missing)?.last_epoch;
        let held = store()?;
        let leased = held.lease(epoch).await;
        let place = held.place();
        let lease =
            leased.map_err(|source| CapacityError::Io { operation: "lease a snapshot of", place, source })?;
        // Only what HEAD says after the lease was taken is sure to stay.
        let mut tier = Self::open_reader_in(held, volume).await?;
        tier.lease = Some(lease);
        let now = tier.head().snapshot(name).ok_or_else(missing)?.last_epoch;
        if now == epoch { Ok((tier, epoch)) } else { Err(missing()) }
    }

    /// The number of the HEAD that was there when this was opened: for a writer, the one it builds on.
    #[must_use]
    pub const fn found(&self) -> HeadNumber {
        self.found
    }

    /// What the store's server makes of conditional writes, in words, as a writer found it; `None` for a directory.
    #[must_use]
    pub fn conditional_writes(&self) -> Option<String> {
        self.inner.store.conditional_writes()
    }

    /// Gives the writer's lock or a snapshot's lease back, when nothing is under way any more, so that nobody has to
    /// wait. Without it they end as after a crash.
    pub async fn close(self) {
        // Whoever began to replace HEAD may have been aborted; the replacement was not.
        if tokio::time::timeout(CLOSE_PATIENCE, self.inner.head_settled()).await.is_err() {
            tracing::warn!(place = self.inner.store.place(), "HEAD is still being replaced");
        }
        if let Some(lease) = self.lease {
            self.inner.store.end_lease(lease).await;
        }
        if self.inner.generation.is_some() {
            release(&self.inner.store).await;
        }
    }

    /// The newest HEAD that is known to be durable.
    #[must_use]
    pub fn head(&self) -> Rc<Head> {
        self.inner.head()
    }

    /// The volume has grown: each HEAD from now on says so.
    ///
    /// # Errors
    /// It would shrink.
    pub fn grow(&self, geometry: Geometry) -> Result<()> {
        if !self.inner.geometry.get().grows_into(geometry) {
            return Err(CapacityError::Misuse("a volume that shrinks".to_owned()));
        }
        self.inner.geometry.set(geometry);
        Ok(())
    }

    /// Writes a HEAD that says nothing new but the volume's size.
    ///
    /// # Errors
    /// A fenced writer, a failing store.
    pub async fn tell_size(&self) -> Result<()> {
        self.inner.update_head(|_| Ok(()), |_| ()).await.map(drop)
    }

    /// Whether HEAD may be another one than [`Self::head`]: a replacement ended without telling whether it happened.
    #[must_use]
    pub fn is_head_in_doubt(&self) -> bool {
        self.inner.in_doubt()
    }

    /// Whether a lease protects what this reader reads.
    #[must_use]
    pub const fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// Begins to write back a sealed epoch; `opened_us` and `sealed_us` are in microseconds since 1970.
    ///
    /// # Errors
    /// A reader, a fenced writer, an epoch that is not newer than the newest there.
    pub fn begin_layer(&self, epoch: Epoch, opened_us: u64, sealed_us: u64) -> Result<LayerWriter<S>> {
        self.inner.writer()?;
        let newest = self.head().written_back_epoch();
        if epoch <= newest {
            return Err(CapacityError::EpochOrder { epoch, newest });
        }
        Ok(LayerWriter::new(&self.inner, epoch, opened_us, sealed_us))
    }

    /// Reads the block whose record is at `place` into `out` (64 KiB) and verifies all of it.
    ///
    /// # Errors
    /// A failing store; damage, with its place; a record of something else. `out` is then undefined. A record
    /// that is
    /// not found where it was moved meanwhile (a relocation that was not followed yet) is worth another look
    /// at the map.
    pub async fn read_block(&self, place: Place, block: BlockIndex, out: &mut [u8]) -> Result<()> {
        let name = ObjectName::segment(place.segment());
        let bytes = self.inner.read_range(name, place.offset_bytes(), place.len_bytes(), Vec::new()).await?;
        let owner = self.inner.owner(place.segment().0);
        let read = read_record(&bytes, owner, place, block, out);
        read.map_err(|fault| self.inner.corrupt(format_args!("{place} (block {block})"), fault))?;
        Ok(())
    }

    /// Tells every change up to the consistency point `upto` (all of them for `None`), oldest layer first,
    /// with the epoch
    /// that made it; a later one of the same block wins, no place means that the block holds nothing. Gives
    /// the number of calls.
    ///
    /// # Errors
    /// An epoch at which no layer ends, a failing store, damage.
    pub async fn load_places(
        &self,
        upto: Option<Epoch>,
        sink: &mut dyn FnMut(BlockIndex, Epoch, Option<Place>),
    ) -> Result<u64> {
        let head = self.head();
        let layers = match upto {
            None => head.layers(),
            Some(epoch) => head.layers_up_to(epoch).ok_or(CapacityError::NoSuchEpoch { epoch })?,
        };
        let mut told = 0;
        let mut tell = |_: &LayerInfo, entry: &Entry| {
            sink(entry.block, entry.epoch, entry.place);
            told += 1;
        };
        read_tables(&self.inner, layers, &mut tell).await?;
        Ok(told)
    }

    /// As [`Self::load_places`] for all epochs, and counts meanwhile, so that a writer that opens next need not read it all again.
    ///
    /// # Errors
    /// As [`Self::load_places`].
    pub async fn load_map(&self, sink: &mut dyn FnMut(BlockIndex, Epoch, Option<Place>)) -> Result<Counted> {
        let mut counting = Counting::default();
        let mut tell = |layer: &LayerInfo, entry: &Entry| {
            sink(entry.block, entry.epoch, entry.place);
            if let Some(place) = entry.place {
                counting.refer(place, layer.last_epoch);
            }
        };
        read_tables(&self.inner, self.head().layers(), &mut tell).await?;
        Ok(Counted { found: self.found, usage: counting.end() })
    }

    /// Counts what refers to each segment, unless somebody has for this very HEAD.
    async fn count_usage(&self, counted: Option<Counted>) -> Result<()> {
        let usage = match counted.filter(|counted| counted.found == self.found) {
            Some(counted) => counted.usage,
            None => self.load_map(&mut |_, _, _| ()).await?.usage,
        };
        self.inner.state.borrow_mut().usage = usage;
        Ok(())
    }
}

/// Writes a volume's first HEAD into a store that has none, and gives it as it was written.
pub(super) async fn write_first_head<S: Store>(store: &S, head: Head) -> Result<Head> {
    let place = store.place();
    let generation = lock_creator(store).await?;
    let head = Head { generation, sequence: 1, ..head };
    let number = HeadNumber { generation, sequence: 1 };
    let bytes = head.encode();
    let made = match Head::verify(&bytes) {
        Ok(_) => store.replace_head(&[], bytes, number).await.map_err(|error| match error {
            ReplaceError::Conflict | ReplaceError::Fenced(_) => {
                CapacityError::NotEmpty { place: place.clone(), found: "a volume (HEAD)".to_owned() }
            }
            ReplaceError::Unchanged(source) | ReplaceError::InDoubt(source) => {
                CapacityError::Io { operation: "create", place: format!("{place}/HEAD"), source }
            }
        }),
        Err(fault) => Err(CapacityError::Misuse(format!("a HEAD that cannot be: {fault}"))),
    };
    release(store).await;
    made.map(|()| head)
}

/// Locks a store in which a volume is being made; the generation that its first HEAD has.
pub(super) async fn lock_creator<S: Store>(store: &S) -> Result<Generation> {
    let place = store.place();
    match store.lock_creator().await {
        Ok(Ok(generation)) => Ok(generation),
        Ok(Err(holder)) => Err(CapacityError::InUse { place, holder }),
        Err(source) => Err(CapacityError::Io { operation: "lock", place, source }),
    }
}

pub(super) async fn release<S: Store>(store: &S) {
    if let Err(error) = store.release_writer().await {
        tracing::warn!(place = store.place(), %error, "the writer's lock is left behind; the next writer waits until it has expired");
    }
}

/// The volume whose HEAD is in a store.
///
/// # Errors
/// None is there, damage, a failing store.
pub async fn volume_in<S: Store>(store: &S) -> Result<VolumeUuid> {
    Ok(read_head(store, None).await?.0.volume)
}

pub(super) async fn read_head<S: Store>(store: &S, volume: Option<VolumeUuid>) -> Result<(Head, Vec<u8>)> {
    let place = store.place();
    let read = store.read_head(MAX_HEAD_BYTES).await;
    let head = format!("{place}/HEAD");
    let bytes =
        read.map_err(|source| CapacityError::Io { operation: "read", place: head.clone(), source })?;
    let Some(bytes) = bytes else { return Err(CapacityError::NoVolume { place }) };
    let verified = Head::verify(&bytes).map_err(|fault| CapacityError::faulty(head, fault))?;
    match volume {
        Some(expected) if expected != verified.volume => {
            Err(CapacityError::OtherVolume { place, found: verified.volume, expected })
        }
        _ => Ok((verified, bytes)),
    }
}
