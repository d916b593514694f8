//! What can be typed, and the help for it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use forerun::config::{CapacityAddress, HydrateOrder, SnapshotName, VolumeName, parse_size};

use super::devices::DeviceRef;
use super::export::ExportOptions;
use super::gc::GcOptions;
use super::grow::GrowOptions;
use super::import::ImportOptions;
use super::predict::PlotFile;
use super::prune::PruneOptions;
use super::restore::RestoreOptions;
use super::retention::RetentionOptions;
use super::rollback::RollbackOptions;

/// A Linux block volume that sees writes coming.
///
/// A volume is a block device (/dev/ublkbN) whose hot data is on a fast tier (an NVMe device or a file)
/// and whose history is on a capacity tier (a directory). It is snapshotted at no cost, and room for
/// the writes that its trainer predicts is made before they come.
#[derive(Parser, Debug)]
#[command(
    name = "forerun",
    version,
    max_term_width = 100,
    after_help = "Begin with `forerun help create`, then `forerun help add`.",
    after_long_help = "\
Examples:
  # A volume of 100 GiB with its hot data on an NVMe partition, its history on a hard disk
  forerun create data --size 100G --fast /dev/nvme0n1p3 --capacity /srv/forerun/data
  forerun add data                       # prints the device, for instance /dev/ublkb0
  mkfs.ext4 /dev/ublkb0

  forerun snapshot create data monday    # at once, under load
  forerun status data --watch
  forerun del data                       # stops it; `forerun add data` brings it back as it was

Exit codes:
  0  done
  1  failed, for the reason printed
  2  wrong usage, or a value that was refused; the message names the allowed range
  3  no such volume, snapshot or device
  4  the volume is not running
  5  `check` found damage, `dump` could not read all
  6  `repair` is done, and something is lost; it says what

Environment:
  FORERUN_STATE_DIR  where volumes are configured (/var/lib/forerun)
  FORERUN_RUN_DIR    where running volumes have their sockets and logs (/run/forerun)
  FORERUN_LIBEXEC    where ublk-target and forerun-trainer are, if not beside this program"
)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a new volume: format its tiers and note its configuration
    Create(CreateOptions),
    /// Go on with a volume whose machine is lost, from its capacity tier
    Restore(RestoreOptions),
    /// Make a new volume on a snapshot of another one, sharing its data
    Clone(CloneOptions),
    /// Set a volume back to one of its snapshots; the state before is kept as another one
    Rollback(RollbackOptions),
    /// Make a volume or its fast tier larger, while it is in use
    Grow(GrowOptions),
    /// Have a clone copy what it shares, and stand alone
    Promote(PromoteOptions),
    /// Let go of what a volume keeps for a clone that is gone
    Forget(ForgetOptions),
    /// Start a volume and show its device
    Add(AddOptions),
    /// List the volumes and their devices
    List(ListOptions),
    /// Stop a volume's device; its data stays
    Del(DelOptions),
    /// Take over the device of a target that died
    Recover(RecoverOptions),
    /// Make, list, delete, compare and attach snapshots
    Snapshot {
        /// What to do.
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Show how a volume, its tiers and its predictions do
    Status(StatusOptions),
    /// List what is expected to change, as ranges and as files
    Predict(PredictOptions),
    /// Set the probability from which a prediction is acted on
    Threshold(ThresholdOptions),
    /// Show the chains of alike epochs
    Chain {
        /// What to do.
        #[command(subcommand)]
        command: ChainCommand,
    },
    /// Show all snapshots with time, data size and change rate
    History(HistoryOptions),
    /// Write a snapshot, or what changed since another one, as a stream
    Export(ExportOptions),
    /// Take a stream, a raw image or a qcow2 image
    Import(ImportOptions),
    /// Delete the snapshots that the policy does not keep, or say which and why
    Prune(PruneOptions),
    /// Give back what the capacity tier does not need any more, or say what that is
    Gc(GcOptions),
    /// Show and set which snapshots are kept
    Retention(RetentionOptions),
    /// Verify every checksum of a stopped volume's tiers
    Check(CheckOptions),
    /// Print what is on a stopped volume's tiers, damaged or not
    Dump(DumpOptions),
    /// Make new tiers of what is left of a stopped volume's
    Repair(RepairOptions),
    /// Print a shell's completions
    #[command(after_help = "Example: forerun completions bash > /etc/bash_completion.d/forerun")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// On or off.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Options of `create`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Sizes are powers of 1024: 64M, 64MiB, 10G, 1T, or plain bytes.

Examples:
  forerun create data --size 100G --fast /dev/nvme0n1p3 --capacity /srv/forerun/data
  forerun create data --size 100G --fast /dev/nvme0n1p3 --capacity s3://bucket/data
  forerun create try --size 1G --fast /tmp/fast.img --fast-size 256M --capacity /tmp/capacity")]
pub struct CreateOptions {
    /// The volume's name: 1 to 63 characters of a-z 0-9 . _ -
    pub volume: VolumeName,
    /// The size it shows, 64M to 64T, a multiple of 64K; nothing is set aside for it
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
    /// The fast tier: a block device or a file. What it holds is overwritten
    #[arg(long, value_name = "PATH")]
    pub fast: PathBuf,
    /// The size of the fast tier's file; needed when the file is not there yet
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub fast_size: Option<u64>,
    /// The capacity tier: a directory, made when it is not there, or s3://BUCKET/PREFIX (gs://, az:// likewise)
    ///
    /// Where to reach an object store and as whom comes from the environment (AWS_ENDPOINT_URL,
    /// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or from ~/.aws/credentials, never
    /// from the address.
    #[arg(long, value_name = "PLACE")]
    pub capacity: CapacityAddress,
    /// The smallest request in bytes; 512 for disk images with 512-byte partition tables
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = ["512", "4096"])]
    pub logical_block_size: String,
    #[command(flatten)]
    pub settings: Settings,
    /// Print the configuration as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a new configuration sets beside the tiers.
