//! What a server makes of conditional writes, and whether its lists show what was written.
//!
//! The volume's safety rests on the second alone (`claims`), and a server that fails that is refused. Of the first
//! one guard depends: a server that refuses to create what is there would also stop a defect that used
//! an object's number twice. Nothing that forerun does uses a conditional replacement; it is looked at to be told.

use std::fmt;
use std::io;

use bytes::Bytes;
use futures_util::future::join3;
use object_store::PutMode;
use uuid::Uuid;

use super::bucket::{Bucket, Write};
use super::keys::PROBES;

/// What came of writing under a condition that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It was refused, and what held was done.
    Honoured,
    /// It was done all the same.
    Ignored,
    /// It is refused even where it holds.
    AlwaysRefused,
    /// The server, or the client for it, has no such thing.
    Unsupported,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Honoured => "honoured",
            Self::Ignored => "ignored",
            Self::AlwaysRefused => "always refused",
            Self::Unsupported => "not supported",
        })
    }
}

/// What a server does with conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ability {
    /// Creating what is not there yet, and only that.
    pub create: Condition,
    /// Replacing what was not changed, and only that.
    pub replace: Condition,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create-if-absent {}, replace-if-unchanged {}", self.create, self.replace)
    }
}

/// Tries it out with three objects that are deleted again.
///
/// # Errors
/// The server fails, or its lists do not show what is there: a volume cannot be kept safe on it.
pub async fn examine(bucket: &Bucket) -> io::Result<Ability> {
    let [listed, created, replaced] = [(); 3].map(|()| Uuid::new_v4().simple().to_string());
    let condition = |name, condition: io::Result<Condition>| async move {
        let deleted = bucket.delete(PROBES, name).await;
        condition.and_then(|condition| deleted.map(|()| condition))
    };
    let (lists, create, replace) = join3(
        examine_lists(bucket, &listed),
        async { condition(&created, create(bucket, &created).await).await },
        async { condition(&replaced, replace(bucket, &replaced).await).await },
    )
    .await;
    lists?;
    Ok(Ability { create: create?, replace: replace? })
}

/// Whether a list shows what was written, and does not show what was deleted.
async fn examine_lists(bucket: &Bucket, name: &str) -> io::Result<()> {
    bucket.put(PROBES, name, Bytes::from_static(b"listed"), Write::Replace).await?;
    let shown = bucket.list(PROBES).await;
    let deleted = bucket.delete(PROBES, name).await;
    if !shown?.iter().any(|object| object.name == name) {
        return Err(io::Error::other(
            "the server's list does not show what was just written; a volume cannot be kept safe on it",
        ));
    }
    deleted?;
    if bucket.list(PROBES).await?.iter().any(|object| object.name == name) {
        return Err(io::Error::other(
            "the server's list shows what was deleted before it was asked for; a volume cannot be kept safe on it",
        ));
    }
    Ok(())
}

async fn create(bucket: &Bucket, name: &str) -> io::Result<Condition> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match bucket.put_if(PROBES, name, Bytes::from_static(b"1"), PutMode::Create).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Condition::Unsupported),
        Err(error) if refused(&error) => return Ok(Condition::AlwaysRefused),
        Err(error) => return Err(error),
    }
    match bucket.put_if(PROBES, name, Bytes::from_static(b"2"), PutMode::Create).await {
        Ok(_) => Ok(Condition::Ignored),
        Err(error) if refused(&error) => Ok(Condition::Honoured),
        Err(error) => Err(error),
    }
}

async fn replace(bucket: &Bucket, name: &str) -> io::Result<Condition> {
    let tag = bucket.put_if(PROBES, name, Bytes::from_static(b"4"), PutMode::Overwrite).await?;
    // Of the two, S3 and Azure go by the tag, and Google by the version.
    if tag.e_tag.is_none() && tag.version.is_none() {
        return Ok(Condition::Unsupported);
    }
    let refused =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound);
    match bucket.put_if(PROBES, name, Bytes::from_static(b"5"), PutMode::Update(tag.clone())).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Condition::Unsupported),
        Err(error) if refused(&error) => return Ok(Condition::AlwaysRefused),
        Err(error) => return Err(error),
    }
    match bucket.put_if(PROBES, name, Bytes::from_static(b"6"), PutMode::Update(tag)).await {
        Ok(_) => Ok(Condition::Ignored),
        Err(error) if refused(&error) => Ok(Condition::Honoured),
        Err(error) => Err(error),
    }
}
