//! Predictions leave the same contents: the same requests with prediction off, right, random and hostile.
//!
//! One request after the other, so that what each read has to give is fixed by the history alone; and all that was
//! acknowledged is durable before the power goes. So the reads of all four runs have to be equal, sector by sector, and
//! each is compared with the truth besides. The requests side by side, with faults and ends at any moment, can differ
//! from run to run in ways that are allowed; those are compared with the truth alone.

use super::history::{BLOCK_SECTORS, End, History, Prediction, Shape, Step, When};
use super::run::{Counts, run_and_tell};
use super::shrink::watched;
use super::tests::{check, number, tell};
use crate::fast_tier::sim::Random;
use crate::request::Operation;

/// Histories of a test run.
const QUICK: u64 = 150;
/// One in so many is on a volume of so many times the size.
const WIDE_ONE_IN: u64 = 5;
const WIDER: usize = 8;
/// Blocks of one of the writes that fill it.
const FILLED_AT_ONCE: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Predictor {
    /// By the volume's configuration; right tables are there, and nobody may act on them.
    Off,
    Right,
    Random,
    Hostile,
}

const ALL: [Predictor; 4] = [Predictor::Off, Predictor::Right, Predictor::Random, Predictor::Hostile];

/// Requests with nothing beside them, without faults; a place for a table every few of them, and time to act on it.
fn one_by_one(seed: u64) -> History {
    let mut history = History::new(seed);
    let mut random = Random(seed ^ 0x0b0b);
    let mut steps = Vec::new();
    for step in history.steps {
        if matches!(
            step,
            Step::Predict(_)
                | Step::DiskFaults { .. }
                | Step::StoreFaults { .. }
                | Step::StoreFullAt(_)
                | Step::Heal
                | Step::Crash { .. }
                | Step::CrashWhileOpening(_)
        ) {
            continue;
        }
        steps.push(step);
        steps.push(Step::Settle);
        if random.one_in(6) {
            steps.push(Step::Predict(Prediction::Absent));
            steps.push(Step::Pause(300_000 + random.below(3_000_000)));
        }
        if random.one_in(30) {
            steps.push(Step::Crash { end: End::Kill, when: When::Now });
        }
        if random.one_in(30) {
            steps.push(Step::Request { operation: Operation::Flush, sector: 0, sectors: 0 });
            steps.push(Step::Settle);
            steps.push(Step::Crash { end: End::Cut, when: When::Now });
        }
    }
    // Most volumes are larger than their fast tier: else nothing is evicted, and nothing fetched.
    if !seed.is_multiple_of(4) {
        history.shape.slots = history.shape.slots.min(history.shape.blocks as u32 / 2 + 5);
    }
    History { steps, ..history }
}

/// The same requests on a volume of eight times the size that is full from the start, a fast tier that holds three
/// quarters of it. There slots are kept free, so that something can be fetched ahead.
fn widened(history: History) -> History {
    let blocks = history.shape.blocks * WIDER;
    let shape = Shape { blocks, slots: blocks as u32 * 3 / 4, journal_bytes: 512 << 10, ..history.shape };
    let sectors = FILLED_AT_ONCE * BLOCK_SECTORS;
    let filled = (0..blocks * BLOCK_SECTORS).step_by(sectors).flat_map(|sector| {
        let sectors = sectors.min(blocks * BLOCK_SECTORS - sector);
        let operation = Operation::Write { fua: false };
        [Step::Request { operation, sector, sectors }, Step::Settle]
    });
    let spread = |step| match step {
        Step::Request { operation, sector, sectors } => {
            Step::Request { operation, sector: sector * WIDER, sectors }
        }
        step => step,
    };
    let steps = filled.chain(history.steps.into_iter().map(spread)).collect();
    History { seed: history.seed, shape, steps }
}

/// The same history with a predictor's tables.
fn with_tables(history: &History, predictor: Predictor) -> History {
    let mut history = history.clone();
    history.shape.prediction = predictor != Predictor::Off;
    let mut random = Random(history.seed ^ 0x7ab1e);
    for step in &mut history.steps {
        if let Step::Predict(prediction) = step {
            let seed = random.next();
            *prediction = match predictor {
                Predictor::Off | Predictor::Right => Prediction::Oracle,
                Predictor::Random => Prediction::Random(seed),
                Predictor::Hostile => match seed % 8 {
                    0 => Prediction::OutOfRange,
                    1 => Prediction::Hostile(seed),
                    _ => Prediction::Certain(seed),
                },
            };
        }
    }
    history
}

