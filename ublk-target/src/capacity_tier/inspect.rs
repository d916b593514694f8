//! Going through everything on a capacity tier, whatever its state, for dumps. Nothing is written.
//!
//! Memory: one segment (32 MiB at most), and a page of each layer for [`Inspector::newest`].

use std::collections::BTreeMap;

use forerun::config::CapacityAddress;
use forerun::geometry::{BlockIndex, Geometry, SegmentId};

use super::any_store::AnyStore;
use super::damage::is_damage;
use super::entry::Entry;
use super::error::Result;
use super::head::Head;
use super::layer_page::{PAGE_BYTES, Page, TableIdentity, decode};
use super::names::{LayerId, ObjectKind, ObjectName, VolumeUuid};
use super::old_layers::lengths;
use super::options::Options;
use super::segment_scan::{SegmentScan, scan_segment};
use super::state::Inner;
use super::tier::read_head;

/// A page of a table, or what is wrong with it.
pub type SeenPage = std::result::Result<Page, String>;

/// A capacity tier to be looked at.
pub struct Inspector {
    tier: Inner<AnyStore>,
    /// What HEAD says, or why it cannot be used.
    pub head: std::result::Result<Head, String>,
    layers: BTreeMap<u64, u64>,
    segments: BTreeMap<u64, u64>,
}

impl Inspector {
    /// Looks at HEAD and at what objects there are; `known` helps where HEAD does not tell.
    ///
    /// # Errors
    /// HEAD is lost and nothing is known; a store that fails other than by damage.
    pub async fn open(
        address: impl Into<CapacityAddress>,
        known: Option<(VolumeUuid, Geometry)>,
    ) -> Result<Self> {
        let address = address.into();
        let store = AnyStore::at(&address)?;
        let is_there = address.directory().is_none_or(std::path::Path::is_dir);
        let (head, shape) = match (read_head(&store, known.map(|(volume, _)| volume)).await, known) {
            (Ok((head, _)), _) => (Ok(head.clone()), head),
            (Err(error), Some((volume, geometry))) if is_damage(&error) && is_there => {
                (Err(error.to_string()), Head::new(volume, geometry))
            }
            (Err(error), _) => return Err(error),
        };
        let tier = Inner::new(store, shape, Vec::new(), Options::default(), None);
        let layers = lengths(&tier, ObjectKind::Layer).await?;
        let segments = lengths(&tier, ObjectKind::Segment).await?;
        Ok(Self { tier, head, layers, segments })
    }

    /// The tables to go through, oldest first: those that HEAD names, or all there are.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerId> {
        match &self.head {
            Ok(head) => head.layers().iter().map(|layer| layer.id).collect(),
            Err(_) => self.layers.keys().map(|number| LayerId(*number)).collect(),
        }
    }

    /// The segments there are; of a clone, its own.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentId> {
        self.segments
            .range(self.tier.own_from()..)
            .map(|(number, _)| number)
            .map(|number| SegmentId(*number))
            .collect()
    }

    /// Whether a segment's object is there.
    #[must_use]
    pub fn has_segment(&self, segment: SegmentId) -> bool {
        self.segments.contains_key(&segment.0)
    }

    /// How many pages a table has, by HEAD or by its length.
    #[must_use]
    pub fn pages(&self, layer: LayerId) -> u32 {
        let by_head =
            self.head.as_ref().ok().and_then(|head| head.layers().iter().find(|info| info.id == layer));
        let by_len = self.layers.get(&layer.0).map_or(0, |len| (*len / PAGE_BYTES as u64) as u32);
        by_head.map_or(by_len, |info| info.pages)
    }

    /// Reads a page of a table.
    ///
    /// # Errors
    /// A store that fails other than by damage.
    pub async fn page(&self, layer: LayerId, number: u32) -> Result<SeenPage> {
        let (name, offset) = (ObjectName::layer(layer), u64::from(number) * PAGE_BYTES as u64);
        match self.tier.read_range(name, offset, PAGE_BYTES, Vec::new()).await {
            Ok(bytes) => {
                let table = TableIdentity { volume: self.tier.owner(layer.0), layer };
                Ok(decode(&bytes, table, number).map_err(|fault| fault.to_string()))
            }
            Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// A store that fails other than by damage.
    pub async fn segment(&self, segment: SegmentId) -> Result<SegmentScan> {
        let len = self.segments.get(&segment.0).copied().unwrap_or(0);
        scan_segment(&self.tier, segment, len).await
    }

    /// The newest entry of each block, to be asked for run by run of blocks.
    #[must_use]
    pub fn newest(&self) -> Newest<'_> {
        let tables = self.layers().into_iter().map(|id| Table { id, next: 1, entries: Vec::new() });
        Newest { inspector: self, tables: tables.collect() }
    }
}

struct Table {
    id: LayerId,
    next: u32,
    /// Of the page before `next`, the last first.
    entries: Vec<Entry>,
}

/// All tables, gone through side by side.
pub struct Newest<'i> {
    inspector: &'i Inspector,
    tables: Vec<Table>,
}

impl Newest<'_> {
    /// The newest entries of the blocks below `end` that have not been given yet, with their layer; tells of pages that
    /// cannot be read.
    ///
    /// # Errors
    /// A store that fails other than by damage.
    pub async fn below(
        &mut self,
        end: BlockIndex,
        broken: &mut dyn FnMut(LayerId, u32, String),
    ) -> Result<BTreeMap<BlockIndex, (LayerId, Entry)>> {
        let mut newest = BTreeMap::new();
        for table in &mut self.tables {
            let pages = self.inspector.pages(table.id);
            loop {
                while let Some(entry) = table.entries.pop_if(|entry| entry.block < end) {
                    newest.insert(entry.block, (table.id, entry));
                }
                if !table.entries.is_empty() || table.next >= pages {
                    break;
                }
                match self.inspector.page(table.id, table.next).await? {
                    Ok(Page::Entries(entries)) => table.entries = entries.into_iter().rev().collect(),
                    Ok(_) => {}
                    Err(why) => broken(table.id, table.next, why),
                }
                table.next += 1;
            }
        }
        Ok(newest)
    }
}
