//! Growth of the fast tier while its volume is in use: its file or device, then what is on it, then the map.

use std::path::Path;

use forerun::config::format_size;
use forerun::geometry::BLOCK_BYTES;

use super::VolumeBackend;
use crate::control::{ControlError, ErrorKind, FastGrown, FastGrowth};
use crate::fast_tier::{FastTierError, device};

const PAGE: u64 = 4096;

/// Grows the fast tier of an open volume; one caller at a time. It always ends where its file or device ends, so that the superblock
/// there can be found by itself.
///
/// # Errors
/// As [`crate::control::ControlPlane::grow_fast`].
pub(super) fn grow(
    backend: &VolumeBackend,
    path: &Path,
    growth: FastGrowth,
) -> Result<FastGrown, ControlError> {
    let shared = &backend.threads.shared;
    let layout = shared.committer.layout();
    let there_bytes =
        device::size_bytes(&backend.fast, path).map_err(|error| refusal(ErrorKind::Internal, &error))?;
    let wanted_bytes = match growth {
        FastGrowth::To(bytes) => bytes,
        FastGrowth::By(more) => layout.tier_bytes.saturating_add(more),
        FastGrowth::All => there_bytes,
    };
    // A tier is made of whole pages.
    let [there_bytes, wanted_bytes] = [there_bytes, wanted_bytes].map(|bytes| bytes / PAGE * PAGE);
    let told = |size_bytes, slots| FastGrown {
        previous_size_bytes: layout.tier_bytes,
        size_bytes,
        block_bytes: u64::from(slots) * BLOCK_BYTES,
    };
    if wanted_bytes == layout.tier_bytes {
        return Ok(told(layout.tier_bytes, layout.slots));
    }
    if wanted_bytes < layout.tier_bytes {
        let now = format_size(layout.tier_bytes);
        let text =
            format!("the fast tier {} has {now}, and does not shrink; nothing was changed", path.display());
        return Err(ControlError::new(ErrorKind::Invalid, text));
    }
    if wanted_bytes < there_bytes {
        let text = format!(
            "{} has {there_bytes} bytes, and a fast tier takes all of its file or device: grow it to 'all' or to more; nothing \
             was changed",
            path.display()
        );
        return Err(ControlError::new(ErrorKind::Invalid, text));
    }
    if !shared.volume.can_grow_slots() {
        let text =
            "the fast tier has grown too often since the volume was started: start it again, then grow it";
        return Err(ControlError::new(ErrorKind::State, text.to_owned()));
    }
    // Before the file is made larger: what is refused changes nothing.
    layout.grown_to(wanted_bytes).map_err(|error| refusal(ErrorKind::Invalid, &error))?;
    device::extend(&backend.fast, path, wanted_bytes).map_err(|error| match &error {
        FastTierError::DeviceSmaller { .. } => refusal(ErrorKind::Invalid, &error),
        FastTierError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            refusal(ErrorKind::Exhausted, &error)
        }
        _ => refusal(ErrorKind::Internal, &error),
    })?;
    let grown = smol::block_on(shared.committer.grow(&backend.superblock, &**shared, wanted_bytes));
    let slots = grown.map_err(|error| match shared.committer.failure() {
        Some(words) => {
            ControlError::new(ErrorKind::Internal, format!("the fast tier does not grow: {words}"))
        }
        None => {
            // As it was: what is longer than the tier would hide its last superblock.
            if let Err(error) = device::cut_back(&backend.fast, path, layout.tier_bytes) {
                tracing::warn!(%error, "the fast tier's file stays longer than the tier");
            }
            refusal(ErrorKind::Internal, &error)
        }
    })?;
    shared.volume.grow_slots(slots);
    let size_bytes = shared.committer.layout().tier_bytes;
    tracing::info!(from = layout.tier_bytes, to = size_bytes, slots, "the fast tier has grown");
    Ok(told(size_bytes, slots))
}

fn refusal(kind: ErrorKind, error: &FastTierError) -> ControlError {
    ControlError::new(kind, format!("the fast tier does not grow: {error}"))
}
