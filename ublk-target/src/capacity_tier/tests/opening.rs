//! How long opening takes where each read of the store takes a while, and that what was counted for the map is right.

use std::time::Duration;

use tokio::time::Instant;

use super::super::memory_store::{Faults, MemoryStore};
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

/// How long opening takes with so many blocks, in one layer; prints it. The tables are in memory: what is measured is forerun's
/// own part.
#[test]
#[ignore = "a measurement: takes a minute and three gigabytes"]
fn a_volume_of_two_million_blocks_opens() {
    const BLOCKS: u32 = 2_000_000;
    let geometry = forerun::geometry::Geometry::new(1 << 40, 4096).unwrap();
    run(async {
        let store = MemoryStore::new(1);
        CapacityTier::create_in(&store, VOLUME, geometry).await.unwrap();
        let options = Options::default();
        let tier = CapacityTier::open_writer_in(store.clone(), VOLUME, geometry, options).await.unwrap();
        let mut layer = tier.begin_layer(forerun::geometry::Epoch(1), 0, 1).unwrap();
        let data = content(1);
        for block in 0..BLOCKS {
            let block = forerun::geometry::BlockIndex(block);
            layer.put(block, forerun::change_vector::ChangeKind::Added, 16, &data).await.unwrap();
        }
        layer.commit(None, BLOCKS).await.unwrap();
        tier.close().await;
        let begun = std::time::Instant::now();
        let reader = CapacityTier::open_for_recovery_in(store.clone(), VOLUME).await.unwrap();
        let mut told = 0;
        let counted = reader.load_map(&mut |_, _, _| told += 1).await.unwrap();
        let read = begun.elapsed();
        let options = Options::default();
        let writer =
            CapacityTier::open_writer_counted(store.clone(), VOLUME, geometry, options, Some(counted));
        writer.await.unwrap().close().await;
        println!(
            "{told} blocks: the tables read after {read:?}, open for writing after {:?}",
            begun.elapsed()
        );
        assert_eq!(told, BLOCKS);
    });
}
