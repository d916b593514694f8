//! What the background thread shares with queue threads and with the API.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forerun::config::HydrateOrder;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use tokio::sync::{Notify, watch};

use super::budget::Foreground;
use super::kept::KeptLayer;
use super::predict::PredictionState;
use super::seal::{Sealer, WallClock};
use super::warm::Warmth;
use crate::control::{SealedEpoch, WriteBack};
use crate::fast_tier::delta::Delta;
use crate::fast_tier::{Committer, Facts};
use crate::volume::{Volume, lock};

/// Change vectors kept in memory for the trainer; older ones are read from the capacity tier.
const VECTORS_KEPT: usize = 256;
/// Of those, so many with the blocks that were read: they have no other use, and nobody else has them.
const READS_KEPT: usize = 32;
/// Failed I/O on the fast tier is written to the log this often, at most.
const FAST_ERROR_TOLD: Duration = Duration::from_secs(10);

/// What can be set while the volume is in use.
pub struct Settings {
    threshold: AtomicU32,
    horizon: AtomicU32,
    /// Seconds between two epochs' ends.
    pub sync_interval_seconds: u32,
    /// Whether predictions are acted on at all.
    pub prediction: bool,
    /// In which order an empty fast tier is filled.
    pub hydrate: HydrateOrder,
}

impl Settings {
    /// Settings as configured.
    pub fn new(
        threshold: Threshold,
        horizon: Horizon,
        sync_interval_seconds: u32,
        prediction: bool,
        hydrate: HydrateOrder,
    ) -> Self {
        Self {
            threshold: AtomicU32::new(threshold.get().to_bits()),
            horizon: AtomicU32::new(horizon.epochs()),
            sync_interval_seconds,
            prediction,
            hydrate,
        }
    }

    /// The threshold in force.
    pub fn threshold(&self) -> Threshold {
        let value = f32::from_bits(self.threshold.load(Ordering::Relaxed));
        Threshold::new(f64::from(value)).unwrap_or(Threshold::DEFAULT)
    }

    /// Sets the threshold.
    pub fn set_threshold(&self, threshold: Threshold) {
        self.threshold.store(threshold.get().to_bits(), Ordering::Relaxed);
    }

    /// The horizon in force.
    pub fn horizon(&self) -> Horizon {
        Horizon::new(self.horizon.load(Ordering::Relaxed)).unwrap_or(Horizon::DEFAULT)
    }

    /// Sets the horizon.
    pub fn set_horizon(&self, horizon: Horizon) {
        self.horizon.store(horizon.epochs(), Ordering::Relaxed);
    }
}

/// I/O on the fast tier that failed for a request.
#[derive(Clone, Debug)]
pub struct FastError {
    /// When.
    pub at: Instant,
    /// When such an error was last written to the log.
    told: Instant,
    /// What failed.
    pub words: String,
}

/// How write-back does, for the status.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    /// Blocks of the layer being written back, and how many are done.
    pub layer_blocks: u64,
    /// Of those, what is done.
    pub layer_blocks_done: u64,
    /// Bytes a second, averaged; 0 while unknown.
    pub bytes_per_second: f64,
    /// What last could not be read from the capacity tier, and when.
    pub read_error: Option<(Instant, String)>,
    /// What last failed on the fast tier for a request.
    pub fast_error: Option<FastError>,
    /// The capacity tier's fill: used by this volume, free, in bytes.
    pub used_bytes: u64,
    /// What is free on its file system, in bytes.
    pub free_bytes: u64,
    /// What a clone shares with its origins.
    pub shared: Vec<crate::capacity_tier::SharedData>,
    /// What the capacity tier's server makes of conditional writes; empty where there is none.
    pub conditional_writes: String,
}

/// Everything of a running volume that several threads use.
pub struct Shared {
    /// The map.
    pub volume: Volume,
    /// The journal.
    pub committer: Arc<Committer>,
    /// Ends epochs.
    pub sealer: Sealer,
    /// What can be set.
    pub settings: Settings,
    /// Foreground latency.
    pub foreground: Foreground,
    /// Somebody waits for what the background does: the budget does not hold.
    pub urgent: AtomicBool,
    /// How write-back does.
    pub progress: Mutex<Progress>,
    /// The snapshots on the capacity tier, oldest first.
    pub kept: Mutex<Vec<KeptLayer>>,
    /// What is predicted and what came of it.
    pub prediction: PredictionState,
    /// How warm the fast tier is.
    pub warmth: Warmth,
    /// Wakes whoever keeps slots free.
    pub wake_keeper: Notify,
    /// Wakes write-back.
    pub wake_writer: Notify,
    /// Wakes whoever tells of sealed epochs.
    pub wake_publisher: Notify,
    sealed: watch::Sender<Epoch>,
    write_back: watch::Sender<WriteBack>,
    vectors: Mutex<VecDeque<SealedEpoch>>,
    stopping: AtomicBool,
}

