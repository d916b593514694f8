//! Several threads, checkpoints by themselves, a small ring: power cuts and faults at any time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use forerun::geometry::Epoch;

use super::*;
use crate::fast_tier::log::DeltaLog;
use crate::fast_tier::sim::Random;
use crate::fast_tier::{Committer, FastDevice, Health, LastEnd};

/// Threads change and commit until `turns` are over or the disk fails.
fn live_in_threads(tier: FastTier<SimDisk>, past: &Past, n: usize, seed: u64, turns: u64) -> Past {
    let engine = Arc::new(Mutex::new(Engine::resume(&tier, past, n, seed)));
    let log = tier.committer();
    log.checkpoints(Arc::new(All(Arc::clone(&engine))));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (engine, log) = (&engine, &log);
            scope.spawn(move || {
                let mut random = Random(seed ^ thread);
                for _ in 0..turns {
                    let deltas = {
                        let mut engine = lock(engine);
                        // Like the engine, a request does not begin while the log has no room.
                        if log.has_room(0) {
                            let changed = (0..8).try_for_each(|_| engine.change());
                            if changed.is_err() {
                                return;
                            }
                            if random.one_in(4) {
                                engine.many_changes();
                            }
                        }
                        engine.deltas()
                    };
                    if random.one_in(3) || !log.has_room(0) {
                        if smol::block_on(log.commit()).is_err() {
                            return;
                        }
                        lock(engine).acknowledge(deltas);
                    }
                }
            });
        }
    });
    drop((tier, log));
    let engine = Arc::into_inner(engine).expect("the tier let go of it");
    engine.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).end()
}

#[test]
fn the_ring_goes_round_and_round_under_power_cuts_and_kills() {
    let (mut checkpoints, mut pages) = (0, 0);
    for seed in 300..330 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut machine = Machine::new();
        let mut disk = formatted(seed);
        let mut past = Past::none();
        let mut all = true;
        for life in 0..6 {
            let (tier, recovered, _) = machine.open(&disk).expect("opened");
            let n = past.find(&recovered, all);
            past.check_data(&tier, n);
            let before = disk.steps();
            if life % 3 != 2 {
                disk.cut_at(1 + random.below(500));
            }
            let log = tier.committer();
            past = live_in_threads(tier, &past, n, random.next(), 60);
            checkpoints += log.status().checkpoints;
            pages += disk.steps() - before;
            drop(log);
            let cut = random.one_in(2);
            disk = if cut { disk.after_power_cut(random.next()) } else { disk.after_kill() }.into();
            machine.boot += u128::from(cut);
            all = !cut;
        }
    }
    println!("{checkpoints} checkpoints, {pages} steps");
    assert!(checkpoints > 100, "the ring has to go round: {checkpoints}");
}

#[test]
fn a_failed_sync_fails_the_tier_and_a_failed_write_does_not() {
    for step in 1..=3 {
        let machine = Machine::new();
        let disk = formatted(step);
        let (tier, ..) = machine.open(&disk).expect("opened");
        let log = tier.committer();
        let mut engine = Engine::resume(&tier, &Past::none(), 0, step);
        (0..20).try_for_each(|_| engine.change()).expect("written");
        // Data sync, records, journal sync.
        disk.fail_at(step);
        let deltas = engine.deltas();
        let first = log.commit_blocking();
        assert!(first.is_err());
        if step == 2 {
            assert!(matches!(log.status().health, Health::Degraded(_)));
            log.commit_blocking().expect("the second try");
            engine.acknowledge(deltas);
            assert_eq!((log.status().health, log.failure()), (Health::Good, None));
        } else {
            assert!(log.commit_blocking().is_err());
            assert!(log.failure().is_some() && !log.has_room(0));
        }
        let past = engine.end();
        drop((tier, log));
        let (_, recovered, info) = machine.open(&Arc::new(disk.after_kill())).expect("opened");
        // After a failed sync nobody knows what of the data is there: what is durable counts, as after a power cut.
        assert_eq!(info.end, if step == 2 { LastEnd::Killed } else { LastEnd::Crashed });
        past.find(&recovered, step == 2);
    }
}

/// A disk one of whose syncs somebody else asked for just before, and was told that writes are lost.
struct ToldAnother {
    disk: SimDisk,
    log: Mutex<Option<Arc<Committer>>>,
    /// Syncs until then.
    left: AtomicU64,
}

