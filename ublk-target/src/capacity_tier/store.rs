//! What the capacity tier asks of the place where its objects are: a directory or an object store.
//!
//! Three promises everything above rests on. An object is there whole and durable once its upload has
//! finished, and is never changed afterwards. HEAD is replaced as a whole, only while it is what the writer
//! believes it
//! to be, and durable on return. An object that was deleted stays deleted.
//! A crash during an upload may leave nothing, a part of the object, or all of it; nobody refers to it.

use std::fmt;
use std::io;

use forerun::geometry::{Epoch, Generation};

use super::names::{ObjectKind, ObjectName, VolumeUuid};

/// How an attempt to replace HEAD failed.
#[derive(Debug)]
pub enum ReplaceError {
    /// HEAD is not what was expected; nothing was changed.
    Conflict,
    /// It failed before HEAD was touched.
    Unchanged(io::Error),
    /// It failed in a way that leaves open whether the old or the new HEAD is there, or the new one gets there later.
    InDoubt(io::Error),
    /// A writer of this higher generation has taken over; whether the new HEAD is there does not matter any more.
    Fenced(Generation),
}

/// The place of a HEAD among all that were ever tried: by the writer's generation, then by the writer's count.
/// No two attempts have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HeadNumber {
    /// Of the writer.
    pub generation: Generation,
    /// Counts the attempts, over all writers.
    pub sequence: u64,
}

impl fmt::Display for HeadNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.sequence)
    }
}

/// How much room a store has, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreSpace {
    /// All of it; [`UNLIMITED`] where the store knows no limit.
    pub total_bytes: u64,
    /// What can still be written; [`UNLIMITED`] where the store knows no limit.
    pub free_bytes: u64,
}

/// The room of a store that has no limit, or tells none.
pub const UNLIMITED: u64 = u64::MAX;

/// An object on its way into the store, in pieces.
#[allow(async_fn_in_trait, reason = "the background thread is single-threaded: the futures need not be Send")]
pub trait Upload {
    /// Appends `bytes`; gives the memory back for the next piece.
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>);
    /// Makes the object durable. Without this call the object does not count as written.
    async fn finish(self) -> io::Result<()>;
}

/// Where the objects of one volume are.
#[allow(async_fn_in_trait, reason = "the background thread is single-threaded: the futures need not be Send")]
pub trait Store: 'static {
    /// An object being written.
    type Upload: Upload + 'static;
    /// Keeps what an epoch needs from being deleted, by any process, for as long as it lives.
    type Lease: 'static;

    /// The store's path or address, for messages.
    fn place(&self) -> String;
    /// Takes the writer's lock for as long as the store lives or until [`Self::release_writer`], and tells the
    /// least generation that the writer may have; the error is what the lock tells about its holder. HEAD has
    /// to be read after that.
    async fn lock_writer(&self) -> io::Result<Result<Generation, String>>;
    /// As [`Self::lock_writer`], of a store in which a volume is being made. Where the first HEAD cannot be written
    /// over another one there is nothing to lock.
    async fn lock_creator(&self) -> io::Result<Result<Generation, String>> {
        Ok(Ok(Generation(0)))
    }
    /// Gives the writer's lock back, as the last act of a writer: the next one need not find out that this one is
    /// gone. Failing is no harm, but takes the next one some time.
    async fn release_writer(&self) -> io::Result<()> {
        Ok(())
    }
    /// What the server makes of conditional writes, in words, if there is a server and the writer's lock has been taken.
    fn conditional_writes(&self) -> Option<String> {
        None
    }
    /// Begins an object that is not there yet; fails with `AlreadyExists` where it is.
    async fn begin_upload(&self, name: ObjectName) -> io::Result<Self::Upload>;
    /// Reads exactly `len` bytes at `offset` into `buffer` (its content is dropped); fails with
    /// `UnexpectedEof` where the object is shorter.
    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>>;
    /// The objects of a kind with their lengths in bytes, in no order. What is not an object is left out.
    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>>;
    /// Deletes an object; one that is not there counts as deleted.
    async fn delete(&self, name: ObjectName) -> io::Result<()>;
    /// Reads HEAD; `None` where there is none. Fails where it is longer than `limit` bytes.
    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>>;
    /// Replaces HEAD by `new`, durably, provided that it is one of `expected` (whole HEADs).
    ///
    /// `number` is unique among all attempts and may name what is written on the way.
    async fn replace_head(
        &self,
        expected: &[&[u8]],
        new: Vec<u8>,
        number: HeadNumber,
    ) -> Result<(), ReplaceError>;
    /// Makes HEAD durable as it can be read now: the process that put it there may have been killed before it was.
    async fn settle_head(&self) -> io::Result<()>;
    /// How much room there is.
    async fn space(&self) -> io::Result<StoreSpace>;
    /// Takes a lease on an epoch. What HEAD says after that can be read for as long as the lease lives.
    async fn lease(&self, epoch: Epoch) -> io::Result<Self::Lease>;
    /// Gives a lease back and waits until others see that, where dropping it does not do so at once.
    async fn end_lease(&self, lease: Self::Lease) {
        drop(lease);
    }
    /// The epochs that are leased now.
    async fn leased(&self) -> io::Result<Vec<Epoch>>;

    /// The store at another address, for the origin of a clone; nothing is touched yet.
    fn other(&self, address: &str) -> io::Result<Self>
    where
        Self: Sized,
    {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("{address} cannot be opened from here")))
    }
    /// Writes a clone's pin, durably, in the place of one of the same clone. What is deleted by anybody who lists the pins
    /// after that takes it into account.
    async fn put_pin(&self, _clone: VolumeUuid, _bytes: Vec<u8>) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "clones are not supported here"))
    }
    /// The pins that are there, as they are, damaged ones included.
    async fn pins(&self) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
        Ok(Vec::new())
    }
    /// Removes a clone's pin, durably; one that is not there counts as removed.
    async fn remove_pin(&self, _clone: VolumeUuid) -> io::Result<()> {
        Ok(())
    }

    /// Sees to it that HEAD can be replaced even when the store is full, where that takes room kept for it.
    /// Called now and then; failing is no harm, there is just no room.
    async fn replenish(&self) -> io::Result<()> {
        Ok(())
    }

    /// Writes a whole object, durably; gives the memory back. What was written of an object that failed is
    /// deleted at once: a
    /// full store needs the room.
    async fn put(&self, name: ObjectName, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut upload = match self.begin_upload(name).await {
            Ok(upload) => upload,
            Err(error) => return (Err(error), bytes),
        };
        let (result, bytes) = match upload.append(bytes).await {
            (Ok(()), bytes) => (upload.finish().await, bytes),
            failed => failed,
        };
        if result.is_err() {
            // Queued for deletion as well, so that a failure here is made up for.
            let _ = self.delete(name).await;
        }
        (result, bytes)
    }
}
