//! Writing back one sealed epoch: its blocks into segments, its table, and then HEAD that names it.
//!
//! Nothing of it can be reached before [`LayerWriter::commit`] has returned; after a crash at any point the
//! layer is there
//! whole or not at all. Dropped, or failed at any step, its objects are queued for deletion.

use std::rc::Rc;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SUB_BLOCKS_PER_BLOCK, SegmentId};

use super::codec::Compressor;
use super::entry::{Entry, EntryKind};
use super::error::{CapacityError, Result};
use super::head::{Head, LayerInfo};
use super::layer_page::Opening;
use super::names::SnapshotName;
use super::place::Place;
use super::record::RecordHeader;
use super::segment_writer::SegmentWriter;
use super::state::Inner;
use super::store::Store;
use super::table_writer::TableWriter;

/// A layer being written back.
pub struct LayerWriter<S: Store> {
    tier: Rc<Inner<S>>,
    epoch: Epoch,
    opened_us: u64,
    sealed_us: u64,
    segments: SegmentWriter<S>,
    entries: Vec<Entry>,
    compressor: Compressor,
}

impl<S: Store> LayerWriter<S> {
    pub(super) fn new(tier: &Rc<Inner<S>>, epoch: Epoch, opened_us: u64, sealed_us: u64) -> Self {
        Self {
            tier: Rc::clone(tier),
            epoch,
            opened_us,
            sealed_us,
            segments: SegmentWriter::new(tier, epoch),
            entries: Vec::new(),
            compressor: Compressor::default(),
        }
    }

    /// Stores a block's 64 KiB as the epoch left it. Blocks come in any order, each once.
    ///
    /// `sub_blocks` is how many of the block's 16 sub-blocks the epoch wrote. Returns as soon as the data is in
    /// memory; waits when [`super::options::SEGMENTS_IN_FLIGHT`] segments are on their way.
    ///
    /// # Errors
    /// A failing store, of this or an earlier block; the layer cannot be committed any more.
    pub async fn put(
        &mut self,
        block: BlockIndex,
        kind: ChangeKind,
        sub_blocks: u8,
        data: &[u8],
    ) -> Result<()> {
        let kind = EntryKind::from(kind);
        let counted = (1..=SUB_BLOCKS_PER_BLOCK).contains(&u32::from(sub_blocks));
        if data.len() as u64 != BLOCK_BYTES || !counted || !kind.after() {
            let len = data.len();
            let message = format!("block {block} with {len} bytes, {sub_blocks} sub-blocks, as {kind:?}");
            return Err(CapacityError::Misuse(message));
        }
        self.check_block(block)?;
        let (codec, stored) = self.compressor.compress(data);
        // The segment is filled in by the segment writer, which numbers it.
        let header = RecordHeader::new(self.tier.volume, SegmentId(0), block, self.epoch, codec, stored);
        let place = Some(self.segments.append(header, stored).await?);
        self.entries.push(Entry { block, epoch: self.epoch, kind, sub_blocks, place });
        Ok(())
    }

    /// Notes that the epoch discarded or zeroed a block as a whole.
    ///
    /// # Errors
    /// A block outside of the volume.
    pub fn delete(&mut self, block: BlockIndex) -> Result<()> {
        self.check_block(block)?;
        let (kind, sub_blocks) = (EntryKind::Deleted, SUB_BLOCKS_PER_BLOCK as u8);
        self.entries.push(Entry { block, epoch: self.epoch, kind, sub_blocks, place: None });
        Ok(())
    }

    fn check_block(&self, block: BlockIndex) -> Result<()> {
        let blocks = self.tier.geometry.get().blocks();
        if block.0 < blocks {
            return Ok(());
        }
        Err(CapacityError::Misuse(format!("block {block} of a volume of {blocks} blocks")))
    }

    /// Makes the layer durable and reachable: segments, then its table, then HEAD.
    ///
    /// `mapped_blocks` is how many blocks the volume holds at the layer's end. Gives every block of the
    /// layer with its place, ascending by block; `None` for a deleted one.
    ///
    /// # Errors
    /// A failing store, a fenced writer, an epoch that is not newer than the newest, a snapshot name that is
    /// taken.
    /// Then nothing of the layer can be reached, and the epoch can be written back again.
    pub async fn commit(
        mut self,
        snapshot: Option<&SnapshotName>,
        mapped_blocks: u32,
    ) -> Result<Vec<(BlockIndex, Option<Place>)>> {
        self.tier.writer()?;
        let segments = self.segments.finish().await?;
        self.entries.sort_unstable_by_key(|entry| entry.block);
        let opening = Opening {
            first_epoch: self.epoch,
            last_epoch: self.epoch,
            opened_us: self.opened_us,
            sealed_us: self.sealed_us,
            generation: self.tier.writer()?,
        };
        let mut table = TableWriter::begin(&self.tier, opening).await?;
        for entry in &self.entries {
            table.push(*entry).await?;
        }
        let table = table.finish().await?;
        let layer = LayerInfo {
            id: table.id,
            first_epoch: self.epoch,
            last_epoch: self.epoch,
            opened_us: self.opened_us,
            sealed_us: self.sealed_us,
            counts: table.counts,
            mapped_blocks,
            pages: table.pages,
            reclaim: false,
            snapshot: snapshot.cloned(),
        };
        let object = table.object;
        self.tier
            .update_head(
                move |head| append_layer(head, layer),
                move |state| {
                    object.keep();
                    for written in segments {
                        written.object.keep();
                        state.usage.insert(written.segment, written.usage);
                    }
                },
            )
            .await?;
        Ok(self.entries.iter().map(|entry| (entry.block, entry.place)).collect())
    }
}

fn append_layer(head: &mut Head, layer: LayerInfo) -> Result<()> {
    let newest = head.written_back_epoch();
    if layer.first_epoch <= newest {
        return Err(CapacityError::EpochOrder { epoch: layer.first_epoch, newest });
    }
    if let Some(name) = &layer.snapshot
        && let Some(there) = head.snapshot(name)
    {
        return Err(CapacityError::SnapshotExists { name: name.clone(), epoch: there.last_epoch });
    }
    head.layers.push(layer);
    Ok(())
}
