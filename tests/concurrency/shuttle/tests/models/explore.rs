//! Runs a model under many schedules and says how many.
//!
//! Half of the time goes to schedules that pick each step's thread at random, half to PCT's (few changes of
//! thread at well chosen steps: it finds what needs a thread to be held up for long).
//!
//! `FORERUN_MODEL_SECONDS`: time for each model, 2 s by default. Schedules come in batches, each from a seed; the first
//! seed is `FORERUN_MODEL_SEED`, the clock's by default, and printed. A failure prints its schedule as well;
//! `FORERUN_SCHEDULE=<that line>` runs one model (named as the test's filter) once more with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// A model that runs longer is taken to hang.
const STEPS_MAX: usize = 200_000;
/// Changes of thread in PCT's schedules.
const PCT_DEPTH: usize = 4;

/// The longest that one of the two ways goes on before the other has its turn.
const TURN: Duration = Duration::from_millis(500);
/// Schedules from one seed.
const BATCH: usize = 50;

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn run(scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model);
}

/// Says, when a model fails, how long that took.
struct Found<'a> {
    name: &'a str,
    begun: Instant,
    schedules: std::cell::Cell<usize>,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let took = self.begun.elapsed().as_secs_f64();
            println!(
                "model {}: failed after {} to {} schedules, {took:.1} s",
                self.name,
                self.schedules.get(),
                self.schedules.get() + BATCH
            );
        }
    }
}

/// Runs batches of `model` for `time`; returns how many schedules that were.
fn batches(time: Duration, first: u64, found: &Found<'_>, batch: impl Fn(u64)) -> usize {
    let (mut done, begun) = (0, Instant::now());
    while begun.elapsed() < time {
        batch(first + done);
        done += 1;
        found.schedules.set(found.schedules.get() + BATCH);
    }
    done as usize * BATCH
}

/// Runs `model` for the time that is set and prints the number of schedules.
pub fn explore(name: &str, model: fn()) {
    if let Ok(schedule) = std::env::var("FORERUN_SCHEDULE") {
        shuttle::replay(model, &schedule);
        return;
    }
    let time = Duration::from_secs_f64(number("FORERUN_MODEL_SECONDS").unwrap_or(2.0));
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let seed = number("FORERUN_MODEL_SEED").unwrap_or_else(clock);
    let found = Found { name, begun: Instant::now(), schedules: std::cell::Cell::new(0) };
    // In short turns, so that a failure that only one of the two finds is found as soon.
    let (mut random, mut pct) = (0, 0);
    while found.begun.elapsed() < time {
        let seed = seed + random as u64;
        let turn = (time / 8).min(TURN);
        random += batches(turn, seed, &found, |seed| run(RandomScheduler::new_from_seed(seed, BATCH), model));
        pct += batches(turn, seed, &found, |seed| {
            run(PctScheduler::new_from_seed(seed, PCT_DEPTH, BATCH), model)
        });
    }
    let begun = found.begun;
    let took = begun.elapsed().as_secs_f64();
    println!("model {name}: {random} random and {pct} PCT schedules in {took:.1} s, from seed {seed}");
}

/// What one thread of a model does.
pub type Work<T> = Box<dyn FnOnce(&T) + Send>;

/// Boxes a thread's work.
pub fn work<T>(body: impl FnOnce(&T) + Send + 'static) -> Work<T> {
    Box::new(body)
}

/// Runs each work in a thread of its own, all at once, and waits for them.
pub fn together<T: Send + Sync + 'static>(world: &Arc<T>, works: Vec<Work<T>>) {
    let threads: Vec<_> = works
        .into_iter()
        .map(|work| {
            let world = Arc::clone(world);
            shuttle::thread::spawn(move || work(&world))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
