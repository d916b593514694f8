//! Growth of an open tier, on a device or file that has become larger.
//!
//! The slots stay where they are, and more follow them. A checkpoint has to have room for all of them, so there are larger
//! areas behind everything that is in use ([`super::layout`]). Step by step, and what a crash after each leaves:
//! 1. the headers of both new areas are zeroed, so that nothing of another time can be taken for a checkpoint: the tier
//!    as it was, of which nothing is touched;
//! 2. a checkpoint of the state in the first new area, while commits go on: the same;
//! 3. superblock B at the new end: the same, for superblock A leads to the old end, and where A is broken B says the same
//!    state, since the journal still has all that came after the new checkpoint;
//! 4. superblock A: the tier that has grown;
//! 5. the headers of the old areas are zeroed, the journal before the checkpoint is free, and slots behind the old ones may
//!    be used; a second checkpoint, so that there are two.

use std::io;

use super::checkpoint::header_offset;
use super::committer::{Committer, Facts, Shared};
use super::error::FastTierError;
use super::layout::Layout;
use super::page::PAGE_BYTES;
use super::tier::OpenSuperblock;
use super::{checkpointer, superblock::Superblock};
use crate::aligned::AlignedBuffer;

impl Committer {
    /// Takes all of a device of `tier_bytes` bytes into use; `superblock` is this tier's. Returns how many slots there are then.
    ///
    /// # Errors
    /// It is not larger by enough, it is being closed, or a write failed: then nothing has changed. Where superblock A cannot be
    /// written the tier counts as failed, for either size may be what the next opening finds; either has all that was
    /// acknowledged. A sync that fails fails the tier, as ever.
    pub async fn grow(
        &self,
        superblock: &OpenSuperblock,
        state: &dyn Facts,
        tier_bytes: u64,
    ) -> Result<u32, FastTierError> {
        let shared = self.shared();
        let before = shared.layout();
        let layout = before.grown_to(tier_bytes)?;
        let error = || FastTierError::tier("grow");
        clear_headers(shared, &layout).map_err(error())?;
        shared.sync().await.map_err(error())?;
        let switch = Box::pin(switch(shared, superblock, layout));
        checkpointer::take_over_to(shared, state, layout, switch).await.map_err(error())?;
        // Salvage must not take them for this tier's; and slots may lie there from now on.
        if let Err(error) = clear_headers(shared, &before) {
            tracing::warn!(%error, "the old checkpoints of the grown fast tier could not be cleared; nothing uses them");
        }
        // Not needed for what there is, and tried again by itself.
        if let Err(error) = checkpointer::take(shared, state).await {
            tracing::warn!(%error, "the second checkpoint of the grown fast tier failed");
        }
        Ok(layout.slots)
    }
}

fn clear_headers(shared: &Shared, layout: &Layout) -> io::Result<()> {
    let zeros = AlignedBuffer::zeroed(PAGE_BYTES);
    [0, 1].into_iter().try_for_each(|area| shared.device.write_at(header_offset(layout, area), &zeros))
}

/// Makes the superblocks lead to the new areas.
async fn switch(shared: &Shared, superblock: &OpenSuperblock, layout: Layout) -> io::Result<()> {
    let [a, b] = layout.superblock_offsets();
    let grown = Superblock { layout, ..superblock.get() };
    shared.device.turn().await;
    if let Err(error) = shared.device.write_at(b, &grown.to_page(1)) {
        // Nothing leads to it while A can be read; a try, so that nothing ever does.
        let _ = shared.device.write_at(b, &AlignedBuffer::zeroed(PAGE_BYTES));
        return Err(error);
    }
    shared.sync().await?;
    shared.device.turn().await;
    shared.device.write_at(a, &grown.to_page(0)).inspect_err(|error| {
        let words = format!(
            "the fast tier's first superblock could not be written while it grew ({error}): the next start finds one size or the \
             other, and all that was acknowledged in either; nothing is acknowledged until then: stop the volume, see to the \
             device, and start it again"
        );
        shared.fail(words, false);
    })?;
    shared.sync().await?;
    superblock.set_layout(layout);
    Ok(())
}
