//! Writers that fight for a volume on a server that is not to be relied on, and what else is only so on an object store.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch, Generation};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::Instant;

use super::super::store::{HeadNumber, ReplaceError, Store};
use super::super::tests::model::{BLOCK, VOLUME, content, geometry, run};
use super::super::{Alone, CapacityError, CapacityTier, Options, Place, Urgency, check_store};
use super::ObjectStore;
use super::keys::{HEADS, head_name};
use super::simulated::{Connection, Manner, Rates, Server, store_over};
use super::timing::Timing;

type Tier = CapacityTier<ObjectStore>;

/// Upkeep by the runtime's clock, which stands still while nothing waits for it.
fn options() -> Options {
    let begun = Instant::now();
    Options {
        unmerged_layers: 2,
        segment_bytes: 64 << 10,
        compaction_gain_bytes: 4 << 10,
        now: Rc::new(move || begun.elapsed()),
        ..Options::default()
    }
}

async fn open(connection: &Connection) -> Result<Tier, CapacityError> {
    CapacityTier::open_writer_in(store_over(connection), VOLUME, geometry(), options()).await
}

async fn made(manner: Manner) -> std::sync::Arc<Server> {
    let server = Server::new(manner);
    let first = Connection::new(&server, 1);
    CapacityTier::create_in(&store_over(&first), VOLUME, geometry()).await.unwrap();
    server
}

/// What a restore does, from a machine where nothing is known of the others.
async fn take_over(connection: &Connection, fence: bool) -> Result<(), CapacityError> {
    let store = store_over(connection);
    let store = if fence { store.fencing() } else { store };
    let mut alone = Alone::take(store, Some(VOLUME)).await?;
    let superseded = alone.supersede().await;
    alone.end().await;
    superseded
}

/// One more layer with one block.
async fn commit(tier: &Tier, block: u32, id: u64) -> Result<(), CapacityError> {
    let head = tier.head();
    let epoch = Epoch(head.written_back_epoch().0 + 1);
    let mapped = head.layers().last().map_or(0, |layer| layer.mapped_blocks) + 1;
    let mut layer = tier.begin_layer(epoch, 0, 0)?;
    layer.put(BlockIndex(block), ChangeKind::Added, 1, &content(id)).await?;
    layer.commit(None, mapped).await.map(|_| ())
}

async fn read_all(tier: &Tier) -> BTreeMap<u32, Vec<u8>> {
    let mut places = BTreeMap::new();
    let mut tell = |block, _, place: Option<Place>| {
        places.insert(block, place.unwrap());
    };
    tier.load_places(None, &mut tell).await.unwrap();
    let mut blocks = BTreeMap::new();
    for (block, place) in places {
        let mut out = vec![0; BLOCK];
        tier.read_block(place, block, &mut out).await.unwrap();
        blocks.insert(block.0, out);
    }
    blocks
}

#[derive(Default)]
struct Fight {
    acknowledged: RefCell<BTreeMap<u32, u64>>,
    next_block: Cell<u32>,
    openings: Cell<u32>,
    taken_over: Cell<u32>,
    fenced: Cell<u32>,
    in_use: Cell<u32>,
    failed: Cell<u32>,
}

