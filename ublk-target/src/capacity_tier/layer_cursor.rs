//! Reading a layer's table from the store, in order, a bounded piece at a time; and many tables, one after the other, with many
//! pieces on their way at once.
//!
//! A cursor that has come to the end without seeking has verified the whole table: every page, the order of the
//! entries over all pages, their number by kind, and all of it against what HEAD says. One that
//! sought has verified what it gave.

use std::collections::VecDeque;
use std::rc::Rc;

use forerun::geometry::BlockIndex;
use futures_util::StreamExt;
use futures_util::stream;

use super::entry::{Entry, EntryCounts};
use super::error::{CapacityError, Result};
use super::fault::Fault;
use super::head::LayerInfo;
use super::layer_page::{Closing, Opening, PAGE_BYTES, Page, TableIdentity, decode};
use super::names::ObjectName;
use super::state::Inner;
use super::store::Store;

/// Pages read at a time where one table is read from front to end (256 KiB).
pub const PAGES_PER_READ: u32 = 64;
/// Reads on their way at once where whole tables are read (8 MiB, and twice that of entries): an object store answers each after
/// tens of milliseconds, and a volume with a thousand snapshots has a thousand tables.
const READS_AT_ONCE: usize = 32;

const WHAT: &str = "the layer's table";

/// A place in a layer's table.
pub(super) struct LayerCursor<S: Store> {
    tier: Rc<Inner<S>>,
    layer: LayerInfo,
    table: TableIdentity,
    entries: VecDeque<Entry>,
    next_page: u32,
    pages_per_read: u32,
    last: Option<BlockIndex>,
    counts: EntryCounts,
    sought: bool,
    buffer: Vec<u8>,
}

impl<S: Store> LayerCursor<S> {
    /// At the front of the table; nothing is read yet.
    pub fn new(tier: &Rc<Inner<S>>, layer: &LayerInfo, pages_per_read: u32) -> Self {
        Self {
            tier: Rc::clone(tier),
            table: identity(tier, layer),
            layer: layer.clone(),
            entries: VecDeque::new(),
            next_page: 0,
            pages_per_read: pages_per_read.max(1),
            last: None,
            counts: EntryCounts::default(),
            sought: false,
            buffer: Vec::new(),
        }
    }

