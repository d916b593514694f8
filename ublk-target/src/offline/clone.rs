//! Clone: a new volume on a snapshot of another one, with the origin's data shared and never copied.
//!
//! In order, and what a crash leaves: folders of a capacity tier without HEAD; what `capacity_tier/clone.rs` says; half a
//! fast tier. The same command goes on from there, with the same uuid. What fails is taken back, the pins last.

use std::path::Path;

use anyhow::Context;
use forerun::config::{CapacityAddress, SnapshotName, VolumeConfig, VolumePaths};
use uuid::Uuid;

use super::restore::{Seen, fits, fresh_fast_tier};
use crate::background::now_us;
use crate::capacity_tier::{
    self, AnyStore, CapacityError, CapacityTier, CloneOrder, Store as _, VolumeUuid, clone_snapshot,
    forget_clone, remove_created, volume_in,
};

/// Makes the volume that `config` names of a snapshot of the one in `origin`. Gives what it begins with.
///
/// # Errors
/// No such snapshot on the capacity tier; an origin of another shape, or that cannot be written to; tiers that hold
/// something else. What was made is taken back then.
pub fn clone(
    config: &VolumeConfig,
    paths: &VolumePaths,
    origin: &CapacityAddress,
    snapshot: &SnapshotName,
) -> anyhow::Result<Seen> {
    tokio_uring::start(async {
        let address = &config.capacity.address;
        let clone = VolumeUuid(*config.uuid.as_bytes());
        let was_there = address.directory().is_some_and(Path::exists);
        let (from, to) = (AnyStore::at(origin)?, AnyStore::at(address)?);
        if !is_ours(address, clone).await? {
            to.prepare(address).await?;
        }
        let order = CloneOrder {
            snapshot: capacity_tier::SnapshotName::new(snapshot.as_str())?,
            clone,
            name: config.name.to_string(),
            now_us: now_us(),
        };
        let made = make(config, paths, &from, &to, &order).await;
        if made.is_err() {
            take_back(address, !was_there, &from, clone).await;
        }
        made
    })
}

async fn make(
    config: &VolumeConfig,
    paths: &VolumePaths,
    from: &AnyStore,
    to: &AnyStore,
    order: &CloneOrder,
) -> anyhow::Result<Seen> {
    let context = || format!("clone of {}", from.place());
    let head = clone_snapshot(from, to, order).await.with_context(context)?;
    fits(&head, config.geometry).with_context(context)?;
    fresh_fast_tier(config, paths, &head)?;
    Ok(Seen::of(&head))
}

/// Whether an earlier attempt at the same clone got as far as its HEAD.
async fn is_ours(address: &CapacityAddress, clone: VolumeUuid) -> Result<bool, CapacityError> {
    match CapacityTier::open_reader(address, None).await {
        Ok(tier) => Ok(tier.head().volume == clone && tier.head().sequence == 1),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is a HEAD, or it cannot be told.
async fn has_head(address: &CapacityAddress) -> bool {
    match CapacityTier::open_reader(address, None).await {
        Ok(_) => true,
        Err(error) => !error.is_not_found(),
    }
}

/// Takes back what was made: the clone's HEAD and folders, then what its origins keep for it.
async fn take_back(address: &CapacityAddress, whole: bool, from: &AnyStore, clone: VolumeUuid) {
    let head = CapacityTier::open_reader(address, Some(clone)).await.map(|tier| tier.head());
    let untouched = head.as_ref().is_ok_and(|head| head.sequence == 1);
    if !untouched && has_head(address).await {
        // Somebody else's, who came in between.
        return;
    }
    if let Err(error) = remove_created(address, whole).await {
        tracing::warn!(%error, place = %address, "what was made for the capacity tier is left there");
    }
    if has_head(address).await {
        return;
    }
    let origins = head.map(|head| head.origins.clone()).unwrap_or_default();
    let addresses = origins.iter().map(|origin| origin.address.clone()).chain([from.place()]);
    for address in addresses {
        let forgotten = match from.other(&address) {
            Ok(store) => forget(&store, clone, true).await,
            Err(source) => Err(CapacityError::Io { operation: "use", place: address, source }),
        };
        if let Err(error) = forgotten
            && !matches!(error, CapacityError::NoSuchClone { .. } | CapacityError::NoVolume { .. })
        {
            tracing::warn!(%error, "what an origin keeps for this clone is left there; `forerun check` names it");
        }
    }
}

async fn forget(
    store: &AnyStore,
    clone: VolumeUuid,
    force: bool,
) -> Result<capacity_tier::Pin, CapacityError> {
    let volume = volume_in(store).await?;
    forget_clone(store, volume, clone, now_us(), force).await
}

/// Lets go of what the volume in `capacity` keeps for a clone that is gone. Gives the clone's address.
///
/// # Errors
/// It keeps nothing for it; the clone is there, or it cannot be told, unless `force` is given.
pub fn forget_at(capacity: &CapacityAddress, clone: Uuid, force: bool) -> anyhow::Result<String> {
    let store = AnyStore::at(capacity)?;
    let clone = VolumeUuid(*clone.as_bytes());
    let forgotten = tokio_uring::start(forget(&store, clone, force));
    Ok(forgotten.with_context(|| format!("capacity tier {capacity}"))?.address)
}
