//! `grow`: a volume becomes larger, while it is in use where the kernel can do that; or its fast tier.

use anyhow::Context;
use clap::Args;
use forerun::api::v1::{GrowFastTierRequest, GrowVolumeRequest};
use forerun::config::{Paths, VolumeName, format_size, parse_size};
use serde::Serialize;

use super::failure::Failure;
use super::{client, offline, output};

/// Options of `grow`.
#[derive(Args, Debug)]
#[command(
    override_usage = "\
forerun grow [--json] <VOLUME> <SIZE>
       forerun grow [--json] <VOLUME> --fast <SIZE>",
    after_long_help = "\
The new room reads as zeros, and costs nothing before it is written to. A volume does not shrink.

While the volume is running its device grows at once where the kernel's ublk driver can do that
(Linux 6.16 and later); with an older one stop the volume, grow it, and add it again. Snapshots
are shown with the volume's new size.

With --fast it is the fast tier that grows: a file is made larger, of a block device that you have
made larger more is taken into use. The volume has to be running for that, whatever the kernel.

Examples:
  forerun grow data 200G                 # to 200 GiB
  forerun grow data +50G                 # by 50 GiB
  resize2fs /dev/ublkb0                  # then what is on it: ext4
  xfs_growfs /srv/data                   # or XFS, by its mount point
  forerun grow data --fast +20G          # 20 GiB more of fast tier, in its file
  lvextend -L +20G vg/fast && forerun grow data --fast all"
)]
pub struct GrowOptions {
    /// The volume
    pub volume: VolumeName,
    /// The new size, or with + in front how much more: a number with K, M, G or T, a multiple of 64K
    #[arg(
        value_parser = parse_growth,
        allow_hyphen_values = true,
        required_unless_present = "fast",
        conflicts_with = "fast"
    )]
    pub size: Option<Growth>,
    /// Grow the fast tier instead: to a size, with + in front by so much, or to 'all' of its block device
    #[arg(long, value_name = "SIZE", value_parser = parse_fast_growth, allow_hyphen_values = true)]
    pub fast: Option<Growth>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How large a volume is to become, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// To so many.
    To(u64),
    /// By so many.
    By(u64),
    /// As many as there are: of a block device.
    All,
}

impl Growth {
    /// The size wanted of a volume that has `now` bytes; the range is checked by whoever grows it.
    fn size_bytes(self, now: u64) -> u64 {
        match self {
            Self::To(bytes) => bytes,
            Self::By(bytes) => now.saturating_add(bytes),
            Self::All => now,
        }
    }
}

fn parse_growth(text: &str) -> Result<Growth, String> {
    let parse = |text| parse_size(text).map_err(|error| error.to_string());
    match text.strip_prefix('+') {
        Some(more) => parse(more).map(Growth::By),
        None => parse(text).map(Growth::To),
    }
}

fn parse_fast_growth(text: &str) -> Result<Growth, String> {
    if text == "all" { Ok(Growth::All) } else { parse_growth(text) }
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Grown {
    volume: String,
    previous_size_bytes: u64,
    size_bytes: u64,
    /// Its device, which shows the new size; none where the volume is stopped.
    device: Option<String>,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &GrowOptions) -> anyhow::Result<()> {
    let GrowOptions { volume, size, fast, json } = options;
    if let Some(growth) = fast {
        return fast_tier(paths, volume, *growth, *json);
    }
    let size = size.context("no size is given")?;
    let mut grown = match running(paths, volume, size) {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning(_))) => {
            stopped(paths, volume, size)?
        }
        other => other?,
    };
    if *json {
        return Ok(output::json(&grown)?);
    }
    let (before, now) = (format_size(grown.previous_size_bytes), format_size(grown.size_bytes));
    let mut text = match grown.previous_size_bytes == grown.size_bytes {
        true => format!("volume {volume} has {now} already\n"),
        false => format!("volume {volume} has {now}, had {before}\n"),
    };
    if grown.previous_size_bytes != grown.size_bytes {
        text += &match grown.device.take() {
            Some(device) => format!(
                "{device} shows it; grow what is on it, too (`resize2fs {device}`, `xfs_growfs MOUNTPOINT`)\n"
            ),
            None => format!("`forerun add {volume}` shows it\n"),
        };
    }
    Ok(output::text(&text)?)
}

