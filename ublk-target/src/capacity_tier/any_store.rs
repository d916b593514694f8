//! The store at an address: a directory or an object store, by what the address says.

use std::io;

use forerun::config::CapacityAddress;
use forerun::geometry::{Epoch, Generation};

use super::directory_create::{prepare_directory, remove_created as remove_created_directory};
use super::directory_lock::Lease;
use super::directory_store::{DirectoryStore, DirectoryUpload};
use super::error::{CapacityError, Result as TierResult};
use super::names::{ObjectKind, ObjectName, VolumeUuid};
use super::object_store::{ObjectLease, ObjectStore, ObjectUpload, open_address};
use super::store::{HeadNumber, ReplaceError, Store, StoreSpace, Upload};

/// A store of either kind.
pub enum AnyStore {
    /// A directory.
    Directory(DirectoryStore),
    /// An object store.
    Objects(Box<ObjectStore>),
}

/// An object being written to a store of either kind.
pub enum AnyUpload {
    /// Into a directory.
    Directory(DirectoryUpload),
    /// Onto an object store.
    Objects(Box<ObjectUpload>),
}

/// A lease on a store of either kind, for as long as it lives.
pub enum AnyLease {
    /// In a directory.
    Directory(Lease),
    /// On an object store.
    Objects(Box<ObjectLease>),
}

impl AnyStore {
    /// The store at `address`; nothing is touched or asked yet.
    ///
    /// # Errors
    /// An object store whose settings or credentials in the environment cannot be used.
    pub fn at(address: &CapacityAddress) -> TierResult<Self> {
        match address {
            CapacityAddress::Directory(path) => Ok(Self::Directory(DirectoryStore::new(path))),
            CapacityAddress::Objects(objects) => match open_address(objects) {
                Ok(store) => Ok(Self::Objects(Box::new(store))),
                Err(source) => {
                    Err(CapacityError::Io { operation: "use", place: address.to_string(), source })
                }
            },
        }
    }

    /// Whoever takes the writer's lock of an object store from here on does not watch whether a writer on another machine
    /// that did not close shows that it lives: it is fenced off at once. In a directory the lock itself tells who lives.
    #[must_use]
    pub fn fencing(self) -> Self {
        match self {
            Self::Directory(store) => Self::Directory(store),
            Self::Objects(store) => Self::Objects(Box::new(store.fencing())),
        }
    }

    /// Sees that nothing is at `address` yet, and makes what has to be there before anything else.
    ///
    /// # Errors
    /// Something is there already, or it cannot be written.
    pub async fn prepare(&self, address: &CapacityAddress) -> TierResult<()> {
        match (self, address) {
            (Self::Directory(_), CapacityAddress::Directory(path)) => prepare_directory(path),
            (Self::Objects(store), _) => {
                let place = address.to_string();
                let foreign = store.prepare().await;
                let foreign = foreign.map_err(|source| CapacityError::Io {
                    operation: "create",
                    place: place.clone(),
                    source,
                })?;
                foreign.map_or(Ok(()), |found| Err(CapacityError::NotEmpty { place, found }))
            }
            (Self::Directory(_), CapacityAddress::Objects(_)) => {
                Err(CapacityError::Misuse("a directory at the address of an object store".to_owned()))
            }
        }
    }

    /// Begins the making of a volume at the object store's `address` by a repair of `volume`: what an earlier attempt left is
    /// deleted.
    ///
    /// # Errors
    /// Something else is there, or it cannot be written; a directory, whose folders a repair makes by itself.
    pub async fn begin_repair(&self, address: &CapacityAddress, volume: VolumeUuid) -> TierResult<()> {
        let place = address.to_string();
        let Self::Objects(store) = self else {
            return Err(CapacityError::Misuse(format!("{place} is no object store")));
        };
        match store.begin_repair(volume).await {
            Ok(None) => Ok(()),
            Ok(Some(found)) => Err(CapacityError::NotEmpty { place, found }),
            Err(source) => Err(CapacityError::Io { operation: "create", place, source }),
        }
    }

    /// Ends what [`Self::begin_repair`] began.
    ///
    /// # Errors
    /// The mark cannot be deleted.
    pub async fn end_repair(&self, volume: VolumeUuid) -> io::Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Objects(store) => store.end_repair(volume).await,
        }
    }
}

/// Takes back what was made at an address for a volume that nobody has written to; `whole` with the directory itself. What
/// else is there stays.
///
/// # Errors
/// Something of it cannot be removed, or holds something.
pub async fn remove_created(address: &CapacityAddress, whole: bool) -> io::Result<()> {
    match address {
        CapacityAddress::Directory(path) => remove_created_directory(path, whole),
        CapacityAddress::Objects(objects) => open_address(objects)?.remove_created().await,
    }
}

