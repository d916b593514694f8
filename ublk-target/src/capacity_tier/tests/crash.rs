//! A crash, an error and a full store at every single operation of a write-back, a merge, a compaction and a
//! delete.

use super::super::memory_store::{MemoryStore, Trouble};
use super::super::object_store::simulated::ObjectBench;
use super::super::*;
use super::model::*;
use nix::errno::Errno;

fn changes(list: &[(u32, Option<u64>)]) -> Changes {
    list.iter().copied().collect()
}

/// Two epochs and a snapshot, with enough in them that merging and compacting have work.
async fn prepared<B: Bench>(seed: u64) -> (B, Clock, CapacityTier<B::Store>, Model) {
    let (bench, clock) = (B::new(seed), Clock::new());
    CapacityTier::create_in(&bench.store(), VOLUME, geometry()).await.unwrap();
    let tier = open_on(&bench, &clock).await.unwrap();
    let mut model = Model::default();
    let first: Changes = (0..40).map(|block| (block, Some(u64::from(block) + 100))).collect();
    for (epoch, set, snapshot) in [
        (1, first, Some("old")),
        (2, changes(&[(1, Some(1)), (2, None)]), None),
        (3, changes(&[(3, Some(5))]), None),
    ] {
        write_back(&tier, &model, epoch, &set, snapshot).await.unwrap();
        model.commit(epoch, &set, snapshot);
    }
    (bench, clock, tier, model)
}

#[derive(Clone, Copy, Debug)]
enum Act {
    WriteBack,
    DeleteSnapshot,
    Maintain,
}

async fn act<S: Store>(
    tier: &CapacityTier<S>,
    clock: &Clock,
    model: &Model,
    what: Act,
) -> (Result<()>, Model) {
    let mut after = model.clone();
    let result = match what {
        Act::WriteBack => {
            let set: Changes =
                (10..50).map(|block| (block, (block != 20).then_some(u64::from(block)))).collect();
            after.commit(4, &set, Some("new"));
            write_back(tier, model, 4, &set, Some("new")).await.map(|_| ())
        }
        Act::DeleteSnapshot => {
            after.snapshots.clear();
            tier.delete_snapshot(&name("old")).await
        }
        Act::Maintain => {
            let mut result = Ok(());
            for _ in 0..4 {
                clock.pass(31);
                result = tier.maintain(Urgency::SpaceShort).await.map(|_| ());
                if result.is_err() {
                    break;
                }
            }
            result
        }
    };
    (result, after)
}

#[test]
fn trouble_at_every_operation_leaves_before_or_after() {
    trouble_at_every_operation::<MemoryStore>();
}

#[test]
fn trouble_at_every_request_to_an_object_store_leaves_before_or_after() {
    trouble_at_every_operation::<ObjectBench>();
}

fn trouble_at_every_operation<B: Bench>() {
    for what in [Act::WriteBack, Act::DeleteSnapshot, Act::Maintain] {
        let (mut operations, mut befores, mut afters) = (0, 0, 0);
        for later in 0.. {
            let mut finished = false;
            for (seed, trouble) in [
                (1, Trouble::Crash),
                (2, Trouble::Crash),
                (3, Trouble::Crash),
                (4, Trouble::Fail(Errno::EIO)),
                (5, Trouble::Full),
            ] {
                run(async {
                    let (store, clock, tier, model) = prepared::<B>(seed * 7919 + later).await;
                    let begun = store.operations();
                    store.trouble(later, trouble);
                    let (result, after) = act(&tier, &clock, &model, what).await;
                    // A single failure may be made up for.
                    finished |= result.is_ok() && trouble == Trouble::Crash;
                    operations = operations.max(store.operations() - begun);
                    if trouble != Trouble::Crash {
                        // The running writer goes on with the state before, and can do it again.
                        store.heal();
                        let expected = if result.is_ok() { &after } else { &model };
                        compare(&tier, expected).await;
                        if result.is_err() {
                            let (again, after) = act(&tier, &clock, &model, what).await;
                            again.unwrap();
                            compare(&tier, &after).await;
                        }
                        return;
                    }
                    let store = store.after_crash();
                    let tier = open_on(&store, &clock).await.unwrap();
                    let is_after = tier.head().written_back_epoch().0 == after.newest()
                        && tier.head().snapshots().count() == after.snapshots.len();
                    if is_after {
                        afters += 1
                    } else {
                        befores += 1
                    }
                    assert!(is_after || result.is_err(), "{what:?} had returned before operation {later}");
                    compare(&tier, if is_after { &after } else { &model }).await;
                    let report = check_store(store.store(), None, &mut |_| ()).await.unwrap();
                    assert!(report.is_clean(), "{:?}", report.findings);
                });
            }
            if finished {
                break;
            }
        }
        println!(
            "{what:?}: trouble at each of {operations} operations; after crashes {befores} before, {afters} after"
        );
        assert!(operations >= 2 && afters > 0);
    }
}

