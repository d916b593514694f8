//! Making a clone: a volume whose first layers and segments are those of another one's snapshot, shared and never copied.
//!
//! In order, and what a crash leaves:
//! 1. HEAD of the origin is read: nothing has changed;
//! 2. a pin is written into the store of the origin, and of each of its own origins: pins of a clone that is not there,
//!    which `forerun check` names and `forerun forget` removes; the same attempt again writes them anew;
//! 3. HEAD of the origin is read again. If it still has the layers that the pins are for, then its writer deletes nothing of
//!    them any more: that looks at the pins after it has seen, in HEAD, what to delete. Otherwise 2 is done anew;
//! 4. the clone's HEAD is written: the clone is there, whole.
//!
//! It works the same whether the origin has a writer or not, and on any machine that reaches its store.

use super::error::{CapacityError, Result};
use super::head::{Head, LayerInfo};
use super::names::{SnapshotName, VolumeUuid};
use super::origin::{MAX_ORIGINS, Origin, is_address};
use super::pin::Pin;
use super::store::Store;
use super::tier::{read_head, write_first_head};

/// So often the layers may change under the making of a clone until it is given up.
const ATTEMPTS: usize = 16;
/// So long after its pin a clone that has no HEAD may be in the making: ten minutes, where seconds are needed.
const IN_THE_MAKING_US: u64 = 600_000_000;

/// What is cloned, and as what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloneOrder {
    /// The snapshot that the clone begins with.
    pub snapshot: SnapshotName,
    /// The clone.
    pub clone: VolumeUuid,
    /// Its name on this machine, for people.
    pub name: String,
    /// Now, in microseconds since 1970.
    pub now_us: u64,
}

/// Makes a clone of a snapshot in `origin`, with its HEAD in `new`, where there is none. Gives the clone's HEAD.
///
/// # Errors
/// No such snapshot; a chain of clones that is too long; an origin that cannot be written to or whose layers change all the
/// time; a store that has a HEAD already, or that fails. Pins may be left then: the same again takes them over.
pub async fn clone_snapshot<S: Store>(origin: &S, new: &S, order: &CloneOrder) -> Result<Head> {
    for place in [origin.place(), new.place()] {
        if !is_address(&place) {
            let (limit, advice) = (super::origin::MAX_ADDRESS_BYTES as u64, "give a shorter path");
            return Err(CapacityError::Limit {
                what: "addresses of a clone's tiers, in bytes,",
                limit,
                advice,
            });
        }
    }
    match read_head(new, None).await {
        // An attempt that did not come to its end got as far as this: what it needs is pinned.
        Ok((head, _)) if head.volume == order.clone && head.sequence == 1 => {
            new.settle_head().await.map_err(|source| io("make durable", new, "HEAD", source))?;
            return Ok(head);
        }
        Ok(_) => {
            return Err(CapacityError::NotEmpty { place: new.place(), found: "a volume (HEAD)".to_owned() });
        }
        Err(CapacityError::NoVolume { .. }) => {}
        Err(error) => return Err(error),
    }
    for _ in 0..ATTEMPTS {
        let (seen, _) = read_head(origin, None).await?;
        let head = planned(origin, &seen, order)?;
        for pinned in &head.origins {
            put_pin(origin, new, pinned, seen.volume, order).await?;
        }
        // A HEAD that a power cut would take back is no ground for another volume.
        origin.settle_head().await.map_err(|source| io("make durable", origin, "HEAD", source))?;
        let (now, _) = read_head(origin, None).await?;
        if planned(origin, &now, order).is_ok_and(|now| same_needs(&head, &now)) {
            return write_first_head(new, head).await;
        }
    }
    Err(CapacityError::Overtaken)
}

/// The first HEAD of the clone, by one of its origin.
fn planned<S: Store>(store: &S, origin: &Head, order: &CloneOrder) -> Result<Head> {
    let missing = || CapacityError::NoSuchSnapshot { name: order.snapshot.clone() };
    let epoch = origin.snapshot(&order.snapshot).ok_or_else(missing)?.last_epoch;
    let layers = origin.layers_up_to(epoch).ok_or_else(missing)?.iter();
    let layers = layers.map(|layer| LayerInfo { snapshot: None, reclaim: false, ..layer.clone() }).collect();
    let older = origin.origins.iter().filter(|older| !older.left);
    let mut origins: Vec<Origin> = older.map(|older| Origin { promoting: false, ..older.clone() }).collect();
    if origins.len() >= MAX_ORIGINS {
        let advice = "promote one of the volumes in between ('forerun promote')";
        return Err(CapacityError::Limit { what: "clones of clones", limit: MAX_ORIGINS as u64, advice });
    }
    let (volume, below, address) = (origin.volume, origin.numbers_taken_to, store.place());
    origins.push(Origin { volume, below, epoch, address, promoting: false, left: false });
    let base = Head::new(order.clone, origin.geometry);
    Ok(Head { numbers_taken_to: below, layers, origins, ..base })
}