fn running(paths: &Paths, volume: &VolumeName, size: Growth) -> anyhow::Result<Grown> {
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let ask = forerun::api::v1::GetVolumeStatusRequest { volume_id: volume.to_string() };
        let status = client.get_volume_status(ask).await.map_err(client::failure)?.into_inner();
        let size_bytes = size.size_bytes(status.size_bytes);
        let request = GrowVolumeRequest { volume_id: volume.to_string(), size_bytes };
        let answer = client.grow_volume(request).await.map_err(client::failure)?.into_inner();
        Ok(Grown {
            volume: volume.to_string(),
            previous_size_bytes: answer.previous_size_bytes,
            size_bytes: answer.size_bytes,
            device: Some(status.device),
        })
    })
}

/// What is printed with `--fast --json`.
#[derive(Serialize)]
struct FastGrown {
    volume: String,
    previous_size_bytes: u64,
    size_bytes: u64,
    block_bytes: u64,
}

fn fast_tier(paths: &Paths, volume: &VolumeName, growth: Growth, json: bool) -> anyhow::Result<()> {
    let (size_bytes, more_bytes) = match growth {
        Growth::To(bytes) => (bytes, 0),
        Growth::By(more) => (0, more),
        Growth::All => (0, 0),
    };
    let asks_for_nothing = growth != Growth::All && size_bytes == 0 && more_bytes == 0;
    if asks_for_nothing {
        return Err(Failure::Refused("--fast takes a size that is more than 0, or 'all'".to_owned()).into());
    }
    let grown = client::block_on(async {
        let mut client = client::connect(paths, volume, client::WAITING_CALL_LIMIT).await?;
        let request = GrowFastTierRequest { volume_id: volume.to_string(), size_bytes, more_bytes };
        let answer = client.grow_fast_tier(request).await.map_err(client::failure)?.into_inner();
        anyhow::Ok(FastGrown {
            volume: volume.to_string(),
            previous_size_bytes: answer.previous_size_bytes,
            size_bytes: answer.size_bytes,
            block_bytes: answer.block_bytes,
        })
    })?;
    if json {
        return Ok(output::json(&grown)?);
    }
    let (before, now) = (format_size(grown.previous_size_bytes), format_size(grown.size_bytes));
    let text = match grown.previous_size_bytes == grown.size_bytes {
        true => format!("the fast tier of volume {volume} has {now} already\n"),
        false => format!(
            "the fast tier of volume {volume} has {now}, had {before}; it holds {} of blocks\n",
            format_size(grown.block_bytes)
        ),
    };
    Ok(output::text(&text)?)
}

/// The tiers of a stopped volume learn of its size when they are opened.
fn stopped(paths: &Paths, volume: &VolumeName, size: Growth) -> anyhow::Result<Grown> {
    offline::stopped(paths, volume)?;
    let mut config = client::load_config(paths, volume)?;
    let previous_size_bytes = config.geometry.size_bytes();
    let refused =
        |error: forerun::geometry::GeometryError| Failure::Refused(format!("volume {volume}: {error}"));
    config.geometry = config.geometry.grown_to(size.size_bytes(previous_size_bytes)).map_err(refused)?;
    config
        .store(&paths.volume(volume))
        .with_context(|| format!("volume {volume}: the new size cannot be noted"))?;
    let size_bytes = config.geometry.size_bytes();
    Ok(Grown { volume: volume.to_string(), previous_size_bytes, size_bytes, device: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_or_how_much_more() {
        assert_eq!(parse_growth("2G"), Ok(Growth::To(2 << 30)));
        assert_eq!(parse_growth("+64M"), Ok(Growth::By(64 << 20)));
        assert_eq!(parse_fast_growth("all"), Ok(Growth::All));
        assert!(parse_growth("all").is_err());
        assert!(parse_growth("-1G").is_err() && parse_growth("+").is_err() && parse_growth("").is_err());
        assert_eq!(Growth::By(1 << 20).size_bytes(64 << 20), 65 << 20);
        assert_eq!(Growth::By(u64::MAX).size_bytes(1), u64::MAX);
    }
}