#[derive(Args, Debug)]
pub struct Settings {
    /// Seconds after which changes begin to move to the capacity tier, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub sync_interval: u32,
    /// Whether predictions are acted on
    #[arg(long, value_name = "on|off", default_value = "on", hide_possible_values = true)]
    pub prediction: Switch,
    /// The probability from which a prediction is acted on, 0.05 to 1
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    pub threshold: f64,
    /// How many epochs ahead is predicted, 1 to 64
    #[arg(long, value_name = "EPOCHS", default_value_t = 1)]
    pub horizon: u32,
    /// What fills an empty fast tier in the background: what is expected to be used and then the rest, as long as there is
    /// room (expected), only the former (hot), everything by address, or nothing
    #[arg(long, value_name = "expected|hot|address|off", default_value = "expected")]
    pub hydrate: HydrateOrder,
}

/// Options of `clone`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The clone is a volume of its own, writable, with the origin's data shared and not copied: it is
there in a moment whatever its size. What it shares is kept by the origin, also when the snapshot is
deleted; so the origin's capacity tier has to stay where it is until the clone is promoted or
gone. `forerun snapshot list` shows the clones of a volume. The origin may be running.

Examples:
  forerun clone data@monday try --fast /fast/try.img --fast-size 4G --capacity /srv/forerun/try
  forerun add try
  forerun promote try            # copies what it shares, in the background, and stands alone
  forerun forget data UUID       # after the clone was deleted: lets go of what was kept for it")]
