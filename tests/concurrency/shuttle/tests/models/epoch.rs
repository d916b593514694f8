//! The end of an epoch against writes and discards: each belongs to one epoch, none is lost from a change vector, a layer
//! has drained only when those planned in it are done.

use std::sync::Arc;

use crate::explore::{explore, together, work};
use crate::world::World;

#[test]
fn an_epochs_end_against_writes() {
    explore("an_epochs_end_against_writes", || {
        let world = Arc::new(World::new(10));
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.write(0, 0, 4);
                    world.write(0, 0, 2);
                    world.write(1, 0, 4);
                }),
                work(|world: &World| {
                    world.write(1, 2, 2);
                    world.write(0, 2, 2);
                }),
                work(|world: &World| {
                    world.seal();
                    world.write_back();
                    world.seal();
                    world.write_back();
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn an_epochs_end_against_discards() {
    explore("an_epochs_end_against_discards", || {
        let world = Arc::new(World::new(10));
        world.write(0, 0, 4);
        world.seal();
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.discard(0);
                    world.write(0, 0, 2);
                }),
                work(|world: &World| {
                    world.write(1, 0, 4);
                    world.discard(1);
                    world.read(0, 0, 4);
                }),
                work(|world: &World| {
                    world.write_back();
                    world.seal();
                    world.write_back();
                }),
            ],
        );
        world.settle();
    });
}

/// With each number used again at once: 63 are enough for production, two for this.
#[test]
fn a_write_finds_the_open_epoch_when_numbers_come_back() {
    explore("a_write_finds_the_open_epoch_when_numbers_come_back", || {
        let world = Arc::new(World::new(10));
        together(
            &world,
            vec![
                work(|world: &World| (0..2).for_each(|_| world.write(0, 0, 4))),
                work(|world: &World| {
                    for _ in 0..3 {
                        world.seal();
                        world.write_back();
                    }
                }),
            ],
        );
        world.settle();
    });
}

#[test]
fn a_kill_at_an_epochs_end() {
    explore("a_kill_at_an_epochs_end", || {
        let world = Arc::new(World::new(10));
        world.write(0, 0, 4);
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.write(0, 0, 2);
                    world.discard(0);
                    world.write(0, 1, 1);
                }),
                work(|world: &World| {
                    world.seal();
                    world.write_back();
                }),
                work(World::kill),
            ],
        );
        world.settle();
    });
}
