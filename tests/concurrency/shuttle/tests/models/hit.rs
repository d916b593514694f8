//! Hits, which take no lock, against what takes their slot away: eviction, discards, and the next block in the slot.

use std::sync::Arc;

use crate::explore::{explore, together, work};
use crate::world::World;

/// Until `wanted` slots are free.
fn make_room(world: &World, wanted: u32) {
    while world.volume.free_slots() < wanted {
        world.evict();
        world.commit();
        shuttle::thread::yield_now();
    }
}

#[test]
fn a_read_hit_against_eviction_and_reuse() {
    explore("a_read_hit_against_eviction_and_reuse", || {
        let world = Arc::new(World::new(1));
        world.write(0, 0, 4);
        world.seal();
        world.write_back();
        together(
            &world,
            vec![
                work(|world: &World| world.read(0, 0, 4)),
                work(|world: &World| {
                    make_room(world, 1);
                    world.write(1, 0, 4);
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn a_read_hit_against_promotion_and_eviction() {
    explore("a_read_hit_against_promotion_and_eviction", || {
        let world = Arc::new(World::new(2));
        world.write(0, 0, 4);
        world.write(1, 0, 2);
        world.seal();
        world.write_back();
        make_room(&world, 2);
        together(
            &world,
            vec![
                work(|world: &World| (0..3).for_each(|n| world.read(n % 2, 0, 4))),
                work(|world: &World| {
                    world.promote(0);
                    make_room(world, 2);
                    world.promote(1);
                }),
            ],
        );
        world.settle();
    });
}

/// The slot of a discarded block is used again while hits of before are still at it.
#[test]
fn hits_against_a_discard_and_reuse() {
    explore("hits_against_a_discard_and_reuse", || {
        let world = Arc::new(World::new(1));
        world.write(0, 0, 4);
        together(
            &world,
            vec![
                work(|world: &World| world.write_if_hit(0)),
                work(|world: &World| world.read(0, 0, 4)),
                work(|world: &World| {
                    world.discard(0);
                    world.commit();
                    if world.volume.free_slots() > 0 {
                        world.write(1, 0, 4);
                    }
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn an_acknowledged_hit_is_in_the_log() {
    explore("an_acknowledged_hit_is_in_the_log", || {
        let world = Arc::new(World::new(3));
        together(
            &world,
            vec![
                work(|world: &World| world.write(0, 0, 2)),
                work(|world: &World| world.write(0, 0, 2)),
                work(World::kill),
            ],
        );
        world.settle();
    });
}

/// Two blocks of one chain of the index: with four slots, 0 and 2 are.
#[test]
fn a_chain_that_two_threads_change() {
    explore("a_chain_that_two_threads_change", || {
        let world = Arc::new(World::new(4));
        let come_and_go = |block| {
            work(move |world: &World| {
                world.write(block, 0, 4);
                world.read(block, 0, 4);
                world.discard(block);
            })
        };
        let read = work(|world: &World| {
            world.read(0, 0, 4);
            world.read(2, 0, 4);
        });
        together(&world, vec![come_and_go(0), come_and_go(2), read]);
        world.settle();
    });
}