pub struct CloneOptions {
    /// The snapshot, as VOLUME@SNAPSHOT
    pub origin: DeviceRef,
    /// The new volume's name
    pub volume: VolumeName,
    /// The new volume's fast tier: a block device or a file that holds nothing
    #[arg(long, value_name = "PATH")]
    pub fast: PathBuf,
    /// The size of the fast tier's file; needed when the file is not there yet
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub fast_size: Option<u64>,
    /// The new volume's own capacity tier: a directory, made when it is not there, or s3://BUCKET/PREFIX (gs://, az:// likewise)
    #[arg(long, value_name = "PLACE")]
    pub capacity: CapacityAddress,
    #[command(flatten)]
    pub settings: Settings,
    /// Print the new volume as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `promote`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
What the clone shares with its origin is copied to its own capacity tier, in the background and
within the budget that all background work has. Then the origin lets go of it. `forerun status`
shows how much is left. The clone must be running; a stop only interrupts it.")]
pub struct PromoteOptions {
    /// The clone
    pub volume: VolumeName,
}

/// Options of `forget`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A volume keeps what its clones share with it until they are promoted. For a clone that was deleted,
or whose making was interrupted for good, nobody tells it; `forerun check` names such clones, and
this lets go of the data. A clone that is there is refused.

Examples:
  forerun forget data 7f9c4a52-1d0e-4c4b-9a57-0c4a0f3f2a11")]
pub struct ForgetOptions {
    /// The volume that keeps the data
    pub volume: VolumeName,
    /// The clone's uuid
    pub clone: uuid::Uuid,
    /// Even if the clone is there, or cannot be looked at: it cannot be read any more then
    #[arg(long)]
    pub force: bool,
}

/// Options that shape a device, as those of ublk.
#[derive(Args, Debug, Clone, Default)]
pub struct DeviceOptions {
    /// The device's number N in /dev/ublkbN; without it the first free one
    #[arg(short = 'n', long = "number", value_name = "ID", value_parser = clap::value_parser!(u32).range(..1 << 20))]
    pub number: Option<u32>,
    /// Queues, 1 to 64, each with a thread of its own
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
    /// Requests under way in each queue, 1 to 1024
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: Option<u16>,
    /// Stay in the foreground, with all messages on standard error
    #[arg(long)]
    pub foreground: bool,
}

/// Options of `add`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forerun add data                 # in the background; prints /dev/ublkbN when it is ready
  forerun add data -n 5 -q 4       # as /dev/ublkb5 with four queues
  forerun add data --foreground    # for a service manager; Ctrl-C stops the device

In the background the target's messages go to <run>/<VOLUME>/target.log, and a trainer is started
beside it unless --no-trainer is given or prediction is off.")]
pub struct AddOptions {
    /// The volume
    pub volume: VolumeName,
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Start no trainer; the volume works without, and without predictions
    #[arg(long)]
    pub no_trainer: bool,
    /// Take the device over where a target that died has left one; for service managers
    #[arg(long)]
    pub or_recover: bool,
    /// Print the device as JSON
    #[arg(long, conflicts_with = "foreground")]
    pub json: bool,
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListOptions {
    /// Show the driver's view of this ublk device instead
    #[arg(short = 'n', long = "number", value_name = "ID", value_parser = clap::value_parser!(u32).range(..1 << 20))]
    pub number: Option<u32>,
    /// Show the driver's view of all ublk devices instead, forerun's or not
    #[arg(short, long, conflicts_with = "number")]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which device.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct WhichDevice {
    /// The volume, or VOLUME@SNAPSHOT for an attached snapshot
    pub volume: Option<DeviceRef>,
    /// The device's number N in /dev/ublkbN
    #[arg(short = 'n', long = "number", value_name = "ID", value_parser = clap::value_parser!(u32).range(..1 << 20))]
    pub number: Option<u32>,
}

/// Options of `del`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Everything acknowledged is made durable before the device goes. The volume's data and configuration
stay. A device that is mounted or held is refused. With --force it is stopped all the same: what its
users still write fails, and it is gone when the last of them lets go.

Examples:
  forerun del data           # the volume's device
  forerun del data@monday    # the device of its snapshot
  forerun del -n 5           # /dev/ublkb5
  forerun del -a             # all of forerun's devices; those of other ublk targets stay")]
pub struct DelOptions {
    #[command(flatten)]
    pub which: WhichToDelete,
    /// Also if it is mounted or held by another device; what its users still write fails
    #[arg(long)]
    pub force: bool,
    /// How long to wait for those who have it mounted or held, 0 to 3600
    #[arg(long, value_name = "SECONDS", conflicts_with = "force", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub wait: Option<u32>,
}

impl DelOptions {
    /// What the target is told about the device's users.
    pub fn about_users(&self) -> Vec<String> {
        match self.wait {
            _ if self.force => vec!["--force".to_owned()],
            Some(seconds) => vec!["--wait".to_owned(), seconds.to_string()],
            None => Vec::new(),
        }
    }
}

/// Which devices to delete.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct WhichToDelete {
    /// The volume, or VOLUME@SNAPSHOT for an attached snapshot
    pub volume: Option<DeviceRef>,
    /// The device's number N in /dev/ublkbN
    #[arg(short = 'n', long = "number", value_name = "ID", value_parser = clap::value_parser!(u32).range(..1 << 20))]
    pub number: Option<u32>,
    /// All of forerun's devices, whoever started them; those of other ublk targets stay
    #[arg(short, long)]
    pub all: bool,
}

/// Options of `recover`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A target that was killed leaves its device waiting: requests stall and none fails. `recover` starts
a new target for the same device, and the requests go on.

Examples:
  forerun recover data
  forerun recover -n 5")]
pub struct RecoverOptions {
    #[command(flatten)]
    pub which: WhichDevice,
    /// Stay in the foreground, with all messages on standard error
    #[arg(long)]
    pub foreground: bool,
    /// Print the device as JSON
    #[arg(long, conflicts_with = "foreground")]
    pub json: bool,
}

/// What to do with snapshots.
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Make a snapshot, at once and under load
    Create(SnapshotCreateOptions),
    /// List a volume's snapshots, oldest first
    List(SnapshotListOptions),
    /// Delete a snapshot; the space only it held comes back in the background
    Delete(SnapshotDeleteOptions),
    /// Show the blocks that differ between two snapshots
    Diff(SnapshotDiffOptions),
    /// Show a snapshot as a read-only device
    Attach(SnapshotAttachOptions),
}

