//! All of the engine at once: two threads of random requests, one of everything that the background does, one that kills
//! the target at some moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use forerun::geometry::BlockIndex;
use shuttle::rand::Rng;
use shuttle::thread;

use crate::explore::explore;
use crate::world::World;

/// Blocks that requests go to.
const BLOCKS_USED: u32 = 3;
const REQUESTS: u32 = 5;

fn some_request(world: &World) {
    let mut random = shuttle::rand::thread_rng();
    let block = random.gen_range(0..BLOCKS_USED);
    let (first, count) = [(0, 2), (2, 2), (0, 4), (1, 1), (0, 3)][random.gen_range(0..5usize)];
    match random.gen_range(0..8) {
        0 => world.discard(block),
        1..4 => world.read(block, first, count),
        _ => world.write(block, first, count),
    }
}

fn some_background(world: &World) {
    let mut random = shuttle::rand::thread_rng();
    let block = random.gen_range(0..BLOCKS_USED);
    match random.gen_range(0..8) {
        0 | 1 => world.seal_if_few(),
        2 | 3 => _ = world.write_back(),
        4 => _ = world.evict(),
        5 => _ = world.promote(block),
        6 => _ = world.fill(block),
        _ => {
            if !world.volume.give_back_reservation(BlockIndex(block)) {
                world.volume.reserve(BlockIndex(block), 1);
            }
        }
    }
    world.commit();
}

#[test]
fn requests_against_everything_else() {
    explore("requests_against_everything_else", || {
        let world = Arc::new(World::new(8));
        let running = Arc::new(AtomicU32::new(2));
        let requests = [0, 1].map(|_| {
            let (world, running) = (world.clone(), running.clone());
            thread::spawn(move || {
                (0..REQUESTS).for_each(|_| some_request(&world));
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        let background = {
            let (world, running) = (world.clone(), running.clone());
            thread::spawn(move || {
                while running.load(Ordering::SeqCst) > 0 {
                    some_background(&world);
                    thread::yield_now();
                }
            })
        };
        let killer = {
            let world = world.clone();
            thread::spawn(move || world.kill())
        };
        for thread in requests.into_iter().chain([background, killer]) {
            thread.join().expect("no panic");
        }
        (0..BLOCKS_USED).for_each(|block| _ = world.volume.give_back_reservation(BlockIndex(block)));
        world.settle();
    });
}
