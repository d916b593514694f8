//! Requests below one prefix: each with a limit for the whole of it, and its errors as those of I/O.
//!
//! The client below retries what a server refuses for the moment (`address`); the limits here hold whatever it does,
//! so that a server that is dead or hangs gives an error that those who wait can deal with. A write that ran into
//! its limit may still arrive.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore as Client, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};

use super::fault::{Secrets, timed_out};
use super::timing::{Patience, Timing};

/// So many reads of the same bytes, when a server sends fewer than it should.
const READ_ATTEMPTS: u32 = 3;
/// So many attempts at creating an object, when no answer tells whether it was created. The next one may find it there.
const WRITE_ATTEMPTS: u32 = 3;

/// An object as a list shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The last part of its key.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Changes whenever the object is written.
    pub mark: Mark,
}

/// Tells whether an object was written since it was last looked at. Equal marks mean nothing but that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark(Option<String>, i64);

/// Whether an object may be there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// It is refused then, by servers that honour that.
    Create,
    /// It is written over.
    Replace,
}

/// How the server is reached.
pub struct Clients {
    /// For everything else.
    pub all: Arc<dyn Client>,
    /// For reads that requests on the volume wait for: it gives a single attempt less time.
    pub reads: Arc<dyn Client>,
}

/// The objects below a prefix.
#[derive(Clone)]
pub struct Bucket {
    client: Arc<dyn Client>,
    reads: Arc<dyn Client>,
    prefix: Path,
    secrets: Secrets,
    /// Periods and limits.
    pub timing: Timing,
    /// Whether creating is asked of the server: not of one that has no such thing.
    conditional: bool,
}

impl Bucket {
    /// Over `clients`, below `prefix`.
    pub fn new(clients: Clients, prefix: Path, secrets: Secrets, timing: Timing) -> Self {
        let Clients { all: client, reads } = clients;
        Self { client, reads, prefix, secrets, timing, conditional: true }
    }

    /// Never asks the server to refuse what is there.
    pub const fn set_unconditional(&mut self) {
        self.conditional = false;
    }

    fn key(&self, folder: &str, name: &str) -> Path {
        self.prefix.clone().join(folder).join(name)
    }

