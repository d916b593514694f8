//! A machine with its two tiers, and a volume that runs on it: the real engine, over simulated devices, in one thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forerun::config::HydrateOrder;
use forerun::geometry::{Geometry, MIN_VOLUME_BYTES, SlotId};
use forerun::prediction::{Horizon, Threshold};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::history::{End, Shape};
use super::truth::Truth;
use crate::aligned::AlignedBuffer;
use crate::background::{Ask, Budget, PredictionState, Settings, Shared, Slots, World, pace, ready, run};
use crate::capacity_tier::memory_store::MemoryStore;
use crate::capacity_tier::{CapacityTier, Options, VolumeUuid};
use crate::engine::assemble::{build_map, connect};
use crate::engine::backend::Threads;
use crate::fast_tier::delta::Delta;
use crate::fast_tier::format::{FormatOptions, write};
use crate::fast_tier::layout::Layout;
use crate::fast_tier::log::{DeltaLog, LogPosition};
use crate::fast_tier::sim::{Power, Random, SimDisk};
use crate::fast_tier::{Committer, FastTier, OpenOptions};
use crate::request::RequestIo;
use crate::volume::lock;

pub const VOLUME: Uuid = Uuid::from_u128(0x5133);

thread_local! {
    /// The time of day: simulated, and a little later each time it is asked for.
    static WALL_CLOCK: Cell<u64> = const { Cell::new(1) };
}

fn now_us() -> u64 {
    WALL_CLOCK.set(WALL_CLOCK.get() + 1000);
    WALL_CLOCK.get()
}

/// The simulated tiers, as the background sees them.
pub enum Simulated {}

impl World for Simulated {
    type Store = MemoryStore;
    type Slots = SimSlots;
}

/// The slots of a simulated disk.
pub struct SimSlots {
    disk: Arc<SimDisk>,
    slots_offset: u64,
}

impl Slots for SimSlots {
    async fn read(&self, slot: SlotId, start: u32, len: u32) -> io::Result<AlignedBuffer> {
        let mut buffer = AlignedBuffer::zeroed(len as usize);
        let at = self.slots_offset + slot.offset_bytes() + u64::from(start);
        self.disk.read(at, &mut buffer).await.map(|()| buffer)
    }

    async fn write(&self, slot: SlotId, start: u32, buffer: AlignedBuffer) -> io::Result<()> {
        self.disk.write(self.slots_offset + slot.offset_bytes() + u64::from(start), &buffer).await
    }
}

/// A request's data in memory.
pub struct SimIo {
    pub disk: Arc<SimDisk>,
    pub data: RefCell<Vec<u8>>,
}

impl RequestIo for SimIo {
    async fn fast_to_data(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        let mut bytes = vec![0; len as usize];
        self.disk.read(fast, &mut bytes).await?;
        self.put(at, &bytes).await
    }

    async fn data_to_fast(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        let bytes = self.data.borrow()[at as usize..(at + len) as usize].to_vec();
        self.disk.write(fast, &bytes).await
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        let len = bytes.len();
        bytes.copy_from_slice(&self.data.borrow()[at as usize..at as usize + len]);
        Ok(())
    }

    async fn read_fast(&self, fast: u64, mut buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        (self.disk.read(fast, &mut buffer).await, buffer)
    }

    async fn write_fast(&self, fast: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        (self.disk.write(fast, &buffer).await, buffer)
    }

    async fn flush_fast(&self) -> io::Result<()> {
        self.disk.flush().await
    }
}

/// The journal, and the truth beside it: an epoch ends at the moment when its end is in the log.
struct Watching {
    log: Arc<Committer>,
    truth: Arc<Mutex<Truth>>,
}

impl DeltaLog for Watching {
    fn append(&self, delta: &Delta) -> LogPosition {
        if let Delta::Sealed(sealed) = delta {
            lock(&self.truth).seal(sealed.epoch);
        }
        self.log.append(delta)
    }

    fn appended(&self) -> LogPosition {
        self.log.appended()
    }

    fn durable(&self) -> LogPosition {
        self.log.durable()
    }

    fn has_room(&self, promised: u32) -> bool {
        self.log.has_room(promised)
    }

    fn has_failed(&self) -> bool {
        self.log.has_failed()
    }
}

/// What outlives a process.
pub struct Machine {
    pub disk: Arc<SimDisk>,
    pub store: MemoryStore,
    pub power: Arc<Power>,
    pub truth: Arc<Mutex<Truth>>,
    geometry: Geometry,
    sync_interval_seconds: u32,
    prediction: bool,
    folder: tempfile::TempDir,
    boot: u128,
    random: Random,
}

impl Machine {
    /// A machine with an empty volume.
    pub async fn new(seed: u64, shape: &Shape) -> Self {
        WALL_CLOCK.set(1);
        let geometry = Geometry::new(MIN_VOLUME_BYTES, shape.logical as u32 * 512).expect("a sound shape");
        let layout = (u64::from(shape.slots) << 16..)
            .step_by(1 << 16)
            .filter_map(|bytes| Layout::with_journal(bytes, shape.journal_bytes))
            .find(|layout| layout.slots == shape.slots)
            .expect("room for the slots");
        let disk = SimDisk::new(layout.tier_bytes, seed).with_garbage_from(layout.slots_offset);
        write(&disk, layout, &FormatOptions { volume: VOLUME, geometry, now_us: 1 }).expect("formatted");
        let store = MemoryStore::new(seed);
        let store = if seed.is_multiple_of(3) { store.short_of_space() } else { store };
        CapacityTier::create_in(&store, VolumeUuid(*VOLUME.as_bytes()), geometry).await.expect("created");
        let shared_memory = std::path::Path::new("/dev/shm");
        let folder =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
        let power = Arc::<Power>::default();
        Self {
            disk: Arc::new(disk.of(&power)),
            store: store.of(&power),
            power,
            truth: Arc::new(Mutex::new(Truth::new(shape.blocks * super::history::BLOCK_SECTORS))),
            geometry,
            sync_interval_seconds: shape.sync_interval_seconds,
            prediction: shape.prediction,
            folder: folder.expect("a folder"),
            boot: 1,
            random: Random(seed ^ 0xC4A5),
        }
    }

