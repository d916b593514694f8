//! Damage: every single changed byte of live metadata is found.

use std::sync::Arc;
use std::time::Duration;

use forerun::geometry::{BlockIndex, Epoch, Geometry, SlotId, SubBlockMask};
use uuid::Uuid;

use super::check::{Report, Severity, check_device};
use super::checkpoint::{Header, read_header};
use super::delta::{Delta, Holds, Sealed};
use super::format::{FormatOptions, write};
use super::layout::Layout;
use super::log::DeltaLog;
use super::sim::{Random, SimDisk};
use super::{Committer, FastTier, FastTierError, OpenInfo, OpenOptions};
use crate::volume::Recovered;

const VOLUME: Uuid = Uuid::from_u128(0xABCD);

struct Tier {
    disk: Arc<SimDisk>,
    layout: Layout,
    folder: tempfile::TempDir,
}

impl Tier {
    fn new() -> Self {
        let layout = Layout::with_journal(64 << 20, 256 * 4096).expect("room for slots");
        let disk = SimDisk::new(layout.tier_bytes, 1);
        let geometry = Geometry::new(64 << 20, 4096).expect("a valid shape");
        write(&disk, layout, &FormatOptions { volume: VOLUME, geometry, now_us: 1 }).expect("formatted");
        Self { disk: Arc::new(disk), layout, folder: tempfile::tempdir().expect("a folder") }
    }

    fn open_on(
        &self,
        disk: &Arc<SimDisk>,
        boot: u128,
    ) -> Result<(FastTier<SimDisk>, Recovered, OpenInfo), FastTierError> {
        let options = OpenOptions {
            boot: Some(Uuid::from_u128(boot)),
            idle_commit: Duration::from_secs(3600),
            ..OpenOptions::new(self.folder.path().join("pending"))
        };
        FastTier::open_on(Arc::clone(disk), "a simulated disk", VOLUME, &options)
    }

    fn open(&self) -> FastTier<SimDisk> {
        self.open_on(&self.disk, 1).expect("opened").0
    }

    /// The disk with one byte changed; the real one stays as it is.
    fn flipped(&self, offset: u64, mask: u8) -> Arc<SimDisk> {
        let disk = self.disk.after_kill();
        disk.flip(offset, mask);
        Arc::new(disk)
    }

    fn check(&self, disk: &SimDisk) -> Report {
        check_device(disk, "a simulated disk", Some(VOLUME)).expect("readable")
    }

    fn headers(&self) -> [Header; 2] {
        [0, 1].map(|area| {
            read_header(&*self.disk, &self.layout, VOLUME, area).expect("read").expect("a header")
        })
    }
}

fn fact(n: u32) -> Delta {
    Delta::Holds(Holds {
        slot: SlotId(n),
        block: BlockIndex(n),
        epoch: Epoch(1),
        valid: SubBlockMask::FULL,
        dirty: SubBlockMask(n as u16),
        added: n.is_multiple_of(2),
    })
}

fn append(log: &Committer, facts: std::ops::Range<u32>) {
    for n in facts {
        log.append(&fact(n));
    }
}

/// A tier whose two checkpoints have some pages each; 700 slots are held.
fn used() -> Tier {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    let all: Vec<Delta> = (0..700).map(fact).collect();
    append(&log, 0..700);
    log.commit_blocking().expect("committed");
    smol::block_on(log.checkpoint(&all)).expect("a checkpoint");
    drop(log);
    smol::block_on(open.close_clean(&all)).expect("closed");
    tier
}

#[test]
fn after_a_clean_stop_every_changed_byte_is_found() {
    let tier = used();
    assert_eq!(tier.check(&tier.disk).findings, vec![]);
    assert_eq!(tier.check(&tier.disk).held_slots, 700);
    let headers = tier.headers();
    let newest = headers.iter().max_by_key(|header| header.place.number).expect("two");
    let area =
        |header: &Header| (tier.layout.checkpoint_offsets[header.place.area], (1 + header.pages) * 4096);
    assert!(headers.iter().all(|header| header.pages > 3));
    let superblocks = tier.layout.superblock_offsets().map(|offset| (offset, 4096));
    let areas = [superblocks[0], superblocks[1], area(&headers[0]), area(&headers[1])];
    let mut random = Random(11);
    for n in 0..4000u64 {
        let (start, bytes) = areas[n as usize % areas.len()];
        let (offset, mask) = (start + random.below(bytes), 1 << random.below(8));
        let disk = tier.flipped(offset, mask);
        let report = tier.check(&disk);
        assert!(!report.is_clean(), "byte {offset}, mask {mask} (seed 11, flip {n})");
        // Whatever it is, what is recovered is right, or nothing is.
        if n % 10 == 0
            && let Ok((open, recovered, _)) = tier.open_on(&disk, 2)
        {
            assert_eq!(recovered.holds.len(), 700);
            drop(open);
        }
        let in_newest = area(newest).0 <= offset && offset < area(newest).0 + area(newest).1;
        if !in_newest {
            assert!(report.findings.iter().all(|finding| finding.severity == Severity::Minor));
        }
    }
}

#[test]
fn a_changed_byte_of_the_journal_is_found() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    let mut pages = 0;
    for n in 0..20 {
        append(&log, n * 30..(n + 1) * 30);
        log.commit_blocking().expect("committed");
        pages += 1;
    }
    drop((log, open));
    assert_eq!(tier.check(&tier.disk).findings, vec![]);
    let mut random = Random(12);
    let mut torn = 0;
    for n in 0..2000 {
        let offset = tier.layout.journal_offset + random.below(pages * 4096);
        let disk = tier.flipped(offset, 1 << random.below(8));
        let last = offset >= tier.layout.journal_offset + (pages - 1) * 4096;
        let opened = tier.open_on(&disk, 2);
        if last {
            // Like a torn commit; the pending log of this boot would know better.
            let (_, recovered, _) = opened.expect("as after a crash");
            assert_eq!(recovered.holds.len(), 19 * 30);
            torn += 1;
        } else {
            let error = opened.err().unwrap_or_else(|| panic!("byte {offset} (seed 12, flip {n})"));
            assert!(matches!(error, FastTierError::Damaged { .. }), "{error}");
            let report = tier.check(&disk);
            assert!(report.findings.iter().any(|finding| finding.severity == Severity::Fatal));
        }
    }
    assert!(torn > 20);
}

