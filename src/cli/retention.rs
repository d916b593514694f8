//! `retention`: shows and sets which snapshots `prune` keeps.

use clap::Args;
use forerun::config::{Paths, VolumeName, format_size, parse_size};
use forerun::retention::Policy;

use super::args::Switch;
use super::failure::Failure;
use super::{client, output};

/// Options of `retention`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Without options it shows the policy. Each option sets one part of it and leaves the others. Of each
hour, day, week (ISO), month and year (UTC) the newest snapshot is kept, for as many of them as are
given; those in which none was made do not count. 0 switches a rule off, and a limit.

With --chains on, snapshots of a long and stable chain (8 epochs or more, each 0.7 or more like the
one before; `forerun chain list`) are kept for twice as many hours, days, weeks, months and years,
those of a chain that has lost half of its epochs to divergence for half as many.

Examples:
  forerun retention data
  forerun retention data --hourly 24 --daily 31 --monthly 24 --max-size 2T
  forerun retention data --default
  forerun prune data --dry-run --explain      # what it comes to")]
pub struct RetentionOptions {
    /// The volume
    pub volume: VolumeName,
    /// Keep so many of the newest snapshots, whatever their time
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest of so many hours
    #[arg(long, value_name = "N")]
    pub hourly: Option<u32>,
    /// Keep the newest of so many days
    #[arg(long, value_name = "N")]
    pub daily: Option<u32>,
    /// Keep the newest of so many weeks
    #[arg(long, value_name = "N")]
    pub weekly: Option<u32>,
    /// Keep the newest of so many months
    #[arg(long, value_name = "N")]
    pub monthly: Option<u32>,
    /// Keep the newest of so many years
    #[arg(long, value_name = "N")]
    pub yearly: Option<u32>,
    /// Whether snapshots that were given a name may go too
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub named: Option<Switch>,
    /// Whether chains of alike epochs lengthen and shorten what is kept
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub chains: Option<Switch>,
    /// The most snapshots; the oldest that may go, go
    #[arg(long, value_name = "N")]
    pub max_count: Option<u32>,
    /// The most that the changes of all snapshots kept may add up to
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub max_size: Option<u64>,
    /// Go back to the default policy
    #[arg(long)]
    pub default: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_limit(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { parse_size(text).map_err(|error| error.to_string()) }
}

/// Runs the command.
pub fn run(paths: &Paths, options: &RetentionOptions) -> anyhow::Result<()> {
    client::load_config(paths, &options.volume)?;
    let file = paths.volume(&options.volume).retention_file();
    if options.default {
        Policy::forget(&file)?;
    }
    let (before, _) = policy(paths, &options.volume)?;
    let after = changed(before.clone(), options).checked().map_err(Failure::Refused)?;
    if after != before {
        after.store(&file)?;
    }
    let (policy, source) = policy(paths, &options.volume)?;
    if options.json {
        return Ok(output::json(&policy)?);
    }
    Ok(output::text(&format!("volume {}, {source}:\n{}", options.volume, shown(&policy)))?)
}

/// The volume's policy, and in words whose it is.
///
/// # Errors
/// Its file cannot be read or understood.
pub fn policy(paths: &Paths, volume: &VolumeName) -> anyhow::Result<(Policy, &'static str)> {
    let own = Policy::load(&paths.volume(volume).retention_file())?;
    Ok(own.map_or_else(|| (Policy::default(), "the default policy"), |policy| (policy, "its own policy")))
}

fn changed(mut policy: Policy, options: &RetentionOptions) -> Policy {
    for (own, asked) in [
        (&mut policy.keep_last, options.keep_last),
        (&mut policy.hourly, options.hourly),
        (&mut policy.daily, options.daily),
        (&mut policy.weekly, options.weekly),
        (&mut policy.monthly, options.monthly),
        (&mut policy.yearly, options.yearly),
        (&mut policy.max_count, options.max_count),
    ] {
        *own = asked.unwrap_or(*own);
    }
    policy.max_bytes = options.max_size.unwrap_or(policy.max_bytes);
    let is_on = |switch: Option<Switch>, before| switch.map_or(before, |switch| switch == Switch::On);
    policy.named = is_on(options.named, policy.named);
    policy.chains = is_on(options.chains, policy.chains);
    policy
}

fn shown(policy: &Policy) -> String {
    let mut text = format!("  the last {}\n", output::counted(policy.keep_last.into(), "snapshot"));
    for (count, span) in [
        (policy.hourly, "hour"),
        (policy.daily, "day"),
        (policy.weekly, "week"),
        (policy.monthly, "month"),
        (policy.yearly, "year"),
    ] {
        if count > 0 {
            text += &format!("  the newest of each of {}\n", output::counted(count.into(), span));
        }
    }
    text += if policy.named {
        "  named snapshots as well as those made without a name\n"
    } else {
        "  all named snapshots, until they are deleted\n"
    };
    if policy.chains {
        text += "  of long and stable chains twice as long, of those that diverge half as long\n";
    }
    if policy.max_count > 0 {
        text += &format!("  {} at most\n", output::counted(policy.max_count.into(), "snapshot"));
    }
    if policy.max_bytes > 0 {
        text += &format!("  {} of changes at most\n", format_size(policy.max_bytes));
    }
    text
}
