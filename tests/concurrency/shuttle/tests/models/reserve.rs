//! A reservation's slot: made for a prediction, used by a write, given back when room is short; never lost, never two's.

use std::sync::Arc;

use forerun::geometry::BlockIndex;
use forerun_interleavings::volume::Reservation;

use crate::explore::{explore, together, work};
use crate::world::World;

#[test]
fn a_reservation_is_used_or_given_back() {
    explore("a_reservation_is_used_or_given_back", || {
        let world = Arc::new(World::new(4));
        world.volume.reserve(BlockIndex(0), 0);
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.write(0, 0, 4);
                    world.write(1, 0, 2);
                }),
                work(|world: &World| {
                    world.volume.reserve(BlockIndex(1), 1);
                    world.volume.reserve(BlockIndex(2), 1);
                    world.volume.reserve(BlockIndex(0), 1);
                }),
                work(|world: &World| {
                    world.volume.reserve(BlockIndex(2), 1);
                    (0..3).for_each(|block| _ = world.volume.give_back_reservation(BlockIndex(block)));
                }),
            ],
        );
        let held = (0..4).filter(|block| world.volume.is_reserved(BlockIndex(*block))).count();
        assert_eq!(held as u32, world.volume.reserved_slots(), "the count of reservations");
        assert_eq!(world.volume.free_slots() + held as u32 + 2, 4, "two are in use");
        (0..4).for_each(|block| _ = world.volume.give_back_reservation(BlockIndex(block)));
        world.settle();
    });
}

/// The last slot is a reservation: a write that needs it waits, and is woken when it is given back.
#[test]
fn a_write_gets_the_slot_of_a_reservation() {
    explore("a_write_gets_the_slot_of_a_reservation", || {
        let world = Arc::new(World::new(2));
        assert_eq!(world.volume.reserve(BlockIndex(2), 0), Reservation::Made);
        together(
            &world,
            vec![
                work(|world: &World| world.write(0, 0, 4)),
                work(|world: &World| world.write(1, 0, 4)),
                work(|world: &World| assert!(world.volume.give_back_reservation(BlockIndex(2)))),
            ],
        );
        world.settle();
    });
}

/// A slot that was taken for a fetch comes back where the fetch is overtaken.
#[test]
fn a_promotion_against_a_write_and_a_discard() {
    explore("a_promotion_against_a_write_and_a_discard", || {
        let world = Arc::new(World::new(4));
        world.write(0, 0, 4);
        world.seal();
        world.write_back();
        while world.evict() {}
        world.commit();
        together(
            &world,
            vec![
                work(|world: &World| _ = world.promote(0)),
                work(|world: &World| world.write(0, 0, 2)),
                work(|world: &World| {
                    world.read(0, 0, 4);
                    world.discard(0);
                }),
            ],
        );
        world.settle();
    });
}
