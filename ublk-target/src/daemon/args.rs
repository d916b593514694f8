//! The command line, as a user and as the stock `ublk` tool give it.
//!
//! `ublk` reads `-n` and `-t` itself, letter by letter, before it runs us; so all that takes a value
//! has a long name, none of which begins with `--n` or `--t` but the two.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use forerun::config::CapacityAddress;

use crate::device::{DeviceOptions, ZeroCopy};

/// Serves forerun volumes as block devices (/dev/ublkbN).
#[derive(Parser, Debug)]
#[command(name = "ublk.forerun", version, disable_help_subcommand = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show a volume as a block device and serve it until it is stopped
    Add(AddArgs),
    /// Take over a device whose process has died
    Recover(RecoverArgs),
    /// Commands that need no device
    #[command(flatten)]
    Offline(Offline),
    /// Show ublk devices
    List {
        /// Only this device
        #[arg(short = 'n', long = "number", value_name = "ID")]
        id: Option<u32>,
        /// Also what the daemon noted about it
        #[arg(short, long, conflicts_with = "json")]
        verbose: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop and delete a device
    Del {
        /// The device's number N in /dev/ublkbN
        #[arg(short = 'n', long = "number", value_name = "ID", required_unless_present = "all")]
        id: Option<u32>,
        /// All devices that forerun serves or has served; those of other ublk targets stay
        #[arg(short, long, conflicts_with = "id")]
        all: bool,
        /// Also if it is mounted or held by another device; what its users still write fails
        #[arg(long)]
        force: bool,
        /// How long to wait for those who have it mounted or held
        #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with = "force",
              value_parser = clap::value_parser!(u64).range(..=3600))]
        wait: u64,
    },
    /// Show this help, or that of a command
    Help {
        /// The target's type, as `ublk help -t` gives it: shows what `add` takes
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        target_type: Option<String>,
        /// The command
        command: Option<String>,
    },
}

/// Commands that need no device.
#[derive(Subcommand, Debug)]
pub enum Offline {
    /// Format the tiers of a new volume
    Create {
        /// The volume's configuration
        #[arg(long, value_name = "PATH")]
        config_file: PathBuf,
    },
    /// Tell as JSON which volume is on a capacity tier
    #[command(hide = true)]
    Look {
        /// The capacity tier
        #[arg(long, value_name = "DIR")]
        capacity: CapacityAddress,
    },
    /// Make a fresh fast tier for the volume on a capacity tier; tells as JSON from where it goes on
    #[command(hide = true)]
    Restore {
        /// The volume's configuration
        #[arg(long, value_name = "PATH")]
        config_file: PathBuf,
        /// Do not watch whether a writer elsewhere lives: fence it off
        #[arg(long)]
        fence: bool,
    },
    /// Make a new volume on a snapshot of another one; tells as JSON what it begins with
    #[command(hide = true)]
    Clone {
        /// The new volume's configuration
        #[arg(long, value_name = "PATH")]
        config_file: PathBuf,
        /// The capacity tier of the other one
        #[arg(long, value_name = "DIR")]
        origin: CapacityAddress,
        /// The snapshot
        #[arg(long, value_name = "NAME")]
        snapshot: String,
    },
    /// Let go of what a volume keeps for a clone that is gone
    #[command(hide = true)]
    Forget {
        /// The volume's capacity tier
        #[arg(long, value_name = "DIR")]
        capacity: CapacityAddress,
        /// The clone's uuid
        #[arg(long, value_name = "UUID")]
        clone: uuid::Uuid,
        /// Whether or not the clone is there
        #[arg(long)]
        force: bool,
    },
    /// Verify every checksum of a volume that is not in use; 0: sound, 5: damaged
    Check(CheckArgs),
    /// Print what is on the tiers of a volume that is not in use; 0: all of it could be read, 5: not all
    Dump(DumpArgs),
    /// Make new tiers of what is left of a volume's; 0: nothing lost, 6: something is
    Repair(RepairArgs),
}

