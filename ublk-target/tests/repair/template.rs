//! The volume that is damaged, written once: its files in several states, and what it held at each point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use forerun::geometry::Epoch;
use ublk_target::control::ControlPlane;
use ublk_target::engine::Open;
use ublk_target::request::Operation;

use crate::support::*;

pub const BLOCK: usize = 65536;
pub const SUB: usize = 4096;
pub const BLOCKS: u64 = VOLUME_BYTES / BLOCK as u64;

/// What a volume holds: of each sub-block that is not zeros, the number that fills it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Truth(BTreeMap<u64, u64>);

impl Truth {
    pub fn sub_block(&self, number: u64) -> Vec<u8> {
        self.0.get(&number).copied().unwrap_or(0).to_le_bytes().repeat(SUB / 8)
    }

    /// Whether this is what a sub-block holds.
    pub fn is(&self, number: u64, have: &[u8]) -> bool {
        let value = self.0.get(&number).copied().unwrap_or(0).to_le_bytes();
        have.len() == SUB && have.chunks_exact(value.len()).all(|word| word == value)
    }

    pub fn blocks(&self) -> usize {
        let mut blocks: Vec<u64> = self.0.keys().map(|sub| sub / 16).collect();
        blocks.dedup();
        blocks.len()
    }
}

/// A volume's files in one state.
#[derive(Clone)]
pub struct Image {
    pub fast: PathBuf,
    pub capacity: PathBuf,
    /// What the volume holds.
    pub now: Truth,
}

pub struct Template {
    rig: Rig,
    /// After a clean stop.
    pub clean: Image,
    /// After a power cut, all of it flushed.
    pub crashed: Image,
    /// The fast tier and the capacity tier as they were earlier.
    pub earlier: Image,
    /// Of the snapshots, oldest first: name, epoch, content.
    pub snapshots: Vec<(String, Epoch, Truth)>,
    /// The newest epoch on the capacity tier.
    pub written_back: Epoch,
}

struct Writer<'a> {
    volume: &'a ublk_target::engine::VolumeBackend,
    truth: Truth,
    next: u64,
}

impl Writer<'_> {
    /// Fills `count` sub-blocks from sub-block `first` of a block on.
    fn write(&mut self, block: u64, first: u64, count: u64) {
        let mut data = Vec::new();
        for sub in block * 16 + first..block * 16 + first + count {
            self.next += 1;
            self.truth.0.insert(sub, self.next << 20 | sub);
            data.extend(self.truth.sub_block(sub));
        }
        let offset = block * BLOCK as u64 + first * SUB as u64;
        let len = data.len() as u32;
        request(self.volume, Operation::Write { fua: false }, offset, &mut data, len).expect("a write");
    }

    fn discard(&mut self, block: u64) {
        self.truth.0.retain(|sub, _| sub / 16 != block);
        let offset = block * BLOCK as u64;
        request(self.volume, Operation::Discard, offset, &mut [], BLOCK as u32).expect("a discard");
    }
}

/// Copies a file, or a folder with all that is in it. No process is started for it: between fork and exec it would hold the
/// locks of other tests' volumes.
pub fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::copy(from, to).expect("copied");
        return;
    }
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

impl Template {
    pub fn get() -> &'static Self {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        TEMPLATE.get_or_init(Self::make)
    }

    pub fn config(&self) -> &forerun::config::VolumeConfig {
        &self.rig.config
    }

    fn make() -> Self {
        let rig = Rig::new(4096);
        let image = |name: &str, now: &Truth| {
            let folder = rig.root.join(name);
            std::fs::create_dir(&folder).expect("a folder");
            let image =
                Image { fast: folder.join("fast"), capacity: folder.join("capacity"), now: now.clone() };
            copy(&rig.config.fast.path, &image.fast);
            copy(rig.config.capacity.address.directory().expect("a directory"), &image.capacity);
            image
        };
        let (opened, control) = rig.open(Open::Fresh);
        let volume = opened.backend.clone();
        let mut writer = Writer { volume: &volume, truth: Truth::default(), next: 0 };
        let mut snapshots = Vec::new();
        let flush = || request(&*volume, Operation::Flush, 0, &mut [], 0).expect("a flush");
        // More than the fast tier holds, so that many blocks are on the capacity tier alone.
        (0..1300).for_each(|block| writer.write(block, 0, 16));
        let one = control.create_snapshot(&name("one"), None).expect("a snapshot").snapshot.epoch;
        snapshots.push(("one".to_owned(), one, writer.truth.clone()));
        written_back(&control, "one");
        (0..1300).step_by(13).for_each(|block| writer.write(block, 3, 2));
        (5..200).step_by(20).for_each(|block| writer.discard(block));
        (1400..1450).for_each(|block| writer.write(block, 0, 4));
        let two = control.create_snapshot(&name("two"), None).expect("a snapshot").snapshot.epoch;
        snapshots.push(("two".to_owned(), two, writer.truth.clone()));
        let newest = written_back(&control, "two");
        flush();
        let earlier = image("earlier", &writer.truth);
        // From here on nothing is written back.
        let segments = rig.config.capacity.address.directory().expect("a directory").join("segments");
        std::fs::rename(&segments, rig.root.join("away")).expect("moved away");
        // Parts of blocks that are on the capacity tier alone, parts of others, whole ones, deletions.
        (0..1300).step_by(17).for_each(|block| writer.write(block, 8, 1));
        (700..720).for_each(|block| writer.write(block, 0, 16));
        (300..400).step_by(9).for_each(|block| writer.discard(block));
        flush();
        let three = control.create_snapshot(&name("three"), None).expect("a snapshot").snapshot.epoch;
        snapshots.push(("three".to_owned(), three, writer.truth.clone()));
        (0..1300).step_by(23).for_each(|block| writer.write(block, 12, 3));
        (1500..1520).for_each(|block| writer.write(block, 0, 16));
        (301..350).step_by(9).for_each(|block| writer.discard(block));
        writer.write(300, 0, 1);
        for block in 1520..1540 {
            writer.write(block, 0, 8);
            flush();
        }
        let crashed = image("crashed", &writer.truth);
        copy(&rig.root.join("away"), &crashed.capacity.join("segments"));
        let now = writer.truth.clone();
        drop((volume, control));
        opened.close().expect("a clean stop");
        std::fs::rename(rig.root.join("away"), &segments).expect("moved back");
        let clean = image("clean", &now);
        assert!(now.blocks() > 1300);
        Self { rig, clean, crashed, earlier, snapshots, written_back: newest }
    }
}
