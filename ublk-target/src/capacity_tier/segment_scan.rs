//! Finding records in segments whose tables, headers or neighbours are lost.
//!
//! A record's header carries a checksum that is salted with its offset, so looking at every unit of 512 bytes finds
//! each sound one and nothing else. Memory: one segment, and about 60 bytes for each record found.

use std::collections::BTreeMap;

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SegmentId};

use super::codec::restore;
use super::damage::is_damage;
use super::error::Result;
use super::names::{ObjectKind, ObjectName};
use super::place::UNIT_BYTES;
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::segment::{MAX_SEGMENT_BYTES, SegmentHeader};
use super::state::Inner;
use super::store::Store;

/// A record as it was met, wherever that was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundRecord {
    /// The object it lies in; its header may name another segment, if objects were exchanged.
    pub object: SegmentId,
    /// Where, in units of 512 bytes.
    pub at_units: u32,
    /// What it says of itself.
    pub header: RecordHeader,
    /// Whether its data is as it was written.
    pub sound: bool,
}

/// What a segment's object holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentScan {
    /// Its header, or what is wrong with it.
    pub header: std::result::Result<SegmentHeader, String>,
    /// Its records of this volume, by place.
    pub records: Vec<FoundRecord>,
    /// The units between records that are no record, as runs: first, and how many.
    pub gaps: Vec<(u32, u32)>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Reads a segment's object; unreadable sectors count as zeros.
pub(super) async fn scan_segment<S: Store>(
    tier: &Inner<S>,
    object: SegmentId,
    len: u64,
) -> Result<SegmentScan> {
    let bytes = read_patiently(tier, object, len.min(MAX_SEGMENT_BYTES)).await?;
    let owner = tier.owner(object.0);
    let header = SegmentHeader::decode(&bytes, owner, object).map_err(|fault| fault.to_string());
    let mut scan = SegmentScan { header, records: Vec::new(), gaps: Vec::new(), bytes: len };
    let units = (bytes.len() as u64).div_ceil(UNIT_BYTES) as u32;
    let mut at = 1;
    while at < units {
        let rest = bytes.get((u64::from(at) * UNIT_BYTES) as usize..).unwrap_or_default();
        let header = RecordHeader::decode(rest.get(..RECORD_HEADER_BYTES).unwrap_or(rest), at);
        match header {
            Ok(header) if header.volume == owner => {
                let record = rest.get(..header.record_bytes());
                let sound = record.is_some_and(|record| header.verify_data(record).is_ok());
                scan.records.push(FoundRecord { object, at_units: at, header, sound });
                at += (header.record_bytes() as u64 / UNIT_BYTES) as u32;
            }
            Ok(_) | Err(_) => {
                match scan.gaps.last_mut() {
                    Some((first, count)) if *first + *count == at => *count += 1,
                    _ => scan.gaps.push((at, 1)),
                }
                at += 1;
            }
        }
    }
    Ok(scan)
}

async fn read_patiently<S: Store>(tier: &Inner<S>, object: SegmentId, len: u64) -> Result<Vec<u8>> {
    let name = ObjectName::segment(object);
    match tier.read_range(name, 0, len as usize, Vec::new()).await {
        Err(error) if is_damage(&error) => {}
        other => return other,
    }
    let mut bytes = Vec::with_capacity(len as usize);
    let mut at = 0;
    while at < len {
        // The smallest piece that a disk loses.
        let piece = 4096.min(len - at);
        match tier.read_range(name, at, piece as usize, Vec::new()).await {
            Ok(read) => bytes.extend_from_slice(&read),
            Err(error) if is_damage(&error) => bytes.resize(bytes.len() + piece as usize, 0),
            Err(error) => return Err(error),
        }
        at += piece;
    }
    Ok(bytes)
}

/// All records of a store, by block and epoch.
#[derive(Default)]
pub(super) struct RecordIndex(BTreeMap<(BlockIndex, Epoch), Vec<FoundRecord>>);

impl RecordIndex {
    /// Walks every segment there is.
    pub async fn build<S: Store>(tier: &Inner<S>) -> Result<Self> {
        let listed = tier.store.list(ObjectKind::Segment).await;
        let listed = match listed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|error| tier.io_error("list", "segments", error))?,
        };
        let mut index = Self::default();
        for (name, len) in listed {
            for record in scan_segment(tier, SegmentId(name.number), len).await?.records {
                index.0.entry((record.header.block, record.header.epoch)).or_default().push(record);
            }
        }
        Ok(index)
    }

    /// The records of a block that one epoch wrote; all of them hold the same data.
    pub fn of(&self, block: BlockIndex, epoch: Epoch) -> &[FoundRecord] {
        self.0.get(&(block, epoch)).map_or(&[], Vec::as_slice)
    }

    /// Each block's newest epoch among those from `first` to `last`, ascending by block.
    pub fn newest_between(&self, first: Epoch, last: Epoch) -> BTreeMap<BlockIndex, Epoch> {
        let keys = self.0.keys().filter(|(_, epoch)| (first..=last).contains(epoch));
        // Ascending by epoch within a block, so the newest stays.
        keys.copied().collect()
    }

    /// The epochs that any record is of, ascending.
    pub fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.0.keys().map(|(_, epoch)| *epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }
}

/// Reads a record's block and verifies all of it; the data as it is stored comes with it.
pub(super) async fn read_found<S: Store>(
    tier: &Inner<S>,
    found: &FoundRecord,
    block: &mut [u8],
) -> Result<Option<Vec<u8>>> {
    let (offset, len) = (u64::from(found.at_units) * UNIT_BYTES, found.header.record_bytes());
    let record = match tier.read_range(ObjectName::segment(found.object), offset, len, Vec::new()).await {
        Ok(record) => record,
        Err(error) if is_damage(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    debug_assert_eq!(block.len() as u64, BLOCK_BYTES);
    let Ok(stored) = found.header.verify_data(&record) else { return Ok(None) };
    Ok(restore(found.header.codec, stored, block).is_ok().then(|| stored.to_vec()))
}
