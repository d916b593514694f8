//! Requests beside each other, compared with the truth.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::history::BLOCK_SECTORS;
use super::machine::{Life, SimIo};
use super::truth::{Begun, Truth};
use crate::fast_tier::sim::{Power, Random, SimDisk};
use crate::request::{Operation, Request};
use crate::volume::handle::Handler;
use crate::volume::lock;

const SECTOR: usize = 512;

/// What a request needs.
#[derive(Clone)]
pub struct Requests {
    pub life: Rc<Life>,
    pub disk: Arc<SimDisk>,
    pub power: Arc<Power>,
    pub truth: Arc<Mutex<Truth>>,
    /// Whether anything may fail now.
    pub faulty: bool,
}

/// The sectors that a request changes: of blocks at the edges a discard forgets nothing.
pub fn changed(operation: Operation, sector: usize, sectors: usize) -> std::ops::Range<usize> {
    match operation {
        Operation::Read | Operation::Flush => 0..0,
        Operation::Write { .. } | Operation::WriteZeroes { .. } => sector..sector + sectors,
        Operation::Discard => {
            let from = sector.div_ceil(BLOCK_SECTORS) * BLOCK_SECTORS;
            let to = (sector + sectors) / BLOCK_SECTORS * BLOCK_SECTORS;
            from..to.max(from)
        }
    }
}

pub fn stamp_of(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"))
}

impl Requests {
    /// Does one and compares. Returns whether it succeeded.
    pub async fn run(&self, operation: Operation, sector: usize, sectors: usize) -> bool {
        let io = SimIo { disk: self.disk.clone(), data: vec![0; sectors * SECTOR].into() };
        let changes = changed(operation, sector, sectors);
        let begun = {
            let mut truth = lock(&self.truth);
            for at in changes.clone() {
                let value = match operation {
                    Operation::Write { .. } => {
                        let stamp = truth.next_stamp();
                        let from = (at - sector) * SECTOR;
                        put_stamp(&mut io.data.borrow_mut()[from..from + SECTOR], stamp);
                        stamp
                    }
                    _ => 0,
                };
                truth.begin(at, value);
            }
            truth.begins()
        };
        match self.handle(operation, sector, sectors, &io).await {
            Ok(()) => {
                self.end(operation, sector, &changes, &begun, &io);
                true
            }
            Err(error) => {
                self.fail(operation, &error, changes).await;
                false
            }
        }
    }

    async fn handle(
        &self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        io: &SimIo,
    ) -> io::Result<()> {
        let handler = Handler {
            volume: &self.life.shared().volume,
            services: &self.life.threads,
            slots_offset: self.life.slots_offset,
        };
        let (offset_bytes, len_bytes) = match operation {
            Operation::Flush => (0, 0),
            _ => ((sector * SECTOR) as u64, (sectors * SECTOR) as u32),
        };
        handler.handle(Request { operation, offset_bytes, len_bytes }, io).await
    }

    fn end(
        &self,
        operation: Operation,
        sector: usize,
        changes: &std::ops::Range<usize>,
        begun: &Begun,
        io: &SimIo,
    ) {
        let mut truth = lock(&self.truth);
        match operation {
            Operation::Read => {
                // A device that has lost writes shows what was there before them.
                for (n, bytes) in io.data.borrow().chunks(SECTOR).enumerate() {
                    if !self.has_lost() {
                        assert_whole(sector + n, bytes);
                        truth.read.push((sector + n, stamp_of(bytes)));
                        truth.read_ends(begun, sector + n, stamp_of(bytes));
                    }
                }
            }
            Operation::Flush => truth.flush_ends(begun),
            Operation::Write { fua } | Operation::WriteZeroes { fua, .. } => {
                changes.clone().for_each(|at| truth.end(at, fua));
            }
            Operation::Discard => changes.clone().for_each(|at| truth.end(at, false)),
        }
    }

    /// The device failed to make writes durable: what was not is lost, and nothing is acknowledged any more.
    pub fn has_lost(&self) -> bool {
        self.life.committer.failure().is_some()
    }

    /// What a failed change left is found by looking.
    async fn fail(&self, operation: Operation, error: &io::Error, changes: std::ops::Range<usize>) {
        if self.power.is_off() {
            return;
        }
        assert!(
            self.faulty || self.has_lost(),
            "{operation:?} of {changes:?} failed without a fault: {error}"
        );
        if changes.is_empty() {
            return;
        }
        let read = loop {
            if self.power.is_off() || self.has_lost() {
                return;
            }
            if let Some(read) = self.read(changes.start, changes.len()).await {
                break read;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut truth = lock(&self.truth);
        for (at, found) in changes.zip(read) {
            truth.fail(at, found);
        }
    }

    /// What sectors hold; `None` where they cannot be read, or where the device has lost writes.
    pub async fn read(&self, sector: usize, sectors: usize) -> Option<Vec<u64>> {
        let io = SimIo { disk: self.disk.clone(), data: vec![0; sectors * SECTOR].into() };
        self.handle(Operation::Read, sector, sectors, &io).await.ok()?;
        if self.has_lost() {
            return None;
        }
        let data = io.data.borrow();
        Some(
            data.chunks(SECTOR)
                .enumerate()
                .map(|(n, bytes)| {
                    assert_whole(sector + n, bytes);
                    stamp_of(bytes)
                })
                .collect(),
        )
    }
}

/// The words of a sector with this stamp: the stamp, and what follows from it, so that a piece of another sector shows. Those of
/// an odd one cannot be compressed: else all segments would be small, and none worth compacting.
fn words(stamp: u64) -> impl Iterator<Item = [u8; 8]> {
    let word = move |n: u64| match (n, stamp % 2) {
        (1.., 1) => Random(stamp.rotate_left(32) ^ n).next(),
        _ => stamp,
    };
    (0..SECTOR as u64 / 8).map(move |n| word(n).to_le_bytes())
}

fn put_stamp(sector: &mut [u8], stamp: u64) {
    sector.chunks_mut(8).zip(words(stamp)).for_each(|(bytes, word)| bytes.copy_from_slice(&word));
}

/// A sector is of one write.
pub fn assert_whole(sector: usize, bytes: &[u8]) {
    assert!(
        bytes.chunks(8).zip(words(stamp_of(bytes))).all(|(bytes, word)| bytes == word),
        "sector {sector} is of two writes, or of none: {:x?}",
        &bytes[..16]
    );
    assert!(
        stamp_of(bytes) != u64::from_le_bytes([0xEE; 8]),
        "sector {sector} shows what was never written to the volume"
    );
}
