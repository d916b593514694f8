//! The objects of a volume on an object store (S3 and the like).
//!
//! Segments and layers are what they are in a directory, under the same names; `keys` draws all keys. HEAD is not one
//! object that changes, but the greatest of many that do not, and what keeps two writers apart is the order in which
//! they write and list (`claims`): a server that ignores conditional writes, or that lets two of them win, does no harm.
//!
//! A request that was given up may still be carried out later. So nothing is ever written twice under one
//! key but for what only shows that somebody lives, and a HEAD that arrives late is below the one that came after
//! it.

mod ability;
mod address;
mod bucket;
mod claims;
mod fault;
mod heads;
mod holder;
mod keys;
mod leases;
mod pins;
mod provider;
#[cfg(test)]
pub(crate) mod simulated;
mod timing;
mod upload;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use forerun::geometry::{Epoch, Generation};

use super::names::{ObjectKind, ObjectName, VolumeUuid};
use super::store::{HeadNumber, ReplaceError, Store, StoreSpace, UNLIMITED};
use ability::Ability;
pub use address::open_address;
use bucket::{Bucket, Clients, Write};
use claims::{Claim, Unclosed, Verdict};
use holder::Holder;
use keys::{HEADS, LEASES, PROBES, REPAIRS, WRITERS, head_name};
pub use leases::ObjectLease;
use leases::Watch;
pub use upload::ObjectUpload;
use upload::{file_name, put_whole};

/// A capacity tier on an object store.
pub struct ObjectStore {
    bucket: Bucket,
    place: String,
    here: Holder,
    /// What becomes of writers elsewhere that did not close.
    unclosed: Unclosed,
    /// As found when the claim was made.
    ability: Cell<Option<Ability>>,
    claim: RefCell<Option<Rc<Claim>>>,
    leases: RefCell<Watch>,
}

impl ObjectStore {
    /// Over a `bucket`; `place` is its address for messages. Nothing is asked of the server yet.
    fn over(bucket: Bucket, place: String) -> Self {
        let (ability, claim, leases) = (Cell::default(), RefCell::default(), RefCell::default());
        Self { bucket, place, here: Holder::here(), unclosed: Unclosed::Watch, ability, claim, leases }
    }

    /// Fences off at once whoever did not close, instead of watching whether it lives.
    #[must_use]
    pub fn fencing(mut self) -> Self {
        self.unclosed = Unclosed::Fence;
        self
    }

    /// As a process elsewhere, of which nothing is known here.
    #[cfg(test)]
    #[must_use]
    pub fn on_host(mut self, host: &str) -> Self {
        self.here = Holder::elsewhere(host);
        self
    }

    /// Checks that nothing but what an earlier attempt at a volume may have left is below the prefix; tells what else is.
    ///
    /// # Errors
    /// A store that cannot be listed.
    pub async fn prepare(&self) -> io::Result<Option<String>> {
        if !heads::list(&self.bucket).await?.is_empty() {
            return Ok(Some("a volume (HEAD)".to_owned()));
        }
        self.bucket.find_other(&[WRITERS, LEASES, PROBES]).await
    }

    /// Begins the making of a volume by a repair: deletes what an earlier attempt of the same volume left. Tells what else
    /// is below the prefix, if anything is; nothing is changed then.
    ///
    /// # Errors
    /// A store that cannot be listed or written.
    pub async fn begin_repair(&self, volume: VolumeUuid) -> io::Result<Option<String>> {
        let mark = volume.to_string();
        if self.bucket.list(REPAIRS).await?.iter().any(|object| object.name == mark) {
            // First what makes it a volume.
            let of_objects =
                [ObjectKind::Segment, ObjectKind::Layer, ObjectKind::Warm].map(ObjectKind::folder);
            for folder in std::iter::once(HEADS).chain(of_objects) {
                for object in self.bucket.list(folder).await? {
                    self.bucket.delete(folder, &object.name).await?;
                }
            }
            return Ok(None);
        }
        if let Some(found) = self.prepare().await? {
            return Ok(Some(found));
        }
        let text = Bytes::from_static(b"a repair of this volume is under way, or was cut off\n");
        self.bucket.put(REPAIRS, &mark, text, Write::Replace).await.map(|()| None)
    }

    /// The volume that a repair has made counts from here on: the next repair will not take it for an attempt.
    ///
    /// # Errors
    /// The mark cannot be deleted.
    pub async fn end_repair(&self, volume: VolumeUuid) -> io::Result<()> {
        self.bucket.delete(REPAIRS, &volume.to_string()).await
    }

    /// Deletes the HEAD of a volume that nobody has written to, and what belongs to it.
    ///
    /// # Errors
    /// Something of it cannot be deleted.
    pub async fn remove_created(&self) -> io::Result<()> {
        for head in heads::list(&self.bucket).await? {
            self.bucket.delete(HEADS, &head_name(head)).await?;
        }
        Ok(())
    }

    fn claimed(&self) -> Option<Rc<Claim>> {
        self.claim.borrow().clone()
    }

    /// Finds out what the server can do and who else is there, at the same time: each takes several requests, one after the
    /// other. Then claims the volume.
    async fn establish(&self) -> io::Result<Result<Generation, String>> {
        let able = ability::examine(&self.bucket);
        let (ability, claim) = Claim::establish(&self.bucket, &self.here, self.unclosed, able).await?;
        tracing::info!(place = self.place, "conditional writes: {ability}; the volume is safe without them");
        self.ability.set(Some(ability));
        Ok(claim.map(|claim| {
            let generation = claim.generation();
            *self.claim.borrow_mut() = Some(Rc::new(claim));
            generation
        }))
    }

