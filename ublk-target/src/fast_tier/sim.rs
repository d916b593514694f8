//! A simulated disk: what is written is lost, kept or torn at a power cut unless it was synced.
//!
//! One seed decides everything that is random in it, so a failing test is run again from the seed it prints.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Facts;
use super::delta::Delta;
use super::device::FastDevice;
use super::page::PAGE_BYTES;

/// Shared, so that copies of a disk are cheap.
type Page = Arc<[u8; PAGE_BYTES]>;
const SECTOR_BYTES: usize = 512;

fn blank() -> Page {
    Arc::new([0; PAGE_BYTES])
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

#[derive(Clone)]
struct State {
    durable: BTreeMap<u64, Page>,
    /// Each page's versions since the last sync, oldest first.
    dirty: BTreeMap<u64, Vec<Page>>,
    /// Writes and syncs so far.
    steps: u64,
    /// The step during which the power goes, or the process is killed.
    cut_at: u64,
    /// The step whose write or sync fails, once.
    fail_at: u64,
    cut: bool,
    random: Random,
}

/// The disk.
pub struct SimDisk {
    size_bytes: u64,
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk that holds zeros.
    pub fn new(size_bytes: u64, seed: u64) -> Self {
        let state = State {
            durable: BTreeMap::new(),
            dirty: BTreeMap::new(),
            steps: 0,
            cut_at: u64::MAX,
            fail_at: u64::MAX,
            cut: false,
            random: Random(seed),
        };
        Self { size_bytes, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts everything off during the `step`th write or sync from now on, counted from 1.
    pub fn cut_at(&self, step: u64) {
        let mut state = self.state();
        state.cut_at = state.steps + step;
    }

    /// Fails the `step`th write or sync from now on, counted from 1; what comes later works again.
    pub fn fail_at(&self, step: u64) {
        let mut state = self.state();
        state.fail_at = state.steps + step;
    }

    /// Writes and syncs so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The disk as the next boot finds it.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let state = self.state();
        let mut durable = state.durable.clone();
        for (page, versions) in &state.dirty {
            let old = durable.get(page).cloned().unwrap_or_else(blank);
            let any = |random: &mut Random| match random.below(versions.len() as u64 + 1) {
                0 => old.clone(),
                n => versions[n as usize - 1].clone(),
            };
            let found = match random.below(4) {
                0 => old,
                1 => versions[versions.len() - 1].clone(),
                2 => any(&mut random),
                _ => {
                    let mut torn = *old;
                    for at in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                        let version = any(&mut random);
                        torn[at..at + SECTOR_BYTES].copy_from_slice(&version[at..at + SECTOR_BYTES]);
                    }
                    Arc::new(torn)
                }
            };
            durable.insert(*page, found);
        }
        let disk = Self::new(self.size_bytes, random.next());
        disk.state().durable = durable;
        disk
    }

    /// The disk as the next process finds it after this one was killed: the machine goes on.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let (durable, dirty) = (state.durable.clone(), state.dirty.clone());
        let disk = Self::new(self.size_bytes, state.random.clone().next());
        let mut found = disk.state();
        (found.durable, found.dirty) = (durable, dirty);
        drop(found);
        disk
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
}

impl State {
    fn newest(&self, page: u64) -> Page {
        let dirty = self.dirty.get(&page).and_then(|versions| versions.last());
        dirty.or_else(|| self.durable.get(&page)).cloned().unwrap_or_else(blank)
    }

    /// Counts a step; an error if it fails, and whether it is the one of the cut.
    fn step(&mut self) -> io::Result<bool> {
        if self.cut {
            return Err(io::Error::other("the power is off"));
        }
        self.steps += 1;
        if self.steps == self.fail_at {
            return Err(io::Error::other("a simulated fault"));
        }
        self.cut = self.steps >= self.cut_at;
        Ok(self.cut)
    }
}

impl FastDevice for SimDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_BYTES as u64) && buffer.len().is_multiple_of(PAGE_BYTES));
        assert!(offset + buffer.len() as u64 <= self.size_bytes, "a read past the end");
        let state = self.state();
        if state.cut {
            return Err(io::Error::other("the power is off"));
        }
        for (page, target) in (offset / PAGE_BYTES as u64..).zip(buffer.chunks_mut(PAGE_BYTES)) {
            target.copy_from_slice(&*state.newest(page));
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_BYTES as u64) && bytes.len().is_multiple_of(PAGE_BYTES));
        assert!(offset + bytes.len() as u64 <= self.size_bytes, "a write past the end");
        let mut state = self.state();
        let cut = state.step()?;
        for (page, content) in (offset / PAGE_BYTES as u64..).zip(bytes.chunks(PAGE_BYTES)) {
            // A write that is cut off has done any of its pages.
            if !cut || state.random.one_in(2) {
                let content: [u8; PAGE_BYTES] = content.try_into().expect("a whole page");
                state.dirty.entry(page).or_default().push(Arc::new(content));
            }
        }
        if cut { Err(io::Error::other("the power went")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return Err(io::Error::other("the power went"));
        }
        for (page, versions) in std::mem::take(&mut state.dirty) {
            if let Some(newest) = versions.last() {
                state.durable.insert(page, newest.clone());
            }
        }
        Ok(())
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
