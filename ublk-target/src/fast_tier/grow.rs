//! Growth of an open tier, on a device or file that has become larger.
//!
//! The slots stay where they are, and more follow them. A checkpoint has to have room for all of them, so there are larger
//! areas behind everything that is in use ([`super::layout`]). Step by step, and what a crash after each leaves:
//! 1. the header of the second new area is zeroed, so that nothing of another time can be taken for a checkpoint: the tier
//!    as it was, of which nothing is touched;
//! 2. a checkpoint of the state in the first new area, while commits go on: the same;
//! 3. superblock B at the new end: the same, for superblock A leads to the old end, and where A is broken B says the same
//!    state, since the journal still has all that came after the new checkpoint;
//! 4. superblock A: the tier that has grown;
//! 5. the journal before the checkpoint is free, and slots behind the old ones may be used; a second checkpoint, so that
//!    there are two.

use super::checkpoint::header_offset;
use super::committer::{Committer, Facts};
use super::error::FastTierError;
use super::page::PAGE_BYTES;
use super::tier::OpenSuperblock;
use super::{checkpointer, superblock::Superblock};
use crate::aligned::AlignedBuffer;

impl Committer {
    /// Takes all of a device of `tier_bytes` bytes into use; `superblock` is this tier's. Returns how many slots there are then.
    ///
    /// # Errors
    /// It is not larger by enough, and nothing has changed; or I/O: what failed before a superblock was written has changed
    /// nothing, after that the tier counts as failed, for either state may be what the next opening finds.
    pub async fn grow(
        &self,
        superblock: &OpenSuperblock,
        state: &dyn Facts,
        tier_bytes: u64,
    ) -> Result<u32, FastTierError> {
        let shared = self.shared();
        let layout = shared.layout().grown_to(tier_bytes)?;
        let grown = || Superblock { layout, ..superblock.get() };
        let error = || FastTierError::tier("grow");
        let zeros = AlignedBuffer::zeroed(PAGE_BYTES);
        shared.device.write_at(header_offset(&layout, 1), &zeros).map_err(error())?;
        let switch = Box::pin(async move {
            let [a, b] = layout.superblock_offsets();
            let grown = grown();
            for (copy, offset) in [(1, b), (0, a)] {
                shared.device.turn().await;
                let written = shared.device.write_at(offset, &grown.to_page(copy));
                // Half a superblock may lead to either state.
                written.inspect_err(|error| shared.sync_failed(error))?;
                shared.sync().await?;
            }
            superblock.set_layout(layout);
            Ok(())
        });
        checkpointer::take_over_to(shared, state, layout, switch).await.map_err(error())?;
        // Not needed for what there is, and tried again by itself.
        if let Err(error) = checkpointer::take(shared, state).await {
            tracing::warn!(%error, "the second checkpoint of the grown fast tier failed");
        }
        Ok(layout.slots)
    }
}
