//! Runs a model in every execution that the memory model allows, up to a number of preemptions, and says how many.
//!
//! `FORERUN_PREEMPTIONS`: that number, 2 by default. `FORERUN_MODEL_SECONDS`: the most time for each model, 60 s by
//! default; one that is cut off says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Says, when a model fails, how long that took.
struct Found<'a> {
    name: &'a str,
    begun: Instant,
    executions: std::sync::Arc<AtomicU64>,
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (count, took) = (self.executions.load(Ordering::Relaxed), self.begun.elapsed().as_secs_f64());
            println!("model {}: failed in execution {count}, {took:.1} s", self.name);
        }
    }
}

/// Runs `model` in all its executions.
pub fn explore(name: &str, model: fn()) {
    let preemptions = number("FORERUN_PREEMPTIONS", 2.0) as usize;
    let seconds = number("FORERUN_MODEL_SECONDS", 60.0);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = Some(preemptions);
    builder.max_duration = Some(Duration::from_secs_f64(seconds));
    let executions = std::sync::Arc::new(AtomicU64::new(0));
    let (counted, begun) = (executions.clone(), Instant::now());
    let found = Found { name, begun, executions: executions.clone() };
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let (count, took) = (executions.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    drop(found);
    let extent = if took < seconds { "all" } else { "cut off," };
    println!(
        "model {name}: {extent} {count} executions with at most {preemptions} preemptions in {took:.1} s"
    );
    assert!(count > 1, "one execution shows nothing");
}
