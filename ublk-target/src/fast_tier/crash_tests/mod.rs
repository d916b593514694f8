//! Power cuts and kills at every write and every sync of everything that the tier does.
//!
//! After each, the tier is opened and has to be in a state that it was in: no earlier than the last commit
//! that was acknowledged, after a kill the very last one. The data of every slot has to be there too.
//! The opening itself is cut off at every step as well, and lives follow each other on one disk.

mod model;
mod steps;
mod threads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forerun::geometry::Geometry;
use uuid::Uuid;

use super::delta::Delta;
use super::device::FastDevice;
use super::format::{FormatOptions, write};
use super::layout::Layout;
use super::sim::SimDisk;
use super::{Facts, FastTier, FastTierError, OpenInfo, OpenOptions};
use crate::volume::{Recovered, lock};
use model::{Engine, Past};

const VOLUME: Uuid = Uuid::from_u128(0xF0F0);
/// Pages of the ring; a commit takes an eighth of it at most.
const RING_PAGES: u64 = 64;

pub(super) fn layout() -> Layout {
    Layout::with_journal(4 << 20, RING_PAGES * 4096).expect("room for some slots")
}

/// A machine: its disk changes with each power cut, its boots are counted.
struct Machine {
    _folder: tempfile::TempDir,
    pending: PathBuf,
    boot: u128,
}

impl Machine {
    fn new() -> Self {
        let shared_memory = std::path::Path::new("/dev/shm");
        let folder =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        Self { pending: folder.path().join("pending"), _folder: folder, boot: 1 }
    }

    fn open(&self, disk: &Arc<SimDisk>) -> Result<(FastTier<SimDisk>, Recovered, OpenInfo), FastTierError> {
        let options = OpenOptions {
            boot: Some(Uuid::from_u128(self.boot)),
            // Nothing happens by itself, so that steps have the same numbers each time.
            idle_commit: Duration::from_secs(3600),
            ..OpenOptions::new(&self.pending)
        };
        disk.forget_the_end(&self.pending);
        FastTier::open_on(Arc::clone(disk), "a simulated disk", VOLUME, &options)
    }
}

fn format_options() -> FormatOptions {
    FormatOptions {
        volume: VOLUME,
        geometry: Geometry::new(64 << 20, 4096).expect("a valid shape"),
        now_us: 5,
    }
}

fn formatted(seed: u64) -> Arc<SimDisk> {
    formatted_on(seed, layout().tier_bytes)
}

/// A tier on a disk that may be larger.
fn formatted_on(seed: u64, disk_bytes: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(disk_bytes, seed);
    write(&disk, layout(), &format_options()).expect("formatted");
    Arc::new(disk)
}

/// Walks over an engine's state in two halves, and does something between them.
struct Halves<'a> {
    engine: &'a Mutex<Engine>,
    between: &'a (dyn Fn() + Sync),
}

impl Facts for Halves<'_> {
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_> {
        let second = std::iter::once_with(|| {
            (self.between)();
            lock(self.engine).facts(true)
        });
        let first = std::iter::once_with(|| lock(self.engine).facts(false));
        Box::new(first.chain(second).flatten())
    }
}

/// The same for an engine that several threads share.
struct All(Arc<Mutex<Engine>>);

impl Facts for All {
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_> {
        let halves = [false, true].into_iter();
        Box::new(halves.flat_map(|second| lock(&self.0).facts(second)))
    }
}

/// Works until `turns` are over or the disk fails; commits, checkpoints and a clean stop included, and on a disk that is
/// larger than the tier growth, in two steps.
/// Returns what was, and whether the tier was left in order.
fn live(tier: FastTier<SimDisk>, past: &Past, n: usize, seed: u64, turns: u64, stop: bool) -> (Past, bool) {
    let engine = Mutex::new(Engine::resume(&tier, past, n, seed));
    let log = tier.committer();
    let commit = || {
        let deltas = lock(&engine).deltas();
        log.commit_blocking()?;
        lock(&engine).acknowledge(deltas);
        std::io::Result::Ok(())
    };
    // A walk in whose middle more changes are made and, sometimes, committed.
    let between = || {
        let mut go_on = lock(&engine).change().is_ok();
        go_on &= lock(&engine).change().is_ok();
        if go_on && lock(&engine).random.one_in(2) {
            let _ = commit();
        }
    };
    let walk = Halves { engine: &engine, between: &between };
    let quiet = Halves { engine: &engine, between: &|| () };
    let disk_bytes = tier.device().size_bytes();
    let grow = |to_bytes: u64| -> std::io::Result<()> {
        if to_bytes > tier.layout().tier_bytes {
            let slots = smol::block_on(log.grow(&tier.superblock(), &walk, to_bytes))
                .map_err(std::io::Error::other)?;
            lock(&engine).grow(slots);
        }
        Ok(())
    };
    let work = || -> std::io::Result<()> {
        for turn in 1..=turns {
            let changes = 1 + lock(&engine).random.below(8);
            for _ in 0..changes {
                lock(&engine).change()?;
            }
            // Committed at once: a half that fills up would be committed by itself, at some step.
            let many = lock(&engine).random.one_in(6);
            if many {
                commit()?;
                lock(&engine).many_changes();
            }
            if many || !lock(&engine).random.one_in(8) {
                commit()?;
            }
            match turn {
                5 => grow(disk_bytes - disk_bytes / 4)?,
                12 => grow(disk_bytes)?,
                _ => {}
            }
            // Nobody takes checkpoints here but this thread, so the ring must not fill up.
            if turn % 7 == 0 || log.status().used_bytes > RING_PAGES * 4096 / 3 {
                smol::block_on(log.checkpoint(&walk))?;
            }
        }
        Ok(())
    };
    let mut clean = false;
    if work().is_ok() && stop {
        let deltas = lock(&engine).deltas();
        clean = smol::block_on(tier.close_clean(&quiet)).is_ok();
        if clean {
            lock(&engine).acknowledge(deltas);
        }
    } else {
        drop(tier);
    }
    (engine.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).end(), clean)
}
