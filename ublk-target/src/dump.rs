//! `dump`: prints what is on the tiers of a volume that is not in use.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use ublk_target::daemon::DumpArgs;
use ublk_target::offline::check::Places;
use ublk_target::offline::dump::{DumpOptions, dump};

use crate::check::{DAMAGED, config};

/// Prints what the arguments choose.
pub fn run(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let (places, shape) = match &args.volume {
        Some(volume) => {
            let config = config(volume)?;
            (Places::of(&config), Some((config.uuid, config.geometry)))
        }
        None => (Places { fast: args.fast.clone(), capacity: args.capacity.clone(), volume: None }, None),
    };
    let options = DumpOptions {
        superblocks: args.superblocks,
        journal: args.journal,
        checkpoint: args.checkpoint,
        map: args.map,
        layers: args.layers,
        segments: args.segments,
        blocks: args.blocks,
        json: args.json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let broken = match dump(&places, shape, &options, &mut out) {
        Ok(broken) => broken,
        // Whoever read it has seen enough.
        Err(error) if is_gone(&error) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error),
    };
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

fn is_gone(error: &anyhow::Error) -> bool {
    let is_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_pipe)
}
