//! Names that must be there, and what snapshots have to hold.

use std::collections::BTreeMap;
use std::time::Duration;

use forerun::config::SnapshotName;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch};
use tokio::sync::oneshot;

use super::history::BLOCK_SECTORS;
use super::machine::{Life, Machine, VOLUME};
use super::requests::{assert_whole, stamp_of};
use crate::background::Ask;
use crate::capacity_tier::memory_store::MemoryStore;
use crate::capacity_tier::{CapacityError, CapacityTier, Place, SnapshotName as TierName, VolumeUuid};
use crate::volume::lock;

/// Whether a snapshot has to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum There {
    Must,
    /// Making or deleting it has not been acknowledged.
    May,
}

/// The snapshots that were made and not deleted.
#[derive(Default)]
pub struct Names {
    names: BTreeMap<String, (Epoch, There)>,
    made: u32,
}

/// What came of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Called {
    Done,
    /// It was refused for a reason that is all right, and nothing changed.
    Refused,
    /// It failed: done or not.
    InDoubt,
}

impl Names {
    pub fn nth(&self, nth: usize) -> Option<(String, Epoch)> {
        let (name, (epoch, _)) = self.names.iter().nth(nth % self.names.len().max(1))?;
        Some((name.clone(), *epoch))
    }

    /// Makes one, as the API does.
    pub async fn create(&mut self, life: &Life) -> Called {
        self.made += 1;
        let (shared, name) = (life.shared(), format!("s{}", self.made));
        let Ok(epoch) = shared.sealer.seal(shared, Some(&name)) else { return Called::Refused };
        self.names.insert(name.clone(), (epoch, There::May));
        match shared.committer.commit().await {
            Ok(()) => {
                self.names.insert(name, (epoch, There::Must));
                Called::Done
            }
            Err(_) => Called::InDoubt,
        }
    }

    /// Deletes one, as the API does.
    pub async fn delete(&mut self, life: &Life, name: &str) -> Called {
        let Some((epoch, _)) = self.names.get(name).copied() else { return Called::Refused };
        let shared = life.shared();
        let kept = lock(&shared.kept).iter().any(|kept| kept.name.as_str() == name);
        let deleted = if kept {
            let (reply, answer) = oneshot::channel();
            let config_name = SnapshotName::new(name).expect("a sound name");
            self.names.insert(name.to_owned(), (epoch, There::May));
            life.threads.asks.send(Ask::Delete { name: config_name, reply }).is_ok()
                && matches!(answer.await, Ok(Ok(()) | Err(CapacityError::NoSuchSnapshot { .. })))
        } else {
            if !shared.volume.unname(epoch, name) {
                return Called::Refused;
            }
            self.names.insert(name.to_owned(), (epoch, There::May));
            shared.committer.commit().await.is_ok()
        };
        if !deleted {
            return Called::InDoubt;
        }
        self.names.remove(name);
        Called::Done
    }

    /// After an opening: what must be there is, and nothing else but what may.
    pub fn settle(&mut self, life: &Life, machine_head: &[(String, Epoch)]) {
        let mut found: BTreeMap<String, Epoch> = machine_head.iter().cloned().collect();
        let layers = life.shared().volume.layers();
        for layer in layers.live() {
            if let Some(name) = layers.with_info(layer, |info| info.snapshot.clone()) {
                found.insert(name, layers.epoch(layer));
            }
        }
        for (name, (epoch, there)) in &self.names {
            match found.get(name) {
                Some(of) => assert_eq!(of, epoch, "snapshot {name} is of another epoch"),
                None => assert_eq!(*there, There::May, "snapshot {name} of epoch {epoch} is lost: {found:?}"),
            }
        }
        for name in found.keys() {
            assert!(self.names.contains_key(name), "snapshot {name} had been deleted, and is back");
        }
        self.names.retain(|name, _| found.contains_key(name));
        self.names.values_mut().for_each(|(_, there)| *there = There::Must);
    }
}

/// The snapshots that HEAD names.
pub async fn of_head(store: &MemoryStore) -> Result<Vec<(String, Epoch)>, CapacityError> {
    let tier = CapacityTier::open_reader_in(store.clone(), Some(VolumeUuid(*VOLUME.as_bytes()))).await?;
    let head = tier.head();
    Ok(head.snapshots().map(|(name, layer)| (name.as_str().to_owned(), layer.last_epoch)).collect())
}

/// Reads all of a snapshot that is on the capacity tier, and compares. Errors are for the caller to judge.
pub async fn read_all(machine: &Machine, name: &str, slowly: bool) -> Result<(), CapacityError> {
    let tier_name = TierName::new(name).expect("a sound name");
    let uuid = VolumeUuid(*VOLUME.as_bytes());
    let store = machine.store.clone();
    let (tier, epoch) = CapacityTier::open_snapshot_in(|| Ok(store.clone()), Some(uuid), &tier_name).await?;
    let mut places: BTreeMap<BlockIndex, Place> = BTreeMap::new();
    let mut put = |block, _, place: Option<Place>| {
        match place {
            Some(place) => places.insert(block, place),
            None => places.remove(&block),
        };
    };
    tier.load_places(Some(epoch), &mut put).await?;
    let truth = lock(&machine.truth).of_epoch(epoch).map(<[_]>::to_vec);
    let truth = truth.unwrap_or_else(|| panic!("snapshot {name} is of epoch {epoch}, which never ended"));
    for (number, expected) in truth.chunks(BLOCK_SECTORS).enumerate() {
        let block = BlockIndex(number as u32);
        let mut data = vec![0; BLOCK_BYTES as usize];
        if let Some(place) = places.remove(&block) {
            tier.read_block(place, block, &mut data).await?;
        }
        if slowly {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for (n, (bytes, (then, under_way))) in data.chunks(512).zip(expected).enumerate() {
            assert_whole(n, bytes);
            let read = stamp_of(bytes);
            assert!(
                read == *then || Some(read) == *under_way,
                "snapshot {name} (epoch {epoch}), block {block}, sector {n} of it: {read}, and was {then} or {under_way:?}"
            );
        }
    }
    assert!(places.is_empty(), "blocks that were never written: {places:?}");
    Ok(())
}

/// Whether a sector held different things, whatever came of the writes under way.
fn surely_differ((a, busy_a): (u64, Option<u64>), (b, busy_b): (u64, Option<u64>)) -> bool {
    busy_a.is_none() && busy_b.is_none() && a != b
}

/// Every block that differs between two epochs' ends is in the change vector of what lies between.
pub fn check_vector(life: &Life, machine: &Machine, epoch: Epoch) {
    let Some(sealed) = life.shared().vector(epoch).filter(|sealed| sealed.vector.epoch == epoch) else {
        return;
    };
    let truth = lock(&machine.truth);
    let (Some(before), Some(after)) =
        (truth.of_epoch(Epoch(epoch.0.saturating_sub(1))), truth.of_epoch(epoch))
    else {
        return;
    };
    for (number, (before, after)) in before.chunks(BLOCK_SECTORS).zip(after.chunks(BLOCK_SECTORS)).enumerate()
    {
        let block = BlockIndex(number as u32);
        if before.iter().zip(after).any(|(before, after)| surely_differ(*before, *after)) {
            let told = sealed.vector.changes().iter().any(|change| change.block == block);
            let differing =
                before.iter().zip(after).enumerate().find(|(_, pair)| surely_differ(*pair.0, *pair.1));
            assert!(
                told,
                "block {block} changed in epoch {epoch}, and its change vector does not say so: sector, before, after: {differing:?}; {:?}",
                sealed.vector
            );
        }
    }
}