impl Facts for Shared {
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_> {
        Box::new(self.volume.facts())
    }
}

impl Shared {
    /// Shares a volume whose newest sealed epoch is `sealed`.
    pub fn new(
        volume: Volume,
        committer: Arc<Committer>,
        settings: Settings,
        prediction: PredictionState,
        sealed: Epoch,
        clock: WallClock,
    ) -> Self {
        let write_back = watch::Sender::new(WriteBack { epoch: volume.written_back(), error: String::new() });
        Self {
            volume,
            committer,
            sealer: Sealer::new(clock),
            settings,
            foreground: Foreground::default(),
            urgent: AtomicBool::new(false),
            progress: Mutex::default(),
            kept: Mutex::default(),
            prediction,
            warmth: Warmth::default(),
            wake_keeper: Notify::new(),
            wake_writer: Notify::new(),
            wake_publisher: Notify::new(),
            write_back,
            sealed: watch::Sender::new(sealed),
            vectors: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether the volume is being closed.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells every background task to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_keeper.notify_one();
        self.wake_writer.notify_one();
        self.wake_publisher.notify_one();
    }

    /// Tells of each newly sealed epoch whose change vector is there.
    pub fn sealed(&self) -> watch::Receiver<Epoch> {
        self.sealed.subscribe()
    }

    /// Tells of each epoch that has been written back, and of failures.
    pub fn write_back(&self) -> watch::Receiver<WriteBack> {
        self.write_back.subscribe()
    }

    /// Takes note of how write-back went: of its failure, or that it gets on.
    pub fn note_write_back(&self, error: Option<String>) {
        if error.is_some() {
            self.volume.stats().write_back_failures.add(1);
        }
        let error = error.unwrap_or_default();
        let epoch = self.volume.written_back();
        self.write_back.send_replace(WriteBack { epoch, error });
    }

    /// Publishes a sealed epoch's change vector.
    pub fn publish(&self, sealed: SealedEpoch) {
        let epoch = sealed.vector.epoch;
        let mut vectors = lock(&self.vectors);
        if vectors.back().is_some_and(|last| last.vector.epoch >= epoch) {
            return;
        }
        if let Some(old) = vectors.iter_mut().rev().nth(READS_KEPT - 1) {
            old.reads = None;
        }
        vectors.push_back(sealed);
        while vectors.len() > VECTORS_KEPT {
            vectors.pop_front();
        }
        drop(vectors);
        self.sealed.send_replace(epoch);
    }

    /// The vector of the first epoch from `from` on that is kept in memory, if none before it is missing.
    pub fn vector(&self, from: Epoch) -> Option<SealedEpoch> {
        let vectors = lock(&self.vectors);
        let first = vectors.front()?.vector.epoch;
        if from < first {
            return None;
        }
        vectors.iter().find(|sealed| sealed.vector.epoch >= from).cloned()
    }

    /// The first vector after an epoch that is kept in memory.
    pub fn next_vector(&self, after: Epoch) -> Option<SealedEpoch> {
        lock(&self.vectors).iter().find(|sealed| sealed.vector.epoch > after).cloned()
    }

    /// Takes note of I/O on the fast tier that failed for a request.
    pub fn fast_tier_failed(&self, operation: &str, block: BlockIndex, error: &io::Error) {
        let words = format!("cannot {operation} the slot of block {block}: {error}");
        self.volume.stats().fast_tier_errors.add(1);
        let mut progress = lock(&self.progress);
        let now = Instant::now();
        let told = progress.fast_error.as_ref().map(|error| error.told);
        // A device that is gone fails every request: told once in a while.
        let told = told.filter(|at| at.elapsed() < FAST_ERROR_TOLD).unwrap_or_else(|| {
            tracing::error!("the fast tier failed a request: {words}");
            now
        });
        progress.fast_error = Some(FastError { at: now, told, words });
    }

    /// Updates how write-back does.
    pub fn note_progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }
}