fn up(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

/// A host that takes the volume whenever it can, works on it, and dies, closes, or sleeps.
async fn contender(server: std::sync::Arc<Server>, fight: Rc<Fight>, rates: Rates, seed: u64) {
    let mut random = seed;
    let mut random = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for life in 0..6 {
        let connection = Connection::new(&server, seed * 1000 + life);
        connection.set_rates(rates);
        if random(3) == 0 {
            match take_over(&connection, random(2) == 0).await {
                Ok(()) => up(&fight.taken_over),
                Err(CapacityError::InUse { .. }) => up(&fight.in_use),
                Err(CapacityError::Io { .. } | CapacityError::Fenced { .. }) => up(&fight.failed),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        match open(&connection).await {
            Ok(tier) => {
                up(&fight.openings);
                for _ in 0..1 + random(12) {
                    let block = fight.next_block.get();
                    fight.next_block.set(block + 1);
                    match commit(&tier, block, u64::from(block) + 1).await {
                        Ok(()) => drop(fight.acknowledged.borrow_mut().insert(block, u64::from(block) + 1)),
                        Err(error) if error.is_fenced() => {
                            up(&fight.fenced);
                            break;
                        }
                        Err(CapacityError::Io { .. }) => up(&fight.failed),
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                    match tier.maintain(Urgency::SpaceShort).await {
                        Ok(_) | Err(CapacityError::Io { .. } | CapacityError::Fenced { .. }) => {}
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(random(15_000))).await;
                }
                match random(3) {
                    0 => connection.crash(),
                    1 => {}
                    _ => tier.close().await,
                }
            }
            Err(CapacityError::InUse { .. }) => up(&fight.in_use),
            Err(CapacityError::Io { .. } | CapacityError::Fenced { .. }) => up(&fight.failed),
            Err(error) => panic!("seed {seed}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(random(40_000))).await;
    }
}

fn fight(seed: u64, manner: Manner, rates: Rates) -> Rc<Fight> {
    run(async {
        let server = made(manner).await;
        let fight = Rc::new(Fight::default());
        let contenders = (0..2).map(|number| {
            let (server, fight) = (server.clone(), fight.clone());
            tokio::task::spawn_local(contender(server, fight, rates, seed * 10 + number))
        });
        for contender in contenders.collect::<Vec<_>>() {
            contender.await.unwrap();
        }
        server.settle().await;
        let last = open(&Connection::new(&server, 1)).await.unwrap();
        let there = read_all(&last).await;
        for (block, id) in fight.acknowledged.borrow().iter() {
            let found = there.get(block).unwrap_or_else(|| panic!("seed {seed}: block {block} is lost"));
            assert!(*found == content(*id), "seed {seed}: block {block}");
        }
        // All that was left behind goes, and nothing of use with it.
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(31)).await;
            last.maintain(Urgency::SpaceShort).await.unwrap();
        }
        let report = check_store(store_over(&Connection::new(&server, 2)), None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean() && report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        last.close().await;
        let left = server.keys().await.into_iter().filter(|key| key.contains("/writers/"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "seed {seed}");
        fight
    })
}

/// 200 fights on servers of every manner, with pauses, failures and late arrivals at any request.
#[test]
fn two_writers_fight_and_nothing_acknowledged_is_lost() {
    let rounds = std::env::var("FIGHTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let first = std::env::var("FIRST_FIGHT").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut totals = [0usize; 6];
    for seed in first..first + rounds {
        let manner =
            [Manner::Honest, Manner::Ignores, Manner::RefusesMatch, Manner::NotAtomic][(seed % 4) as usize];
        let rates = match seed % 3 {
            0 => Rates { latency: true, sleep: 60, ..Rates::default() },
            1 => Rates {
                latency: true,
                sleep: 200,
                fail: 40,
                lost: 40,
                late: 40,
                cut: 60,
                hang: 1000,
                ..Rates::default()
            },
            _ => Rates { latency: true, sleep: 40, late: 15, lost: 200, ..Rates::default() },
        };
        let fight = fight(seed, manner, rates);
        let counts = [&fight.openings, &fight.taken_over, &fight.fenced, &fight.in_use, &fight.failed];
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count.get() as usize;
        }
        totals[5] += fight.acknowledged.borrow().len();
    }
    let [openings, taken_over, fenced, in_use, failed, acknowledged] = totals;
    println!(
        "{rounds} fights: {openings} openings, {taken_over} restores, {fenced} writers fenced off, {in_use} refused as in use, {failed} failures, \
         {acknowledged} layers acknowledged, none lost"
    );
    assert!(rounds < 50 || (taken_over > 0 && fenced > 0 && in_use > 0 && failed > 0));
}

#[test]
fn a_live_writer_is_left_alone_and_a_dead_one_is_not() {
    run(async {
        let server = made(Manner::Honest).await;
        let (a, b) = (Connection::new(&server, 1), Connection::new(&server, 2));
        let first = open(&a).await.unwrap();
        commit(&first, 1, 1).await.unwrap();
        let begun = Instant::now();
        let Err(CapacityError::InUse { holder, .. }) = open(&b).await else { panic!("two writers") };
        assert!(holder.contains("process 1 on host simulated"), "{holder}");
        assert!(begun.elapsed() < Timing::default().claim_expiry);
        // Closed: at once.
        first.close().await;
        let begun = Instant::now();
        let second = open(&b).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Dead: after a while.
        b.crash();
        drop(second);
        let begun = Instant::now();
        let third = open(&a).await.unwrap();
        let waited = begun.elapsed();
        assert!(waited >= Timing::default().claim_expiry && waited < 2 * Timing::default().claim_expiry);
        assert!(read_all(&third).await[&1] == content(1));
    });
}

#[test]
fn who_restores_from_a_dead_writer_watches_it_once() {
    run(async {
        let server = made(Manner::Honest).await;
        let a = Connection::new(&server, 1);
        let first = open(&a).await.unwrap();
        commit(&first, 1, 1).await.unwrap();
        let begun = Instant::now();
        let b = Connection::new(&server, 2);
        assert!(matches!(take_over(&b, false).await, Err(CapacityError::InUse { .. })), "it lives");
        a.crash();
        drop(first);
        take_over(&b, false).await.unwrap();
        assert!(begun.elapsed() >= Timing::default().claim_expiry);
        let begun = Instant::now();
        let second = open(&Connection::new(&server, 3)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(read_all(&second).await[&1] == content(1));
    });
}

/// By far most of the time that a restore takes on a server far away: so many requests wait for the one before.
#[test]
fn a_restore_and_a_start_take_few_requests() {
    run(async {
        let server = made(Manner::Honest).await;
        let first = open(&Connection::new(&server, 1)).await.unwrap();
        commit(&first, 1, 1).await.unwrap();
        first.close().await;
        let (way, connection) = (Duration::from_millis(500), Connection::new(&server, 2));
        connection.set_rates(Rates { way, ..Rates::default() });
        let begun = Instant::now();
        take_over(&connection, false).await.unwrap();
        let restored = begun.elapsed().as_secs();
        let reader = CapacityTier::open_for_recovery_in(store_over(&connection), VOLUME).await.unwrap();
        let counted = Some(reader.load_map(&mut |_, _, _| ()).await.unwrap());
        let store = store_over(&connection);
        let tier =
            CapacityTier::open_writer_counted(store, VOLUME, geometry(), options(), counted).await.unwrap();
        let open = begun.elapsed().as_secs();
        assert!(restored <= 17 && open <= 34, "{restored} and {open} requests, one after the other");
        tier.close().await;
    });
}

#[test]
fn a_live_writer_is_fenced_off_where_that_is_asked_for() {
    run(async {
        let server = made(Manner::Ignores).await;
        let (a, b) = (Connection::new(&server, 1), Connection::new(&server, 2));
        let first = open(&a).await.unwrap();
        commit(&first, 1, 1).await.unwrap();
        let begun = Instant::now();
        take_over(&b, true).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        // Before anybody has opened the volume again.
        let error = commit(&first, 2, 2).await.unwrap_err();
        assert!(error.is_fenced(), "{error}");
        let second = open(&b).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        commit(&second, 3, 3).await.unwrap();
        assert_eq!(read_all(&second).await.into_keys().collect::<Vec<_>>(), [1, 3]);
    });
}

#[test]
fn a_sleeper_is_fenced_off_when_it_wakes() {
    run(async {
        let server = made(Manner::Ignores).await;
        let (a, b) = (Connection::new(&server, 1), Connection::new(&server, 2));
        let old = open(&a).await.unwrap();
        commit(&old, 1, 1).await.unwrap();
        a.sleep(Duration::from_secs(120));
        let new = open(&b).await.unwrap();
        commit(&new, 2, 2).await.unwrap();
        // Its first request is given up while it sleeps.
        commit(&old, 3, 3).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let error = commit(&old, 3, 3).await.unwrap_err();
        assert!(error.is_fenced(), "{error}");
        // Closed and reopened meanwhile: no claim tells of it any more, the HEAD does.
        let older = new;
        b.sleep(Duration::from_secs(120));
        let third = open(&Connection::new(&server, 3)).await.unwrap();
        commit(&third, 4, 4).await.unwrap();
        third.close().await;
        commit(&older, 5, 5).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let error = commit(&older, 5, 5).await.unwrap_err();
        assert!(error.is_fenced(), "{error}");
        let reader = CapacityTier::open_reader_in(store_over(&b), Some(VOLUME)).await.unwrap();
        assert_eq!(read_all(&reader).await.into_keys().collect::<Vec<_>>(), [1, 2, 4]);
    });
}

#[test]
fn a_head_that_comes_late_does_not_count() {
    run(async {
        let server = made(Manner::Honest).await;
        let tier = open(&Connection::new(&server, 1)).await.unwrap();
        commit(&tier, 1, 1).await.unwrap();
        let head = tier.head();
        let late = HeadNumber { generation: Generation(head.generation.0 - 1), sequence: head.sequence + 7 };
        let key = Path::from(format!("some/prefix/{HEADS}/{}", head_name(late)));
        server.memory().put(&key, "an older writer's".into()).await.unwrap();
        commit(&tier, 2, 2).await.unwrap();
        let reader =
            CapacityTier::open_reader_in(store_over(&Connection::new(&server, 2)), None).await.unwrap();
        assert_eq!(read_all(&reader).await.len(), 2);
    });
}

/// What was tried and not answered may come: until it cannot count any more, what it needs is not deleted.
#[test]
fn nothing_is_deleted_while_a_late_head_could_need_it() {
    run(async {
        let server = made(Manner::Honest).await;
        let connection = Connection::new(&server, 1);
        let tier = open(&connection).await.unwrap();
        commit(&tier, 1, 1).await.unwrap();
        // The layer's objects arrive, its HEAD does only later.
        let layer = {
            let mut layer = tier.begin_layer(Epoch(2), 0, 0).unwrap();
            layer.put(BlockIndex(2), ChangeKind::Added, 1, &content(2)).await.unwrap();
            layer
        };
        let before = server.keys().await.len();
        let rates = Rates { late: 1, ..Rates::default() };
        let committing = tokio::task::spawn_local(async move { layer.commit(None, 2).await.map(|_| ()) });
        while server.keys().await.len() < before + 2 {
            tokio::task::yield_now().await;
        }
        connection.set_rates(rates);
        let error = committing.await.unwrap().unwrap_err();
        assert!(matches!(error, CapacityError::Io { .. }), "{error}");
        connection.set_rates(Rates::default());
        tokio::time::sleep(Duration::from_secs(60)).await;
        tier.maintain(Urgency::Relaxed).await.unwrap();
        server.settle().await;
        let reader =
            CapacityTier::open_reader_in(store_over(&Connection::new(&server, 2)), None).await.unwrap();
        assert_eq!(read_all(&reader).await.len(), 1);
        commit(&tier, 3, 3).await.unwrap();
    });
}

#[test]
fn of_two_creators_one_makes_the_volume() {
    for manner in [Manner::Honest, Manner::Ignores, Manner::NotAtomic] {
        for seed in 0..40 {
            run(async {
                let server = Server::new(manner);
                let create = |number: u64| {
                    let connection = Connection::new(&server, seed * 7 + number);
                    connection.set_rates(Rates { latency: true, ..Rates::default() });
                    let volume = super::super::VolumeUuid([number as u8; 16]);
                    async move {
                        let store = store_over(&connection);
                        (volume, CapacityTier::create_in(&store, volume, geometry()).await)
                    }
                };
                let made = futures_util::future::join(create(1), create(2)).await;
                let won: Vec<_> = [made.0, made.1]
                    .into_iter()
                    .filter(|(_, made)| made.is_ok())
                    .map(|(uuid, _)| uuid)
                    .collect();
                assert!(won.len() <= 1, "seed {seed}: two volumes");
                let store = store_over(&Connection::new(&server, 1));
                if let [volume] = won[..] {
                    let reader = CapacityTier::open_reader_in(store, Some(volume)).await.unwrap();
                    assert_eq!(reader.head().generation.0.min(3), reader.head().generation.0);
                }
            });
        }
    }
}

#[test]
fn what_a_server_makes_of_conditions_is_seen() {
    use super::ability::{Condition::*, examine};
    for (manner, create, replace) in [
        (Manner::Honest, Honoured, Honoured),
        (Manner::Ignores, Ignored, Ignored),
        (Manner::RefusesMatch, Honoured, AlwaysRefused),
        (Manner::NotAtomic, Honoured, Honoured),
    ] {
        run(async {
            let server = Server::new(manner);
            let ability = examine(&store_over(&Connection::new(&server, 1)).bucket).await.unwrap();
            assert_eq!((ability.create, ability.replace), (create, replace), "{manner:?}");
            assert_eq!(server.keys().await, Vec::<String>::new());
        });
    }
}

#[test]
fn leases_hold_expire_and_are_given_back() {
    run(async {
        let server = made(Manner::Honest).await;
        let (reader, writer) = (Connection::new(&server, 1), store_over(&Connection::new(&server, 2)));
        let expiry = Timing::default().lease_expiry;
        let (kept, lost) = (store_over(&reader), store_over(&reader));
        let (a, b) = (kept.lease(Epoch(7)).await.unwrap(), lost.lease(Epoch(9)).await.unwrap());
        assert_eq!(writer.leased().await.unwrap(), [Epoch(7), Epoch(9)]);
        drop(b);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(writer.leased().await.unwrap(), [Epoch(7)], "given back");
        for _ in 0..10 {
            tokio::time::sleep(expiry / 2).await;
            assert_eq!(writer.leased().await.unwrap(), [Epoch(7)], "renewed");
        }
        reader.crash();
        tokio::time::sleep(expiry / 2).await;
        assert_eq!(writer.leased().await.unwrap(), [Epoch(7)]);
        tokio::time::sleep(expiry).await;
        assert_eq!(writer.leased().await.unwrap(), [], "expired");
        assert!(!server.keys().await.iter().any(|key| key.contains("/leases/")));
        drop(a);
    });
}

#[test]
fn a_server_that_hangs_gives_an_error_in_time() {
    run(async {
        let server = made(Manner::Honest).await;
        let connection = Connection::new(&server, 1);
        let tier = open(&connection).await.unwrap();
        connection.set_rates(Rates { hang: 1, ..Rates::default() });
        let begun = Instant::now();
        let error = commit(&tier, 1, 1).await.unwrap_err();
        assert!(error.to_string().contains("no answer to a write within"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(200));
        connection.set_rates(Rates::default());
        commit(&tier, 1, 1).await.unwrap();
    });
}

#[test]
fn large_objects_go_in_parts_and_come_back() {
    use super::super::names::{ObjectKind, ObjectName};
    use super::super::store::Upload;
    run(async {
        let server = made(Manner::Honest).await;
        let store = store_over(&Connection::new(&server, 1));
        for len in [0usize, 1, super::upload::PART_BYTES, super::upload::PART_BYTES + 1, 20 << 20] {
            let name = ObjectName { kind: ObjectKind::Layer, number: len as u64 + 1 };
            let bytes: Vec<u8> = (0..len).map(|at| (at / 4096 + at) as u8).collect();
            let mut upload = store.begin_upload(name).await.unwrap();
            for piece in bytes.chunks(1 << 20) {
                upload.append(piece.to_vec()).await.0.unwrap();
            }
            upload.finish().await.unwrap();
            assert!(store.read_range(name, 0, len, Vec::new()).await.unwrap() == bytes);
            let beyond = store.read_range(name, len as u64, 5, Vec::new()).await.unwrap_err();
            assert_eq!(beyond.kind(), std::io::ErrorKind::UnexpectedEof);
        }
        let missing = ObjectName { kind: ObjectKind::Segment, number: 99 };
        let error = store.read_range(missing, 0, 5, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        store.delete(missing).await.unwrap();
        assert_eq!(store.list(ObjectKind::Layer).await.unwrap().len(), 5);
        let unlocked =
            store.replace_head(&[b"x"], vec![1], HeadNumber { generation: Generation(1), sequence: 1 });
        assert!(matches!(unlocked.await, Err(ReplaceError::Unchanged(_))));
    });
}