#[test]
fn the_pending_log_knows_of_a_last_record_that_was_destroyed() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    log.append(&fact(1));
    log.commit_blocking().expect("committed");
    drop((log, open));
    let disk = tier.flipped(tier.layout.journal_offset + 100, 1);
    let same_boot = tier.open_on(&disk, 1).err().expect("the record was durable");
    assert!(same_boot.to_string().contains("was durable"), "{same_boot}");
}

#[test]
fn a_clean_stop_tells_where_the_journal_ends() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    log.append(&fact(1));
    log.commit_blocking().expect("committed");
    drop((log, open));
    // As a clean stop without a last checkpoint would leave it.
    let copies = super::superblock::Copies::read(&*tier.disk).expect("read");
    let newest =
        copies.newest("tier").expect("sound").verify("tier", tier.layout.tier_bytes, None).expect("fits");
    let clean = Some(forerun::geometry::Lsn(1));
    let superblock = super::Superblock { clean, generation: newest.generation + 1, ..newest };
    superblock.write(&*tier.disk, 0).expect("written");
    assert_eq!(tier.check(&tier.disk).findings, vec![]);
    for at in (0..4096).step_by(7) {
        let disk = tier.flipped(tier.layout.journal_offset + at, 4);
        assert!(tier.open_on(&disk, 2).is_err(), "byte {at}");
        assert!(!tier.check(&disk).is_clean(), "byte {at}");
    }
}

#[test]
fn a_damaged_newest_checkpoint_is_made_up_for_by_the_older_one_and_the_journal() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    append(&log, 0..10);
    log.commit_blocking().expect("committed");
    smol::block_on(log.checkpoint(&(0..10).map(fact).collect::<Vec<_>>())).expect("a checkpoint");
    log.append(&fact(10));
    log.commit_blocking().expect("committed");
    drop((log, open));
    let newest = tier.headers().into_iter().max_by_key(|header| header.place.number).expect("two");
    let disk = tier.flipped(tier.layout.checkpoint_offsets[newest.place.area] + 4096 + 80, 1);
    let (_, recovered, info) = tier.open_on(&disk, 2).expect("the journal still has all of it");
    assert_eq!(recovered.holds.len(), 11);
    assert_eq!(info.notes.len(), 1, "{:?}", info.notes);
}

#[test]
fn facts_that_cannot_be_are_refused() {
    for delta in [fact(70_000), Delta::Deleted { block: BlockIndex(1 << 20), epoch: Epoch(1) }] {
        let tier = Tier::new();
        let open = tier.open();
        let log = open.committer();
        log.append(&delta);
        log.commit_blocking().expect("committed");
        drop((log, open));
        let error = tier.open_on(&tier.disk, 2).err().expect("refused");
        assert!(error.to_string().contains("cannot be"), "{error}");
        assert!(!tier.check(&tier.disk).is_clean());
    }
}

#[test]
fn too_many_deletions_fail_the_checkpoint_and_nothing_else() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    let many: Vec<Delta> =
        (0..200_000).map(|n| Delta::Deleted { block: BlockIndex(n % 1024), epoch: Epoch(n) }).collect();
    let error = smol::block_on(log.checkpoint(&many)).expect_err("too many");
    assert!(error.to_string().contains("deletions at most"), "{error}");
    log.append(&fact(1));
    log.commit_blocking().expect("committed");
    smol::block_on(log.checkpoint(&vec![fact(1)])).expect("a smaller one");
    drop((log, open));
    let (_, recovered, _) = tier.open_on(&tier.disk, 2).expect("opened");
    assert_eq!(recovered.holds.len(), 1);
}

/// Version 1 as it is on disk. A change of these bytes is a new version of the format.
#[test]
fn version_1_stays_as_it_is() {
    let tier = Tier::new();
    let open = tier.open();
    let log = open.committer();
    log.append(&fact(1));
    log.append(&Delta::Free(SlotId(2)));
    log.append(&Delta::Deleted { block: BlockIndex(3), epoch: Epoch(1) });
    log.append(&Delta::Named { epoch: Epoch(1), name: "golden".into() });
    log.append(&Delta::Sealed(Sealed { epoch: Epoch(1), opened_us: 7, sealed_us: 8, mapped_blocks: 4 }));
    log.append(&Delta::Unnamed { epoch: Epoch(1) });
    log.commit_blocking().expect("committed");
    drop(log);
    smol::block_on(open.close_clean(&vec![fact(1)])).expect("closed");
    let [a, b] = tier.layout.checkpoint_offsets;
    let pages = [0, tier.layout.journal_offset, a, a + 4096, b, b + 4096, tier.layout.tier_bytes - 4096];
    let sums = pages.map(|offset| {
        let mut page = [0; 4096];
        super::FastDevice::read_at(&*tier.disk, offset, &mut page).expect("read");
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &page)
    });
    assert_eq!(sums.map(|sum| format!("{sum:08x}")), GOLDEN);
}

const GOLDEN: [&str; 7] =
    ["9aa36422", "10d09af2", "e4bb5c4b", "0199b552", "2143020d", "98f94189", "079a219d"];
