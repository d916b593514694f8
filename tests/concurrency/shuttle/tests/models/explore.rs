//! Runs a model under many schedules and says how many.
//!
//! Half of the time goes to schedules that pick each step's thread at random, half to PCT's (few changes of
//! thread at well chosen steps: it finds what needs a thread to be held up for long).
//!
//! `FORERUN_MODEL_SECONDS`: time for each model, 2 s by default. A failure prints its schedule;
//! `FORERUN_SCHEDULE=<that line>` runs the model of that name once more with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// A model that runs longer is taken to hang.
const STEPS_MAX: usize = 200_000;
/// Changes of thread in PCT's schedules.
const PCT_DEPTH: usize = 4;

fn seconds() -> Duration {
    let seconds = std::env::var("FORERUN_MODEL_SECONDS").map_or(2.0, |text| text.parse().expect("a number"));
    Duration::from_secs_f64(seconds)
}

fn run(scheduler: impl Scheduler + 'static, time: Duration, model: fn()) -> usize {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.max_time = Some(time);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model)
}

/// Runs `model` for the time that is set and prints the number of schedules.
pub fn explore(name: &str, model: fn()) {
    if let Ok(schedule) = std::env::var("FORERUN_SCHEDULE") {
        shuttle::replay(model, &schedule);
        return;
    }
    let (half, begun) = (seconds() / 2, Instant::now());
    let random = run(RandomScheduler::new(usize::MAX), half, model);
    let pct = run(PctScheduler::new(PCT_DEPTH, usize::MAX), half, model);
    let took = begun.elapsed().as_secs_f64();
    println!("model {name}: {random} random and {pct} PCT schedules in {took:.1} s");
    assert!(random > 10 && pct > 10, "so few schedules show nothing");
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
