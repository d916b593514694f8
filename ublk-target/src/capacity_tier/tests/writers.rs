//! Two writers, and readers beside a writer.

use forerun::geometry::{BlockIndex, Epoch};

use super::super::memory_store::MemoryStore;
use super::super::*;
use super::model::*;

fn set(block: u32, id: u64) -> Changes {
    Changes::from([(block, Some(id))])
}

async fn started() -> (MemoryStore, Clock, Tier, Model) {
    let (store, clock) = (MemoryStore::new(1), Clock::new());
    CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
    let tier = open(&store, &clock).await.unwrap();
    let mut model = Model::default();
    write_back(&tier, &model, 1, &set(1, 1), Some("one")).await.unwrap();
    model.commit(1, &set(1, 1), Some("one"));
    (store, clock, tier, model)
}

#[test]
fn an_old_writer_is_fenced_off_and_deletes_nothing() {
    run(async {
        let (store, clock, old, mut model) = started().await;
        // Half-way through an epoch when the new writer comes.
        let mut layer = old.begin_layer(Epoch(2), 0, 0).unwrap();
        let kind = forerun::change_vector::ChangeKind::Added;
        layer.put(BlockIndex(9), kind, 1, &content(5)).await.unwrap();
        let new = open(&store, &clock).await.unwrap();
        let error = layer.commit(None, 2).await.unwrap_err();
        assert!(error.is_fenced(), "{error}");
        assert!(error.to_string().contains("taken over"), "{error}");
        write_back(&new, &model, 2, &set(1, 2), None).await.unwrap();
        model.commit(2, &set(1, 2), None);
        clock.pass(100);
        for error in [
            old.begin_layer(Epoch(3), 0, 0).err(),
            old.maintain(Urgency::SpaceShort).await.err(),
            old.delete_snapshot(&name("one")).await.err(),
            old.name_snapshot(Epoch(1), &name("other")).await.err(),
        ] {
            assert!(error.is_some_and(|error| error.is_fenced()));
        }
        compare(&new, &model).await;
        assert!(new.head().generation > old.head().generation);
    });
}

#[test]
fn two_writers_by_turns_never_lose_a_layer() {
    run(async {
        let (store, clock, first, mut model) = started().await;
        let mut writers = vec![first];
        for turn in 0..40u32 {
            // Every third turn another one takes over; all of the older ones keep trying.
            if turn.is_multiple_of(3) {
                writers.push(open(&store, &clock).await.unwrap());
            }
            let newest = writers.len() - 1;
            for (at, writer) in writers.iter().enumerate() {
                let epoch = model.newest() + 1;
                let result =
                    write_back(writer, &model, epoch, &set(turn % 7, u64::from(turn) + 2), None).await;
                assert_eq!(result.is_ok(), at == newest, "writer {at} of {newest}");
                let _ = writer.maintain(Urgency::SpaceShort).await;
                if at == newest {
                    model.commit(epoch, &set(turn % 7, u64::from(turn) + 2), None);
                }
            }
            clock.pass(17);
            compare(&writers[newest], &model).await;
        }
    });
}

#[test]
fn a_snapshot_that_is_read_keeps_its_objects() {
    run(async {
        let (store, clock, tier, mut model) = started().await;
        let (reader, epoch) =
            CapacityTier::open_snapshot_in(|| Ok(store.clone()), Some(VOLUME), &name("one")).await.unwrap();
        let in_use = tier.delete_snapshot(&name("one")).await.unwrap_err();
        assert!(matches!(in_use, CapacityError::SnapshotInUse { .. }), "{in_use}");
        for epoch in 2..9 {
            write_back(&tier, &model, epoch, &set(1, u64::from(epoch)), None).await.unwrap();
            model.commit(epoch, &set(1, u64::from(epoch)), None);
        }
        for _ in 0..10 {
            tier.maintain(Urgency::SpaceShort).await.unwrap();
            clock.pass(31);
        }
        let blocks = read_all(&reader, Some(epoch)).await.unwrap();
        assert!(blocks[&1] == content(1));
        compare(&tier, &model).await;
        drop(reader);
        tier.delete_snapshot(&name("one")).await.unwrap();
        model.snapshots.clear();
        for _ in 0..10 {
            tier.maintain(Urgency::Relaxed).await.unwrap();
            clock.pass(31);
        }
        compare(&tier, &model).await;
        assert_eq!(tier.head().layers().len(), 1, "merged into one");
        let gone =
            CapacityTier::open_snapshot_in(|| Ok(store.clone()), None, &name("one")).await.err().unwrap();
        assert!(matches!(gone, CapacityError::NoSuchSnapshot { .. }));
    });
}

