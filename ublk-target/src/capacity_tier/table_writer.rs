//! Writing a layer's table into the store, entry by entry, in bounded memory (256 KiB and a page).
//!
//! Until [`TableWriter::finish`] has returned, and HEAD names the layer, the object is nobody's: dropped or
//! failed,
//! it is queued for deletion.

use std::io;
use std::rc::Rc;

use forerun::geometry::BlockIndex;

use super::deletions::Provisional;
use super::entry::{Entry, EntryCounts};
use super::error::{CapacityError, Result};
use super::layer_page::{
    Closing, ENTRIES_PER_PAGE, Opening, PAGE_BYTES, TableIdentity, encode_closing, encode_entries,
    encode_opening,
};
use super::names::{LayerId, ObjectName};
use super::state::Inner;
use super::store::{Store, Upload};

const PIECE_BYTES: usize = 64 * PAGE_BYTES;

/// A table on its way into the store.
pub(super) struct TableWriter<S: Store> {
    tier: Rc<Inner<S>>,
    table: TableIdentity,
    object: Rc<Provisional<S>>,
    upload: S::Upload,
    page: Vec<Entry>,
    next_page: u32,
    counts: EntryCounts,
    last: Option<BlockIndex>,
    piece: Vec<u8>,
}

/// A table that is in the store, durable, and not yet named by HEAD.
pub(super) struct WrittenTable<S: Store> {
    pub id: LayerId,
    pub object: Rc<Provisional<S>>,
    pub counts: EntryCounts,
    pub pages: u32,
}

impl<S: Store> TableWriter<S> {
    /// Begins a table under a new number.
    pub async fn begin(tier: &Rc<Inner<S>>, opening: Opening) -> Result<Self> {
        let id = LayerId(tier.take_number().await?);
        let name = ObjectName::layer(id);
        let object = Provisional::new(tier, name);
        let begun = tier.store.begin_upload(name).await;
        let upload = begun.map_err(|error| tier.io_error("create", name, error))?;
        let table = TableIdentity { volume: tier.volume, layer: id };
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        encode_opening(table, &opening, &mut piece);
        Ok(Self {
            tier: Rc::clone(tier),
            table,
            object,
            upload,
            page: Vec::with_capacity(ENTRIES_PER_PAGE),
            next_page: 1,
            counts: EntryCounts::default(),
            last: None,
            piece,
        })
    }

    /// Appends an entry; blocks come strictly ascending.
    pub async fn push(&mut self, entry: Entry) -> Result<()> {
        if self.last.is_some_and(|last| last >= entry.block) {
            return Err(CapacityError::Misuse(format!(
                "block {} twice or out of order in a layer",
                entry.block
            )));
        }
        self.last = Some(entry.block);
        self.counts.count(entry.kind);
        self.page.push(entry);
        if self.page.len() == ENTRIES_PER_PAGE {
            self.close_page();
            if self.piece.len() >= PIECE_BYTES {
                self.send_piece().await?;
            }
        }
        Ok(())
    }

    fn close_page(&mut self) {
        debug_assert!(self.page.len() <= ENTRIES_PER_PAGE && !self.page.is_empty());
        encode_entries(self.table, self.next_page, &self.page, &mut self.piece);
        self.page.clear();
        self.next_page += 1;
    }

    async fn send_piece(&mut self) -> Result<()> {
        let (result, mut piece) = self.upload.append(std::mem::take(&mut self.piece)).await;
        piece.clear();
        self.piece = piece;
        self.written(result).await
    }

    /// What was written of a table that failed is deleted at once: a full store needs the room.
    async fn written(&self, result: io::Result<()>) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        let _ = self.tier.store.delete(self.object.name).await;
        Err(self.tier.io_error("write", self.object.name, error))
    }

    /// Closes the table and makes it durable.
    pub async fn finish(mut self) -> Result<WrittenTable<S>> {
        if !self.page.is_empty() {
            self.close_page();
        }
        let closing = Closing { counts: self.counts, pages: self.next_page + 1 };
        encode_closing(self.table, &closing, &mut self.piece);
        self.send_piece().await?;
        let Self { tier, table, object, upload, .. } = self;
        if let Err(error) = upload.finish().await {
            let _ = tier.store.delete(object.name).await;
            return Err(tier.io_error("write", object.name, error));
        }
        let (counts, pages) = (closing.counts, closing.pages);
        Ok(WrittenTable { id: table.layer, object, counts, pages })
    }
}