    /// The next entry without taking it; `None` before [`Self::fill`] and at the end.
    pub fn peek(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Takes the next entry; `None` as with [`Self::peek`].
    pub fn take(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// The next entry, reading on where that is needed; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        self.fill().await?;
        Ok(self.take())
    }

    /// Reads on until there is an entry to take, or the end.
    pub async fn fill(&mut self) -> Result<()> {
        while self.entries.is_empty() && self.next_page < self.layer.pages {
            let first = self.next_page;
            let count = self.pages_per_read.min(self.layer.pages - first);
            let pages = self.read_pages(first, count).await?;
            self.accept(first, pages)?;
        }
        Ok(())
    }

    /// Takes the next pages of the table, which somebody has read.
    fn accept(&mut self, first: u32, pages: Vec<Page>) -> Result<()> {
        debug_assert_eq!(first, self.next_page, "pages come in order");
        for (number, page) in (first..).zip(pages) {
            self.take_page(number, page)?;
            self.next_page = number + 1;
        }
        Ok(())
    }

    /// Goes to the first entry behind `after`, by halving; only from the front.
    pub async fn seek_behind(&mut self, after: BlockIndex) -> Result<()> {
        self.sought = true;
        // The first page of entries whose last block lies behind `after`.
        let (mut low, mut high) = (1, self.layer.pages.saturating_sub(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.read_pages(middle, 1).await?.pop();
            let Some(Page::Entries(entries)) = page else { return Err(self.wrong_kind(middle)) };
            if entries.last().is_some_and(|entry| entry.block > after) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        self.next_page = low;
        self.fill().await?;
        while self.peek().is_some_and(|entry| entry.block <= after) {
            self.take();
        }
        self.fill().await
    }

    async fn read_pages(&mut self, first: u32, count: u32) -> Result<Vec<Page>> {
        let buffer = std::mem::take(&mut self.buffer);
        let (pages, buffer) = read_pages(&self.tier, self.table, first, count, buffer).await?;
        self.buffer = buffer;
        Ok(pages)
    }

    fn wrong_kind(&self, number: u32) -> CapacityError {
        self.damaged(Fault::Range { what: WHAT, field: "kind of page", found: number.into() })
    }

    fn damaged(&self, fault: Fault) -> CapacityError {
        let name = ObjectName::layer(self.layer.id);
        self.tier.note_damage(name, self.tier.corrupt(name, fault))
    }

    fn take_page(&mut self, number: u32, page: Page) -> Result<()> {
        let last = self.layer.pages - 1;
        match page {
            Page::Opening(opening) if number == 0 => self.check_opening(&opening),
            Page::Closing(closing) if number == last => self.check_closing(&closing),
            Page::Entries(entries) if number != 0 && number != last => self.take_entries(entries),
            _ => Err(self.wrong_kind(number)),
        }
    }

    fn check_opening(&self, opening: &Opening) -> Result<()> {
        let layer = &self.layer;
        let expected = (layer.first_epoch, layer.last_epoch, layer.opened_us, layer.sealed_us);
        if (opening.first_epoch, opening.last_epoch, opening.opened_us, opening.sealed_us) == expected {
            return Ok(());
        }
        let (found, expected) = (opening.last_epoch.0.into(), layer.last_epoch.0.into());
        Err(self.damaged(Fault::Field { what: WHAT, field: "epoch or time", found, expected }))
    }

    fn check_closing(&self, closing: &Closing) -> Result<()> {
        let met = self.sought || self.counts == closing.counts;
        if met && closing.pages == self.layer.pages && closing.counts == self.layer.counts {
            return Ok(());
        }
        let (found, expected) = (closing.counts.entries(), self.layer.counts.entries());
        Err(self.damaged(Fault::Field { what: WHAT, field: "number of entries or pages", found, expected }))
    }

    fn take_entries(&mut self, entries: Vec<Entry>) -> Result<()> {
        let range = |field, found| Fault::Range { what: WHAT, field, found };
        for entry in entries {
            if self.last.is_some_and(|last| last >= entry.block) {
                return Err(self.damaged(range("order: block", entry.block.0.into())));
            }
            if entry.block.0 >= self.tier.geometry.get().blocks() {
                return Err(self.damaged(range("block", entry.block.0.into())));
            }
            if !(self.layer.first_epoch..=self.layer.last_epoch).contains(&entry.epoch) {
                return Err(self.damaged(range("epoch of an entry", entry.epoch.0.into())));
            }
            self.last = Some(entry.block);
            self.counts.count(entry.kind);
            self.entries.push_back(entry);
        }
        Ok(())
    }
}

fn identity<S: Store>(tier: &Inner<S>, layer: &LayerInfo) -> TableIdentity {
    TableIdentity { volume: tier.owner(layer.id.0), layer: layer.id }
}

/// Reads some pages of a table, each verified by itself; gives the memory back.
async fn read_pages<S: Store>(
    tier: &Inner<S>,
    table: TableIdentity,
    first: u32,
    count: u32,
    buffer: Vec<u8>,
) -> Result<(Vec<Page>, Vec<u8>)> {
    let name = ObjectName::layer(table.layer);
    let (offset, len) = (u64::from(first) * PAGE_BYTES as u64, count as usize * PAGE_BYTES);
    let read = tier.read_range(name, offset, len, buffer).await;
    let bytes = read.map_err(|error| tier.note_damage(name, error))?;
    let mut pages = Vec::with_capacity(count as usize);
    for (number, page) in (first..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        pages.push(decode(page, table, number).map_err(|fault| {
            let at = u64::from(number) * PAGE_BYTES as u64;
            tier.note_damage(name, tier.corrupt(format_args!("{name} at {at}"), fault))
        })?);
    }
    Ok((pages, bytes))
}

/// Tells every entry of these layers, each layer's after the one's before it, and verifies the whole tables.
pub(super) async fn read_tables<S: Store>(
    tier: &Rc<Inner<S>>,
    layers: &[LayerInfo],
    tell: &mut dyn FnMut(&LayerInfo, &Entry),
) -> Result<()> {
    let pieces = layers.iter().flat_map(|layer| {
        let firsts = (0..layer.pages).step_by(PAGES_PER_READ as usize);
        firsts.map(move |first| (layer, first, PAGES_PER_READ.min(layer.pages - first)))
    });
    let reads = pieces.map(|(layer, first, count)| async move {
        let (pages, _) = read_pages(tier, identity(tier, layer), first, count, Vec::new()).await?;
        Ok((layer, first, pages))
    });
    let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
    let mut cursor: Option<LayerCursor<S>> = None;
    while let Some(read) = reads.next().await {
        let (layer, first, pages) = read?;
        let mut own = match cursor.take() {
            Some(own) if first > 0 => own,
            _ => LayerCursor::new(tier, layer, PAGES_PER_READ),
        };
        own.accept(first, pages)?;
        while let Some(entry) = own.take() {
            tell(layer, &entry);
        }
        cursor = Some(own);
    }
    Ok(())
}
