//! The tier on a real file: round trips, clean stops, kills, refusals.

use std::path::PathBuf;
use std::time::Duration;

use forerun::geometry::{BlockIndex, Epoch, Geometry, Lsn, SlotId, SubBlockMask};
use uuid::Uuid;

use super::delta::{Delta, Holds, Sealed};
use super::layout::Layout;
use super::log::DeltaLog;
use super::*;
use crate::volume::Recovered;

const VOLUME: [u8; 16] = [3; 16];
const UUID: Uuid = Uuid::from_bytes(VOLUME);

struct Place {
    _folder: tempfile::TempDir,
    tier: PathBuf,
    pending: PathBuf,
}

fn geometry() -> Geometry {
    Geometry::new(64 << 20, 4096).expect("a valid shape")
}

/// A formatted tier of 64 MiB in a file.
fn formatted() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let place =
        Place { tier: folder.path().join("tier"), pending: folder.path().join("pending"), _folder: folder };
    FastTier::format(&place.tier, Some(64 << 20), VOLUME, geometry()).expect("formatted");
    place
}

impl Place {
    fn try_open(&self) -> Result<(FastTier, Recovered, OpenInfo), FastTierError> {
        let options = OpenOptions { geometry: Some(geometry()), ..OpenOptions::new(&self.pending) };
        FastTier::open(&self.tier, UUID, &options)
    }

    fn open(&self) -> (FastTier, Recovered, OpenInfo) {
        self.try_open().expect("opened")
    }

    /// As after a reset of the machine.
    fn open_after_reset(&self) -> (FastTier, Recovered, OpenInfo) {
        let boot = Some(Uuid::from_u128(99));
        let options = OpenOptions { boot, ..OpenOptions::new(&self.pending) };
        FastTier::open(&self.tier, UUID, &options).expect("opened")
    }
}

fn holds(slot: u32, block: u32, epoch: u32) -> Holds {
    Holds {
        slot: SlotId(slot),
        block: BlockIndex(block),
        epoch: Epoch(epoch),
        valid: SubBlockMask::FULL,
        dirty: SubBlockMask(0b11),
        added: true,
    }
}

fn nothing() -> Vec<Delta> {
    Vec::new()
}

#[test]
fn a_new_tier_is_empty_and_clean() {
    let place = formatted();
    let (tier, recovered, info) = place.open();
    assert_eq!(recovered, Recovered::default());
    assert_eq!((info.end, info.lsn), (LastEnd::Clean, Lsn(0)));
    assert!(tier.slot_count() > 900);
    assert_eq!(tier.slots_offset() % 65536, 0);
    assert_eq!(info.geometry, geometry());
}

#[test]
fn commits_survive_a_reset_and_the_rest_does_not() {
    let place = formatted();
    let (tier, ..) = place.open();
    let log = tier.committer();
    log.append(&Delta::Holds(holds(7, 1, 1)));
    let committed = log.append(&Delta::Named { epoch: Epoch(1), name: "friday".into() });
    log.append(&Delta::Sealed(Sealed { epoch: Epoch(1), opened_us: 5, sealed_us: 9, mapped_blocks: 4 }));
    assert!(log.durable() < committed);
    log.commit_blocking().expect("committed");
    assert_eq!(log.durable(), log.appended());
    log.append(&Delta::Free(SlotId(7)));
    drop((tier, log));

    let (_tier, recovered, info) = place.open_after_reset();
    assert_eq!(recovered.holds, vec![holds(7, 1, 1)]);
    assert_eq!(recovered.sealed[0].snapshot.as_deref(), Some("friday"));
    assert_eq!(recovered.open_epoch(), Epoch(2));
    assert_eq!((info.end, info.lsn), (LastEnd::Crashed, Lsn(1)));
    assert_eq!(info.pending, PendingState::OtherBoot);
}

#[test]
fn a_killed_process_loses_nothing() {
    let place = formatted();
    for slot in 0..5 {
        let (tier, recovered, info) = place.open();
        assert_eq!(recovered.holds.len(), slot as usize);
        if slot > 0 {
            assert_eq!((info.end, info.pending_deltas), (LastEnd::Killed, 1));
        }
        tier.committer().append(&Delta::Holds(holds(slot, slot, 1)));
    }
}

