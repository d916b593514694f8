//! What is run in every test run, and what only a soak runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::history::{End, History, Shape, Step, When};
use super::run::Counts;
use super::shrink::{shrink, try_run};
use crate::request::Operation;
use crate::volume::lock;

/// Runs of a test run.
const QUICK: u64 = 2000;

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a history; a failure is shrunk and told with all that runs it again.
pub fn check(history: &History) -> Counts {
    let words = match try_run(history) {
        Ok(counts) => return counts,
        Err(words) => words,
    };
    if number("FORERUN_NO_SHRINK").is_some() {
        panic!("seed {} fails: {words}", history.seed);
    }
    let (shortest, shortest_words) = shrink(history);
    let steps: Vec<String> = shortest.steps.iter().map(|step| format!("    {step:?}")).collect();
    panic!(
        "seed {} fails: {words}\n\nIts shortest history that fails ({} of {} steps): {shortest_words}\n{:?}\n{}\n\n\
         Again: FORERUN_SEED={} cargo test -p ublk-target --lib simulation::tests::one_seed -- --ignored --nocapture",
        history.seed,
        shortest.steps.len(),
        history.steps.len(),
        shortest.shape,
        steps.join("\n"),
        history.seed,
    );
}

pub fn tell(seeds: u64, counts: &Counts) {
    println!("{seeds} seeds");
    for (what, count) in &counts.0 {
        println!("{count:>12} {what}");
    }
}

#[test]
fn many_seeds() {
    let mut all = Counts::default();
    let count = number("FORERUN_SEEDS").unwrap_or(QUICK);
    for seed in 1..=count {
        all.add_all(&check(&History::new(seed)));
    }
    tell(count, &all);
    if count >= QUICK {
        // Otherwise these runs show less than they seem to.
        for what in
            ["kills", "power cuts", "openings cut off", "clean stops", "failed syncs", "failed requests"]
        {
            assert!(all.of(what) > 20, "hardly any {what}: {}", all.of(what));
        }
        for what in [
            "blocks followed to a new place",
            "evictions",
            "promotions",
            "reservations used",
            "waits for room",
            "snapshots read",
        ] {
            assert!(all.of(what) > 200, "hardly any {what}: {}", all.of(what));
        }
    }
}

/// The same history, ended at each write and each sync of the fast tier.
#[test]
fn an_end_at_every_step() {
    let mut all = Counts::default();
    let mut runs = 0;
    for seed in 1..=number("FORERUN_EVERY_STEP").unwrap_or(3) {
        let mut history = History::new(seed);
        history.steps.retain(|step| !matches!(step, Step::Crash { .. } | Step::CrashWhileOpening(_)));
        history.steps.truncate(60);
        let steps = check(&history).of("writes and syncs of the fast tier");
        for end in [End::Kill, End::Cut] {
            for step in 1..=steps {
                let mut ended = history.clone();
                ended.steps.insert(0, Step::Crash { end, when: When::DiskStep(step) });
                all.add_all(&check(&ended));
                runs += 1;
            }
        }
    }
    tell(runs, &all);
}

/// The same history, ended at each operation of the capacity tier.
#[test]
fn an_end_at_every_operation_of_the_capacity_tier() {
    let mut all = Counts::default();
    let mut runs = 0;
    for seed in 11..11 + number("FORERUN_EVERY_STEP").unwrap_or(3) {
        let mut history = History::new(seed);
        history.steps.retain(|step| {
            !matches!(
                step,
                Step::Crash { .. } | Step::CrashWhileOpening(_) | Step::Heal | Step::StoreFullAt(_)
            )
        });
        history.steps.truncate(60);
        for end in [End::Kill, End::Cut] {
            for operation in 0.. {
                let mut ended = history.clone();
                ended.steps.insert(0, Step::Crash { end, when: When::StoreOperation(operation) });
                let counts = check(&ended);
                runs += 1;
                if counts.of("kills") + counts.of("power cuts") == 0 {
                    break;
                }
                all.add_all(&counts);
            }
        }
    }
    tell(runs, &all);
}

/// A layer's HEAD fails in doubt, its snapshot is deleted, and the power goes: the name may not come back with that HEAD.
#[test]
fn a_name_that_head_may_have_is_not_taken_off() {
    let shape = Shape {
        blocks: 9,
        slots: 9,
        journal_bytes: 524_288,
        logical: 1,
        sync_interval_seconds: 1,
        prediction: true,
    };
    for (seed, later) in (0..60).flat_map(|seed| (0..12).map(move |later| (seed, later))) {
        let steps = vec![
            Step::Request { operation: Operation::Write { fua: false }, sector: 0, sectors: 8 },
            Step::Snapshot,
            Step::StoreFullAt(later),
            Step::Pause(100_000),
            Step::DeleteSnapshot(0),
            Step::Crash { end: End::Cut, when: When::Now },
        ];
        check(&History { seed, shape: shape.clone(), steps });
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 1..40 {
        let history = History::new(seed);
        assert_eq!(check(&history), check(&history), "seed {seed}");
    }
}

/// Runs the seed FORERUN_SEED.
#[test]
#[ignore = "for a seed that failed"]
fn one_seed() {
    let seed = number("FORERUN_SEED").expect("FORERUN_SEED");
    tell(1, &check(&History::new(seed)));
}

/// Runs seeds from FORERUN_SEED on for FORERUN_SOAK_SECONDS, on FORERUN_THREADS threads; see `scripts/soak`.
#[test]
#[ignore = "as long as one likes"]
fn soak() {
    let first = number("FORERUN_SEED").unwrap_or(1_000_000);
    let seconds = number("FORERUN_SOAK_SECONDS").unwrap_or(60);
    let threads = number("FORERUN_THREADS").unwrap_or(2);
    let (begun, next, all) = (Instant::now(), AtomicU64::new(first), Mutex::new(Counts::default()));
    let mut failure = None;
    std::thread::scope(|scope| {
        let work = || {
            while begun.elapsed() < Duration::from_secs(seconds) {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                let counts = check(&History::new(seed));
                lock(&all).add_all(&counts);
                if (seed - first + 1).is_multiple_of(5000) {
                    println!("{} seeds, {} s", seed - first + 1, begun.elapsed().as_secs());
                }
            }
        };
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                let named = std::thread::Builder::new().name(format!("simulation {n}"));
                named.spawn_scoped(scope, work).expect("a thread")
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                failure.get_or_insert(panic);
            }
        }
    });
    tell(next.load(Ordering::SeqCst) - first, &lock(&all));
    if let Some(panic) = failure {
        println!("{}", panic.downcast_ref::<String>().map_or("", String::as_str));
        panic!("a seed failed");
    }
}