    pub fn table(&self) -> PathBuf {
        self.folder.path().join("table")
    }

    /// Opens the volume, as `engine::Opened` does.
    pub async fn open(&self, take_over: bool) -> anyhow::Result<Life> {
        let uuid = VolumeUuid(*VOLUME.as_bytes());
        let reader = CapacityTier::open_for_recovery_in(self.store.clone(), uuid).await?;
        let options = OpenOptions {
            geometry: Some(self.geometry),
            take_over,
            written_back: reader.head().written_back_epoch(),
            idle_commit: Duration::from_millis(400),
            boot: Some(Uuid::from_u128(self.boot)),
            ..OpenOptions::new(self.folder.path().join("pending"))
        };
        self.disk.forget_the_end(&options.pending);
        let (tier, recovered, _, work) =
            FastTier::open_without_threads(self.disk.clone(), "the simulated disk", VOLUME, &options)?;
        for (_, work) in work {
            tokio::task::spawn_local(work);
        }
        let log = Arc::new(Watching { log: tier.committer(), truth: self.truth.clone() });
        lock(&self.truth).open_again(recovered.open_epoch());
        let look = CapacityTier::open_for_recovery_in(self.store.clone(), uuid);
        let reader = if take_over { look.await? } else { reader };
        let map = build_map(&reader, self.geometry, tier.slot_count(), log, &recovered, now_us());
        let (map, counted) = map.await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let written_back = map.written_back();
        // Some lives hydrate in each of the orders, and some do not.
        let orders = [
            HydrateOrder::Expected,
            HydrateOrder::Address,
            HydrateOrder::Off,
            HydrateOrder::Expected,
            HydrateOrder::Hot,
        ];
        let hydrate = orders[self.boot as usize % orders.len()];
        let (threshold, horizon) = (Threshold::DEFAULT, Horizon::DEFAULT);
        let settings =
            Settings::new(threshold, horizon, self.sync_interval_seconds, self.prediction, hydrate);
        let prediction = PredictionState::new(self.table(), *VOLUME.as_bytes());
        let shared = Shared::new(map, tier.committer(), settings, prediction, written_back, now_us);
        let shared = Arc::new(shared);
        connect(&tier.committer(), &shared);
        let budget = Rc::new(Budget::new());
        let begun = Instant::now();
        let options = Options {
            deletion_delay: Duration::from_secs(3),
            unmerged_layers: 2,
            segment_bytes: 256 << 10,
            compaction_gain_bytes: 64 << 10,
            now: Rc::new(move || begun.elapsed()),
            pace: pace(budget.clone(), shared.clone()),
        };
        let (store, geometry) = (self.store.clone(), self.geometry);
        let capacity =
            CapacityTier::open_writer_counted(store, uuid, geometry, options, Some(counted)).await?;
        let (asks, asked) = mpsc::unbounded_channel();
        let slots = SimSlots { disk: self.disk.clone(), slots_offset: tier.slots_offset() };
        let named = capacity.head().snapshots().count();
        let tasks = ready::<Simulated>(shared.clone(), capacity, slots, budget);
        // Whoever asks from here on is told of every snapshot, before the background has done anything.
        assert_eq!(
            crate::volume::lock(&shared.kept).len(),
            named,
            "snapshots are not known when the volume is open"
        );
        let background = tokio::task::spawn_local(run(tasks, asked));
        Ok(Life {
            committer: tier.committer(),
            slots_offset: tier.slots_offset(),
            threads: Threads { shared, asks },
            parts: Cell::new(Some((tier, background))),
        })
    }

    /// What is there after the process has ended like this.
    pub fn end(&mut self, end: End) {
        self.power = Arc::default();
        let faults = (self.disk.faults(), self.store.faults());
        let disk = match end {
            End::Kill => self.disk.after_kill(),
            End::Cut => self.disk.after_power_cut(self.random.next()),
        };
        disk.set_faults(faults.0);
        self.disk = Arc::new(disk.of(&self.power));
        let store = match end {
            End::Kill => self.store.after_kill(),
            End::Cut => self.store.after_crash(),
        };
        store.set_faults(faults.1);
        self.store = store.of(&self.power);
        self.boot += u128::from(end == End::Cut);
    }
}

/// A process: an open volume.
pub struct Life {
    pub threads: Threads,
    pub committer: Arc<Committer>,
    pub slots_offset: u64,
    parts: Cell<Option<(FastTier<SimDisk>, tokio::task::JoinHandle<()>)>>,
}

impl Life {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.threads.shared
    }

    /// A clean stop, as `engine::Opened` does it.
    pub async fn close(&self) -> anyhow::Result<()> {
        let (tier, background) = self.parts.take().expect("closed once");
        let _ = self.threads.asks.send(Ask::Stop);
        background.await?;
        Ok(tier.close_clean(&*self.threads.shared).await?)
    }
}
