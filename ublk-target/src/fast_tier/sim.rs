//! A simulated disk: what is written is lost, kept or torn at a power cut unless it was synced.
//!
//! One seed decides everything that is random in it, so a failing test is run again from the seed it prints.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Facts;
use super::delta::Delta;
use super::device::FastDevice;
use super::page::PAGE_BYTES;
use crate::volume::Room;

/// Shared, so that copies of a disk are cheap.
type Page = Arc<[u8; PAGE_BYTES]>;
const SECTOR_BYTES: usize = 512;

fn blank() -> Page {
    Arc::new([0; PAGE_BYTES])
}

fn garbage() -> Page {
    Arc::new([0xEE; PAGE_BYTES])
}

/// A state that does not change.
impl Facts for Vec<Delta> {
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_> {
        Box::new(self.iter().cloned())
    }
}

/// Random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What may go wrong by itself, and whether time passes: each once in so many operations, 0 for never.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// I/O takes time, in which everything else gets its turn.
    pub latency: bool,
    /// Reads of slots that fail.
    pub read: u64,
    /// Writes of slots that fail, having done any part.
    pub write: u64,
    /// Writes of the journal and of checkpoints that fail.
    pub metadata_write: u64,
    /// Syncs that fail, after which what was not durable may be lost.
    pub sync: u64,
}

/// A machine's power: once it is off nothing works any more, of any of its parts.
#[derive(Default)]
pub struct Power {
    off: AtomicBool,
    room: Room,
}

impl Power {
    pub fn cut(&self) {
        self.off.store(true, Ordering::SeqCst);
        self.room.wake_all();
    }

    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst)
    }

    /// Waits until it is off.
    pub async fn gone(&self) {
        while !self.is_off() {
            let seen = self.room.now();
            if !self.is_off() {
                self.room.after(seen).await;
            }
        }
    }
}

#[derive(Clone)]
struct State {
    durable: BTreeMap<u64, Page>,
    /// Each page's versions since the last sync, oldest first.
    dirty: BTreeMap<u64, Vec<Page>>,
    /// What has been given to the device and is not done: offset and bytes.
    in_flight: BTreeMap<u64, (u64, Vec<u8>)>,
    begun: u64,
    /// From this page on, what was never written is not zeros.
    garbage_from: u64,
    /// Writes and syncs so far.
    steps: u64,
    /// The step during which the power goes, or the process is killed.
    cut_at: u64,
    /// The step whose write or sync fails, once.
    fail_at: u64,
    /// A sync has failed while the process lived.
    sync_failed: bool,
    /// The process before was killed, and had not seen a sync fail.
    killed: bool,
    faults: Faults,
    random: Random,
}

/// The disk.
pub struct SimDisk {
    size_bytes: u64,
    power: Arc<Power>,
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk that holds zeros.
    pub fn new(size_bytes: u64, seed: u64) -> Self {
        let state = State {
            durable: BTreeMap::new(),
            dirty: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            begun: 0,
            garbage_from: u64::MAX,
            steps: 0,
            cut_at: u64::MAX,
            fail_at: u64::MAX,
            sync_failed: false,
            killed: false,
            faults: Faults::default(),
            random: Random(seed),
        };
        Self { size_bytes, power: Arc::default(), state: Mutex::new(state) }
    }

    /// With something else than zeros from `offset` on: what a slot held in another life.
    pub fn with_garbage_from(self, offset: u64) -> Self {
        self.state().garbage_from = offset / PAGE_BYTES as u64;
        self
    }

    /// Of the machine with this power.
    pub fn of(mut self, power: &Arc<Power>) -> Self {
        self.power = Arc::clone(power);
        self
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts everything off during the `step`th write or sync from now on, counted from 1.
    pub fn cut_at(&self, step: u64) {
        let mut state = self.state();
        state.cut_at = state.steps.saturating_add(step);
    }

    /// Fails the `step`th write or sync from now on, counted from 1; what comes later works again.
    pub fn fail_at(&self, step: u64) {
        let mut state = self.state();
        state.fail_at = state.steps + step;
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.state().faults
    }

    /// Writes and syncs so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The disk as the next boot finds it.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut state = self.state().clone();
        state.finish_some(&mut random);
        state.lose(&mut random);
        let disk = Self::new(self.size_bytes, random.next());
        let mut found = disk.state();
        (found.durable, found.garbage_from) = (state.durable, state.garbage_from);
        drop(found);
        disk
    }

