//! Random histories.

use proptest::prelude::*;

use super::world::{Act, Ask, Crash, World, changed};
use super::{BLOCK_SECTORS, BLOCKS, SECTORS};
use crate::request::Operation;

#[derive(Clone, Debug)]
enum Step {
    /// Requests at once, with background work beside them, perhaps to a crash in the middle.
    Batch {
        asks: Vec<Ask>,
        acts: Vec<(u8, Act)>,
        crash: Option<(u8, Crash)>,
    },
    Crash(Crash),
}

fn span() -> impl Strategy<Value = (usize, usize)> {
    let sectors = prop_oneof![3 => 1..9usize, 2 => Just(8), 2 => Just(BLOCK_SECTORS), 2 => 1..400usize];
    (0..SECTORS, sectors).prop_map(|(sector, sectors)| (sector, sectors.min(SECTORS - sector)))
}

/// Sectors close together, so that requests share sub-blocks.
fn close_span() -> impl Strategy<Value = (usize, usize)> {
    (0..24usize, 1..6usize)
}

fn blocks() -> impl Strategy<Value = (usize, usize)> {
    (0..BLOCKS as usize, 1..4usize, 0..130usize).prop_map(|(block, blocks, ragged)| {
        let sector = (block * BLOCK_SECTORS + ragged).min(SECTORS - 1);
        (sector, (blocks * BLOCK_SECTORS).min(SECTORS - sector))
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let what = prop_oneof![
        4 => span().prop_map(|at| (Operation::Read, at)),
        6 => (span(), proptest::bool::weighted(0.1)).prop_map(|(at, fua)| (Operation::Write { fua }, at)),
        6 => close_span().prop_map(|at| (Operation::Write { fua: false }, at)),
        1 => Just((Operation::Flush, (0, 0))),
        1 => blocks().prop_map(|at| (Operation::Discard, at)),
        1 => (prop_oneof![blocks(), close_span()], any::<bool>())
            .prop_map(|(at, fua)| (Operation::WriteZeroes { no_unmap: false, fua }, at)),
    ];
    (what, 0..6u8, 1..4u8, proptest::bool::weighted(0.04)).prop_map(
        |((operation, (sector, sectors)), start, turns, fails)| {
            // A flush that fails is the end of the fast tier: `cases` has that.
            let flushes = matches!(
                operation,
                Operation::Flush | Operation::Write { fua: true } | Operation::WriteZeroes { fua: true, .. }
            );
            Ask { operation, sector, sectors, start, turns, fails: fails && !flushes }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => Just(Act::Seal),
        5 => Just(Act::WriteBack),
        2 => any::<u8>().prop_map(Act::Evict),
        2 => any::<u8>().prop_map(Act::Promote),
        1 => any::<u8>().prop_map(Act::Fill),
        2 => any::<u8>().prop_map(Act::Reserve),
        1 => any::<u8>().prop_map(Act::GiveBack),
        1 => Just(Act::Reclaim),
        1 => Just(Act::Commit),
        1 => Just(Act::Checkpoint),
    ]
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        1 => Just(Crash::Kill),
        2 => (any::<u64>(), prop_oneof![Just(0u8), any::<u8>()])
            .prop_map(|(bits, more)| Crash::Cut { bits, more }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let batch = (
        proptest::collection::vec(ask(), 0..5),
        proptest::collection::vec((0..12u8, act()), 0..5),
        proptest::option::weighted(0.1, (0..16u8, crash())),
    );
    prop_oneof![
        12 => batch.prop_map(|(asks, acts, crash)| Step::Batch { asks: apart(asks), acts, crash }),
        1 => crash().prop_map(Step::Crash),
    ]
}

/// Leaves out requests that would change what another one changes.
fn apart(asks: Vec<Ask>) -> Vec<Ask> {
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut kept = Vec::new();
    for ask in asks {
        let ranges = changed(&ask);
        let overlaps = |(sector, sectors): &(usize, usize)| {
            taken.iter().any(|(from, len)| sector < &(from + len) && from < &(sector + sectors))
        };
        if !ranges.iter().any(overlaps) {
            taken.extend(ranges);
            kept.push(ask);
        }
    }
    kept
}

fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Batch { asks, acts, crash } => {
            world.batch(asks, acts, crash.as_ref().map(|(round, crash)| (*round, crash)));
        }
        Step::Crash(crash) => world.crash(crash),
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_engine_is_a_plain_array(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            apply(&mut world, step);
        }
        world.check_all();
        world.seal();
        world.write_back_all();
        world.check_snapshots();
        world.check_all();
    }
}
