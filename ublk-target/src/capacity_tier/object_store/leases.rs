//! Leases on epochs: objects that a reader rewrites for as long as it reads.
//!
//! A lease ends when its object is deleted, or when the writer has not seen it change for [`Timing::lease_expiry`] by
//! the writer's own clock: no two hosts' clocks are compared. A reader that is cut off from the store for longer may find
//! its objects gone when it is back; its reads then fail.
//!
//! [`Timing::lease_expiry`]: super::timing::Timing::lease_expiry

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use forerun::geometry::Epoch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::bucket::{Bucket, Mark, Write};
use super::keys::{LEASES, lease_name, parse_lease};

/// A lease that is held.
pub struct ObjectLease {
    bucket: Bucket,
    name: String,
    renewal: AbortHandle,
}

impl ObjectLease {
    /// Deletes it, if the store answers soon.
    pub async fn end(mut self) {
        self.renewal.abort();
        let name = std::mem::take(&mut self.name);
        let deleted =
            tokio::time::timeout(self.bucket.timing.farewell, self.bucket.delete(LEASES, &name)).await;
        if !matches!(deleted, Ok(Ok(()))) {
            tracing::warn!(
                lease = name,
                "a snapshot's lease is left to expire; the snapshot counts as in use until then"
            );
        }
    }
}

impl Drop for ObjectLease {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        self.renewal.abort();
        let (bucket, name) = (self.bucket.clone(), std::mem::take(&mut self.name));
        // Where nothing runs any more it expires instead.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                if let Err(error) = bucket.delete(LEASES, &name).await {
                    tracing::debug!(%error, "a lease is left to expire");
                }
            }));
        }
    }
}

/// Takes a lease; what HEAD says from then on stays.
pub async fn take(bucket: &Bucket, epoch: Epoch) -> io::Result<ObjectLease> {
    let name = lease_name(epoch, Uuid::new_v4());
    renew(bucket, &name, 0).await?;
    let (renewing, key) = (bucket.clone(), name.clone());
    let renewal = tokio::spawn(async move {
        for count in 1u64.. {
            tokio::time::sleep(renewing.timing.lease_renewal).await;
            if let Err(error) = renew(&renewing, &key, count).await {
                tracing::warn!(%error, "a snapshot's lease was not renewed; tried again");
            }
        }
    });
    Ok(ObjectLease { bucket: bucket.clone(), name, renewal: renewal.abort_handle() })
}

async fn renew(bucket: &Bucket, name: &str, count: u64) -> io::Result<()> {
    bucket.put(LEASES, name, Bytes::from(format!("{count}\n")), Write::Replace).await
}

/// When which lease was last seen to change.
#[derive(Default)]
pub struct Watch(BTreeMap<String, (Mark, Instant)>);

impl Watch {
    /// The epochs on which somebody holds a lease, of the `listed` objects, and the names of those that have expired.
    fn note(
        &mut self,
        listed: Vec<super::bucket::Listed>,
        expiry: std::time::Duration,
    ) -> (Vec<Epoch>, Vec<String>) {
        let (now, mut held, mut expired) = (Instant::now(), Vec::new(), Vec::new());
        let mut seen = BTreeMap::new();
        for object in listed {
            let Some(epoch) = parse_lease(&object.name) else { continue };
            let changed = match self.0.remove(&object.name) {
                Some((mark, changed)) if mark == object.mark => changed,
                _ => now,
            };
            if now - changed < expiry {
                held.push(epoch);
                seen.insert(object.name, (object.mark, changed));
            } else {
                expired.push(object.name);
            }
        }
        self.0 = seen;
        (held, expired)
    }
}

/// The epochs that somebody holds a lease on; deletes leases that have expired.
pub async fn held(bucket: &Bucket, watch: &std::cell::RefCell<Watch>) -> io::Result<Vec<Epoch>> {
    let listed = bucket.list(LEASES).await?;
    let (held, expired) = watch.borrow_mut().note(listed, bucket.timing.lease_expiry);
    for name in expired {
        tracing::info!(lease = name, "whoever held this lease is gone");
        if let Err(error) = bucket.delete(LEASES, &name).await {
            tracing::debug!(%error, "an expired lease is left behind");
        }
    }
    Ok(held)
}
