//! An object on its way: whole in one request while it is small, else in parts, one at a time.
//!
//! Memory: a part, and the one that is being sent.

use std::io;

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, PutPayload};

use super::super::names::ObjectName;
use super::super::store::Upload;
use super::bucket::{Bucket, Write};

/// What is longer goes in parts of this length, in bytes: a segment fits into one request.
pub const PART_BYTES: usize = 8 << 20;

/// An object of a capacity tier being written.
pub struct ObjectUpload {
    bucket: Bucket,
    name: ObjectName,
    pending: BytesMut,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl ObjectUpload {
    /// Of nothing yet.
    pub fn new(bucket: &Bucket, name: ObjectName) -> Self {
        Self { bucket: bucket.clone(), name, pending: BytesMut::new(), parts: None }
    }

    async fn send_parts(&mut self) -> io::Result<()> {
        while self.pending.len() > PART_BYTES {
            let part = self.pending.split_to(PART_BYTES).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: Bytes) -> io::Result<()> {
        if self.parts.is_none() {
            self.parts = Some(self.bucket.begin_parts(self.name.kind.folder(), &file_name(self.name)).await?);
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let sent = self.bucket.part(parts.put_part(PutPayload::from(part))).await;
        if sent.is_err() {
            // What is left of it costs room until the server's own rules delete it.
            drop(self.bucket.part(parts.abort()).await);
        }
        sent
    }
}

/// The last part of an object's key.
pub fn file_name(name: ObjectName) -> String {
    format!("{:016x}", name.number)
}

/// Writes a whole object that nobody else has ever written; the same bytes that are there already are as good.
pub async fn put_whole(bucket: &Bucket, name: ObjectName, bytes: Bytes) -> io::Result<()> {
    let (folder, file) = (name.kind.folder(), file_name(name));
    match bucket.put(folder, &file, bytes.clone(), Write::Create).await {
        // An attempt whose answer was lost, done again; or a number that was used twice.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = bucket.get(folder, &file, bytes.len()).await;
            if there.is_ok_and(|there| there == bytes) { Ok(()) } else { Err(error) }
        }
        other => other,
    }
}

impl Upload for ObjectUpload {
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.pending.extend_from_slice(&bytes);
        (self.send_parts().await, bytes)
    }

    async fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending).freeze();
        if self.parts.is_none() {
            return put_whole(&self.bucket, self.name, rest).await;
        }
        if !rest.is_empty() {
            self.send_part(rest).await?;
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        self.bucket.part(parts.complete()).await.map(|_| ())
    }
}
