//! Making a new capacity tier of what can be read of an old one.
//!
//! Layer by layer, oldest first, so that the new one has the same consistency points. A record that cannot be read is
//! looked for elsewhere (compaction and an interrupted write-back leave doubles), then asked of the fast tier; what nobody
//! has reads as zeros, and is told. A lost table is pieced together from records, which know block and epoch, but not
//! what was discarded: where the counts do not prove that nothing is missing, its blocks are told as doubtful.
//! A snapshot that is not what it was is kept under its name with `.damaged` behind it.
//!
//! What a crash leaves: HEAD comes last, so there is no volume before all is durable. Nothing of the old one is changed.
//! Memory: the entries of one layer, one bit a block, and where something is lost about 100 bytes for each record there is.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Generation, Geometry, SegmentId, SubBlockMask};

use super::codec::Compressor;
use super::entry::{Entry, EntryCounts, EntryKind};
use super::error::{CapacityError, Result};
use super::head::{Head, LayerInfo};
use super::layer_page::Opening;
use super::losses::{Account, ChangedSnapshot, Losses};
use super::names::{LayerId, ObjectKind, ObjectName, SnapshotName, VolumeUuid};
use super::old_layers::{OldLayer, add_lost_layers, find_layers, lengths};
use super::options::Options;
use super::pin::Pin;
use super::place::Place;
use super::record::{RecordHeader, read_record};
use super::segment_scan::{FoundRecord, RecordIndex, read_found};
use super::segment_writer::SegmentWriter;
use super::state::Inner;
use super::store::{HeadNumber, ReplaceError, Store};
use super::table_scan::{BlockRange, TableScan};
use super::table_writer::TableWriter;
use super::tier::{lock_creator, read_head, release};

/// What a snapshot that lost something is called.
pub const DAMAGED: &str = ".damaged";
/// So much of a segment is read at once (1 MiB): sixteen blocks that do not compress.
const AHEAD_BYTES: usize = 1 << 20;

/// Data that somebody else has of blocks as they were at the newest epoch of the capacity tier.
pub trait Supply {
    /// The blocks it has something of that is not newer than `written_back`, the newest epoch of the capacity tier, and
    /// the epoch at whose end it was so.
    fn blocks(&self, written_back: Epoch) -> Vec<(BlockIndex, Epoch)>;
    /// Reads what it has of a block into `out` (64 KiB), and says which sub-blocks that is.
    fn read(&mut self, block: BlockIndex, out: &mut [u8]) -> SubBlockMask;
}

/// Nobody has anything.
pub struct NoSupply;

impl Supply for NoSupply {
    fn blocks(&self, _written_back: Epoch) -> Vec<(BlockIndex, Epoch)> {
        Vec::new()
    }