    /// The disk as the next process finds it after this one was killed: the machine goes on, and what was under way
    /// comes to its end or does not.
    pub fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        let mut random = state.random.clone();
        state.finish_some(&mut random);
        let disk = Self::new(self.size_bytes, random.next());
        let mut found = disk.state();
        (found.durable, found.dirty, found.garbage_from) = (state.durable, state.dirty, state.garbage_from);
        found.killed = !state.sync_failed;
        drop(found);
        disk
    }

    /// Whether a sync has failed, and the process has seen it.
    pub fn sync_failed(&self) -> bool {
        self.state().sync_failed
    }

    /// A process that is killed in a sync does not see it fail, as those who run on beside this simulation do: takes back what
    /// they noted in the pending log.
    pub fn forget_the_end(&self, pending: &std::path::Path) {
        if std::mem::take(&mut self.state().killed) && pending.exists() {
            let file = std::fs::OpenOptions::new().write(true).open(pending).expect("the pending log");
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], super::pending::VOID as u64)
                .expect("written");
        }
    }

    /// Changes a byte, durably.
    pub fn flip(&self, offset: u64, mask: u8) {
        let mut state = self.state();
        let (page, at) = (offset / PAGE_BYTES as u64, offset as usize % PAGE_BYTES);
        let mut content = *state.newest(page);
        content[at] ^= mask;
        state.dirty.remove(&page);
        state.durable.insert(page, Arc::new(content));
    }

    /// How long an I/O takes: mostly some microseconds, seldom long.
    fn latency(&self) -> Option<Duration> {
        let mut state = self.state();
        if !state.faults.latency {
            return None;
        }
        Some(match state.random.below(256) {
            0 => Duration::from_millis(state.random.below(1500)),
            1..=8 => Duration::from_micros(state.random.below(5000)),
            _ => Duration::from_micros(1 + state.random.below(60)),
        })
    }

    /// Reads as a ring does, beside everything else.
    pub async fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.turn().await;
        let mut state = self.state();
        if self.power.is_off() {
            return Err(power_is_off());
        }
        let fails = state.faults.read;
        if fails > 0 && state.random.one_in(fails) {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        state.copy_to(offset, buffer);
        Ok(())
    }

    /// Writes as a ring does: in two parts, with others' turns before each. Who does not wait for its end leaves it under way.
    pub async fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (id, first, fails) = {
            let mut state = self.state();
            state.begun += 1;
            let id = state.begun;
            state.in_flight.insert(id, (offset, bytes.to_vec()));
            let sectors = (bytes.len() / SECTOR_BYTES) as u64;
            let first = state.random.below(sectors + 1) as usize * SECTOR_BYTES;
            let fails = state.faults.write;
            (id, first, fails > 0 && state.random.one_in(fails))
        };
        for (from, to) in [(0, first), (first, bytes.len())] {
            self.turn().await;
            let mut state = self.state();
            let cut = self.step(&mut state);
            if cut.is_ok() && !(fails && from > 0) {
                state.put(offset + from as u64, bytes.get(from..to).unwrap_or_default());
                state
                    .in_flight
                    .insert(id, (offset + to as u64, bytes.get(to..).unwrap_or_default().to_vec()));
            }
            if !matches!(cut, Ok(false)) {
                return Err(power_is_off());
            }
        }
        self.state().in_flight.remove(&id);
        if fails { Err(io::Error::from_raw_os_error(nix::libc::EIO)) } else { Ok(()) }
    }

    /// Syncs as a ring does.
    pub async fn flush(&self) -> io::Result<()> {
        self.turn().await;
        self.sync()
    }

    /// Counts a step; an error if it fails, and whether it is the one of the cut.
    fn step(&self, state: &mut State) -> io::Result<bool> {
        if self.power.is_off() {
            return Err(power_is_off());
        }
        state.steps += 1;
        if state.steps == state.fail_at {
            return Err(io::Error::other("a simulated fault"));
        }
        let cut = state.steps >= state.cut_at;
        if cut {
            self.power.cut();
        }
        Ok(cut)
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    fn newest(&self, page: u64) -> Page {
        let dirty = self.dirty.get(&page).and_then(|versions| versions.last());
        dirty.or_else(|| self.durable.get(&page)).cloned().unwrap_or_else(|| self.untouched(page))
    }

    fn untouched(&self, page: u64) -> Page {
        if page < self.garbage_from { blank() } else { garbage() }
    }

    fn copy_to(&self, offset: u64, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset as usize + done;
            let within = at % PAGE_BYTES;
            let len = (PAGE_BYTES - within).min(buffer.len() - done);
            let page = self.newest((at / PAGE_BYTES) as u64);
            buffer[done..done + len].copy_from_slice(&page[within..within + len]);
            done += len;
        }
    }

    /// Writes, not durably.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let (page, within) = ((at / PAGE_BYTES) as u64, at % PAGE_BYTES);
            let len = (PAGE_BYTES - within).min(bytes.len() - done);
            let mut content = *self.newest(page);
            content[within..within + len].copy_from_slice(&bytes[done..done + len]);
            self.dirty.entry(page).or_default().push(Arc::new(content));
            done += len;
        }
    }

    /// Of what is under way some comes to its end.
    fn finish_some(&mut self, random: &mut Random) {
        for (offset, bytes) in std::mem::take(&mut self.in_flight).into_values() {
            if random.one_in(2) {
                self.put(offset, &bytes);
            }
        }
    }

    /// Loses what is not durable, but for any part of it.
    fn lose(&mut self, random: &mut Random) {
        for (page, versions) in std::mem::take(&mut self.dirty) {
            let old = self.durable.get(&page).cloned().unwrap_or_else(|| self.untouched(page));
            let any = |random: &mut Random| match random.below(versions.len() as u64 + 1) {
                0 => old.clone(),
                n => versions[n as usize - 1].clone(),
            };
            let found = match random.below(4) {
                0 => old,
                1 => versions[versions.len() - 1].clone(),
                2 => any(random),
                _ => {
                    let mut torn = *old;
                    for at in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                        let version = any(random);
                        torn[at..at + SECTOR_BYTES].copy_from_slice(&version[at..at + SECTOR_BYTES]);
                    }
                    Arc::new(torn)
                }
            };
            self.durable.insert(page, found);
        }
    }
}

