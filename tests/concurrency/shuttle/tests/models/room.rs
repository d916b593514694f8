//! Waiting for a change that others announce: nobody sleeps on. A wake-up that is lost shows as a deadlock.

use std::sync::Arc;

use forerun_interleavings::sync::atomic::{AtomicU32, Ordering};
use forerun_interleavings::volume::Room;
use forerun_interleavings::volume::Span;
use shuttle::future::block_on;

use crate::explore::{explore, together, work};
use crate::world::{CELL_BYTES, World};

#[derive(Default)]
struct Place {
    room: Room,
    tokens: AtomicU32,
}

impl Place {
    fn take(&self) {
        loop {
            let seen = self.room.now();
            let take = |tokens: u32| tokens.checked_sub(1);
            if self.tokens.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                return;
            }
            block_on(self.room.after(seen));
        }
    }

    fn give(&self) {
        self.tokens.fetch_add(1, Ordering::SeqCst);
        self.room.wake_all();
    }
}

#[test]
fn no_wake_up_is_lost() {
    explore("no_wake_up_is_lost", || {
        let place = Arc::new(Place::default());
        let (take, give) = (|| work(Place::take), || work(Place::give));
        together(&place, vec![take(), take(), give(), give()]);
        assert!(!place.room.has_waiters(), "all are awake");
    });
}

/// A write that has to complete a sub-block from a sealed layer waits until that has drained; whoever leaves it last
/// wakes it, also who joined it by mistake, in the moment of its end.
#[test]
fn who_waits_for_a_layer_to_drain_is_woken() {
    explore("who_waits_for_a_layer_to_drain_is_woken", || {
        let world = Arc::new(World::new(6));
        world.write(0, 0, 4);
        world.write(1, 0, 4);
        together(
            &world,
            vec![
                work(|world: &World| {
                    world.seal();
                    world.write(0, 1, 1);
                }),
                work(|world: &World| {
                    // Looks for a hit and goes away, as a request does that then has to wait for something else.
                    let span =
                        Span { block: forerun::geometry::BlockIndex(1), start: 0, len: 4 * CELL_BYTES };
                    drop(world.volume.write_hit(3, span));
                }),
            ],
        );
        world.settle();
    });
}
