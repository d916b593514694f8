//! Images of disks: raw ones, and qcow2 by `qemu-img`.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use serde::Deserialize;

use super::super::volume_device::VolumeDevice;

/// The converter; Debian's package qemu-utils.
const QEMU_IMG: &str = "qemu-img";

/// Whether a file that begins with these bytes is a qcow2 image.
pub fn is_qcow2(beginning: &[u8]) -> bool {
    beginning.starts_with(b"QFI\xfb")
}

/// Copies an image from the volume's first byte on, leaving out blocks of zeros; gives the bytes written. The volume holds
/// nothing before.
///
/// # Errors
/// The image cannot be read, or has more bytes than the volume.
pub fn copy_raw(image: &mut impl Read, device: &VolumeDevice) -> anyhow::Result<u64> {
    let mut written = 0;
    for block in 0u32.. {
        let mut data = Vec::new();
        image.take(BLOCK_BYTES).read_to_end(&mut data).context("cannot read the image")?;
        if data.is_empty() {
            break;
        }
        if block >= device.geometry().blocks() {
            bail!("the image is larger than the volume, which has {} bytes", device.geometry().size_bytes());
        }
        let last = (data.len() as u64) < BLOCK_BYTES;
        if data.iter().any(|byte| *byte != 0) {
            // A device takes whole logical blocks; what is behind the image's end is zeros.
            data.resize(BLOCK_BYTES as usize, 0);
            device.write(BlockIndex(block), &data)?;
            written += BLOCK_BYTES;
        }
        if last {
            break;
        }
    }
    Ok(written)
}

/// What `qemu-img info` says of an image that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageInfo {
    backing_filename: Option<String>,
    format_specific: Option<FormatSpecific>,
}

#[derive(Deserialize)]
struct FormatSpecific {
    data: SpecificData,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    data_file: Option<String>,
}

impl ImageInfo {
    /// Another file that holds a part of the image's content.
    fn other_file(self) -> Option<String> {
        self.backing_filename.or(self.format_specific.and_then(|specific| specific.data.data_file))
    }
}

fn not_run(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "qcow2 images are converted by {QEMU_IMG}, which is not there: apt-get install qemu-utils"
        ),
        _ => anyhow!(error).context(format!("cannot run {QEMU_IMG}")),
    }
}

/// Refuses an image that is more than its own file: whoever made it could have any file of this machine read.
///
/// # Errors
/// It names another file; there is no `qemu-img`; it is no sound image.
pub fn refuse_other_files(image: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(QEMU_IMG);
    let said =
        command.args(["info", "-f", "qcow2", "--output=json", "--"]).arg(image).output().map_err(not_run)?;
    if !said.status.success() {
        bail!("{QEMU_IMG}: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    let info: ImageInfo = serde_json::from_slice(&said.stdout)
        .with_context(|| format!("{QEMU_IMG} info says what is not understood"))?;
    if let Some(other) = info.other_file() {
        bail!(
            "{} has a part of its content in another file, {other:?}; make one image of both with `qemu-img convert`",
            image.display()
        );
    }
    Ok(())
}

/// `qemu-img check` found clusters that nothing uses, which does no harm.
const ONLY_LEAKS: i32 = 3;

/// Refuses an image that is not whole: what is missing of one that was cut off would be taken for zeros.
///
/// # Errors
/// It is damaged; there is no `qemu-img`.
pub fn refuse_damaged(image: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(QEMU_IMG);
    let said = command.args(["check", "-f", "qcow2", "--"]).arg(image).output().map_err(not_run)?;
    if !said.status.success() && said.status.code() != Some(ONLY_LEAKS) {
        let words = String::from_utf8_lossy(&said.stderr);
        bail!(
            "{} is damaged, or was cut off; nothing was imported; {QEMU_IMG} check says: {}",
            image.display(),
            words.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

/// Converts a qcow2 image onto a device.
///
/// # Errors
/// There is no `qemu-img`, or it fails; it has said why.
pub fn convert_qcow2(image: &Path, device: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(QEMU_IMG);
    command.args(["convert", "-n", "-f", "qcow2", "-O", "raw", "-t", "none", "-T", "none", "--"]);
    let status = command.arg(image).arg(device).status().map_err(not_run)?;
    if !status.success() {
        bail!("{QEMU_IMG} could not convert {} ({status})", image.display());
    }
    Ok(())
}