impl FastDevice for SimDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_BYTES as u64) && buffer.len().is_multiple_of(PAGE_BYTES));
        assert!(offset + buffer.len() as u64 <= self.size_bytes, "a read past the end");
        if self.power.is_off() {
            return Err(power_is_off());
        }
        self.state().copy_to(offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_BYTES as u64) && bytes.len().is_multiple_of(PAGE_BYTES));
        assert!(offset + bytes.len() as u64 <= self.size_bytes, "a write past the end");
        let mut state = self.state();
        let cut = self.step(&mut state)?;
        let fails = state.faults.metadata_write;
        let fails = fails > 0 && state.random.one_in(fails);
        for (page, content) in (offset / PAGE_BYTES as u64..).zip(bytes.chunks(PAGE_BYTES)) {
            // A write that is cut off or fails has done any of its pages.
            if !(cut || fails) || state.random.one_in(2) {
                let content: [u8; PAGE_BYTES] = content.try_into().expect("a whole page");
                state.dirty.entry(page).or_default().push(Arc::new(content));
            }
        }
        match (cut, fails) {
            (true, _) => Err(power_is_off()),
            (_, true) => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let cut = self.step(&mut state);
        if !self.power.is_off() {
            state.sync_failed |= cut.is_err();
        }
        if cut? {
            return Err(power_is_off());
        }
        let fails = state.faults.sync;
        if fails > 0 && state.random.one_in(fails) {
            // Linux tells of lost writes once, and then holds what the device holds.
            let mut random = state.random.clone();
            state.lose(&mut random);
            state.random = random;
            state.sync_failed = true;
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        for (page, versions) in std::mem::take(&mut state.dirty) {
            if let Some(newest) = versions.last() {
                state.durable.insert(page, newest.clone());
            }
        }
        Ok(())
    }

    fn turn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match self.latency() {
            Some(latency) => Box::pin(tokio::time::sleep(latency)),
            None => Box::pin(std::future::ready(())),
        }
    }
}

#[test]
fn what_was_synced_stays_and_the_rest_may_go() {
    let disk = SimDisk::new(8192, 1);
    disk.write_at(0, &[1; 4096]).expect("written");
    disk.sync().expect("synced");
    disk.write_at(4096, &[2; 4096]).expect("written");
    let mut lost = 0;
    for seed in 0..100 {
        let mut bytes = [0; 8192];
        disk.after_power_cut(seed).read_at(0, &mut bytes).expect("read");
        assert!(bytes[..4096].iter().all(|byte| *byte == 1));
        lost += u32::from(bytes[4096..].contains(&0));
    }
    assert!((20..95).contains(&lost), "{lost}");
}