#[test]
fn a_pending_log_that_says_what_cannot_be_does_not_spoil_the_tier() {
    let place = formatted();
    let (tier, ..) = place.open();
    tier.committer().append(&Delta::Holds(holds(1, 1, 1)));
    drop(tier);
    let before = std::fs::read(&place.tier).expect("read");
    // The delta's slot becomes one that the tier does not have; the log has no checksum over its deltas.
    let log = std::fs::OpenOptions::new().write(true).open(&place.pending).expect("there");
    let half =
        [4096 + 1, 4096 + u64::from(Layout::for_tier(64 << 20).expect("a tier").batch_bytes() as u32) + 1];
    for at in half {
        std::os::unix::fs::FileExt::write_all_at(&log, &u32::MAX.to_le_bytes(), at).expect("written");
    }
    let options = OpenOptions { take_over: true, ..OpenOptions::new(&place.pending) };
    let refused = FastTier::open(&place.tier, UUID, &options).err().expect("nothing to take over");
    assert!(refused.to_string().contains("slot 4294967295"), "{refused}");
    assert!(std::fs::read(&place.tier).expect("read") == before, "nothing was written");
    let (_tier, recovered, info) = place.open();
    assert_eq!((recovered, info.end), (Recovered::default(), LastEnd::Crashed));
    assert!(matches!(info.pending, PendingState::Damaged(_)), "{:?}", info.pending);
}

#[test]
fn what_cannot_be_taken_over_is_refused_each_time() {
    let place = formatted();
    let (tier, ..) = place.open();
    tier.committer().append(&Delta::Holds(holds(1, 1, 1)));
    drop(tier);
    std::fs::remove_file(&place.pending).expect("removed");
    let before = std::fs::read(&place.tier).expect("read");
    let options = OpenOptions { take_over: true, ..OpenOptions::new(&place.pending) };
    for _ in 0..3 {
        let refused = FastTier::open(&place.tier, UUID, &options).err().expect("refused");
        assert!(matches!(refused, FastTierError::NothingToTakeOver { .. }), "{refused}");
        assert!(!place.pending.exists(), "a refusal leaves nothing that the next try would believe");
    }
    assert_eq!(std::fs::read(&place.tier).expect("read"), before);
    // What can be taken over: a pending log that is there.
    drop(place.open());
    FastTier::open(&place.tier, UUID, &options).expect("taken over");
}

#[test]
fn a_closed_log_says_that_it_takes_nothing() {
    let place = formatted();
    let (tier, ..) = place.open();
    let log = tier.committer();
    assert!(!log.has_failed());
    smol::block_on(tier.close_clean(&nothing())).expect("closed");
    assert!(log.has_failed(), "whatever is appended now is lost");
}

#[test]
fn a_clean_stop_keeps_all_and_leaves_no_pending_log() {
    let place = formatted();
    let (tier, ..) = place.open();
    let log = tier.committer();
    log.append(&Delta::Holds(holds(3, 4, 1)));
    smol::block_on(tier.close_clean(&vec![Delta::Holds(holds(3, 4, 1))])).expect("closed");
    assert!(!place.pending.exists());
    drop(log);
    let (_tier, recovered, info) = place.open();
    assert_eq!(recovered.holds, vec![holds(3, 4, 1)]);
    assert_eq!((info.end, info.replayed_commits, info.lsn), (LastEnd::Clean, 0, Lsn(1)));
}

#[test]
fn the_open_epoch_is_known_though_its_predecessors_are_written_back() {
    let place = formatted();
    let (tier, ..) = place.open();
    tier.committer().append(&Delta::Sealed(Sealed {
        epoch: Epoch(8),
        opened_us: 1,
        sealed_us: 2,
        mapped_blocks: 4,
    }));
    smol::block_on(tier.close_clean(&nothing())).expect("closed");
    let options = OpenOptions { written_back: Epoch(8), ..OpenOptions::new(&place.pending) };
    let (_tier, recovered, _) = FastTier::open(&place.tier, UUID, &options).expect("opened");
    assert_eq!(recovered.open_epoch(), Epoch(9));
}

#[test]
fn the_name_of_an_epoch_that_was_not_sealed_does_not_come_back() {
    let place = formatted();
    let (tier, ..) = place.open();
    tier.committer().append(&Delta::Named { epoch: Epoch(1), name: "lost".into() });
    drop(tier);
    let (tier, recovered, _) = place.open();
    assert!(recovered.sealed.is_empty());
    tier.committer().append(&Delta::Sealed(Sealed {
        epoch: Epoch(1),
        opened_us: 1,
        sealed_us: 2,
        mapped_blocks: 4,
    }));
    drop(tier);
    let (_tier, recovered, _) = place.open();
    assert_eq!(recovered.sealed.len(), 1);
    assert_eq!(recovered.sealed[0].snapshot, None);
}

