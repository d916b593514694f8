//! Reading a layer's table that may be damaged: page by page, each judged alone.
//!
//! What a lost page may have said is bounded by its neighbours, since entries ascend by block over the whole table.
//! Memory: the entries of one layer.

use forerun::geometry::{BlockIndex, Epoch};

use super::damage::is_damage;
use super::entry::Entry;
use super::error::Result;
use super::fault::Fault;
use super::layer_page::{Closing, Opening, PAGE_BYTES, Page, TableIdentity, decode};
use super::names::{LayerId, ObjectName};
use super::state::Inner;
use super::store::Store;

const PAGES_PER_READ: u32 = 64;

/// A run of blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlockRange {
    /// The first block.
    pub first: BlockIndex,
    /// The last block.
    pub last: BlockIndex,
}

impl BlockRange {
    /// All blocks of a volume.
    #[must_use]
    pub const fn whole(blocks: u32) -> Self {
        Self { first: BlockIndex(0), last: BlockIndex(blocks - 1) }
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn contains(&self, block: BlockIndex) -> bool {
        (self.first..=self.last).contains(&block)
    }
}

/// What could be read of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableScan {
    /// The entries of its sound pages, ascending by block.
    pub entries: Vec<Entry>,
    /// Where its other pages may have had entries.
    pub lost: Vec<BlockRange>,
    /// The page that opens it, if it is sound.
    pub opening: Option<Opening>,
    /// The page that closes it, if it is sound.
    pub closing: Option<Closing>,
    /// What is wrong, by page.
    pub faults: Vec<(u32, String)>,
    /// How many pages it should have.
    pub pages: u32,
}

impl TableScan {
    /// Whether all of it is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.opening.is_some() && self.closing.is_some()
    }
}

/// What a sound table of the layer has to agree with.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Its pages, if HEAD tells; else the object's length does.
    pub pages: Option<u32>,
    /// Its epochs, if HEAD tells; else its first page does.
    pub epochs: Option<(Epoch, Epoch)>,
}

enum Read {
    Page(Page),
    Bad(String),
}

/// Reads a table, whatever its state.
///
/// # Errors
/// A store that fails in other ways than by a missing object or an unreadable sector.
pub(super) async fn scan_table<S: Store>(
    tier: &Inner<S>,
    id: LayerId,
    len: Option<u64>,
    expected: Expected,
) -> Result<TableScan> {
    let blocks = tier.geometry.get().blocks();
    let by_len = len.map(|len| u32::try_from(len / PAGE_BYTES as u64).unwrap_or(u32::MAX));
    // A table has as many pages as its entries need; what is longer is not believed.
    let most = blocks.div_ceil(super::layer_page::ENTRIES_PER_PAGE as u32) + 2;
    let pages = expected.pages.or(by_len).unwrap_or(0).min(most);
    let mut scan = TableScan { pages, ..TableScan::default() };
    if len.is_none() {
        scan.faults.push((0, "the table is missing".to_owned()));
        scan.lost.push(BlockRange::whole(blocks));
        return Ok(scan);
    }
    let pages_known = expected.pages.is_some();
    let mut assembly = Assembly { epochs: expected.epochs, pages_known, last: None, hole: None, blocks };
    let mut first = 0;
    while first < pages {
        let count = PAGES_PER_READ.min(pages - first);
        for (number, read) in (first..).zip(read_pages(tier, id, first, count).await?) {
            assembly.take(number, read, &mut scan);
        }
        first += count;
    }
    assembly.end(&mut scan);
    Ok(scan)
}

/// Puts pages together.
struct Assembly {
    epochs: Option<(Epoch, Epoch)>,
    /// Whether HEAD tells how many pages there are; else the last one may be any.
    pages_known: bool,
    /// The last block of the last sound page.
    last: Option<BlockIndex>,
    /// Pages are missing since this block.
    hole: Option<BlockIndex>,
    blocks: u32,
}

impl Assembly {
    fn next_block(&self) -> BlockIndex {
        self.last.map_or(BlockIndex(0), |last| BlockIndex(last.0 + 1))
    }