    /// Writes a HEAD and finds out whether it counts.
    async fn write_head(&self, claim: &Claim, new: Vec<u8>, number: HeadNumber) -> io::Result<Verdict> {
        let (name, new) = (head_name(number), Bytes::from(new));
        claim.trying();
        match self.bucket.put(HEADS, &name, new.clone(), Write::Create).await {
            // An attempt whose answer was lost, done again by the client; what is there is compared below.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let there = match self.bucket.get(HEADS, &name, new.len()).await {
            Ok(there) => there,
            // Whoever is above it may have deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match claim.verify(&self.bucket, number).await? {
                    superseded @ Verdict::Superseded(_) => Ok(superseded),
                    Verdict::Ours(_) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        if there != new {
            return Err(io::Error::other(format!("{HEADS}/{name} is not what was just written there")));
        }
        claim.verify(&self.bucket, number).await
    }
}

impl Store for ObjectStore {
    type Upload = ObjectUpload;
    type Lease = ObjectLease;

    fn place(&self) -> String {
        self.place.clone()
    }

    async fn lock_writer(&self) -> io::Result<Result<Generation, String>> {
        self.establish().await
    }

    async fn lock_creator(&self) -> io::Result<Result<Generation, String>> {
        if heads::list(&self.bucket).await?.is_empty() {
            self.establish().await
        } else {
            // Somebody's volume is left alone; replacing HEAD refuses it.
            Ok(Ok(Generation(0)))
        }
    }

    async fn release_writer(&self) -> io::Result<()> {
        let claim = self.claim.borrow_mut().take();
        match claim.map(Rc::try_unwrap) {
            None => Ok(()),
            Some(Ok(claim)) => {
                let limit = self.bucket.timing.farewell;
                let released = tokio::time::timeout(limit, claim.release(&self.bucket)).await;
                released.unwrap_or_else(|_| Err(fault::timed_out("a delete", limit.as_secs())))
            }
            Some(Err(_)) => Err(io::Error::other("HEAD is still being replaced")),
        }
    }

    fn conditional_writes(&self) -> Option<String> {
        self.ability.get().map(|ability| ability.to_string())
    }

    async fn begin_upload(&self, name: ObjectName) -> io::Result<ObjectUpload> {
        Ok(ObjectUpload::new(&self.bucket, name))
    }

    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        buffer.clear();
        if len == 0 {
            return Ok(buffer);
        }
        let range = offset..offset + len as u64;
        let bytes = self.bucket.get_range(name.kind.folder(), &file_name(name), range).await?;
        buffer.extend_from_slice(&bytes);
        Ok(buffer)
    }

    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        let listed = self.bucket.list(kind.folder()).await?;
        let objects = listed.iter().map(|object| Some((ObjectName::parse(kind, &object.name)?, object.size)));
        Ok(objects.flatten().collect())
    }

    async fn delete(&self, name: ObjectName) -> io::Result<()> {
        self.bucket.delete(name.kind.folder(), &file_name(name)).await
    }

    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        heads::read_newest(&self.bucket, limit).await
    }

    /// What is `expected` needs no comparing: a HEAD of an earlier generation that came late is below this one, one of this
    /// generation is this writer's own, and a higher one is found afterwards.
    async fn replace_head(
        &self,
        expected: &[&[u8]],
        new: Vec<u8>,
        number: HeadNumber,
    ) -> Result<(), ReplaceError> {
        if expected.is_empty() {
            // A first HEAD is no second one.
            let heads = heads::list(&self.bucket).await.map_err(ReplaceError::Unchanged)?;
            if !heads.is_empty() {
                return Err(ReplaceError::Conflict);
            }
        }
        let Some(claim) = self.claimed() else {
            return Err(ReplaceError::Unchanged(io::Error::other(
                "HEAD is replaced without a writer's claim",
            )));
        };
        if claim.generation() != number.generation {
            let text = format!("a HEAD of generation {} under another claim", number.generation);
            return Err(ReplaceError::Unchanged(io::Error::other(text)));
        }
        match self.write_head(&claim, new, number).await.map_err(ReplaceError::InDoubt)? {
            Verdict::Superseded(theirs) => Err(ReplaceError::Fenced(theirs)),
            Verdict::Ours(heads) => {
                heads::delete_old(&self.bucket, &heads, number).await;
                Ok(())
            }
        }
    }

    async fn settle_head(&self) -> io::Result<()> {
        // What a list shows is durable.
        Ok(())
    }

    async fn space(&self) -> io::Result<StoreSpace> {
        Ok(StoreSpace { total_bytes: UNLIMITED, free_bytes: UNLIMITED })
    }

    async fn lease(&self, epoch: Epoch) -> io::Result<ObjectLease> {
        leases::take(&self.bucket, epoch).await
    }

    async fn end_lease(&self, lease: ObjectLease) {
        lease.end().await;
    }

    async fn leased(&self) -> io::Result<Vec<Epoch>> {
        leases::held(&self.bucket, &self.leases).await
    }

    async fn put_pin(&self, clone: VolumeUuid, bytes: Vec<u8>) -> io::Result<()> {
        pins::put(&self.bucket, clone, bytes).await
    }

    async fn pins(&self) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
        pins::all(&self.bucket).await
    }

    async fn remove_pin(&self, clone: VolumeUuid) -> io::Result<()> {
        pins::remove(&self.bucket, clone).await
    }

    async fn put(&self, name: ObjectName, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let result = put_whole(&self.bucket, name, bytes.clone()).await;
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
            // Queued for deletion as well, so that a failure here is made up for.
            let _ = self.delete(name).await;
        }
        (result, Vec::from(bytes))
    }
}

#[cfg(test)]
mod tests;
