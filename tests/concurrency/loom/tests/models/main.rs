//! The volume engine's lock-free paths under loom: every execution that the memory model allows. See
//! `docs/concurrency.md`.

#![allow(clippy::expect_used, reason = "in a test it is the test that fails")]

mod explore;
mod world;

use std::sync::Arc;

use forerun::geometry::BlockIndex;
use forerun_orderings::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use forerun_orderings::volume::Room;
use loom::thread;

use explore::explore;
use world::World;

fn beside<T: Send + Sync + 'static>(
    world: &Arc<T>,
    body: impl FnOnce(&T) + 'static,
) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || body(&world))
}

/// That what stands for `SeqCst` here does what `SeqCst` promises: of two who each write one word and then look
/// at the other's, one sees the other.
#[test]
fn of_two_one_sees_the_other() {
    explore("of_two_one_sees_the_other", || {
        let pair = Arc::new((AtomicU32::new(0), AtomicU8::new(1)));
        let other = pair.clone();
        let thread = thread::spawn(move || {
            other.0.store(1, Ordering::SeqCst);
            other.1.load(Ordering::SeqCst)
        });
        pair.1.store(0, Ordering::SeqCst);
        let pins = pair.0.load(Ordering::SeqCst);
        let flag = thread.join().expect("no panic");
        assert!(pins == 1 || flag == 0, "neither saw the other");
    });
}

#[test]
fn a_read_hit_against_eviction_and_reuse() {
    explore("a_read_hit_against_eviction_and_reuse", || {
        let world = World::new(1);
        assert!(world.write(0, 7));
        world.volume.seal(1, None).expect("few layers");
        assert_eq!(world.write_back(), Some(vec![7]));
        let reader = beside(&world, |world| {
            assert!(world.read_hit(0).is_none_or(|value| value == 7), "another block's data");
        });
        world.evict();
        world.write(1, 8);
        reader.join().expect("no panic");
    });
}

#[test]
fn a_read_hit_against_a_discard_and_reuse() {
    explore("a_read_hit_against_a_discard_and_reuse", || {
        let world = World::new(1);
        assert!(world.write(0, 7));
        let reader = beside(&world, |world| {
            assert!(world.read_hit(0).is_none_or(|value| value == 7), "another block's data");
        });
        world.volume.discard(0, BlockIndex(0)).expect("there is nothing to wait for");
        world.volume.reclaim();
        world.write(1, 8);
        reader.join().expect("no panic");
    });
}

#[test]
fn a_write_hit_against_a_discard_and_reuse() {
    explore("a_write_hit_against_a_discard_and_reuse", || {
        let world = World::new(1);
        assert!(world.write(0, 7));
        let writer = beside(&world, |world| {
            if let Some(hit) = world.volume.write_hit(1, world::whole(0)) {
                world.write_to(&hit, 9);
            }
        });
        world.volume.discard(0, BlockIndex(0)).expect("there is nothing to wait for");
        world.volume.reclaim();
        if world.write(1, 8) {
            assert_eq!(world.read(1), 8, "the discarded block's data");
        }
        writer.join().expect("no panic");
    });
}

/// A new slot is shown to readers who take no lock, with its data.
#[test]
fn a_read_hit_against_a_promotion() {
    explore("a_read_hit_against_a_promotion", || {
        let world = World::new(2);
        assert!(world.write(0, 7));
        world.volume.seal(1, None).expect("few layers");
        world.write_back();
        assert!(world.evict());
        let reader = beside(&world, |world| assert_eq!(world.read(0), 7));
        world.promote(0);
        reader.join().expect("no panic");
    });
}

/// One chain of three: its middle is looked for while what is before and behind it comes and goes.
#[test]
fn a_look_up_against_a_chain_that_changes() {
    explore("a_look_up_against_a_chain_that_changes", || {
        // With four slots, these three blocks' chain is one.
        let world = World::new(4);
        let blocks = one_chain(4);
        assert!(world.write(blocks[0], 70));
        assert!(world.write(blocks[1], 71));
        let reader = beside(&world, move |world| assert_eq!(world.read(blocks[1]), 71));
        world.write(blocks[2], 72);
        world.volume.discard(0, BlockIndex(blocks[0])).expect("there is nothing to wait for");
        reader.join().expect("no panic");
        assert_eq!((world.read(blocks[0]), world.read(blocks[2])), (0, 72));
    });
}

/// Three blocks that the index hashes to one of `heads` chains, as it does.
fn one_chain(heads: u64) -> [u32; 3] {
    let chain = |block: u32| (u64::from(block.wrapping_mul(0x9E37_79B1)) * heads) >> 32;
    let same: Vec<u32> = (0..).filter(|block| chain(*block) == chain(0)).take(3).collect();
    [same[0], same[1], same[2]]
}

/// Who finds a sealed layer drained sees all that its writes did.
#[test]
fn a_drained_layer_is_complete() {
    explore("a_drained_layer_is_complete", || {
        let world = World::new(2);
        let writer = beside(&world, |world| assert!(world.write(0, 7)));
        world.volume.seal(1, None).expect("few layers");
        if let Some(values) = world.write_back() {
            assert!(values.is_empty() || values == [7], "half a write: {values:?}");
        }
        writer.join().expect("no panic");
        assert_eq!(world.read(0), 7);
        world.volume.seal(2, None).expect("few layers");
        while world.write_back().is_some() {}
        assert!(world.evict());
        assert_eq!(world.read(0), 7, "written back");
    });
}

/// A hit writes to a slot without a lock: who writes the layer back comes after it.
#[test]
fn a_write_hit_against_an_epochs_end() {
    explore("a_write_hit_against_an_epochs_end", || {
        let world = World::new(2);
        assert!(world.write(0, 7));
        let writer = beside(&world, |world| assert!(world.write(0, 8)));
        world.volume.seal(1, None).expect("few layers");
        if let Some(values) = world.write_back() {
            assert!(values == [7] || values == [8], "the block as it was at its epoch's end: {values:?}");
        }
        writer.join().expect("no panic");
        assert_eq!(world.read(0), 8);
    });
}

#[test]
fn no_wake_up_is_lost() {
    explore("no_wake_up_is_lost", || {
        let place = Arc::new((Room::default(), AtomicU32::new(0)));
        let giver = beside(&place, |place| {
            // What is announced is ordered by the announcement alone.
            place.1.store(1, Ordering::Relaxed);
            place.0.wake_all();
        });
        loop {
            let seen = place.0.now();
            if place.1.load(Ordering::Relaxed) == 1 {
                break;
            }
            loom::future::block_on(place.0.after(seen));
        }
        giver.join().expect("no panic");
    });
}