#[test]
fn deltas_become_durable_without_being_asked() {
    let place = formatted();
    let options = OpenOptions { idle_commit: Duration::from_millis(20), ..OpenOptions::new(&place.pending) };
    let (tier, ..) = FastTier::open(&place.tier, UUID, &options).expect("opened");
    let log = tier.committer();
    for _ in 0..3 {
        let position = log.append(&Delta::Free(SlotId(1)));
        while log.durable() < position {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn what_is_not_this_volumes_tier_is_refused_and_left_alone() {
    let place = formatted();
    let before = std::fs::read(&place.tier).expect("read");
    let options = OpenOptions::new(&place.pending);
    let other = FastTier::open(&place.tier, Uuid::from_bytes([4; 16]), &options);
    assert!(matches!(other, Err(FastTierError::OtherVolume { .. })));
    // A larger one would be its growth.
    let logical = if geometry().logical_block_bytes() == 512 { 4096 } else { 512 };
    let shape = Geometry::new(1 << 30, logical).expect("a valid shape");
    let other = FastTier::open(&place.tier, UUID, &OpenOptions { geometry: Some(shape), ..options.clone() });
    assert!(matches!(other, Err(FastTierError::OtherGeometry { .. })));
    let again = FastTier::format(&place.tier, None, [4; 16], geometry());
    let words = again.expect_err("occupied").to_string();
    assert!(words.contains("fast tier of the forerun volume 03030303"), "{words}");
    assert_eq!(std::fs::read(&place.tier).expect("read"), before);

    let foreign = place.tier.with_extension("foreign");
    std::fs::write(&foreign, vec![0xAB; 64 << 20]).expect("written");
    assert!(matches!(
        FastTier::check_before_format(&foreign, None, geometry()),
        Err(FastTierError::Occupied { .. })
    ));
    let opened = FastTier::open(&foreign, UUID, &options);
    assert!(matches!(opened, Err(FastTierError::Foreign(_))));
    let missing = FastTier::format(&place.tier.with_extension("missing"), None, VOLUME, geometry());
    assert!(matches!(missing, Err(FastTierError::Missing(_))));
}

#[test]
fn an_empty_file_is_no_tier() {
    let place = formatted();
    for bytes in [0, 1, 5000, 8192, 200_000] {
        std::fs::write(&place.tier, vec![0; bytes]).expect("written");
        let error = place.try_open().err().expect("refused");
        assert!(matches!(error, FastTierError::Foreign(_)), "{error}");
        let again = FastTier::format(&place.tier, None, VOLUME, geometry());
        assert!(matches!(again, Err(FastTierError::TooSmall { .. })));
    }
}

#[test]
fn an_untouched_tier_passes_its_check() {
    let place = formatted();
    let report = check::check(&place.tier, Some(VOLUME)).expect("readable");
    assert!(report.is_clean() && report.clean, "{report:?}");
    let (tier, ..) = place.open();
    let used = check::check(&place.tier, Some(VOLUME));
    assert!(matches!(used, Err(FastTierError::InUse(_))));
    tier.committer().append(&Delta::Holds(holds(1, 1, 1)));
    tier.committer().commit_blocking().expect("committed");
    drop(tier);
    let report = check::check(&place.tier, Some(VOLUME)).expect("readable");
    assert!(report.is_clean() && !report.clean, "{report:?}");
    assert_eq!((report.held_slots, report.journal_commits), (1, 1));
    let other = check::check(&place.tier, Some([9; 16])).expect("readable");
    assert_eq!(other.findings.len(), 1);
}

#[test]
fn a_tier_that_shrank_is_refused() {
    let place = formatted();
    let file = std::fs::File::options().write(true).open(&place.tier).expect("opened");
    file.set_len(32 << 20).expect("cut");
    assert!(matches!(place.try_open(), Err(FastTierError::Shrunk { .. })));
}

#[test]
fn either_superblock_suffices_and_without_both_there_is_an_error() {
    use std::os::unix::fs::FileExt;
    let place = formatted();
    let file = std::fs::File::options().write(true).open(&place.tier).expect("opened");
    for offset in [100, (64 << 20) - 3000] {
        file.write_all_at(&[0x55; 8], offset).expect("damaged");
        drop(place.open());
    }
    // Each opening repaired the copy that was broken.
    file.write_all_at(&[0x55; 8], 100).expect("damaged");
    file.write_all_at(&[0x55; 8], (64 << 20) - 3000).expect("damaged");
    assert!(matches!(place.try_open(), Err(FastTierError::BothDamaged(_))));
}

#[test]
fn many_threads_share_commits() {
    let place = formatted();
    let (tier, ..) = place.open();
    std::thread::scope(|scope| {
        for thread in 0..16u32 {
            let log = tier.committer();
            scope.spawn(move || {
                for turn in 0..20 {
                    let slot = thread * 20 + turn;
                    let position = log.append(&Delta::Holds(holds(slot, slot, 1)));
                    smol::block_on(log.commit()).expect("committed");
                    assert!(log.durable() >= position);
                }
            });
        }
    });
    let commits = tier.committer().status().lsn.0;
    assert!(commits <= 320, "{commits} commits for 320 calls");
    drop(tier);
    let (_tier, recovered, _) = place.open_after_reset();
    assert_eq!(recovered.holds.len(), 320);
}
