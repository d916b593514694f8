//! How long opening takes where each read of the store takes a while, and that what was counted for the map is right.

use std::time::Duration;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch};
use tokio::time::Instant;

use super::super::check::check_store;
use super::super::memory_store::{Faults, MemoryStore};
use super::super::names::ObjectKind;
use super::super::store::Store;
use super::super::*;
use super::model::*;

const SNAPSHOTS: u32 = 400;
const READ: Duration = Duration::from_millis(30);

/// A volume of so many snapshots, each of which has a table of its own.
async fn with_many_snapshots() -> (MemoryStore, Clock) {
    let (store, clock) = (MemoryStore::new(1), Clock::new());
    CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
    let tier = open(&store, &clock).await.unwrap();
    let mut model = Model::default();
    for epoch in 1..=SNAPSHOTS {
        let changes = Changes::from([(epoch % 9, Some(u64::from(epoch)))]);
        let snapshot = format!("s{epoch}");
        write_back(&tier, &model, epoch, &changes, Some(&snapshot)).await.unwrap();
        model.commit(epoch, &changes, Some(&snapshot));
    }
    tier.close().await;
    (store, clock)
}

#[test]
fn tables_are_read_side_by_side_and_once() {
    run(async {
        let (store, clock) = with_many_snapshots().await;
        let simple = open(&store, &clock).await.unwrap();
        let space = simple.space().await.unwrap();
        simple.close().await;
        store.set_faults(Faults { slow_read: READ, ..Faults::default() });
        let begun = Instant::now();
        let reader = CapacityTier::open_for_recovery_in(store.clone(), VOLUME).await.unwrap();
        let mut entries = 0;
        let counted = reader.load_map(&mut |_, _, _| entries += 1).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(entries, SNAPSHOTS);
        assert!(
            took < READ * SNAPSHOTS / 16,
            "{took:?}: a read of each table after the other takes {:?}",
            READ * SNAPSHOTS
        );
        let (options, begun) = (clock.options(), Instant::now());
        let counted = Some(counted);
        let writer =
            CapacityTier::open_writer_counted(store.clone(), VOLUME, geometry(), options, counted).await;
        let took = begun.elapsed();
        assert!(took < READ, "{took:?}: the tables are read again");
        let writer = writer.unwrap();
        assert_eq!(writer.space().await.unwrap(), space, "what is used");
        writer.close().await;
    });
}

/// A list of all segments is long where there are many, so a volume does not wait for it. What this writer writes before it comes
/// is in it, and nothing refers to that yet.
#[test]
fn what_others_left_is_looked_for_after_the_opening() {
    run(async {
        let (store, clock) = (MemoryStore::new(1), Clock::new());
        CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
        let former = open(&store, &clock).await.unwrap();
        let mut lost = former.begin_layer(Epoch(1), 0, 1).unwrap();
        for block in 0..200 {
            lost.put(BlockIndex(block), ChangeKind::Added, 16, &content(9)).await.unwrap();
        }
        // As if it had been killed: what it wrote stays, and nothing refers to it.
        drop(lost);
        former.close().await;
        // What was under way arrives.
        tokio::time::sleep(READ).await;
        let mut left = store.list(ObjectKind::Segment).await.unwrap();
        left.extend(store.list(ObjectKind::Layer).await.unwrap());
        assert!(!left.is_empty());

        store.set_faults(Faults { no_lists: true, ..Faults::default() });
        let without = open(&store, &clock).await.unwrap();
        let done = without.maintain(Urgency::Relaxed).await.unwrap();
        assert!(!done.more && without.garbage().queued_objects == 0, "upkeep goes on: {done:?}");
        without.close().await;

        store.set_faults(Faults { slow_list: READ * 100, ..Faults::default() });
        let begun = Instant::now();
        let tier = open(&store, &clock).await.unwrap();
        assert!(begun.elapsed() < READ, "{:?}: the opening waits for a list", begun.elapsed());
        let changes = Changes::from([(3, Some(1)), (4, Some(2))]);
        let model = Model::default();
        let (upkeep, written) =
            tokio::join!(tier.maintain(Urgency::Relaxed), write_back(&tier, &model, 1, &changes, Some("s1")));
        written.unwrap();
        assert_eq!(upkeep.unwrap().deleted.objects, 0);
        assert_eq!(tier.garbage().queued_objects as usize, left.len());
        clock.pass(60);
        let deleted = tier.maintain(Urgency::Relaxed).await.unwrap().deleted;
        assert_eq!(deleted.objects as usize, left.len());
        assert_eq!(tier.garbage().queued_objects, 0, "what it wrote itself stays");
        tier.close().await;
        assert!(check_store(store.clone(), None, &mut |_| ()).await.unwrap().findings.is_empty());
    });
}

/// What was counted under one HEAD is not taken for what another one refers to.
#[test]
fn what_another_head_referred_to_is_counted_anew() {
    run(async {
        let (store, clock) = with_many_snapshots().await;
        let reader = CapacityTier::open_for_recovery_in(store.clone(), VOLUME).await.unwrap();
        let counted = reader.load_map(&mut |_, _, _| ()).await.unwrap();
        let other = open(&store, &clock).await.unwrap();
        for epoch in 1..SNAPSHOTS {
            other.delete_snapshot(&name(&format!("s{epoch}"))).await.unwrap();
        }
        while other.maintain(Urgency::SpaceShort).await.unwrap().more {}
        other.close().await;
        let writer = CapacityTier::open_writer_counted(
            store.clone(),
            VOLUME,
            geometry(),
            clock.options(),
            Some(counted),
        );
        let (space, found) = {
            let writer = writer.await.unwrap();
            let space = writer.space().await.unwrap();
            writer.close().await;
            (space, open(&store, &clock).await.unwrap().space().await.unwrap())
        };
        assert_eq!(space, found);
    });
}