#[test]
fn a_full_store_says_so_and_keeps_what_is_there() {
    run(async {
        let (store, _, tier, model) = prepared::<MemoryStore>(1).await;
        store.trouble(0, Trouble::Full);
        let set = changes(&[(1, Some(77))]);
        let error = write_back(&tier, &model, 4, &set, None).await.unwrap_err();
        assert!(error.is_no_space(), "{error}");
        assert!(error.to_string().contains("free space"), "{error}");
        assert_eq!(error.raw_os_error(), Errno::ENOSPC as i32);
        compare(&tier, &model).await;
    });
}

#[test]
fn an_abandoned_layer_is_cleaned_up() {
    run(async {
        let (store, clock, tier, model) = prepared::<MemoryStore>(1).await;
        let there = store.names();
        let mut layer = tier.begin_layer(forerun::geometry::Epoch(4), 0, 0).unwrap();
        for block in 0..60 {
            let kind = forerun::change_vector::ChangeKind::Added;
            layer
                .put(forerun::geometry::BlockIndex(block + 100), kind, 1, &content(u64::from(block) * 5 + 1))
                .await
                .unwrap();
        }
        drop(layer);
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        clock.pass(31);
        while tier.space().await.unwrap().deleting_bytes > 0
            || tier.maintain(Urgency::Relaxed).await.unwrap().deleted.objects > 0
        {
            clock.pass(31);
        }
        assert!(
            store.names().iter().all(
                |name| there.contains(name) || tier.head().layers().iter().any(|l| l.id.0 == name.number)
            )
        );
        compare(&tier, &model).await;
    });
}

#[test]
fn a_layer_that_lost_a_segment_cannot_be_committed() {
    run(async {
        let (store, _, tier, model) = prepared::<MemoryStore>(1).await;
        let mut layer = tier.begin_layer(forerun::geometry::Epoch(4), 0, 0).unwrap();
        let kind = forerun::change_vector::ChangeKind::Added;
        store.trouble(1, Trouble::Fail(Errno::EIO));
        let mut failed = false;
        for block in 0..300 {
            let data = content(u64::from(block) * 5 + 5);
            failed |= layer.put(forerun::geometry::BlockIndex(block + 100), kind, 1, &data).await.is_err();
        }
        assert!(failed);
        assert!(layer.commit(None, 300).await.is_err());
        compare(&tier, &model).await;
    });
}

/// A process is killed between the replacement of HEAD and the word that it is durable. The next one sees the new HEAD, and
/// forgets on the fast tier what it has: a power cut may not bring the old one back then.
#[test]
fn what_an_opening_goes_by_is_durable() {
    run(async {
        let mut undecided = 0;
        for operation in 0..40 {
            for cut in 0..8 {
                let (store, clock) = (MemoryStore::new(cut), Clock::new());
                CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
                let tier = open(&store, &clock).await.unwrap();
                store.trouble(operation, Trouble::Crash);
                let changes = Changes::from([(1, Some(1))]);
                let _ = write_back(&tier, &Model::default(), 1, &changes, None).await;
                let found = store.after_kill();
                undecided += u32::from(found.durable_head_differs());
                let seen = CapacityTier::open_for_recovery_in(found.clone(), VOLUME).await.unwrap();
                let after = CapacityTier::open_reader_in(found.after_crash(), Some(VOLUME)).await.unwrap();
                assert_eq!(after.head().written_back_epoch(), seen.head().written_back_epoch());
            }
        }
        assert!(undecided > 0, "no process was killed between the two");
    });
}
