//! Copying the live records of mostly dead segments into new ones.
//!
//! A record is verified before it is copied and keeps its checksum; only its header is written anew, for
//! the new segment. The layer gets a new table with the new places, and one replacement of HEAD switches
//! over. The old segments go after the
//! delay of deletions, so reads under way and maps that follow a little later are served.

use std::rc::Rc;

use super::error::{CapacityError, Result};
use super::head::Head;
use super::layer_cursor::{LayerCursor, PAGES_PER_READ};
use super::layer_page::Opening;
use super::maintain::Relocation;
use super::maintain_policy::Compaction;
use super::names::ObjectName;
use super::paced::Paced;
use super::record::open_record;
use super::segment_writer::SegmentWriter;
use super::state::{Inner, State};
use super::store::Store;
use super::table_writer::TableWriter;

impl<S: Store> Inner<S> {
    pub async fn compact(self: &Rc<Self>, head: &Head, chosen: &Compaction) -> Result<Vec<Relocation>> {
        let layer = head.layers().iter().find(|layer| layer.id == chosen.layer);
        let Some(layer) = layer.cloned() else { return Err(CapacityError::Overtaken) };
        let opening = Opening {
            first_epoch: layer.first_epoch,
            last_epoch: layer.last_epoch,
            opened_us: layer.opened_us,
            sealed_us: layer.sealed_us,
            generation: self.writer()?,
        };
        let mut table = TableWriter::begin(self, opening).await?;
        let mut segments = SegmentWriter::new(self, layer.last_epoch);
        let mut relocations = Vec::new();
        let mut cursor = LayerCursor::new(self, &layer, PAGES_PER_READ);
        let mut buffer = Vec::new();
        let mut paced = Paced::new(&self.options.pace);
        while let Some(mut entry) = cursor.next().await? {
            if let Some(old) = entry.place.filter(|place| chosen.segments.contains(&place.segment())) {
                // Read and written.
                paced.moved(2 * old.len_bytes() as u64).await;
                let name = ObjectName::segment(old.segment());
                let read = self.read_range(name, old.offset_bytes(), old.len_bytes(), buffer).await;
                buffer = read.map_err(|error| self.note_damage(name, error))?;
                let record = open_record(&buffer, self.owner(old.segment().0), old, entry.block);
                let record = record.map_err(|fault| {
                    let error = self.corrupt(format_args!("{old} (block {})", entry.block), fault);
                    self.note_damage(name, error)
                });
                let (header, stored) = record?;
                let new = segments.append(header.of_volume(self.volume), stored).await?;
                entry.place = Some(new);
                relocations.push(Relocation { block: entry.block, old, new });
            }
            table.push(entry).await?;
        }
        let segments = segments.finish().await?;
        let table = table.finish().await?;
        let (object, id, pages) = (table.object, table.id, table.pages);
        let (due_from, old_id) = (self.due_from(), layer.id);
        let change = move |head: &mut Head| {
            let found = head.layers.iter_mut().find(|layer| layer.id == old_id);
            let layer = found.ok_or(CapacityError::Overtaken)?;
            (layer.id, layer.pages) = (id, pages);
            Ok(())
        };
        let victims = chosen.segments.clone();
        let note = move |state: &mut State| {
            object.keep();
            let due = due_from();
            for segment in victims {
                let bytes = state.usage.remove(segment).unwrap_or_default();
                state.queue_segment(segment, bytes, due, layer.first_epoch);
            }
            for written in segments {
                written.object.keep();
                state.usage.insert(written.segment, written.usage);
            }
            state.queue_table(&layer, due, layer.first_epoch);
        };
        self.update_head(change, note).await?;
        Ok(relocations)
    }
}