#[test]
fn an_unleased_reader_outlives_a_merge_by_the_delay() {
    run(async {
        let (store, clock, tier, mut model) = started().await;
        for epoch in 2..6 {
            write_back(&tier, &model, epoch, &set(2, u64::from(epoch)), None).await.unwrap();
            model.commit(epoch, &set(2, u64::from(epoch)), None);
        }
        let reader = CapacityTier::open_reader_in(store.clone(), Some(VOLUME)).await.unwrap();
        while tier.maintain(Urgency::SpaceShort).await.unwrap().more {}
        let blocks = read_all(&reader, None).await.unwrap();
        assert!(blocks[&2] == content(5));
        clock.pass(31);
        while tier.maintain(Urgency::SpaceShort).await.unwrap().deleted.objects > 0 {}
        assert!(read_all(&reader, None).await.unwrap_err().is_not_found());
        compare(&tier, &model).await;
    });
}

#[test]
fn names_are_refused_with_the_reason() {
    run(async {
        let (_, _, tier, model) = started().await;
        tier.name_snapshot(Epoch(1), &name("one")).await.unwrap();
        let other = tier.name_snapshot(Epoch(1), &name("two")).await.unwrap_err();
        assert!(matches!(other, CapacityError::SnapshotExists { .. }), "{other}");
        let early = tier.name_snapshot(Epoch(7), &name("two")).await.unwrap_err();
        assert!(matches!(early, CapacityError::NoSuchEpoch { .. }), "{early}");
        let taken = write_back(&tier, &model, 2, &set(1, 2), Some("one")).await.unwrap_err();
        assert!(matches!(taken, CapacityError::SnapshotExists { .. }), "{taken}");
        let order = tier.begin_layer(Epoch(1), 0, 0).err().unwrap();
        assert!(matches!(order, CapacityError::EpochOrder { .. }), "{order}");
        let range = tier.diff(Some(Epoch(1)), Epoch(0), None, 9).await.unwrap_err();
        assert!(matches!(range, CapacityError::EpochRange { .. }), "{range}");
        compare(&tier, &model).await;
    });
}

#[test]
fn change_vectors_follow_the_layers() {
    run(async {
        let (_, _, tier, mut model) = started().await;
        for epoch in 2..6 {
            let changes = Changes::from([(1, None), (epoch, Some(u64::from(epoch)))]);
            write_back(&tier, &model, epoch, &changes, None).await.unwrap();
            model.commit(epoch, &changes, None);
        }
        let vectors = tier.change_vectors(Epoch(1), 100).await.unwrap();
        assert_eq!(vectors.len(), 4);
        assert_eq!(vectors[0].epoch, Epoch(2));
        assert_eq!((vectors[0].opened_us, vectors[0].sealed_us), (2000, 2999));
        let told: Vec<_> = vectors[0].changes().iter().map(|change| (change.block.0, change.kind)).collect();
        assert_eq!(told, model.diff(1, 2));
        while tier.maintain(Urgency::SpaceShort).await.unwrap().more {}
        let vectors = tier.change_vectors(Epoch(1), 100).await.unwrap();
        assert_eq!(vectors.len(), 1, "merged runs come as one");
        assert_eq!((vectors[0].epoch, vectors[0].opened_us, vectors[0].sealed_us), (Epoch(5), 2000, 5999));
    });
}

#[test]
fn data_does_not_depend_on_the_kinds_of_change() {
    run(async {
        let (_, clock, tier, mut model) = started().await;
        // Told as added though it is there, then deleted: both together look as if nothing had been below.
        let kind = forerun::change_vector::ChangeKind::Added;
        let mut layer = tier.begin_layer(Epoch(2), 0, 0).unwrap();
        layer.put(BlockIndex(1), kind, 1, &content(7)).await.unwrap();
        layer.commit(None, 1).await.unwrap();
        let mut layer = tier.begin_layer(Epoch(3), 0, 0).unwrap();
        layer.delete(BlockIndex(1)).unwrap();
        layer.commit(None, 0).await.unwrap();
        while tier.maintain(Urgency::SpaceShort).await.unwrap().more {
            clock.pass(31);
        }
        assert_eq!(tier.head().layers().len(), 2);
        assert!(
            read_all(&tier, None).await.unwrap().is_empty(),
            "the block of the snapshot must not shine through"
        );
        assert!(read_all(&tier, Some(Epoch(1))).await.unwrap()[&1] == content(1));
        model.commit(3, &Changes::from([(1, None)]), None);
        tier.delete_snapshot(&name("one")).await.unwrap();
        model.snapshots.clear();
        while tier.maintain(Urgency::Relaxed).await.unwrap().more {}
        assert!(read_all(&tier, None).await.unwrap().is_empty());
        assert_eq!(tier.head().layers()[0].counts.entries(), 0, "at the bottom tombstones go");
    });
}
