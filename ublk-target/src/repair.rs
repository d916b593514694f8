//! `repair`: prints what a repair of a volume that is not in use came to.

use std::io::{self, Write};
use std::process::ExitCode;

use forerun::config::Paths;
use ublk_target::daemon::RepairArgs;
use ublk_target::offline::repair::{RepairOptions, repair};

use crate::check::{Terminal, config};

/// The exit code that says: it is done, and something is lost.
const LOST: u8 = 6;

/// Repairs what the arguments name and prints what is lost.
pub fn run(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let config = config(&args.volume)?;
    let paths = Paths::from_env().volume(&config.name);
    let options = RepairOptions {
        to_fast: args.to_fast.clone(),
        fast_bytes: args.fast_size,
        to_capacity: args.to_capacity.clone(),
        without_fast: args.without_fast,
        without_capacity: args.without_capacity,
        dry_run: args.dry_run,
    };
    let mut progress = Terminal::new();
    let report = repair(&config, &paths, &options, &mut progress);
    drop(progress);
    let report = report?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    Ok(if report.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LOST) })
}
