//! Putting a volume together from its two tiers, whatever they are.

use std::sync::Arc;

use forerun::geometry::{Epoch, Geometry};

use crate::background::Shared;
use crate::capacity_tier::{CapacityError, CapacityTier, Counted, Place, Store};
use crate::fast_tier::log::DeltaLog;
use crate::fast_tier::{Committer, Health};
use crate::volume::{Recovered, Recovery, Unsound, Volume};

/// Why two tiers make no volume.
#[derive(Debug)]
pub(crate) enum NoMap {
    /// The capacity tier cannot be read.
    Capacity(CapacityError),
    /// The fast tier's open epoch is not newer than the capacity tier's newest.
    FastTierIsOld { fast: Epoch, capacity: Epoch },
    /// What the fast tier remembers cannot be.
    Unsound(Unsound),
}

/// Builds the map from what the fast tier remembers and from the capacity tier's layers; counts for the writer to come.
pub(crate) async fn build_map<S: Store>(
    tier: &CapacityTier<S>,
    geometry: Geometry,
    slots: u32,
    log: Arc<dyn DeltaLog>,
    recovered: &Recovered,
    opened_us: u64,
) -> Result<(Volume, Counted), NoMap> {
    let written_back = tier.head().written_back_epoch();
    let open = recovered.open_epoch();
    if open <= written_back {
        return Err(NoMap::FastTierIsOld { fast: open, capacity: written_back });
    }
    let recovery = Recovery::begin(geometry, slots, log, recovered, written_back, opened_us);
    let mut recovery = recovery.map_err(NoMap::Unsound)?;
    let counted = tier
        .load_map(&mut |block, epoch, place| recovery.place(block, epoch, place.map(Place::word)))
        .await
        .map_err(NoMap::Capacity)?;
    Ok((recovery.finish(), counted))
}

/// Lets the journal tell the map what has become durable, and take checkpoints of it.
pub(crate) fn connect(committer: &Committer, shared: &Arc<Shared>) {
    let after = shared.clone();
    committer.after_commit(move || {
        if after.committer.status().health != Health::Good {
            after.volume.stats().journal_failures.add(1);
        }
        after.volume.reclaim();
        after.volume.room().wake_all();
    });
    committer.checkpoints(shared.clone());
}