/// Whether a clone by the second HEAD needs no more than the pins that were written for the first keep.
fn same_needs(pinned: &Head, now: &Head) -> bool {
    let tables = |head: &Head| head.layers.iter().map(|layer| layer.id).collect::<Vec<_>>();
    let origins = |head: &Head| {
        let older = head.origins.iter().rev().skip(1).rev();
        older.map(|origin| (origin.volume, origin.below, origin.epoch)).collect::<Vec<_>>()
    };
    tables(pinned) == tables(now) && origins(pinned) == origins(now)
}

async fn put_pin<S: Store>(
    origin: &S,
    new: &S,
    pinned: &Origin,
    direct: VolumeUuid,
    order: &CloneOrder,
) -> Result<()> {
    let pin = pin_of(pinned, order.clone, order.name.clone(), new.place(), order.now_us);
    let put = match pinned.volume == direct {
        true => origin.put_pin(order.clone, pin.encode()).await,
        false => match origin.other(&pinned.address) {
            Ok(store) => store.put_pin(order.clone, pin.encode()).await,
            Err(error) => Err(error),
        },
    };
    put.map_err(|source| {
        let place = format!("{}/clones/{}", pinned.address, order.clone);
        CapacityError::Io { operation: "write", place, source }
    })
}

/// The pin that a clone has in the store of one of its origins.
pub(super) fn pin_of(origin: &Origin, clone: VolumeUuid, name: String, address: String, now_us: u64) -> Pin {
    let Origin { volume, below, epoch, .. } = *origin;
    Pin { origin: volume, clone, below, epoch, created_us: now_us, name, address, broken: None }
}

fn io<S: Store>(operation: &'static str, store: &S, what: &str, source: std::io::Error) -> CapacityError {
    CapacityError::Io { operation, place: format!("{}/{what}", store.place()), source }
}

/// What became of a clone, as far as its origin can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloneState {
    /// Its HEAD refers to the origin.
    There,
    /// There is no HEAD at its address: it was deleted or never finished, or its file system is not mounted.
    Missing,
    /// The volume at its address does not refer to the origin: it was promoted, or another one is there.
    Released,
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// Looks after the clone that a pin in `store` is for.
pub async fn clone_state<S: Store>(store: &S, pin: &Pin) -> CloneState {
    if let Some(why) = &pin.broken {
        return CloneState::Unknown(why.clone());
    }
    let clone = match store.other(&pin.address) {
        Ok(clone) => clone,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return CloneState::Missing,
        Err(error) => return CloneState::Unknown(error.to_string()),
    };
    match read_head(&clone, None).await {
        Ok((head, _)) if head.volume != pin.clone => CloneState::Released,
        Ok((head, _)) if head.origins.iter().any(|origin| origin.volume == pin.origin && !origin.left) => {
            CloneState::There
        }
        Ok(_) => CloneState::Released,
        Err(error) if error.is_not_found() => CloneState::Missing,
        Err(error) => CloneState::Unknown(error.to_string()),
    }
}

/// Takes away the pin of a clone that is gone; `now_us` is in microseconds since 1970.
///
/// # Errors
/// No such pin; the clone is there, may be in the making, or it cannot be told, unless `force` is given; a failing store.
pub async fn forget_clone<S: Store>(
    store: &S,
    volume: VolumeUuid,
    clone: VolumeUuid,
    now_us: u64,
    force: bool,
) -> Result<Pin> {
    let pins = store.pins().await.map_err(|source| io("list", store, "clones", source))?;
    let found = pins.into_iter().find(|(of, _)| *of == clone);
    let (_, bytes) = found.ok_or_else(|| CapacityError::NoSuchClone { place: store.place(), clone })?;
    let pin = Pin::read(&bytes, volume, clone);
    let why = match clone_state(store, &pin).await {
        _ if force => None,
        // Between its pin and its HEAD a clone looks like one that is gone.
        CloneState::Missing if now_us < pin.created_us.saturating_add(IN_THE_MAKING_US) => {
            Some("it is not there, but its making began only just now".to_owned())
        }
        CloneState::Missing | CloneState::Released => None,
        CloneState::There => Some("it shares this volume's data".to_owned()),
        CloneState::Unknown(why) => Some(format!("whether it is needed cannot be told: {why}")),
    };
    if let Some(why) = why {
        return Err(CapacityError::CloneInUse { clone, place: pin.address, why });
    }
    store
        .remove_pin(clone)
        .await
        .map_err(|source| io("remove", store, &format!("clones/{clone}"), source))?;
    Ok(pin)
}
