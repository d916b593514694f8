//! `forerun-trainer`: learns which blocks of a volume will change next.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use forerun::prediction::Horizon;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trainer::config::Config;
use trainer::evaluate::epochs::{BlockSize, EpochLength};
use trainer::evaluate::{Cut, cost, evaluate};
use trainer::service::{self, Paths};

/// Learns from a volume's change vectors which blocks will change next.
///
/// It runs beside the volume's ublk-target, receives what each epoch changed, and publishes predictions to
/// shared memory. It may be stopped, killed and restarted at any time: the volume only loses foresight.
#[derive(Parser)]
#[command(name = "forerun-trainer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a volume until SIGTERM. Waits for its target as long as it takes.
    Run(Run),
    /// Walk forward through block traces and print how well each predictor does.
    Evaluate(Evaluate),
}

#[derive(Args)]
struct Settings {
    /// Settings as TOML; unknown keys are refused. Everything has a default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// CPU seconds an epoch may take for learning and scoring, 0.05 to 600 [default: 2, or as configured].
    #[arg(long, value_name = "N")]
    cpu_seconds_per_epoch: Option<f64>,
}

#[derive(Args)]
struct Run {
    /// The volume's name.
    volume: String,
    /// The target's socket [default: /run/forerun (or FORERUN_RUN_DIR)/VOLUME/api.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The prediction table, on tmpfs [default: /run/forerun (or FORERUN_RUN_DIR)/VOLUME/predictions].
    #[arg(long, value_name = "PATH")]
    table: Option<PathBuf>,
    /// Where history, weights and scores are kept [default: /var/lib/forerun (or FORERUN_STATE_DIR)/VOLUME/trainer].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// RUN_DIR, for what lives until the next boot.
    #[arg(long, env = "FORERUN_RUN_DIR", default_value = "/run/forerun", hide = true)]
    run_dir: PathBuf,
    /// STATE_DIR, for what is kept.
    #[arg(long, env = "FORERUN_STATE_DIR", default_value = "/var/lib/forerun", hide = true)]
    state_root: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Evaluate {
    /// Block traces, compressed with zstd (.zst) or not: CSV as timestamp_us,op,offset_bytes,len_bytes (op is R, W, D, or A for
    /// read or write), MSR Cambridge CSV, vscsiStats CSV, blkparse's output, or fio iologs.
    #[arg(required_unless_present = "cost", value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// An epoch's length: 5m, 30s, 500ms, 1h, or 1000-requests [default: as --epochs says].
    #[arg(long, value_name = "LENGTH")]
    epoch: Option<EpochLength>,
    /// Epochs of equal time, so short that this many change something, 10 to 100,000.
    #[arg(long, value_name = "N", default_value = "150", value_parser = clap::value_parser!(u64).range(10..=100_000), conflicts_with = "epoch")]
    epochs: u64,
    /// A block's size, a power of two from 4K to 4M [default: 64K, as the target's].
    #[arg(long, value_name = "SIZE")]
    block: Option<BlockSize>,
    /// Score predictions for so many epochs ahead as well, 2 to 64.
    #[arg(long, value_name = "EPOCHS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64), hide_default_value = true)]
    horizon: u32,
    /// From this probability on, something counts as predicted in precision and recall [default: 0.5, or as configured].
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
    /// Walk with a second learner beside that predicts nothing from chains and similar epochs, and print both.
    #[arg(long)]
    without_chains: bool,
    /// Write all results to FILE as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure CPU time and memory of an epoch with N candidates, on a volume that changes at random.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..=16_777_216))]
    cost: Vec<u32>,
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        if let Some(seconds) = self.cpu_seconds_per_epoch {
            config.cpu_seconds_per_epoch = seconds;
        }
        Ok(config.checked()?)
    }
}

fn main() -> ExitCode {
    one_thread_for_tensors();
    give_large_lists_back();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let result = match Cli::parse().command {
        Command::Run(run) => serve(&run),
        Command::Evaluate(arguments) => evaluate_all(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forerun-trainer: {}", forerun::told(&error));
            ExitCode::FAILURE
        }
    }
}

/// With more threads candle spins: four times the CPU time, and slower.
#[allow(unsafe_code, reason = "the environment is set before there is any other thread")]
fn one_thread_for_tensors() {
    // SAFETY: this is the first thing `main` does; no other thread exists that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
}

/// With each large list that is freed, glibc raises the size from which on it maps lists by themselves, to 32 MiB in the end; what is
/// smaller stays with the process: at a million candidates, a fifth of all memory, between one epoch's scores and the next's.
#[allow(unsafe_code, reason = "nix has no mallopt")]
fn give_large_lists_back() {
    // SAFETY: sets a number of bytes in the allocator; no other thread exists. Where it is refused, all is as it was.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Everything else goes first: a prediction that comes a little later is worth nearly as much, a request is not. Idle time
/// only (SCHED_IDLE), since even the highest nice value delays others by a time slice now and then.
#[allow(unsafe_code, reason = "nix has no sched_setscheduler")]
fn step_back() {
    let none = nix::libc::sched_param { sched_priority: 0 };
    // SAFETY: sets the policy of this thread, which those it starts inherit; `none` outlives the call.
    if unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_IDLE, &raw const none) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "the trainer takes processors from others");
    }
}

fn serve(run: &Run) -> Result<()> {
    step_back();
    if run.volume.is_empty() || run.volume.contains('/') || run.volume.starts_with('.') {
        bail!("{:?} cannot be a volume's name", run.volume);
    }
    let config = run.settings.config()?;
    let in_run_dir = |name: &str| run.run_dir.join(&run.volume).join(name);
    let paths = Paths {
        socket: run.socket.clone().unwrap_or_else(|| in_run_dir("api.sock")),
        table: run.table.clone().unwrap_or_else(|| in_run_dir("predictions")),
        state_dir: run.state_dir.clone().unwrap_or_else(|| run.state_root.join(&run.volume).join("trainer")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        service::run(&run.volume, paths, config, stop).await
    })
}

fn evaluate_all(arguments: &Evaluate) -> Result<()> {
    let mut config = arguments.settings.config()?;
    config.threshold = arguments.threshold.unwrap_or(config.threshold);
    let config = config.checked()?;
    for candidates in &arguments.cost {
        println!("{}", cost::measure(*candidates, &config)?.line());
    }
    let cut = Cut {
        epoch: arguments.epoch.unwrap_or(EpochLength::Count(arguments.epochs)),
        block: arguments.block.unwrap_or_default(),
        horizon: Horizon::new(arguments.horizon)?,
        without_chains: arguments.without_chains,
    };
    let mut reports = Vec::new();
    let shows = std::io::stderr().is_terminal();
    for path in &arguments.traces {
        let report = evaluate(path, cut, &config, |done, all| {
            if shows {
                eprint!("\r{}: epoch {done} of {all}", path.display());
                let _ = std::io::stderr().flush();
            }
        });
        if shows {
            eprintln!();
        }
        let report = report?;
        println!("{}", report.table());
        reports.push(report);
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&reports)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