/// What `dump` takes.
#[derive(ClapArgs, Debug)]
pub struct DumpArgs {
    /// The volume's name
    #[arg(long, value_name = "NAME", required_unless_present_any = ["fast", "capacity"])]
    pub volume: Option<String>,
    /// A fast tier: device or file
    #[arg(long, value_name = "PATH", conflicts_with = "volume")]
    pub fast: Option<PathBuf>,
    /// A capacity tier: directory or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE", conflicts_with = "volume")]
    pub capacity: Option<CapacityAddress>,
    /// The superblocks
    #[arg(long)]
    pub superblocks: bool,
    /// The journal's records
    #[arg(long)]
    pub journal: bool,
    /// The checkpoints' facts
    #[arg(long)]
    pub checkpoint: bool,
    /// Where each block is
    #[arg(long)]
    pub map: bool,
    /// HEAD and the layers; with EPOCH also the entries of the layer that holds it
    #[arg(long, value_name = "EPOCH")]
    pub layers: Option<Option<u32>>,
    /// The segments' records, or those of one segment
    #[arg(long, value_name = "ID")]
    pub segments: Option<Option<u64>>,
    /// Only blocks FROM to TO
    #[arg(long, value_name = "FROM..TO", value_parser = parse_blocks)]
    pub blocks: Option<(u32, u32)>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Reads `FROM..TO`, both included.
fn parse_blocks(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a block's number"));
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    if from <= to { Ok((from, to)) } else { Err(format!("{from} comes after {to}")) }
}

/// What `repair` takes.
#[derive(ClapArgs, Debug)]
pub struct RepairArgs {
    /// The volume's name
    #[arg(long, value_name = "NAME")]
    pub volume: String,
    /// Make a new fast tier here: device or file
    #[arg(long, value_name = "PATH")]
    pub to_fast: Option<PathBuf>,
    /// The size of the file to be made for it, in bytes
    #[arg(long, value_name = "BYTES", requires = "to_fast")]
    pub fast_size: Option<u64>,
    /// Make a new capacity tier here: directory or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE")]
    pub to_capacity: Option<CapacityAddress>,
    /// The fast tier is lost for good
    #[arg(long)]
    pub without_fast: bool,
    /// The capacity tier is lost for good
    #[arg(long)]
    pub without_capacity: bool,
    /// Only tell what would be lost
    #[arg(long)]
    pub dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `check` takes.
#[derive(ClapArgs, Debug)]
pub struct CheckArgs {
    /// The volume's name
    #[arg(long, value_name = "NAME", required_unless_present_any = ["fast", "capacity"])]
    pub volume: Option<String>,
    /// A fast tier: device or file
    #[arg(long, value_name = "PATH", conflicts_with = "volume")]
    pub fast: Option<PathBuf>,
    /// A capacity tier: directory or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE", conflicts_with = "volume")]
    pub capacity: Option<CapacityAddress>,
    /// Findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `add` takes.
#[derive(ClapArgs, Debug)]
pub struct AddArgs {
    /// The target's type, as `ublk add -t` gives it
    #[arg(short = 't', long = "type", value_name = "TYPE", hide = true)]
    pub target_type: Option<String>,
    /// The volume's name
    #[arg(long, value_name = "NAME")]
    pub volume: String,
    /// Show this snapshot of the volume, read-only
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// The device's number N in /dev/ublkbN; -1 for the first free one
    #[arg(short = 'n', long = "number", value_name = "ID", default_value_t = -1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1..))]
    pub id: i32,
    /// Queues, each with a thread; no more than CPUs are used
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    pub queues: u16,
    /// Requests under way at once in each queue
    #[arg(short, long, value_name = "COUNT", default_value_t = 128)]
    pub depth: u16,
    /// The most data a request has: a power of two from 65536 to 1048576 bytes
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024)]
    pub max_io_buf_bytes: u32,
    /// Refuse a kernel without zero copy; else it is used where there is any
    #[arg(short = 'z', long = "zerocopy", conflicts_with = "copy")]
    pub zero_copy: bool,
    /// Copy pages even where the kernel has zero copy
    #[arg(long)]
    pub copy: bool,
    /// Where to say that the device is there: the stock `ublk` gives it
    #[arg(long, value_name = "FD", hide = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub eventfd: Option<RawFd>,
}

/// What `recover` takes.
#[derive(ClapArgs, Debug)]
pub struct RecoverArgs {
    /// The device's number N in /dev/ublkbN
    #[arg(short = 'n', long = "number", value_name = "ID")]
    pub id: u32,
    /// Where to say that the device is there: the stock `ublk` gives it
    #[arg(long, value_name = "FD", hide = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub eventfd: Option<RawFd>,
}

impl AddArgs {
    /// What is shown: `VOLUME` or `VOLUME@SNAPSHOT`.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.snapshot {
            None => self.volume.clone(),
            Some(snapshot) => format!("{}@{snapshot}", self.volume),
        }
    }

    /// The device's options, unchecked.
    #[must_use]
    pub fn device_options(&self) -> DeviceOptions {
        DeviceOptions {
            id: u32::try_from(self.id).ok(),
            queues: self.queues,
            depth: self.depth,
            io_buffer_bytes: self.max_io_buf_bytes,
            zero_copy: match (self.zero_copy, self.copy) {
                (true, _) => ZeroCopy::Required,
                (_, true) => ZeroCopy::Never,
                _ => ZeroCopy::WherePossible,
            },
            ..DeviceOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> Args {
        Args::try_parse_from(words.split_whitespace()).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_ublk_gives_is_understood() {
        let words = "ublk.forerun add -t forerun --volume v1 -n 3 -q 2 -d 64 --eventfd 7";
        let Command::Add(add) = parse(words).command else { panic!("not add") };
        assert_eq!((add.volume.as_str(), add.eventfd), ("v1", Some(7)));
        let options = add.device_options();
        assert_eq!((options.id, options.queues, options.depth), (Some(3), 2, 64));
        assert_eq!(options.zero_copy, ZeroCopy::WherePossible);
        let Command::Add(add) = parse("ublk.forerun add --volume v1 -n -1 -z").command else {
            panic!("not add")
        };
        assert_eq!((add.device_options().id, add.device_options().zero_copy), (None, ZeroCopy::Required));
        let Command::Help { target_type, command: None } = parse("ublk.forerun help -t forerun").command
        else {
            panic!("not help")
        };
        assert_eq!(target_type.as_deref(), Some("forerun"));
        let Command::Recover(recover) = parse("ublk.forerun recover -n 5 --eventfd 4").command else {
            panic!("not recover")
        };
        assert_eq!((recover.id, recover.eventfd), (5, Some(4)));
    }

    #[test]
    fn bad_words_are_refused() {
        for words in [
            "add",
            "add --volume v -n -2",
            "del",
            "del -n 1 -a",
            "del -n 1 --force --wait 5",
            "recover",
            "add --volume v -z --copy",
        ] {
            let words = format!("ublk.forerun {words}");
            assert!(Args::try_parse_from(words.split_whitespace()).is_err(), "{words}");
        }
    }
}