    /// Waits for a request, as long as it may take.
    async fn limited<T>(
        &self,
        what: &str,
        patience: Patience,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> io::Result<T> {
        let limit = self.timing.limit(patience);
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.secrets.io_error(&error)),
            Err(_) => Err(timed_out(what, limit.as_secs())),
        }
    }

    /// Reads a whole object; fails where it is longer than `limit` bytes.
    pub async fn get(&self, folder: &str, name: &str, limit: usize) -> io::Result<Bytes> {
        let key = self.key(folder, name);
        let read = async {
            let found = self.client.get(&key).await?;
            if found.meta.size > limit as u64 {
                Ok(None)
            } else {
                Ok(Some((found.meta.size, found.bytes().await?)))
            }
        };
        match self.limited("a read", Patience::Small, read).await? {
            Some((size, bytes)) if size == bytes.len() as u64 => Ok(bytes),
            Some((size, bytes)) => {
                Err(io::Error::other(format!("{} of {size} bytes of {key} came", bytes.len())))
            }
            None => {
                let text = format!("{key} is longer than {limit} bytes");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    /// Reads exactly a range of an object; `UnexpectedEof` where the object ends before that.
    pub async fn get_range(&self, folder: &str, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let limit = self.timing.limit(Patience::Read);
        let read = self.get_range_again(self.key(folder, name), range);
        let result = tokio::time::timeout(limit, read).await;
        result.unwrap_or_else(|_| Err(timed_out("a read", limit.as_secs())))
    }

    async fn get_range_again(&self, key: Path, range: Range<u64>) -> io::Result<Bytes> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let options =
                GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let read = async { self.reads.get_opts(&key, options).await?.bytes().await };
            let failed = match read.await {
                Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
                Ok(bytes) => {
                    let wanted = range.end - range.start;
                    io::Error::other(format!("{} of {wanted} bytes of {key} came", bytes.len()))
                }
                Err(error @ object_store::Error::NotFound { .. }) => {
                    return Err(self.secrets.io_error(&error));
                }
                Err(error) => self.secrets.io_error(&error),
            };
            if failed.kind() == io::ErrorKind::PermissionDenied {
                return Err(failed);
            }
            // Cut short on the way, or really so short? A range past the end is no error of its own.
            let size = self.reads.head(&key).await.map_err(|error| self.secrets.io_error(&error))?.size;
            if size < range.end {
                let text = format!("{key} has {size} bytes, not {}", range.end);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            if attempt == READ_ATTEMPTS {
                return Err(failed);
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
    }

    /// Writes a whole object; `AlreadyExists` where it is there, if the server minds that. What is there may be an
    /// earlier attempt of this very call.
    pub async fn put(&self, folder: &str, name: &str, bytes: Bytes, write: Write) -> io::Result<()> {
        let key = self.key(folder, name);
        let patience = if bytes.len() > 1 << 20 { Patience::Upload } else { Patience::Small };
        let create = write == Write::Create && self.conditional;
        let mode = if create { PutMode::Create } else { PutMode::Overwrite };
        let request = async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
                let put = self.client.put_opts(&key, PutPayload::from(bytes.clone()), options).await;
                match put {
                    // The client itself does not repeat what has a condition.
                    Err(object_store::Error::Generic { .. }) if create && attempt < WRITE_ATTEMPTS => {
                        tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                    }
                    put => return put,
                }
            }
        };
        self.limited("a write", patience, request).await.map(|_| ())
    }

    /// As a conditional write, to see what the server makes of it; tells what names the state written.
    pub async fn put_if(
        &self,
        folder: &str,
        name: &str,
        bytes: Bytes,
        mode: PutMode,
    ) -> io::Result<UpdateVersion> {
        let key = self.key(folder, name);
        let options = PutOptions { mode, ..PutOptions::default() };
        let request = self.client.put_opts(&key, PutPayload::from(bytes), options);
        self.limited("a write", Patience::Small, request).await.map(UpdateVersion::from)
    }

    /// Begins an object in parts.
    pub async fn begin_parts(&self, folder: &str, name: &str) -> io::Result<Box<dyn MultipartUpload>> {
        let key = self.key(folder, name);
        let request = self.client.put_multipart_opts(&key, PutMultipartOptions::default());
        self.limited("a write", Patience::Small, request).await
    }

    /// Waits for a request of an object in parts.
    pub async fn part<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        self.limited("a write", Patience::Upload, request).await
    }

    /// The objects directly in a folder.
    pub async fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let folder = self.prefix.clone().join(folder);
        let mut all = Vec::new();
        let mut listing = self.client.list(Some(&folder));
        while let Some(meta) = self.next(&mut listing).await? {
            let mut rest = meta.location.prefix_match(&folder).into_iter().flatten();
            if let (Some(name), None) = (rest.next(), rest.next()) {
                let mark = Mark(meta.e_tag, meta.last_modified.timestamp_micros());
                all.push(Listed { name: name.as_ref().to_owned(), size: meta.size, mark });
            }
        }
        Ok(all)
    }

    /// The first object below the prefix, by its key from there on, that is not in one of `folders`.
    pub async fn find_other(&self, folders: &[&str]) -> io::Result<Option<String>> {
        let mut listing = self.client.list(Some(&self.prefix));
        while let Some(meta) = self.next(&mut listing).await? {
            let parts: Vec<_> = meta.location.prefix_match(&self.prefix).into_iter().flatten().collect();
            if parts.first().is_none_or(|first| !folders.contains(&first.as_ref())) {
                let rest: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
                return Ok(Some(rest.join("/")));
            }
        }
        Ok(None)
    }

    async fn next(
        &self,
        listing: &mut BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> io::Result<Option<ObjectMeta>> {
        let next = async { listing.next().await.transpose() };
        match self.limited("a list", Patience::Small, next).await {
            // A folder is only there with something in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub async fn delete(&self, folder: &str, name: &str) -> io::Result<()> {
        let key = self.key(folder, name);
        match self.limited("a delete", Patience::Small, self.client.delete(&key)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