/// Says where two runs read different things.
fn compare(seed: u64, predictor: Predictor, off: &[(usize, u64)], on: &[(usize, u64)]) {
    let differs = off.iter().zip(on).position(|(off, on)| off != on);
    assert!(
        differs.is_none() && off.len() == on.len(),
        "seed {seed}: with {predictor:?} predictions the reads are others than without: the first at {differs:?} of {} \
         and {} sectors read, (sector, stamp) {:?} and {:?}",
        off.len(),
        on.len(),
        differs.and_then(|at| off.get(at)),
        differs.and_then(|at| on.get(at)),
    );
}

#[test]
fn any_predictions_leave_the_same_contents() {
    let seeds = number("FORERUN_SEEDS").unwrap_or(QUICK);
    let mut counts = ALL.map(|_| Counts::default());
    let mut sectors = 0;
    for seed in 1..=seeds {
        let history = one_by_one(seed);
        let history = if seed.is_multiple_of(WIDE_ONE_IN) { widened(history) } else { history };
        let mut off = Vec::new();
        for (predictor, all) in ALL.into_iter().zip(&mut counts) {
            let history = with_tables(&history, predictor);
            let (counts, read) = watched(|| run_and_tell(&history))
                .unwrap_or_else(|words| panic!("seed {seed} fails with {predictor:?} predictions: {words}"));
            all.add_all(&counts);
            match predictor {
                Predictor::Off => (sectors, off) = (sectors + read.len(), read),
                _ => compare(seed, predictor, &off, &read),
            }
        }
    }
    println!("{sectors} sectors read in each of the four");
    for (predictor, counts) in ALL.iter().zip(&counts) {
        println!("{predictor:?}:");
        tell(seeds, counts);
    }
    if seeds < QUICK {
        return;
    }
    // Otherwise the runs show less than they seem to.
    let [off, right, random, hostile] = &counts;
    for (predictor, counts) in ALL.iter().zip(&counts) {
        for what in ["kills", "power cuts", "evictions", "snapshots read", "clean stops"] {
            assert!(counts.of(what) > 100, "{predictor:?}: hardly any {what}: {}", counts.of(what));
        }
    }
    assert_eq!((off.of("reservations made"), off.of("blocks prefetched"), off.of("tables taken")), (0, 0, 0));
    for (counts, what, least) in [
        (right, "reservations used", 500),
        (right, "blocks prefetched", 30),
        (random, "reservations used", 10),
        (random, "reservations wasted", 500),
        (hostile, "reservations wasted", 500),
        (hostile, "blocks prefetched", 30),
        (hostile, "tables refused", 100),
    ] {
        assert!(counts.of(what) > least, "hardly any {what}: {}", counts.of(what));
    }
}

/// Requests side by side, faults, and ends at any moment, with each kind of table.
#[test]
fn any_predictions_with_faults_and_ends_at_any_moment() {
    let seeds = number("FORERUN_SEEDS").unwrap_or(QUICK);
    for predictor in ALL {
        let mut all = Counts::default();
        for seed in 5_000..5_000 + seeds {
            let mut history = History::new(seed);
            // Sooner or later there is time to act on each.
            history.steps = history
                .steps
                .into_iter()
                .flat_map(|step| match step {
                    Step::Predict(_) => vec![step, Step::Pause(400_000)],
                    step => vec![step],
                })
                .collect();
            // More often than above: faults and ends leave little time to fetch anything.
            let history = if seed.is_multiple_of(2) { widened(history) } else { history };
            all.add_all(&check(&with_tables(&history, predictor)));
        }
        println!("{predictor:?}:");
        tell(seeds, &all);
        assert_eq!(all.of("reservations made") > 0, predictor != Predictor::Off);
        if seeds >= QUICK && matches!(predictor, Predictor::Right | Predictor::Hostile) {
            let prefetched = all.of("blocks prefetched");
            assert!(prefetched > 20, "{predictor:?}: hardly any block was fetched ahead: {prefetched}");
        }
    }
}
