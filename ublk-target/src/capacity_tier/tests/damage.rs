//! Single flipped bits, cut objects and missing ones, anywhere: found by opening, by reading, and by the check.

use forerun::geometry::{BlockIndex, Epoch};

use super::super::memory_store::MemoryStore;
use super::super::*;
use super::model::*;

async fn written() -> (MemoryStore, Clock, Model) {
    let (store, clock) = (MemoryStore::new(1), Clock::new());
    CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
    let tier = open(&store, &clock).await.unwrap();
    let mut model = Model::default();
    let first: Changes = (0..30).map(|block| (block, Some(u64::from(block) + 1))).collect();
    let second: Changes = [(3, Some(55)), (4, None)].into_iter().collect();
    for (epoch, set, snapshot) in [(1, first, Some("one")), (2, second, None)] {
        write_back(&tier, &model, epoch, &set, snapshot).await.unwrap();
        model.commit(epoch, &set, snapshot);
    }
    (store, clock, model)
}

/// Whether opening, reading everything, or the check tells of damage; wrong data is never given.
async fn is_found(store: &MemoryStore, clock: &Clock, model: &Model) -> (bool, bool) {
    let report = check_store(store.clone(), None, &mut |_| ()).await;
    let by_check = report.is_err() || report.is_ok_and(|report| !report.is_clean());
    let Ok(tier) = open(store, clock).await else { return (true, by_check) };
    let mut by_read = false;
    for point in [1, 2] {
        let expected = model.content(point);
        let mut places = std::collections::BTreeMap::new();
        let mut sink = |block: BlockIndex, _, place: Option<Place>| {
            places.insert(block, place);
        };
        if tier.load_places(Some(Epoch(point)), &mut sink).await.is_err() {
            by_read = true;
            continue;
        }
        for (block, place) in places {
            let mut out = vec![0; BLOCK];
            match place {
                Some(place) => match tier.read_block(place, block, &mut out).await {
                    Ok(()) => assert!(out == content(expected[&block.0]), "wrong data of block {block}"),
                    Err(error) => {
                        assert!(error.is_corrupt() || error.is_not_found(), "{error}");
                        by_read = true;
                    }
                },
                None => assert!(!expected.contains_key(&block.0)),
            }
        }
    }
    (by_read, by_check)
}

#[test]
fn thousands_of_flipped_bits_are_all_found() {
    let mut random = 12_345u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut tried, mut by_reading) = (0, 0);
    run(async {
        let (store, clock, model) = written().await;
        assert_eq!(is_found(&store, &clock, &model).await, (false, false));
        let objects: Vec<_> = store.names().into_iter().map(Some).chain([None]).collect();
        for round in 0..1500 {
            let name = objects[round % objects.len()];
            let (at, bit) = (next(store.len(name)), next(8));
            store.tamper(name, |bytes| bytes[at] ^= 1 << bit);
            // The check first: opening a damaged HEAD would fail and change nothing.
            let head = name.is_none();
            let (by_read, by_check) = if head {
                let report = check_store(store.clone(), None, &mut |_| ()).await;
                (open(&store, &clock).await.is_err(), report.is_err() || !report.unwrap().is_clean())
            } else {
                is_found(&store, &clock, &model).await
            };
            assert!(by_check, "the check does not find bit {bit} of byte {at} of {name:?}");
            (tried, by_reading) = (tried + 1, by_reading + u32::from(by_read));
            store.tamper(name, |bytes| bytes[at] ^= 1 << bit);
        }
        assert_eq!(is_found(&store, &clock, &model).await, (false, false));
    });
    println!("{tried} flips, all found by the check, {by_reading} by opening or reading too");
    // The rest hit headers of segments, which reading a block does not need.
    assert!(by_reading * 100 > tried * 85);
}

#[test]
fn cut_and_missing_objects_are_found() {
    run(async {
        let (store, clock, model) = written().await;
        for name in store.names() {
            for keep in [0, 1, 511, 512, 4095, store.len(Some(name)) - 512, store.len(Some(name)) - 1] {
                let mut whole = Vec::new();
                store.tamper(Some(name), |bytes| {
                    whole = bytes.clone();
                    bytes.truncate(keep.min(whole.len() - 1));
                });
                let (by_read, by_check) = is_found(&store, &clock, &model).await;
                assert!(by_read && by_check, "{name} cut to {keep}");
                store.tamper(Some(name), |bytes| *bytes = whole);
            }
        }
        let len = store.len(None);
        for keep in 0..len {
            let mut whole = Vec::new();
            store.tamper(None, |bytes| whole = std::mem::replace(bytes, bytes[..keep].to_vec()));
            assert!(open(&store, &clock).await.is_err());
            store.tamper(None, |bytes| *bytes = whole);
        }
        let name = store.names()[0];
        store.remove(name);
        assert_eq!(is_found(&store, &clock, &model).await, (true, true));
    });
}

#[test]
fn a_segment_in_the_place_of_another_is_found() {
    run(async {
        let (store, clock, model) = written().await;
        let segments: Vec<_> =
            store.names().into_iter().filter(|name| name.kind == ObjectKind::Segment).collect();
        let mut other = Vec::new();
        store.tamper(Some(segments[1]), |bytes| other = bytes.clone());
        store.tamper(Some(segments[0]), |bytes| *bytes = other);
        assert_eq!(is_found(&store, &clock, &model).await, (true, true));
    });
}

#[test]
fn maintenance_leaves_what_is_damaged_and_goes_on() {
    run(async {
        let (store, clock, model) = written().await;
        let tier = open(&store, &clock).await.unwrap();
        let mut model = model;
        let second = ObjectName::layer(tier.head().layers()[1].id);
        for epoch in 3..8 {
            let set: Changes = [(epoch, Some(u64::from(epoch) * 100))].into_iter().collect();
            write_back(&tier, &model, epoch, &set, None).await.unwrap();
            model.commit(epoch, &set, None);
        }
        store.tamper(Some(second), |bytes| bytes[5000] ^= 1);
        let first = tier.maintain(Urgency::SpaceShort).await.unwrap_err();
        assert!(first.is_corrupt() && first.to_string().contains(&second.to_string()), "{first}");
        while tier.maintain(Urgency::SpaceShort).await.unwrap().more {}
        assert_eq!(tier.head().layers().len(), 3, "the snapshot, the damaged layer, and the others as one");
        store.tamper(Some(second), |bytes| bytes[5000] ^= 1);
        compare(&tier, &model).await;
    });
}
