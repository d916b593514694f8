//! HEADs on an object store: one immutable object for each replacement, of which the greatest counts.
//!
//! Old ones are deleted by the writer, but for the last few: a reader that has listed may still read. A reader that
//! finds nothing where the list said lists again.

use std::io;

use super::super::store::HeadNumber;
use super::bucket::Bucket;
use super::keys::{HEADS, head_name, parse_head};

/// So many HEADs stay beside the newest.
const KEPT: usize = 4;
/// Old HEADs are deleted when there are so many more, so that not every replacement has to.
const SPARE: usize = 8;
/// So often a HEAD may be gone that a list has just shown.
const READ_ATTEMPTS: usize = 10;

/// All HEADs, the newest last.
pub async fn list(bucket: &Bucket) -> io::Result<Vec<HeadNumber>> {
    let listed = bucket.list(HEADS).await?;
    let mut heads: Vec<_> = listed.iter().filter_map(|object| parse_head(&object.name)).collect();
    heads.sort_unstable();
    Ok(heads)
}

/// Reads the newest HEAD; `None` where there is none. Fails where it is longer than `limit` bytes.
pub async fn read_newest(bucket: &Bucket, limit: usize) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..READ_ATTEMPTS {
        let Some(newest) = list(bucket).await?.pop() else { return Ok(None) };
        match bucket.get(HEADS, &head_name(newest), limit).await {
            // Deleted meanwhile, since there are newer ones.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return read.map(|bytes| Some(bytes.into())),
        }
    }
    Err(io::Error::other(
        "the server lists a HEAD and has no such object, again and again: its lists are not to be relied on",
    ))
}

/// Deletes old HEADs of the sorted `heads`, when there are enough of them; `ours`, which is durable, stays with the few
/// before it and all after it. Failing is no harm.
pub async fn delete_old(bucket: &Bucket, heads: &[HeadNumber], ours: HeadNumber) {
    debug_assert!(heads.is_sorted() && heads.contains(&ours), "ours is among them, in order");
    let older = heads.iter().filter(|head| **head < ours).count();
    if older < KEPT + SPARE {
        return;
    }
    // The oldest first, so that a crash leaves the newest ones.
    for head in heads.iter().take(older - KEPT) {
        if let Err(error) = bucket.delete(HEADS, &head_name(*head)).await {
            tracing::debug!(%error, "an old HEAD is deleted with the next ones");
            return;
        }
    }
}
