//! What goes wrong, from a file of `name = number` lines:
//!
//! ```text
//! error_percent = 5    of requests answered with a 500, and nothing done
//! reset_percent = 5    of requests whose connection ends, and nothing done
//! lost_percent = 5     of requests done, whose connection ends without an answer
//! cut_percent = 5      of answers whose body ends half-way
//! hang_percent = 1     of requests that never get an answer
//! delay_ms = 30        before every request
//! stop = 1             nothing is answered at all
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Error,
    Reset,
    Lost,
    Cut,
    Hang,
}

/// What happens to one request, and when.
pub struct Plan {
    pub delay: Duration,
    pub fault: Option<Fault>,
}

/// The file, and the random numbers.
pub struct Faults {
    file: Option<PathBuf>,
    random: AtomicU64,
}

impl Faults {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, random: AtomicU64::new(1) }
    }

    fn settings(&self) -> Vec<(String, u64)> {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let line = |line: &str| {
            let (name, number) = line.split_once('=')?;
            Some((name.trim().to_owned(), number.trim().parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// Whether the server is to look stopped.
    pub fn stopped(&self) -> bool {
        self.settings().iter().any(|(name, number)| name == "stop" && *number != 0)
    }

    /// What happens to the next request.
    pub fn plan(&self) -> Plan {
        let settings = self.settings();
        let of =
            |wanted: &str| settings.iter().find(|(name, _)| name == wanted).map_or(0, |(_, number)| *number);
        let delay = Duration::from_millis(of("delay_ms"));
        if of("stop") != 0 {
            return Plan { delay, fault: Some(Fault::Reset) };
        }
        let mut left = self.percent();
        for (name, fault) in [
            ("error_percent", Fault::Error),
            ("reset_percent", Fault::Reset),
            ("lost_percent", Fault::Lost),
            ("cut_percent", Fault::Cut),
            ("hang_percent", Fault::Hang),
        ] {
            match left.checked_sub(of(name)) {
                Some(rest) => left = rest,
                None => return Plan { delay, fault: Some(fault) },
            }
        }
        Plan { delay, fault: None }
    }

    fn percent(&self) -> u64 {
        let next = |state: u64| {
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
        };
        let state = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(next(state)));
        (state.unwrap_or_default() >> 33) % 100
    }
}
