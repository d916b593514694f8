//! Restore: a volume whose machine is lost goes on here, from its capacity tier alone.
//!
//! Nothing is copied: the capacity tier stays where it is, and the volume gets a fresh fast tier that knows only where to
//! go on. So it takes the time of reading HEAD and of writing an empty fast tier, whatever the volume's size. What had not
//! been written back is lost, and is told by the moment after which it was written.
//!
//! The last thing it does is to fence off the lost machine's writer, by a HEAD that says what it said: should it be alive
//! after all, it is told so; and the start of the volume waits for nobody.
//!
//! What a crash leaves: the capacity tier with the data it had, and half a fast tier, which the next attempt writes over.
//! The volume's new epochs begin at a seam far beyond the old ones, as after a repair: a fast tier that turns up again is
//! refused once they have begun, and cannot be laid over what came since.

use anyhow::{Context, bail};
use forerun::config::{CapacityAddress, VolumeConfig, VolumePaths};
use forerun::geometry::{Epoch, Geometry};
use serde::Serialize;

use super::repair::first_epoch;
use crate::background::now_us;
use crate::capacity_tier::{Alone, AnyStore, CapacityError, CapacityTier, Head, VolumeUuid};
use crate::fast_tier::delta::{Delta, Sealed};
use crate::fast_tier::rebuild::NewTier;
use crate::fast_tier::salvage::pending_generation;

/// What a capacity tier says of its volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Seen {
    /// The volume.
    pub uuid: String,
    /// The bytes it shows.
    pub size_bytes: u64,
    /// Its smallest request, in bytes.
    pub logical_block_bytes: u32,
    /// The newest epoch that is there; 0 where none is.
    pub epoch: u32,
    /// When that ended, in microseconds since 1970; 0 where there is none.
    pub sealed_us: u64,
    /// The snapshots' names, oldest first.
    pub snapshots: Vec<String>,
}

impl Seen {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            uuid: head.volume.to_string(),
            size_bytes: head.geometry.size_bytes(),
            logical_block_bytes: head.geometry.logical_block_bytes(),
            epoch: head.written_back_epoch().0,
            sealed_us: head.layers().last().map_or(0, |layer| layer.sealed_us),
            snapshots: head.snapshots().map(|(name, _)| name.to_string()).collect(),
        }
    }
}

/// Reads HEAD, whoever writes to it.
///
/// # Errors
/// No volume there, damage, a failing store.
pub fn look(capacity: &CapacityAddress) -> anyhow::Result<Seen> {
    let tier = tokio_uring::start(CapacityTier::open_reader(capacity, None));
    let tier = tier.with_context(|| format!("capacity tier {capacity}"))?;
    Ok(Seen::of(&tier.head()))
}

/// Makes the fast tier that `config` names for the volume on the capacity tier that it names. Gives what the volume goes on
/// from. With `fence`, a writer on another machine that did not close is not watched for a sign of life.
///
/// # Errors
/// No such volume there, or one of another shape; it has a writer; a fast tier that is missing, too small, in use, or that
/// holds something else; a failing store. The volume's data is as it was then.
pub fn restore(config: &VolumeConfig, paths: &VolumePaths, fence: bool) -> anyhow::Result<Seen> {
    tokio_uring::start(async {
        let capacity = &config.capacity.address;
        let context = || format!("capacity tier {capacity}");
        let volume = VolumeUuid(*config.uuid.as_bytes());
        // Before anything is claimed: whoever is fenced off is so for good.
        let path = &config.fast.path;
        NewTier::look(path, config.fast.size_bytes, config.uuid, config.geometry)
            .with_context(|| format!("fast tier {}", path.display()))?;
        // Held to the end, so that no writer comes meanwhile.
        let store = AnyStore::at(capacity).with_context(context)?;
        let store = if fence { store.fencing() } else { store };
        let mut alone = match Alone::take(store, Some(volume)).await {
            Err(error @ CapacityError::InUse { .. }) if !fence && capacity.directory().is_none() => {
                bail!(
                    "{error}; if that is another machine, which is to have it no more, `--fence` takes it over at once"
                )
            }
            taken => taken.with_context(context)?,
        };
        let fits = fits(&alone.head, config.geometry).with_context(context);
        let mut made = fits.and_then(|()| fresh_fast_tier(config, paths, &alone.head));
        if made.is_ok() {
            made = alone.supersede().await.with_context(context);
        }
        let seen = Seen::of(&alone.head);
        alone.end().await;
        made.map(|()| seen)
    })
}

pub(super) fn fits(head: &Head, geometry: Geometry) -> anyhow::Result<()> {
    if head.geometry != geometry {
        bail!("the volume there has another size than {} bytes; nothing was changed", geometry.size_bytes());
    }
    Ok(())
}

/// Makes a fast tier that goes on from what HEAD says: one sealed epoch that changed nothing, beyond all that were.
pub(super) fn fresh_fast_tier(config: &VolumeConfig, paths: &VolumePaths, head: &Head) -> anyhow::Result<()> {
    let path = &config.fast.path;
    let make = || -> anyhow::Result<()> {
        let file_bytes = if path.exists() { None } else { config.fast.size_bytes };
        let tier = NewTier::begin(path, file_bytes, config.uuid, config.geometry)?;
        let newest = head.layers().last();
        let now_us = now_us().max(newest.map_or(0, |layer| layer.sealed_us));
        let sealed = Sealed {
            epoch: first_epoch(newest.map_or(Epoch(0), |layer| layer.last_epoch)),
            opened_us: now_us,
            sealed_us: now_us,
            mapped_blocks: newest.map_or(0, |layer| layer.mapped_blocks),
        };
        // Beyond what an earlier life of the volume on this machine may have left in memory.
        let of_pending =
            pending_generation(&paths.pending(), config.uuid).context("the log of pending changes")?;
        Ok(tier.finish(of_pending + 16, now_us, &[Delta::Sealed(sealed)])?)
    };
    make().with_context(|| format!("fast tier {}", path.display()))
}
