//! The command `forerun`: makes, starts, shows and checks volumes.
//!
//! What touches a device or the tiers is done by its sibling `ublk-target`; what asks a running volume
//! goes over the API. Exit codes are in [`cli::failure`] and in `forerun --help`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::args::Arguments::parse();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure::report(&error),
    }
}