/// Options of `snapshot create`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The same name again changes nothing and shows the snapshot that is there.

Examples:
  forerun snapshot create data              # named after the time: auto-20261123-094500
  forerun snapshot create data monday
  forerun snapshot create data monday --horizon 4")]
pub struct SnapshotCreateOptions {
    /// The volume
    pub volume: VolumeName,
    /// The snapshot's name; made from the time where it is left out
    pub name: Option<SnapshotName>,
    /// Predict this many epochs ahead from now on, 1 to 64
    #[arg(long, value_name = "EPOCHS")]
    pub horizon: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `snapshot list`.
#[derive(Args, Debug)]
pub struct SnapshotListOptions {
    /// The volume
    pub volume: VolumeName,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `snapshot delete`.
#[derive(Args, Debug)]
pub struct SnapshotDeleteOptions {
    /// The volume
    pub volume: VolumeName,
    /// The snapshot
    pub name: SnapshotName,
}

/// Options of `snapshot diff`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
One line a changed block of 64 KiB, then a summary. Sub-blocks are the 4 KiB parts that were written
(over several epochs: the most of any).

Examples:
  forerun snapshot diff data monday tuesday
  forerun snapshot diff data monday             # to the newest sealed epoch
  forerun snapshot diff data                    # all that the volume holds
  forerun snapshot diff data monday --json | jq '.changes[].block'")]
pub struct SnapshotDiffOptions {
    /// The volume
    pub volume: VolumeName,
    /// The older snapshot; without it the empty volume
    pub from: Option<SnapshotName>,
    /// The newer snapshot; without it the newest sealed epoch
    pub to: Option<SnapshotName>,
    /// Print only the summary
    #[arg(long, conflicts_with = "json")]
    pub summary: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `snapshot attach`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The snapshot is written back to the capacity tier first where it is not there yet; that can take a
while.

Examples:
  forerun snapshot attach data monday    # prints /dev/ublkbN
  mount -o ro,noload /dev/ublkb1 /mnt
  forerun del data@monday")]
pub struct SnapshotAttachOptions {
    /// The volume
    pub volume: VolumeName,
    /// The snapshot
    pub name: SnapshotName,
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print the device as JSON
    #[arg(long, conflicts_with = "foreground")]
    pub json: bool,
}

/// Options of `status`.
#[derive(Args, Debug)]
pub struct StatusOptions {
    /// The volume
    pub volume: VolumeName,
    /// Show it again and again until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Seconds between two looks, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval: u32,
    /// Print JSON; with --watch one line a look
    #[arg(long)]
    pub json: bool,
}

/// Options of `predict`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
One line a range: how probable, what will happen, where on the volume, and what lies there: a
file and the place in it, the end of a file that will grow, a structure of the file system, free
space. Neighbouring blocks of one kind whose probabilities differ by 0.05 at most are one range,
with their mean. Files are named for ext2, ext3, ext4 and XFS (version 5) that begin at the volume's
first byte, from metadata read through the device; no mount is needed. Of a mounted one this is as
much as has reached the device: what is still in memory, or in its log, does not show.

In JSON, `ranges[].contents[]` has every piece: `what` is content, growth (free space behind a
file's end), map (where a file's content is), attributes, structure, free or unnamed; `path` is the
first one found, with bytes that are no printable text as \\xNN.

The picture of --plot has the past epochs from left to right, then what is expected; the volume's
offsets downwards, without long stretches in which nothing changes; blue for added, orange for
modified, black for deleted, the darker the more. The past comes from the running volume.

Examples:
  forerun predict data
  forerun predict data --from-probability 0.9 --limit 20
  forerun predict data --no-files            # ranges alone, reads nothing from the device
  forerun predict data --plot data.svg       # a picture as well
  forerun predict data --json | jq -r '.ranges[] | select(.kind == \"added\") | .contents[].path'")]
pub struct PredictOptions {
    /// The volume
    pub volume: VolumeName,
    /// List what is this probable or more, 0 to 1; without it the volume's threshold
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub from_probability: Option<f64>,
    /// List at most this many ranges, the most probable ones
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Name no files: the device is not read
    #[arg(long)]
    pub no_files: bool,
    /// Also draw a heat map of the past epochs' changes and of what is expected: .svg or .png
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PlotFile>,
    /// How many past epochs the picture shows, 1 to 400
    #[arg(
        long, value_name = "N", requires = "plot", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=400)
    )]
    pub epochs: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `threshold`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A lower threshold makes room for more writes and wastes more of it; a higher one is surer and sees
less coming. Probabilities are calibrated: of what is predicted at 0.8, about 80 % happens.

Example: forerun threshold data 0.7")]
pub struct ThresholdOptions {
    /// The volume
    pub volume: VolumeName,
    /// The probability, 0.05 to 1
    #[arg(value_name = "P", allow_negative_numbers = true)]
    pub threshold: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with chains.
#[derive(Subcommand, Debug)]
pub enum ChainCommand {
    /// List the chains as the trainer last reported them
    List(ChainListOptions),
}

/// Options of `chain list`.
#[derive(Args, Debug)]
pub struct ChainListOptions {
    /// The volume
    pub volume: VolumeName,
    /// Say of each chain why its epochs were linked, and what was pruned and why
    #[arg(long)]
    pub explain: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `history`.
#[derive(Args, Debug)]
pub struct HistoryOptions {
    /// The volume
    pub volume: VolumeName,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `check`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Reads superblocks, journal, checkpoints, map, layers and segments, verifies every checksum, and
sees whether the two tiers fit each other. Changes nothing. The volume must be stopped. The
data in the fast tier's slots has no checksum and is not looked at. Progress is shown on a
terminal only.

Exit codes:
  0  clean
  1  could not be checked: a tier is missing, in use, or of another volume
  2  wrong usage
  3  no such volume
  5  damage was found; each finding says what, where, and what to do

Examples:
  forerun check data
  forerun check data --json | jq '.findings[]'
  forerun check --fast /dev/nvme0n1p3 --capacity /srv/forerun/data")]
pub struct CheckOptions {
    #[command(flatten)]
    pub which: WhichTiers,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Whose tiers, or which.
#[derive(Args, Debug)]
pub struct WhichTiers {
    /// The volume
    #[arg(required_unless_present_any = ["fast", "capacity"], conflicts_with_all = ["fast", "capacity"])]
    pub volume: Option<VolumeName>,
    /// The fast tier of a volume that is not configured here
    #[arg(long, value_name = "PATH")]
    pub fast: Option<PathBuf>,
    /// The capacity tier of that volume: a directory or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE")]
    pub capacity: Option<CapacityAddress>,
}

/// Options of `dump`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
What cannot be read is marked BROKEN, and the dump goes on. Without a choice: superblocks,
checkpoints, journal and layers. Memory follows the fast tier and the number of layers, not the
volume. Changes nothing; the volume must be stopped.

Exit codes:
  0  all that was asked for could be read
  1  nothing could be read: a tier is missing, in use, or of another volume
  2  wrong usage
  3  no such volume
  5  something could not be read, and is marked

Examples:
  forerun dump data
  forerun dump data --map --blocks 0..99    # block -> slots -> layer -> place
  forerun dump data --layers 41             # with the entries of the layer that holds epoch 41
  forerun dump data --segments 7 --json     # a segment's records, one JSON object a line
  forerun dump --fast /dev/nvme0n1p3 --superblocks")]
pub struct DumpOptions {
    #[command(flatten)]
    pub which: WhichTiers,
    /// The superblocks
    #[arg(long)]
    pub superblocks: bool,
    /// The journal's records and their changes
    #[arg(long)]
    pub journal: bool,
    /// The checkpoints' facts
    #[arg(long)]
    pub checkpoint: bool,
    /// Where each block is: slots, layer, place
    #[arg(long)]
    pub map: bool,
    /// HEAD and the layers; with EPOCH also the entries of the layer that holds it
    #[arg(long, value_name = "EPOCH")]
    pub layers: Option<Option<u32>>,
    /// The segments with their records, or one of them by its number
    #[arg(long, value_name = "ID")]
    pub segments: Option<Option<u64>>,
    /// Only blocks FROM to TO, both included
    #[arg(long, value_name = "FROM..TO")]
    pub blocks: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Options of `repair`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Makes new tiers, at new places, of what can be read of both old ones, checks them, and then, as
the last step, puts the new places into the volume's configuration. The old tiers are only
read, and stay as they are; so do the old configuration and the report, beside the new one. A
crash at any moment leaves the old volume or the repaired one; just run it again. It says
exactly what is lost: blocks (they read as zeros), writes after some moment, snapshots. A
snapshot that lost blocks is kept as NAME.damaged. Begin with --dry-run. Once the repaired
volume has run, the old fast tier is refused. The volume must be stopped.

Which to give: --to-fast when the fast tier is lost or damaged; --to-capacity when the capacity
tier is damaged; both when HEAD or both are.

Exit codes:
  0  done, and nothing is lost
  1  not done, for the reason printed; the volume is as it was
  2  wrong usage
  3  no such volume
  6  done, and something is lost (with --dry-run: would be)

Examples:
  forerun repair data --to-fast /dev/nvme1n1p1 --dry-run
  forerun repair data --to-fast /dev/nvme1n1p1
  # The old fast tier is gone for good
  forerun repair data --to-fast /fast/new.img --fast-size 64G --without-fast
  forerun repair data --to-capacity /srv/forerun/data-2
  forerun repair data --to-capacity s3://bucket/data-2
  forerun repair data --to-fast /dev/nvme1n1p1 --to-capacity /srv/forerun/data-2 --json")]
pub struct RepairOptions {
    /// The volume
    pub volume: VolumeName,
    /// Make a new fast tier here: an empty block device, or a file
    #[arg(long, value_name = "PATH", required_unless_present = "to_capacity")]
    pub to_fast: Option<PathBuf>,
    /// The size of the file to be made for it; without it as large as the old one's
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "to_fast")]
    pub fast_size: Option<u64>,
    /// Make a new capacity tier here: a new or empty directory, or s3://BUCKET/PREFIX (gs://, az:// likewise) with nothing there
    #[arg(long, value_name = "PLACE")]
    pub to_capacity: Option<CapacityAddress>,
    /// The fast tier is gone for good, or not to be used: what was not yet on the capacity tier is lost
    #[arg(long, requires = "to_fast", conflicts_with = "without_capacity")]
    pub without_fast: bool,
    /// The capacity tier is gone for good, or not to be used: what the fast tier does not have is lost
    #[arg(long, requires = "to_fast", requires = "to_capacity")]
    pub without_capacity: bool,
    /// Only say what would come of it; changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}
