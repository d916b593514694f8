//! Write-back of a layer against overwrites, discards, evictions and kills.

use std::sync::Arc;

use crate::explore::{explore, together, work};
use crate::world::World;

fn two_layers() -> Arc<World> {
    let world = Arc::new(World::new(10));
    world.write(0, 0, 4);
    world.write(1, 0, 2);
    world.seal();
    world.write(0, 2, 2);
    world.write(2, 0, 4);
    world.seal();
    world
}

#[test]
fn write_back_against_overwrites() {
    explore("write_back_against_overwrites", || {
        let world = two_layers();
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.write(0, 1, 2);
                    world.write(1, 2, 2);
                    world.read(0, 0, 4);
                }),
                work(|world: &World| {
                    world.write_back();
                    world.write_back();
                }),
                work(|world: &World| {
                    world.read(1, 0, 4);
                    world.read(0, 0, 4);
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn write_back_against_discards() {
    explore("write_back_against_discards", || {
        let world = two_layers();
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.discard(0);
                    world.write(0, 0, 1);
                }),
                work(|world: &World| {
                    world.write_back();
                    world.write_back();
                }),
                work(|world: &World| {
                    world.discard(2);
                    world.read(0, 0, 4);
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn write_back_against_eviction_and_reuse() {
    explore("write_back_against_eviction_and_reuse", || {
        let world = two_layers();
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.write(0, 0, 2);
                    world.write(1, 0, 1);
                }),
                work(|world: &World| {
                    world.write_back();
                    world.write_back();
                }),
                work(|world: &World| {
                    for _ in 0..3 {
                        world.evict();
                        world.commit();
                    }
                    world.fill(0);
                    world.promote(1);
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn a_kill_during_write_back() {
    explore("a_kill_during_write_back", || {
        let world = two_layers();
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.discard(0);
                    world.write(1, 2, 2);
                }),
                work(|world: &World| {
                    world.write_back();
                    world.write_back();
                    world.evict();
                    world.commit();
                }),
                work(World::kill),
            ],
        );
        world.settle();
    });
}

/// A clean slot with a gap is completed while its block is deleted.
#[test]
fn a_fill_against_a_discard() {
    explore("a_fill_against_a_discard", || {
        let world = Arc::new(World::new(4));
        world.write(0, 0, 4);
        world.seal();
        world.write_back();
        world.evict();
        world.write(0, 0, 2);
        world.seal();
        world.write_back();
        together(
            &world,
            vec![
                work(|world: &World| _ = world.fill(0)),
                work(|world: &World| {
                    world.discard(0);
                    world.commit();
                    world.write(1, 0, 4);
                }),
                work(|world: &World| world.read(0, 0, 4)),
            ],
        );
        world.settle();
    });
}
