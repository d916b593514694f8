//! A volume's device, held by one program alone and written in blocks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use forerun::api::v1::GetVolumeStatusRequest;
use forerun::config::{Paths, VolumeName};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Geometry};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::O_EXCL;

use super::client;

/// Blocks that are cleared in one call: 1 GiB.
const CLEAR_BLOCKS: u32 = 16_384;

/// The device.
pub struct VolumeDevice {
    path: PathBuf,
    file: File,
    geometry: Geometry,
}

/// Who else may have the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holders {
    /// Nobody may have it mounted or held, and nobody can while it is open.
    None,
    /// It does not matter.
    Any,
}

impl VolumeDevice {
    /// Opens it.
    ///
    /// # Errors
    /// It is in use and should not be, or cannot be opened.
    pub fn open(path: &Path, geometry: Geometry, holders: Holders) -> anyhow::Result<Self> {
        // On a block device this asks to be its only holder.
        let flags = if holders == Holders::None { O_EXCL } else { 0 };
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => {
                anyhow!("{} is mounted or held by another device: unmount it first", path.display())
            }
            _ => anyhow!(error).context(format!("cannot open {}", path.display())),
        })?;
        Ok(Self { path: path.to_owned(), file, geometry })
    }

    /// Its size and logical block size.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Writes the beginning of a block, or all of it.
    ///
    /// # Errors
    /// The device fails.
    pub fn write(&self, block: BlockIndex, data: &[u8]) -> anyhow::Result<()> {
        self.file
            .write_all_at(data, block.offset_bytes())
            .with_context(|| format!("cannot write block {block} to {}", self.path.display()))
    }

    /// Makes blocks hold nothing; they read as zeros.
    ///
    /// # Errors
    /// The device fails.
    pub fn clear(&self, first: BlockIndex, count: u32) -> anyhow::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let end = first.0.saturating_add(count).min(self.geometry.blocks());
        for from in (first.0..end).step_by(CLEAR_BLOCKS as usize) {
            let blocks = (end - from).min(CLEAR_BLOCKS);
            let offset = i64::try_from(BlockIndex(from).offset_bytes())?;
            fallocate(&self.file, flags, offset, i64::from(blocks) * BLOCK_BYTES as i64)
                .with_context(|| format!("cannot clear blocks from {from} on of {}", self.path.display()))?;
        }
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The device fails.
    pub fn sync(&self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("{} cannot make it durable", self.path.display()))
    }

    /// Lets go of it, all being durable; gives its path.
    ///
    /// # Errors
    /// The device fails.
    pub fn close(self) -> anyhow::Result<PathBuf> {
        self.sync()?;
        Ok(self.path)
    }

    /// Whether the volume has any data.
    ///
    /// # Errors
    /// It does not answer.
    pub fn holds_data(&self, paths: &Paths, volume: &VolumeName) -> anyhow::Result<bool> {
        let status = client::block_on(async {
            let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
            let request = GetVolumeStatusRequest { volume_id: volume.to_string() };
            client.get_volume_status(request).await.map_err(client::failure)
        })?;
        Ok(status.into_inner().mapped_bytes > 0)
    }
}
