//! The commands, one file each, and what they share.

mod add;
pub mod args;
mod chain;
mod check;
mod client;
mod clone;
mod completions;
mod create;
mod devices;
mod diff;
mod dump;
mod export;
pub mod failure;
mod forget;
mod gc;
mod grow;
mod history;
mod import;
mod launch;
mod list;
mod offline;
mod output;
mod predict;
mod programs;
mod promote;
mod prune;
mod recover;
mod remove;
mod repair;
mod restore;
mod retention;
mod rollback;
mod snapshot;
mod source;
mod status;
mod status_page;
mod table;
mod threshold;
mod trainer;
mod volume_device;

use args::{Arguments, ChainCommand, Command, SnapshotCommand};
use forerun::config::Paths;

/// Does what was asked for.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let paths = Paths::from_env();
    match arguments.command {
        Command::Create(options) => create::run(&paths, options),
        Command::Restore(options) => restore::run(&paths, options),
        Command::Clone(options) => clone::run(&paths, options),
        Command::Rollback(options) => rollback::run(&paths, &options),
        Command::Gc(options) => gc::run(&paths, &options),
        Command::Grow(options) => grow::run(&paths, &options),
        Command::Promote(options) => promote::run(&paths, &options),
        Command::Forget(options) => forget::run(&paths, &options),
        Command::Add(options) => add::run(&paths, &options),
        Command::List(options) => list::run(&paths, &options),
        Command::Del(options) => remove::run(&paths, &options),
        Command::Recover(options) => recover::run(&paths, &options),
        Command::Snapshot { command } => match command {
            SnapshotCommand::Create(options) => snapshot::create(&paths, options),
            SnapshotCommand::List(options) => snapshot::list(&paths, &options),
            SnapshotCommand::Delete(options) => snapshot::delete(&paths, &options),
            SnapshotCommand::Diff(options) => diff::run(&paths, options),
            SnapshotCommand::Attach(options) => snapshot::attach(&paths, &options),
        },
        Command::Status(options) => status::run(&paths, &options),
        Command::Predict(options) => predict::run(&paths, &options),
        Command::Threshold(options) => threshold::run(&paths, &options),
        Command::Chain { command: ChainCommand::List(options) } => chain::list(&paths, &options),
        Command::History(options) => history::run(&paths, &options),
        Command::Export(options) => export::run(&paths, &options),
        Command::Import(options) => import::run(&paths, &options),
        Command::Prune(options) => prune::run(&paths, &options),
        Command::Retention(options) => retention::run(&paths, &options),
        Command::Check(options) => check::run(&paths, &options),
        Command::Dump(options) => dump::run(&paths, &options),
        Command::Repair(options) => repair::run(&paths, &options),
        Command::Completions { shell } => completions::run(shell),
    }
}
