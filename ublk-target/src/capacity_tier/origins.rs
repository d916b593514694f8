//! Whose an object is, by its number, and where it is read.

use std::io::{self, Read};
use std::path::Path;

use super::error::Result;
use super::head::{Head, MAX_HEAD_BYTES};
use super::names::{ObjectKind, ObjectName, VolumeUuid};
use super::plain_file;
use super::state::Inner;
use super::store::Store;

/// An origin's store, as a clone reads it.
pub(super) struct OpenOrigin<S> {
    pub volume: VolumeUuid,
    below: u64,
    /// Where it is.
    pub address: String,
    // An address of a kind that cannot be opened here is told when something is read.
    store: std::result::Result<S, (io::ErrorKind, String)>,
}

/// The origins that HEAD names, those that are left included: an old map may still read from them.
pub(super) fn open<S: Store>(store: &S, head: &Head) -> Vec<OpenOrigin<S>> {
    let open = |origin: &super::origin::Origin| OpenOrigin {
        volume: origin.volume,
        below: origin.below,
        address: origin.address.clone(),
        store: store.other(&origin.address).map_err(|error| (error.kind(), error.to_string())),
    };
    head.origins.iter().map(open).collect()
}

/// Where the origins of the volume in `directory` are; none where that cannot be told. Without a ring or a thread: for a
/// process that has just begun.
#[must_use]
pub fn origin_addresses(directory: &Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = plain_file::open_now(&directory.join("HEAD"), false)?;
        file.take(MAX_HEAD_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let head = read().ok().and_then(|bytes| Head::verify(&bytes).ok());
    head.map_or_else(Vec::new, |head| head.origins.into_iter().map(|origin| origin.address).collect())
}

impl<S> OpenOrigin<S> {
    /// Objects numbered below this, and not below an older origin's, are there.
    pub const fn below(&self) -> u64 {
        self.below
    }

    /// The store.
    pub fn store(&self) -> io::Result<&S> {
        self.store.as_ref().map_err(|(kind, why)| io::Error::new(*kind, why.clone()))
    }
}

impl<S: Store> Inner<S> {
    fn origin_of(&self, number: u64) -> Option<&OpenOrigin<S>> {
        self.origins.iter().find(|origin| number < origin.below)
    }

    /// From which number on objects are this volume's own.
    pub fn own_from(&self) -> u64 {
        self.origins.last().map_or(0, |origin| origin.below)
    }

    /// The volume that wrote the object with this number, for which its checksums hold.
    pub fn owner(&self, number: u64) -> VolumeUuid {
        self.origin_of(number).map_or(self.volume, |origin| origin.volume)
    }

    /// Where the object with this number is.
    pub fn store_of(&self, number: u64) -> io::Result<&S> {
        self.origin_of(number).map_or(Ok(&self.store), OpenOrigin::store)
    }

    /// The path or address of the store that has the object with this number, for messages.
    pub fn place_of(&self, number: u64) -> String {
        self.origin_of(number).map_or_else(|| self.store.place(), |origin| origin.address.clone())
    }

    /// The objects of a kind that are there, the origins' that this volume may refer to included.
    pub async fn list_all(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        let mut listed = self.store.list(kind).await?;
        let mut from = 0;
        listed.retain(|(name, _)| name.number >= self.own_from());
        for origin in &self.origins {
            let theirs = match origin.store()?.list(kind).await {
                // What is missing there is told object by object.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                other => other?,
            };
            listed.extend(theirs.into_iter().filter(|(name, _)| (from..origin.below).contains(&name.number)));
            from = origin.below;
        }
        Ok(listed)
    }

    /// The pins of clones in this volume's store.
    pub async fn read_pins(&self) -> Result<Vec<super::pin::Pin>> {
        let pins = self.store.pins().await.map_err(|error| self.io_error("list", "clones", error))?;
        Ok(pins.into_iter().map(|(clone, bytes)| super::pin::Pin::read(&bytes, self.volume, clone)).collect())
    }
}
