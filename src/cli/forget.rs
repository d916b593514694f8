//! `forget`: a volume lets go of what it keeps for a clone that is gone.

use std::ffi::OsString;

use forerun::config::Paths;

use super::args::ForgetOptions;
use super::{client, output, programs};

/// Runs the command.
pub fn run(paths: &Paths, options: &ForgetOptions) -> anyhow::Result<()> {
    let ForgetOptions { volume, clone, force } = options;
    let config = client::load_config(paths, volume)?;
    let mut arguments: Vec<OsString> = ["forget", "--capacity"].map(Into::into).into();
    arguments.push(config.capacity.address.to_string().into());
    arguments.extend(["--clone".into(), clone.to_string().into()]);
    if *force {
        arguments.push("--force".into());
    }
    programs::ask_target(arguments)?;
    Ok(output::text(&format!("volume {volume} keeps nothing for the clone {clone} any more\n"))?)
}
