//! Checks of what clients say: names, ranges, pages. Nothing unchecked goes on to the engine.

use std::str::FromStr;

use forerun::config::{SnapshotName, VolumeName};
use forerun::geometry::{BlockIndex, Epoch};
use tonic::Status;

use super::plane::{ControlError, ErrorKind};

/// The default and the largest number of snapshots on a page.
pub(super) const SNAPSHOT_PAGE: PageLimits = PageLimits { default: 1_000, max: 10_000 };
/// The default and the largest number of changes on a page.
pub(super) const DIFF_PAGE: PageLimits = PageLimits { default: 10_000, max: 100_000 };

/// How large the pages of a list may be.
#[derive(Clone, Copy)]
pub(super) struct PageLimits {
    default: u32,
    max: u32,
}

/// The status of a refused value.
pub(super) fn refused(message: impl std::fmt::Display) -> Status {
    Status::invalid_argument(message.to_string())
}

/// The status of an operation that failed in the engine.
pub(super) fn failed(error: ControlError) -> Status {
    let message = error.message;
    match error.kind {
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::Invalid => Status::invalid_argument(message),
        ErrorKind::State => Status::failed_precondition(message),
        ErrorKind::Exhausted => Status::resource_exhausted(message),
        ErrorKind::Unavailable => Status::unavailable(message),
        ErrorKind::Corrupt => Status::data_loss(message),
        ErrorKind::Internal => Status::internal(message),
    }
}

/// That a request is for the volume that is served here.
pub(super) fn volume(asked: &str, served: &VolumeName) -> Result<(), Status> {
    let asked = VolumeName::new(asked).map_err(refused)?;
    if asked == *served {
        return Ok(());
    }
    Err(Status::not_found(format!(
        "volume {asked} is not served here, only {served}; `forerun list` shows the volumes"
    )))
}

/// A snapshot's name.
pub(super) fn snapshot(name: &str) -> Result<SnapshotName, Status> {
    SnapshotName::new(name).map_err(refused)
}

impl PageLimits {
    /// How many items the page asked for has.
    pub(super) fn size(self, asked: u32) -> Result<usize, Status> {
        match asked {
            0 => Ok(self.default as usize),
            size if size <= self.max => Ok(size as usize),
            size => Err(refused(format!(
                "page_size is {size}; the range is 1 to {}, or 0 for {}",
                self.max, self.default
            ))),
        }
    }
}

/// Where a list of snapshots goes on: after this epoch and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SnapshotToken {
    pub(super) epoch: Epoch,
    pub(super) name: SnapshotName,
}

/// Which diff a page belongs to and where it goes on. The epochs are in it, so that all pages are
/// of the same two moments even where new epochs are sealed between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DiffToken {
    /// `None`: the empty volume.
    pub(super) from: Option<Epoch>,
    pub(super) to: Epoch,
    pub(super) block: BlockIndex,
}

fn bad_token() -> Status {
    refused("page_token is not one of an answer to this call; begin again with an empty one")
}

fn field<T: FromStr>(part: Option<&str>) -> Result<T, Status> {
    part.and_then(|part| part.parse().ok()).ok_or_else(bad_token)
}

impl SnapshotToken {
    pub(super) fn to_text(&self) -> String {
        format!("s:{}:{}", self.epoch, self.name)
    }

    /// The token; `None` for the first page.
    pub(super) fn from_text(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.strip_prefix("s:").ok_or_else(bad_token)?.splitn(2, ':');
        Ok(Some(Self { epoch: Epoch(field(parts.next())?), name: field(parts.next())? }))
    }
}

impl DiffToken {
    pub(super) fn to_text(self) -> String {
        format!("d:{}:{}:{}", self.from.map_or(0, |epoch| epoch.0), self.to, self.block)
    }

    /// The token; `None` for the first page.
    pub(super) fn from_text(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.strip_prefix("d:").ok_or_else(bad_token)?.splitn(3, ':');
        let from: u32 = field(parts.next())?;
        let to: u32 = field(parts.next())?;
        let block = field(parts.next())?;
        if to < from {
            return Err(bad_token());
        }
        Ok(Some(Self { from: (from > 0).then_some(Epoch(from)), to: Epoch(to), block: BlockIndex(block) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_come_back(from in proptest::option::of(1u32..100), more in 0u32..100, block in any::<u32>(),
                            name in "[a-z0-9][a-z0-9._-]{0,62}") {
            let to = Epoch(from.unwrap_or(0) + more);
            let token = DiffToken { from: from.map(Epoch), to, block: BlockIndex(block) };
            prop_assert_eq!(DiffToken::from_text(&token.to_text()).expect("own token"), Some(token));
            let token = SnapshotToken { epoch: to, name: SnapshotName::new(name).expect("a name") };
            prop_assert_eq!(SnapshotToken::from_text(&token.to_text()).expect("own token"), Some(token));
        }

        #[test]
        fn no_token_panics(text in "\\PC{0,40}|[sd]:[0-9:]{0,30}") {
            let _ = DiffToken::from_text(&text);
            let _ = SnapshotToken::from_text(&text);
        }
    }
}
