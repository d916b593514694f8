//! `completions`: a shell's completions, made from the arguments themselves.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Arguments;
use super::output;

/// Runs the command.
pub fn run(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "forerun", &mut script);
    Ok(output::text(&String::from_utf8_lossy(&script))?)
}