    fn read(&mut self, _block: BlockIndex, _out: &mut [u8]) -> SubBlockMask {
        SubBlockMask::EMPTY
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// What is lost.
    pub losses: Losses,
    /// Why HEAD could not be used, if it could not.
    pub head_lost: Option<String>,
    /// Whether layers may be missing at the end, which only HEAD could have told.
    pub end_unknown: bool,
    /// The newest epoch.
    pub written_back: Epoch,
    /// When it was sealed, in microseconds since 1970.
    pub sealed_us: u64,
    /// The snapshots, by their new names.
    pub snapshots: Vec<(Epoch, SnapshotName)>,
    /// Layers.
    pub layers: u64,
    /// Records that were read and are sound.
    pub records: u64,
    /// Blocks, or parts of them, that came from [`Supply`].
    pub supplied: u64,
    /// The blocks that hold something at the newest epoch.
    pub mapped: BlockSet,
}

/// Reads `old`, if there is one, and writes a new tier into `new`, if that is given; else it only looks. With
/// `head_is_old` the layers that are there count, and HEAD only for the names that it has.
///
/// # Errors
/// HEAD is another volume's, of a newer format or of another shape; a store that fails other than by damage.
pub async fn rebuild<S: Store, T: Store>(
    old: Option<S>,
    new: Option<T>,
    volume: VolumeUuid,
    geometry: Geometry,
    head_is_old: bool,
    supply: &mut dyn Supply,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Rebuilt> {
    let mut head = Head::new(volume, geometry);
    let mut head_lost = None;
    if let Some(store) = &old {
        match read_head(store, Some(volume)).await {
            Ok((found, _)) if found.geometry.grows_into(geometry) => head = Head { geometry, ..found },
            Ok(_) => head_lost = Some("HEAD tells another shape of the volume".to_owned()),
            Err(error) if super::damage::is_damage(&error) => head_lost = Some(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if head_is_old && head_lost.is_none() {
        head_lost = Some("HEAD is an old copy".to_owned());
    }
    let target = match new {
        None => None,
        Some(store) => {
            let generation = lock_creator(&store).await?;
            let tier = Rc::new(Inner::for_rebuild(store, volume, geometry, generation));
            Some(Target { tier, compressor: Compressor::default() })
        }
    };
    let made = target.as_ref().map(|target| Rc::clone(&target.tier));
    let rebuilt = copy(old, target, head, head_lost, geometry, supply, progress).await;
    if let Some(tier) = made {
        release(&tier.store).await;
    }
    rebuilt
}

/// Reads the one, and writes the other.
async fn copy<S: Store, T: Store>(
    old: Option<S>,
    target: Option<Target<T>>,
    head: Head,
    head_lost: Option<String>,
    geometry: Geometry,
    supply: &mut dyn Supply,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Rebuilt> {
    let source = old.map(|store| Inner::new(store, head.clone(), Vec::new(), Options::default(), None));
    let mut work = Rebuild {
        source,
        target,
        supply,
        geometry,
        layer_lens: BTreeMap::new(),
        ahead: Ahead::default(),
        index: None,
        newest: HashMap::new(),
        mapped: BlockSet::new(geometry.blocks()),
        account: Account::default(),
        notes: Vec::new(),
        records: 0,
        supplied: 0,
    };
    let layers = work.find(&head, head_lost.is_some()).await?;
    let total = layers.len() as u64;
    let (mut infos, mut clones) = (Vec::new(), Vec::new());
    for (number, layer) in (0..).zip(&layers) {
        progress(number, total);
        infos.push(work.layer(layer).await?);
    }
    progress(total, total);
    let snapshots = rename(&mut infos, &work.account, head_lost.is_some());
    let written_back = infos.last().map_or(Epoch(0), |layer| layer.last_epoch);
    let sealed_us = infos.last().map_or(0, |layer| layer.sealed_us);
    let named = infos.iter().filter_map(|layer| Some((layer.last_epoch, layer.snapshot.clone()?))).collect();
    let count = infos.len() as u64;
    let new_head = Head {
        layers: infos,
        generation: work.target.as_ref().map_or(Ok(head.generation), |target| target.tier.writer())?,
        sequence: head.sequence + 1,
        // All of it is copied. The old tier is kept, and what that needs of its origins stays pinned.
        origins: Vec::new(),
        ..head
    };
    if let Some(target) = &work.target {
        target.finish(new_head).await?;
    }
    if let (Some(source), Some(_)) = (&work.source, &work.target) {
        clones = source.read_pins().await.unwrap_or_default();
    }
    let Rebuild { account, notes, records, supplied, mapped, .. } = work;
    let mut losses = account.finish();
    (losses.snapshots, losses.notes) = (snapshots, notes);
    let end_unknown = head_lost.is_some() && (!losses.notes.is_empty() || written_back == Epoch(0));
    let keep = |pin: &Pin| {
        format!(
            "the clone {} at {} goes on reading from this capacity tier: keep it where it is",
            pin.name, pin.address
        )
    };
    losses.notes.extend(clones.iter().map(keep));
    Ok(Rebuilt {
        losses,
        head_lost,
        end_unknown,
        written_back,
        sealed_us,
        snapshots: named,
        layers: count,
        records,
        supplied,
        mapped,
    })
}

struct Rebuild<'a, S: Store, T: Store> {
    source: Option<Inner<S>>,
    target: Option<Target<T>>,
    supply: &'a mut dyn Supply,
    geometry: Geometry,
    layer_lens: BTreeMap<u64, u64>,
    ahead: Ahead,
    /// Made when something is missing.
    index: Option<RecordIndex>,
    /// Of each block that [`Supply`] has: the epoch there, and that of its newest entry.
    newest: HashMap<BlockIndex, (Epoch, Epoch)>,
    mapped: BlockSet,
    account: Account,
    notes: Vec<String>,
    records: u64,
    supplied: u64,
}

/// An entry, and where its data comes from.
enum Data {
    /// A record, as it is stored, with its header.
    Stored(RecordHeader, Vec<u8>),
    /// A block put together here.
    Whole(Vec<u8>),
    /// Nothing: the block is deleted.
    None,
}

impl<S: Store, T: Store> Rebuild<'_, S, T> {
    /// The layers to be read, and the newest entries of what [`Supply`] has.
    async fn find(&mut self, head: &Head, head_lost: bool) -> Result<Vec<OldLayer>> {
        let Some(source) = &self.source else { return Ok(Vec::new()) };
        self.layer_lens = lengths(source, ObjectKind::Layer).await?;
        self.ahead.segment_lens = lengths(source, ObjectKind::Segment).await?;
        if head_lost && self.ahead.segment_lens.is_empty() {
            self.notes.push("there is no segment at all".to_owned());
        }
        let mut layers: Vec<OldLayer> = head.layers().iter().map(OldLayer::from).collect();
        if head_lost {
            layers = find_layers(source, &self.layer_lens, &mut self.notes).await?;
            let index = RecordIndex::build(source).await?;
            add_lost_layers(&mut layers, &index, &mut self.notes);
            for layer in &mut layers {
                let known = head.layers().iter().find(|known| known.last_epoch == layer.last_epoch);
                layer.snapshot = known.and_then(|known| known.snapshot.clone());
            }
            self.index = Some(index);
        }
        let written_back = layers.last().map_or(Epoch(0), |layer| layer.last_epoch);
        let supplied = self.supply.blocks(written_back);
        self.newest = supplied.into_iter().map(|(block, epoch)| (block, (epoch, Epoch(0)))).collect();
        if !self.newest.is_empty() {
            for layer in &layers {
                for entry in self.read_table(layer).await?.entries {
                    if let Some((_, newest)) = self.newest.get_mut(&entry.block) {
                        *newest = entry.epoch;
                    }
                }
            }
        }
        Ok(layers)
    }

    async fn index(&mut self) -> Result<()> {
        if self.index.is_none()
            && let Some(source) = &self.source
        {
            self.index = Some(RecordIndex::build(source).await?);
        }
        Ok(())
    }

    /// A layer's table, with entries made from records where pages are lost.
    async fn read_table(&mut self, layer: &OldLayer) -> Result<TableScan> {
        let Some(source) = &self.source else { return Ok(TableScan::default()) };
        let mut scan = match layer.id {
            Some(_) => layer.scan(source, &self.layer_lens).await?,
            None => {
                TableScan { lost: vec![BlockRange::whole(self.geometry.blocks())], ..TableScan::default() }
            }
        };
        if scan.lost.is_empty() {
            return Ok(scan);
        }
        self.index().await?;
        let Some(index) = &self.index else { return Ok(scan) };
        for (block, epoch) in index.newest_between(layer.first_epoch, layer.last_epoch) {
            if block.0 < self.geometry.blocks() && scan.lost.iter().any(|range| range.contains(block)) {
                // Which record holds it is found out when it is read; the kind is made from what was there before.
                let (kind, sub_blocks, place) = (EntryKind::Modified, 16, None);
                scan.entries.push(Entry { block, epoch, kind, sub_blocks, place });
            }
        }
        scan.entries.sort_unstable_by_key(|entry| entry.block);
        Ok(scan)
    }

    async fn layer(&mut self, layer: &OldLayer) -> Result<LayerInfo> {
        let scan = self.read_table(layer).await?;
        self.judge(layer, &scan);
        let opening = Opening {
            first_epoch: layer.first_epoch,
            last_epoch: layer.last_epoch,
            opened_us: layer.opened_us,
            sealed_us: layer.sealed_us,
            generation: self.target.as_ref().map_or(Ok(Generation(0)), |target| target.tier.writer())?,
        };
        let mut segments =
            self.target.as_ref().map(|target| SegmentWriter::new(&target.tier, layer.last_epoch));
        let (mut entries, mut counts) = (Vec::with_capacity(scan.entries.len()), EntryCounts::default());
        for mut entry in scan.entries {
            self.account.written(entry.block, layer.last_epoch);
            let data = if entry.kind.after() { self.data_of(&entry, layer).await? } else { Data::None };
            let before = self.mapped.get(entry.block);
            let after = !matches!(data, Data::None);
            self.mapped.set(entry.block, after);
            entry.kind = EntryKind::from_facts(before, after);
            counts.count(entry.kind);
            entry.place = match (&mut self.target, &mut segments) {
                (Some(target), Some(segments)) => target.append(segments, &entry, data).await?,
                _ => None,
            };
            entries.push(entry);
        }
        let (mut id, mut pages) = (LayerId(0), 0);
        if let (Some(target), Some(segments)) = (&self.target, segments) {
            for written in segments.finish().await? {
                written.object.keep();
            }
            let mut table = TableWriter::begin(&target.tier, opening).await?;
            for entry in &entries {
                table.push(*entry).await?;
            }
            let table = table.finish().await?;
            table.object.keep();
            (id, pages) = (table.id, table.pages);
        }
        Ok(LayerInfo {
            id,
            first_epoch: layer.first_epoch,
            last_epoch: layer.last_epoch,
            opened_us: layer.opened_us,
            sealed_us: layer.sealed_us,
            counts,
            mapped_blocks: self.mapped.count,
            pages,
            reclaim: layer.reclaim,
            snapshot: layer.snapshot.clone(),
        })
    }

    /// Doubts what a lost table may have said, unless the counts prove that it is all there again.
    fn judge(&mut self, layer: &OldLayer, scan: &TableScan) {
        if let Some(id) = layer.id
            && !scan.faults.is_empty()
        {
            let (count, first) =
                (scan.faults.len(), scan.faults.first().map_or("", |(_, fault)| fault.as_str()));
            self.notes.push(format!("layers/{:016x}: {count} of {} pages: {first}", id.0, scan.pages));
        }
        if scan.lost.is_empty() {
            return;
        }
        let with_data = scan.entries.iter().filter(|entry| entry.kind.after()).count() as u64;
        let without = scan.entries.len() as u64 - with_data;
        let proved = layer.counts.is_some_and(|counts| {
            with_data == u64::from(counts.added) + u64::from(counts.modified)
                && without == u64::from(counts.deleted) + u64::from(counts.passed)
        });
        if proved {
            return;
        }
        let why = format!(
            "the table of epochs {} to {} is lost in part; what it said was made from records, which do not tell \
             what was discarded",
            layer.first_epoch, layer.last_epoch
        );
        for range in &scan.lost {
            self.account.doubt(*range, layer.last_epoch, &why);
        }
    }

    /// The data of an entry, from wherever it can be had; notes what cannot.
    async fn data_of(&mut self, entry: &Entry, layer: &OldLayer) -> Result<Data> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        if let Some(stored) = self.read_placed(entry, &mut block).await? {
            return Ok(stored);
        }
        self.index().await?;
        if let (Some(source), Some(index)) = (&self.source, &self.index) {
            let found: Vec<FoundRecord> = index.of(entry.block, entry.epoch).to_vec();
            for record in found.iter().filter(|record| record.sound) {
                if let Some(stored) = read_found(source, record, &mut block).await? {
                    self.records += 1;
                    return Ok(Data::Stored(record.header, stored));
                }
            }
        }
        let mut have = SubBlockMask::EMPTY;
        if let Some((supplied, newest)) = self.newest.get(&entry.block)
            && *newest == entry.epoch
            && *supplied >= entry.epoch
        {
            block.fill(0);
            have = self.supply.read(entry.block, &mut block);
            self.supplied += u64::from(!have.is_empty());
        }
        let lost = SubBlockMask::FULL.minus(have);
        if !lost.is_empty() {
            self.account.lost(entry.block, lost, layer.last_epoch);
        }
        Ok(if have.is_empty() { Data::None } else { Data::Whole(block) })
    }

    async fn read_placed(&mut self, entry: &Entry, block: &mut [u8]) -> Result<Option<Data>> {
        let (Some(source), Some(place)) = (&self.source, entry.place) else { return Ok(None) };
        let record = match self.ahead.read(source, place).await {
            Ok(record) => record,
            Err(error) if super::damage::is_damage(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(header) = read_record(record, source.owner(place.segment().0), place, entry.block, block)
        else {
            return Ok(None);
        };
        if header.epoch != entry.epoch {
            return Ok(None);
        }
        self.records += 1;
        let stored = header.verify_data(record).map(<[u8]>::to_vec);
        Ok(stored.ok().map(|stored| Data::Stored(header, stored)))
    }
}

/// Records are mostly in the order in which they are asked for: a request of an object store takes as long for some of them as
/// for one.
#[derive(Default)]
struct Ahead {
    /// The lengths of the segments that are here, by number, in bytes.
    segment_lens: BTreeMap<u64, u64>,
    segment: SegmentId,
    offset_bytes: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// The bytes of a record.
    async fn read<S: Store>(&mut self, source: &Inner<S>, place: Place) -> Result<&[u8]> {
        let (offset, len) = (place.offset_bytes(), place.len_bytes());
        if self.segment != place.segment() || self.within(offset, len).is_none() {
            let name = ObjectName::segment(place.segment());
            let left = self.segment_lens.get(&place.segment().0).map_or(0, |all| all.saturating_sub(offset));
            let wanted = usize::try_from(left).unwrap_or(AHEAD_BYTES).min(AHEAD_BYTES);
            let buffer = std::mem::take(&mut self.bytes);
            self.bytes = if wanted > len {
                match source.read_range(name, offset, wanted, buffer).await {
                    Ok(bytes) => bytes,
                    // What is behind it may be damaged.
                    Err(_) => source.read_range(name, offset, len, Vec::new()).await?,
                }
            } else {
                source.read_range(name, offset, len, buffer).await?
            };
            (self.segment, self.offset_bytes) = (place.segment(), offset);
        }
        self.within(offset, len)
            .ok_or_else(|| CapacityError::Misuse("a read that gave too little".to_owned()))
    }

    fn within(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.offset_bytes)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }
}

/// Where the new tier is written.
struct Target<T: Store> {
    tier: Rc<Inner<T>>,
    compressor: Compressor,
}

impl<T: Store> Target<T> {
    async fn append(
        &mut self,
        segments: &mut SegmentWriter<T>,
        entry: &Entry,
        data: Data,
    ) -> Result<Option<Place>> {
        let volume = self.tier.volume;
        match data {
            Data::None => Ok(None),
            Data::Stored(header, stored) => {
                segments.append(header.of_volume(volume), &stored).await.map(Some)
            }
            Data::Whole(block) => {
                let (codec, stored) = self.compressor.compress(&block);
                let header = RecordHeader::new(volume, SegmentId(0), entry.block, entry.epoch, codec, stored);
                segments.append(header, stored).await.map(Some)
            }
        }
    }

    /// Makes it a volume.
    async fn finish(&self, head: Head) -> Result<()> {
        let place = self.tier.store.place();
        let head = Head { numbers_taken_to: self.tier.next_number(), ..head };
        let bytes = head.encode();
        if let Err(fault) = Head::verify(&bytes) {
            return Err(CapacityError::Misuse(format!("a HEAD that cannot be: {fault}")));
        }
        let number = HeadNumber { generation: head.generation, sequence: head.sequence };
        self.tier.store.replace_head(&[], bytes, number).await.map_err(|error| match error {
            ReplaceError::Conflict | ReplaceError::Fenced(_) => {
                CapacityError::NotEmpty { place, found: "a volume".to_owned() }
            }
            ReplaceError::Unchanged(source) | ReplaceError::InDoubt(source) => {
                CapacityError::Io { operation: "create", place: format!("{place}/HEAD"), source }
            }
        })
    }
}

/// Gives snapshots that are not what they were another name, and points whose names are lost a name at all.
fn rename(layers: &mut [LayerInfo], account: &Account, names_lost: bool) -> Vec<ChangedSnapshot> {
    let mut taken: Vec<SnapshotName> = layers.iter().filter_map(|layer| layer.snapshot.clone()).collect();
    let (mut changed, count) = (Vec::new(), layers.len());
    for (number, layer) in layers.iter_mut().enumerate() {
        let damaged = account.touches(layer.last_epoch);
        let wanted = match &layer.snapshot {
            Some(name) if damaged => marked(name.as_str(), DAMAGED),
            // The newest point is the volume itself.
            None if names_lost && number + 1 < count => {
                let name = format!("epoch-{}", layer.last_epoch);
                if damaged { marked(&name, DAMAGED) } else { name }
            }
            _ => continue,
        };
        let Some(kept_as) = free_name(&wanted, &taken) else { continue };
        taken.push(kept_as.clone());
        let why = match (&layer.snapshot, damaged) {
            (None, false) => {
                "HEAD is lost, and the names of snapshots with it; this point is kept in case it was one"
            }
            _ => "blocks of it are lost or doubtful",
        };
        let name = layer.snapshot.replace(kept_as.clone());
        changed.push(ChangedSnapshot { name, epoch: layer.last_epoch, kept_as, why: why.to_owned() });
        layer.reclaim = false;
    }
    changed
}

/// A snapshot's name with a mark behind it, cut so that it stays a name.
#[must_use]
pub fn marked(name: &str, mark: &str) -> String {
    let room = forerun::config::NAME_BYTES_MAX - mark.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{mark}", name.get(..end).unwrap_or_default())
}

/// The name, or one made from it that nobody has.
#[must_use]
pub fn free_name(wanted: &str, taken: &[SnapshotName]) -> Option<SnapshotName> {
    let numbered = (2..1000).map(|number| marked(wanted, &format!("-{number}")));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .filter_map(|name| SnapshotName::new(name).ok())
        .find(|name| !taken.contains(name))
}

/// A set of blocks, one bit each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockSet {
    words: Vec<u64>,
    count: u32,
}

impl BlockSet {
    /// None of a volume's blocks.
    #[must_use]
    pub fn new(blocks: u32) -> Self {
        Self { words: vec![0; blocks.div_ceil(64) as usize], count: 0 }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn get(&self, block: BlockIndex) -> bool {
        self.words.get(block.0 as usize / 64).is_some_and(|word| word >> (block.0 % 64) & 1 == 1)
    }

    /// Takes a block in, or out.
    pub fn set(&mut self, block: BlockIndex, value: bool) {
        if self.get(block) == value {
            return;
        }
        if let Some(word) = self.words.get_mut(block.0 as usize / 64) {
            *word ^= 1 << (block.0 % 64);
            if value { self.count += 1 } else { self.count -= 1 }
        }
    }
}