impl FastDevice for ToldAnother {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(log) = &*lock(&self.log)
            && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            log.sync_failed(&io::Error::other("writes are lost"));
        }
        self.disk.sync()
    }
}

/// Linux tells of lost writes once: the sync that comes after it succeeds.
#[test]
fn a_sync_that_succeeds_after_anothers_failed_is_not_believed() {
    // Data sync, journal sync.
    for sync in 1..=2 {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = SimDisk::new(layout().tier_bytes, sync);
        write(&disk, layout(), &format_options()).expect("formatted");
        let disk = Arc::new(ToldAnother { disk, log: Mutex::default(), left: AtomicU64::new(sync) });
        let options = OpenOptions::new(folder.path().join("pending"));
        let (tier, ..) = FastTier::open_on(Arc::clone(&disk), "a disk", VOLUME, &options).expect("opened");
        let log = tier.committer();
        *lock(&disk.log) = Some(Arc::clone(&log));
        log.append(&Delta::Unnamed { epoch: Epoch(1) });
        assert!(log.commit_blocking().is_err(), "sync {sync}: a commit that may be lost is acknowledged");
        *lock(&disk.log) = None;
    }
}

/// The same for a request's flush: it has failed, but its thread has not come to say so yet.
#[test]
fn a_commit_waits_for_what_a_flush_on_its_way_has_been_told() {
    let machine = Machine::new();
    let (tier, ..) = machine.open(&formatted(1)).expect("opened");
    let log = tier.committer();
    let flush = log.flushes().begin();
    log.append(&Delta::Unnamed { epoch: Epoch(1) });
    let commit = log.commit();
    std::thread::sleep(Duration::from_millis(20));
    assert!(commit.outcome().is_none(), "acknowledged while a flush may have been told that it is lost");
    log.sync_failed(&io::Error::other("writes are lost"));
    drop(flush);
    assert!(commit.wait().is_err(), "a commit that may be lost is acknowledged");
}

/// An engine that has made some changes.
fn with_changes(tier: &FastTier<SimDisk>) -> Arc<Mutex<Engine>> {
    let mut engine = Engine::resume(tier, &Past::none(), 0, 1);
    (0..50).try_for_each(|_| engine.change()).expect("written");
    Arc::new(Mutex::new(engine))
}

/// An earlier checkpoint's failure is no answer: what it met may be over.
#[test]
fn a_full_ring_tries_a_checkpoint_before_it_fails_a_commit() {
    let machine = Machine::new();
    let disk = formatted(1);
    let (tier, ..) = machine.open(&disk).expect("opened");
    let (log, engine) = (tier.committer(), with_changes(&tier));
    let all = All(Arc::clone(&engine));
    disk.fail_at(1);
    let checkpoint = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    checkpoint.block_on(log.checkpoint(&all)).expect_err("the disk failed");
    let full = loop {
        lock(&engine).many_changes();
        if let Err(error) = log.commit_blocking() {
            break error;
        }
    };
    assert!(full.to_string().contains("nobody takes one"), "{full}");
    log.checkpoints(Arc::new(all));
    log.commit_blocking().expect("a checkpoint makes room now");
}

#[test]
fn a_full_ring_waits_for_its_checkpoint() {
    let machine = Machine::new();
    let disk = formatted(1);
    let (tier, ..) = machine.open(&disk).expect("opened");
    let (log, engine) = (tier.committer(), with_changes(&tier));
    // Nobody takes checkpoints: at some time a commit fails, and says why.
    let error = loop {
        lock(&engine).many_changes();
        if let Err(error) = log.commit_blocking() {
            break error;
        }
    };
    assert!(error.to_string().contains("journal is full"), "{error}");
    log.checkpoints(Arc::new(All(Arc::clone(&engine))));
    log.commit_blocking().expect("the checkpoint makes room");
    // It is counted by its own thread, a moment after the room that it freed was used.
    let begun = std::time::Instant::now();
    while log.status().checkpoints == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "no checkpoint was taken");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop((tier, log));
    let past = Arc::into_inner(engine).expect("let go").into_inner().expect("not poisoned").end();
    let (_, recovered, _) =
        Machine { boot: 2, ..Machine::new() }.open(&Arc::new(disk.after_power_cut(3))).expect("opened");
    past.find(&recovered, true);
}