    fn take(&mut self, number: u32, read: Read, scan: &mut TableScan) {
        let closes = scan.pages.saturating_sub(1);
        let fault = match read {
            Read::Page(Page::Opening(opening)) if number == 0 => {
                let epochs = (opening.first_epoch, opening.last_epoch);
                if *self.epochs.get_or_insert(epochs) == epochs {
                    scan.opening = Some(opening);
                    return;
                }
                "the first page is of other epochs than HEAD says".to_owned()
            }
            Read::Page(Page::Closing(closing)) if number == closes => {
                scan.closing = Some(closing);
                return;
            }
            Read::Page(Page::Entries(entries)) if number > 0 && number <= closes => match self.fits(&entries)
            {
                Ok((first, last)) => {
                    if let Some(hole) = self.hole.take()
                        && hole < first
                    {
                        scan.lost.push(BlockRange { first: hole, last: BlockIndex(first.0 - 1) });
                    }
                    self.last = Some(last);
                    scan.entries.extend(entries);
                    if number < closes {
                        return;
                    }
                    "the table does not end".to_owned()
                }
                Err(fault) => fault,
            },
            Read::Page(_) => "a page of another kind than belongs here".to_owned(),
            Read::Bad(fault) => fault,
        };
        scan.faults.push((number, fault));
        if number > 0 && (number < closes || !self.pages_known) {
            self.hole.get_or_insert(self.next_block());
        }
    }

    fn fits(&self, entries: &[Entry]) -> std::result::Result<(BlockIndex, BlockIndex), String> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err("a page of no entries".to_owned());
        };
        if first.block < self.next_block() || last.block.0 >= self.blocks {
            return Err(format!("blocks {} to {} are out of order", first.block, last.block));
        }
        if let Some((from, to)) = self.epochs
            && let Some(entry) = entries.iter().find(|entry| !(from..=to).contains(&entry.epoch))
        {
            return Err(format!("an entry of epoch {} in a layer of epochs {from} to {to}", entry.epoch));
        }
        Ok((first.block, last.block))
    }

    fn end(mut self, scan: &mut TableScan) {
        if scan.pages < 2 {
            scan.faults.push((0, "the table is cut short".to_owned()));
            self.hole.get_or_insert(self.next_block());
        }
        if let Some(hole) = self.hole
            && hole.0 < self.blocks
        {
            scan.lost.push(BlockRange { first: hole, last: BlockIndex(self.blocks - 1) });
        }
        if let Some(closing) = &scan.closing
            && scan.lost.is_empty()
            && closing.counts.entries() != scan.entries.len() as u64
        {
            let (have, says) = (scan.entries.len(), closing.counts.entries());
            scan.faults.push((
                scan.pages.saturating_sub(1),
                format!("the table has {have} entries and says {says}"),
            ));
        }
    }
}

async fn read_pages<S: Store>(tier: &Inner<S>, id: LayerId, first: u32, count: u32) -> Result<Vec<Read>> {
    let name = ObjectName::layer(id);
    let table = TableIdentity { volume: tier.owner(id.0), layer: id };
    let offset = |page: u32| u64::from(page) * PAGE_BYTES as u64;
    let judge = |bytes: &[u8], number| match decode(bytes, table, number) {
        Ok(page) => Read::Page(page),
        Err(fault) => Read::Bad(fault.to_string()),
    };
    match tier.read_range(name, offset(first), count as usize * PAGE_BYTES, Vec::new()).await {
        Ok(bytes) => {
            return Ok((first..).zip(bytes.chunks(PAGE_BYTES)).map(|(n, page)| judge(page, n)).collect());
        }
        Err(error) if is_damage(&error) => {}
        Err(error) => return Err(error),
    }
    let mut pages = Vec::with_capacity(count as usize);
    for number in first..first + count {
        pages.push(match tier.read_range(name, offset(number), PAGE_BYTES, Vec::new()).await {
            Ok(bytes) => judge(&bytes, number),
            Err(error) if is_damage(&error) => Read::Bad(short_or(&error)),
            Err(error) => return Err(error),
        });
    }
    Ok(pages)
}

fn short_or(error: &super::error::CapacityError) -> String {
    match error {
        super::error::CapacityError::Corrupt { fault: Fault::Short { .. }, .. } => {
            "the page is beyond the object's end".to_owned()
        }
        other => other.to_string(),
    }
}