impl Upload for AnyUpload {
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Directory(upload) => upload.append(bytes).await,
            Self::Objects(upload) => upload.append(bytes).await,
        }
    }

    async fn finish(self) -> io::Result<()> {
        match self {
            Self::Directory(upload) => upload.finish().await,
            Self::Objects(upload) => upload.finish().await,
        }
    }
}

impl Store for AnyStore {
    type Upload = AnyUpload;
    type Lease = AnyLease;

    fn place(&self) -> String {
        match self {
            Self::Directory(store) => store.place(),
            Self::Objects(store) => store.place(),
        }
    }

    async fn lock_writer(&self) -> io::Result<Result<Generation, String>> {
        match self {
            Self::Directory(store) => store.lock_writer().await,
            Self::Objects(store) => store.lock_writer().await,
        }
    }

    async fn lock_creator(&self) -> io::Result<Result<Generation, String>> {
        match self {
            Self::Directory(store) => store.lock_creator().await,
            Self::Objects(store) => store.lock_creator().await,
        }
    }

    async fn release_writer(&self) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.release_writer().await,
            Self::Objects(store) => store.release_writer().await,
        }
    }

    fn conditional_writes(&self) -> Option<String> {
        match self {
            Self::Directory(store) => store.conditional_writes(),
            Self::Objects(store) => store.conditional_writes(),
        }
    }

    async fn begin_upload(&self, name: ObjectName) -> io::Result<AnyUpload> {
        Ok(match self {
            Self::Directory(store) => AnyUpload::Directory(store.begin_upload(name).await?),
            Self::Objects(store) => AnyUpload::Objects(Box::new(store.begin_upload(name).await?)),
        })
    }

    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        match self {
            Self::Directory(store) => store.read_range(name, offset, len, buffer).await,
            Self::Objects(store) => store.read_range(name, offset, len, buffer).await,
        }
    }

    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        match self {
            Self::Directory(store) => store.list(kind).await,
            Self::Objects(store) => store.list(kind).await,
        }
    }

    async fn delete(&self, name: ObjectName) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.delete(name).await,
            Self::Objects(store) => store.delete(name).await,
        }
    }

    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Directory(store) => store.read_head(limit).await,
            Self::Objects(store) => store.read_head(limit).await,
        }
    }

    async fn replace_head(
        &self,
        expected: &[&[u8]],
        new: Vec<u8>,
        number: HeadNumber,
    ) -> Result<(), ReplaceError> {
        match self {
            Self::Directory(store) => store.replace_head(expected, new, number).await,
            Self::Objects(store) => store.replace_head(expected, new, number).await,
        }
    }

    async fn settle_head(&self) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.settle_head().await,
            Self::Objects(store) => store.settle_head().await,
        }
    }

    async fn space(&self) -> io::Result<StoreSpace> {
        match self {
            Self::Directory(store) => store.space().await,
            Self::Objects(store) => store.space().await,
        }
    }

    async fn lease(&self, epoch: Epoch) -> io::Result<AnyLease> {
        Ok(match self {
            Self::Directory(store) => AnyLease::Directory(store.lease(epoch).await?),
            Self::Objects(store) => AnyLease::Objects(Box::new(store.lease(epoch).await?)),
        })
    }

    async fn end_lease(&self, lease: AnyLease) {
        match (self, lease) {
            (Self::Directory(store), AnyLease::Directory(lease)) => store.end_lease(lease).await,
            (Self::Objects(store), AnyLease::Objects(lease)) => store.end_lease(*lease).await,
            // Of another store: dropped.
            (Self::Directory(_), AnyLease::Objects(_)) | (Self::Objects(_), AnyLease::Directory(_)) => {}
        }
    }

    async fn leased(&self) -> io::Result<Vec<Epoch>> {
        match self {
            Self::Directory(store) => store.leased().await,
            Self::Objects(store) => store.leased().await,
        }
    }

    fn other(&self, address: &str) -> io::Result<Self> {
        let address: CapacityAddress =
            address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Self::at(&address).map_err(io::Error::other)
    }

    async fn put_pin(&self, clone: VolumeUuid, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.put_pin(clone, bytes).await,
            Self::Objects(store) => store.put_pin(clone, bytes).await,
        }
    }

    async fn pins(&self) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
        match self {
            Self::Directory(store) => store.pins().await,
            Self::Objects(store) => store.pins().await,
        }
    }

    async fn remove_pin(&self, clone: VolumeUuid) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.remove_pin(clone).await,
            Self::Objects(store) => store.remove_pin(clone).await,
        }
    }

    async fn replenish(&self) -> io::Result<()> {
        match self {
            Self::Directory(store) => store.replenish().await,
            Self::Objects(store) => store.replenish().await,
        }
    }

    async fn put(&self, name: ObjectName, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Directory(store) => store.put(name, bytes).await,
            Self::Objects(store) => store.put(name, bytes).await,
        }
    }
}
