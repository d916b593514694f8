//! Pins of clones on an object store: `clones/<uuid>`, as in a directory.
//!
//! Whoever deletes lists them after it has read HEAD, and a clone reads HEAD again after its pin is there: of the two one
//! sees the other, since lists show what was written.

use std::io;

use uuid::Uuid;

use super::super::names::VolumeUuid;
use super::super::pin::PIN_BYTES;
use super::bucket::{Bucket, Write};
use super::keys::CLONES;

fn name(clone: VolumeUuid) -> String {
    Uuid::from_bytes(clone.0).to_string()
}

/// The volume that a pin is for, by the last part of its key.
fn parse(name: &str) -> Option<VolumeUuid> {
    let uuid = Uuid::try_parse(name).ok().filter(|uuid| uuid.to_string() == name)?;
    Some(VolumeUuid(*uuid.as_bytes()))
}

/// Writes a pin, in the place of one of the same clone.
pub async fn put(bucket: &Bucket, clone: VolumeUuid, bytes: Vec<u8>) -> io::Result<()> {
    bucket.put(CLONES, &name(clone), bytes.into(), Write::Replace).await
}

/// The pins that are there, as they are.
pub async fn all(bucket: &Bucket) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
    let mut pins = Vec::new();
    for object in bucket.list(CLONES).await? {
        let Some(clone) = parse(&object.name) else { continue };
        match bucket.get(CLONES, &object.name, PIN_BYTES).await {
            Ok(bytes) => pins.push((clone, bytes.into())),
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Too long for one: it cannot be read, and must not be taken for none.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => pins.push((clone, Vec::new())),
            Err(error) => return Err(error),
        }
    }
    pins.sort_unstable();
    Ok(pins)
}

/// Removes a clone's pin.
pub async fn remove(bucket: &Bucket, clone: VolumeUuid) -> io::Result<()> {
    bucket.delete(CLONES, &name(clone)).await
}
