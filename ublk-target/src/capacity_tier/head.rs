//! HEAD: the one mutable object of a volume. It names every layer, and through them everything else.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | mark `FRhead01` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32C of bytes 0 to 11 and 16 to the end |
//! | 16 | 8 | bytes of all of HEAD |
//! | 24 | 16 | volume |
//! | 40 | 8 | bytes the volume shows |
//! | 48 | 4 | logical block size in bytes |
//! | 52 | 4 | number of layers |
//! | 56 | 8 | generation of the writer |
//! | 64 | 8 | sequence: one more with every replacement |
//! | 72 | 8 | objects are numbered below this; the next writer begins here |
//! | 80 | 4 | number of origins; 0 in version 1 |
//! | 84 | 44 | 0 |
//! | 128 | 128 each | the layers, oldest first |
//! | ... | 1024 each | the origins of a clone, oldest first (`origin.rs`) |
//!
//! Version 2 has origins, version 1 has none; what has none is written as version 1, so that a program that knows
//! nothing of clones reads every volume that is not one.
//!
//! A layer: 0 object (8), 8 first epoch (4), 12 last epoch (4), 16 opened (8) and 24 sealed (8) in
//! microseconds since
//! 1970, 32 added (4), 36 modified (4), 40 deleted (4), 44 passed (4), 48 blocks the volume held at its end
//! (4),
//! 52 pages of its table (4), 56 flags (4; bit 0: a snapshot was deleted here), 60 zero (3), 63 length of
//! the snapshot's name (1), 64 name (63), 127 zero (1).
//!
//! Bytes become a [`Head`] only through [`Head::verify`], wholly or not at all. HEAD is replaced as a
//! whole: after a crash the old one or the new one is there, never a mix (the store's promise), and
//! the checksum would tell if it were not so.

use std::collections::BTreeSet;

use forerun::geometry::{BLOCK_BYTES, Epoch, Generation, Geometry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::entry::EntryCounts;
use super::fault::Fault;
use super::names::{LayerId, MAX_SNAPSHOT_NAME_BYTES, SnapshotName, VolumeUuid};
use super::origin::{MAX_ORIGINS, ORIGIN_BYTES, Origin};
use super::place::MAX_SEGMENT;

/// The newest version of HEAD that is read, and the one that a clone's is written in.
pub const HEAD_VERSION: u32 = 2;
/// The version of a HEAD without origins.
const PLAIN_VERSION: u32 = 1;
/// The most layers a volume has; bounds HEAD to 2 MiB, and the snapshots with it.
pub const MAX_LAYERS: usize = 16_384;
/// The most snapshots a volume may have: each keeps a layer, and the layers that are not merged yet need room too.
/// Beyond it a snapshot has to be refused, since without room for a layer nothing is written back any more.
pub const MAX_SNAPSHOTS: usize = 16_000;
/// The largest HEAD, in bytes.
pub const MAX_HEAD_BYTES: usize = HEADER_BYTES + MAX_LAYERS * LAYER_BYTES + MAX_ORIGINS * ORIGIN_BYTES;

const HEADER_BYTES: usize = 128;
const LAYER_BYTES: usize = 128;
const WHAT: &str = "HEAD";
const MARK: [u8; 8] = *b"FRhead01";
const FLAG_RECLAIM: u32 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 8],
    version: U32<LE>,
    checksum: U32<LE>,
    bytes: U64<LE>,
    volume: [u8; 16],
    size_bytes: U64<LE>,
    logical_block_bytes: U32<LE>,
    layers: U32<LE>,
    generation: U64<LE>,
    sequence: U64<LE>,
    numbers_taken_to: U64<LE>,
    origins: U32<LE>,
    zero: [u8; 44],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawLayer {
    object: U64<LE>,
    first_epoch: U32<LE>,
    last_epoch: U32<LE>,
    opened_us: U64<LE>,
    sealed_us: U64<LE>,
    added: U32<LE>,
    modified: U32<LE>,
    deleted: U32<LE>,
    passed: U32<LE>,
    mapped_blocks: U32<LE>,
    pages: U32<LE>,
    flags: U32<LE>,
    zero_a: [u8; 3],
    name_len: u8,
    name: [u8; MAX_SNAPSHOT_NAME_BYTES],
    zero_b: u8,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES && size_of::<RawLayer>() == LAYER_BYTES);

/// What HEAD says about a layer: its table, its epochs, what it changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerInfo {
    /// The object with the layer's table.
    pub id: LayerId,
    /// The first epoch in it.
    pub first_epoch: Epoch,
    /// The last epoch in it; the layer ends at this consistency point.
    pub last_epoch: Epoch,
    /// When the first epoch was opened, in microseconds since 1970 (UTC).
    pub opened_us: u64,
    /// When the last epoch was sealed, in microseconds since 1970 (UTC).
    pub sealed_us: u64,
    /// Its changes by kind.
    pub counts: EntryCounts,
    /// How many blocks the volume held at the layer's end.
    pub mapped_blocks: u32,
    /// Pages of its table, 4096 bytes each.
    pub pages: u32,
    /// Whether a snapshot was deleted here, so that merging with the next layer gives space back.
    pub reclaim: bool,
    /// The name under which the layer's end is kept, if it is.
    pub snapshot: Option<SnapshotName>,
}

impl LayerInfo {
    /// The bytes of data the volume held at the layer's end.
    #[must_use]
    pub const fn mapped_bytes(&self) -> u64 {
        self.mapped_blocks as u64 * BLOCK_BYTES
    }
}

/// HEAD, verified wholly.
///
/// Always true: layers are in order and their epochs do not overlap; no object and no snapshot name
/// occurs twice; every object's number is below `numbers_taken_to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The volume.
    pub volume: VolumeUuid,
    /// The volume's size and logical block size.
    pub geometry: Geometry,
    /// The generation of the writer that made this HEAD; 0 before the first.
    pub generation: Generation,
    /// One more with every replacement.
    pub sequence: u64,
    /// Objects are numbered below this; the next writer begins here, so that numbers are never used twice.
    pub numbers_taken_to: u64,
    /// The layers, oldest first.
    pub layers: Vec<LayerInfo>,
    /// The volumes whose objects a clone shares, the oldest first; their numbers rise.
    pub origins: Vec<Origin>,
}

impl Head {
    /// The HEAD of a new volume.
    #[must_use]
    pub const fn new(volume: VolumeUuid, geometry: Geometry) -> Self {
        Self {
            volume,
            geometry,
            generation: Generation(0),
            sequence: 1,
            numbers_taken_to: 1,
            layers: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Whether it was never opened for writing: that begins with taking numbers.
    #[must_use]
    pub const fn took_no_numbers(&self) -> bool {
        self.numbers_taken_to == 1
    }

    /// The newest epoch that is on the capacity tier; 0 where none is.
    #[must_use]
    pub fn written_back_epoch(&self) -> Epoch {
        self.layers.last().map_or(Epoch(0), |layer| layer.last_epoch)
    }

    /// The layers, oldest first.
    #[must_use]
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// The snapshots, oldest first: name and layer.
    pub fn snapshots(&self) -> impl Iterator<Item = (&SnapshotName, &LayerInfo)> {
        self.layers.iter().filter_map(|layer| Some((layer.snapshot.as_ref()?, layer)))
    }

    /// The layer that a snapshot names.
    #[must_use]
    pub fn snapshot(&self, name: &SnapshotName) -> Option<&LayerInfo> {
        self.layers.iter().find(|layer| layer.snapshot.as_ref() == Some(name))
    }

    /// The layers up to the one that ends at `epoch`; `None` where none ends there. Epoch 0: no layer.
    #[must_use]
    pub fn layers_up_to(&self, epoch: Epoch) -> Option<&[LayerInfo]> {
        if epoch == Epoch(0) {
            return Some(&[]);
        }
        let at = self.layers.binary_search_by_key(&epoch, |layer| layer.last_epoch).ok()?;
        self.layers.get(..=at)
    }

    /// The layer whose epochs include `epoch`.
    #[must_use]
    pub fn layer_holding(&self, epoch: Epoch) -> Option<&LayerInfo> {
        let at = self.layers.partition_point(|layer| layer.last_epoch < epoch);
        self.layers.get(at).filter(|layer| layer.first_epoch <= epoch)
    }

    /// The bytes of this HEAD.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = HEADER_BYTES + self.layers.len() * LAYER_BYTES + self.origins.len() * ORIGIN_BYTES;
        let version = if self.origins.is_empty() { PLAIN_VERSION } else { HEAD_VERSION };
        let header = RawHeader {
            mark: MARK,
            version: U32::new(version),
            checksum: U32::new(0),
            bytes: U64::new(len as u64),
            volume: self.volume.0,
            size_bytes: U64::new(self.geometry.size_bytes()),
            logical_block_bytes: U32::new(self.geometry.logical_block_bytes()),
            layers: U32::new(self.layers.len() as u32),
            generation: U64::new(self.generation.0),
            sequence: U64::new(self.sequence),
            numbers_taken_to: U64::new(self.numbers_taken_to),
            origins: U32::new(self.origins.len() as u32),
            zero: [0; 44],
        };
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(header.as_bytes());
        for layer in &self.layers {
            out.extend_from_slice(encode_layer(layer).as_bytes());
        }
        self.origins.iter().for_each(|origin| origin.encode(&mut out));
        let sum = sum(&out);
        if let Some(field) = out.get_mut(12..16) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
        out
    }

    /// Verifies the bytes of a HEAD wholly.
    ///
    /// # Errors
    /// Any byte that is not as it was written, a newer format, or content that cannot be.
    pub fn verify(bytes: &[u8]) -> Result<Self, Fault> {
        let have = bytes.len() as u64;
        let short = |need| Fault::Short { what: WHAT, have, need };
        let (header, rest) = RawHeader::read_from_prefix(bytes).map_err(|_| short(HEADER_BYTES as u64))?;
        if header.mark != MARK {
            return Err(Fault::Mark { what: WHAT });
        }
        if have < header.bytes.get() {
            return Err(short(header.bytes.get()));
        }
        // Mark, version, checksum and length stay where they are in every version, so that damage and a newer
        // format are told apart.
        if header.checksum.get() != sum(bytes) {
            return Err(Fault::Checksum { what: WHAT });
        }
        let (found, supported) = (header.version.get(), HEAD_VERSION);
        if found > supported {
            return Err(Fault::NewerFormat { what: WHAT, found, supported });
        }
        let range = |field, found| Fault::Range { what: WHAT, field, found };
        let (count, origins) = (header.layers.get() as usize, header.origins.get() as usize);
        if origins > MAX_ORIGINS || (found >= HEAD_VERSION) != (origins > 0) {
            return Err(range("number of origins", origins as u64));
        }
        if found == 0 || count > MAX_LAYERS || rest.len() != count * LAYER_BYTES + origins * ORIGIN_BYTES {
            return Err(range("number of layers", count as u64));
        }
        if header.bytes.get() != have {
            return Err(range("length", header.bytes.get()));
        }
        let geometry = Geometry::new(header.size_bytes.get(), header.logical_block_bytes.get())
            .map_err(|_| range("size of the volume", header.size_bytes.get()))?;
        let mut layers = Vec::with_capacity(count);
        let (of_layers, of_origins) = rest.split_at(count * LAYER_BYTES);
        for chunk in of_layers.chunks_exact(LAYER_BYTES) {
            let raw = RawLayer::read_from_bytes(chunk).map_err(|_| short(LAYER_BYTES as u64))?;
            layers.push(decode_layer(&raw)?);
        }
        let head = Self {
            volume: VolumeUuid(header.volume),
            geometry,
            generation: Generation(header.generation.get()),
            sequence: header.sequence.get(),
            numbers_taken_to: header.numbers_taken_to.get(),
            layers,
            origins: of_origins.chunks_exact(ORIGIN_BYTES).map(Origin::decode).collect::<Result<_, _>>()?,
        };
        head.check_layers()?;
        head.check_origins()?;
        Ok(head)
    }

    fn check_origins(&self) -> Result<(), Fault> {
        let (mut before, mut volumes) = (1, BTreeSet::from([self.volume]));
        for origin in &self.origins {
            if origin.below <= before || origin.below > self.numbers_taken_to {
                return Err(Fault::Range { what: WHAT, field: "an origin's numbers", found: origin.below });
            }
            if !volumes.insert(origin.volume) {
                return Err(Fault::Range { what: WHAT, field: "an origin twice", found: origin.below });
            }
            before = origin.below;
        }
        Ok(())
    }

    fn check_layers(&self) -> Result<(), Fault> {
        let range = |field, found| Err(Fault::Range { what: WHAT, field, found });
        let taken = self.numbers_taken_to;
        if !(1..=MAX_SEGMENT + 1).contains(&taken) {
            return range("the next object's number", taken);
        }
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut before = Epoch(0);
        for layer in &self.layers {
            if layer.first_epoch <= before || layer.last_epoch < layer.first_epoch {
                return range("order of layers: epoch", layer.first_epoch.0.into());
            }
            // There is always a next epoch.
            if layer.last_epoch.0 == u32::MAX {
                return range("a layer's last epoch", layer.last_epoch.0.into());
            }
            before = layer.last_epoch;
            if layer.id.0 == 0 || layer.id.0 >= taken || !ids.insert(layer.id) {
                return range("a layer's object", layer.id.0);
            }
            if layer.snapshot.as_ref().is_some_and(|name| !names.insert(name)) {
                return range("a name twice: epoch", layer.last_epoch.0.into());
            }
            let blocks = u64::from(self.geometry.blocks());
            if layer.counts.entries() > blocks || u64::from(layer.mapped_blocks) > blocks {
                return range("a layer's number of blocks", layer.counts.entries());
            }
        }
        Ok(())
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let parts = [bytes.get(..12).unwrap_or_default(), bytes.get(16..).unwrap_or_default()];
    checksum(Salt::Head, 0, &parts)
}

fn encode_layer(layer: &LayerInfo) -> RawLayer {
    let mut name = [0; MAX_SNAPSHOT_NAME_BYTES];
    let text = layer.snapshot.as_ref().map_or("", SnapshotName::as_str).as_bytes();
    if let Some(front) = name.get_mut(..text.len()) {
        front.copy_from_slice(text);
    }
    RawLayer {
        object: U64::new(layer.id.0),
        first_epoch: U32::new(layer.first_epoch.0),
        last_epoch: U32::new(layer.last_epoch.0),
        opened_us: U64::new(layer.opened_us),
        sealed_us: U64::new(layer.sealed_us),
        added: U32::new(layer.counts.added),
        modified: U32::new(layer.counts.modified),
        deleted: U32::new(layer.counts.deleted),
        passed: U32::new(layer.counts.passed),
        mapped_blocks: U32::new(layer.mapped_blocks),
        pages: U32::new(layer.pages),
        flags: U32::new(if layer.reclaim { FLAG_RECLAIM } else { 0 }),
        zero_a: [0; 3],
        name_len: text.len() as u8,
        name,
        zero_b: 0,
    }
}

fn decode_layer(raw: &RawLayer) -> Result<LayerInfo, Fault> {
    let range = |field, found| Fault::Range { what: WHAT, field, found };
    let snapshot = match raw.name_len {
        0 => None,
        len => {
            let text = raw.name.get(..usize::from(len)).and_then(|text| std::str::from_utf8(text).ok());
            let name = text.and_then(|text| SnapshotName::new(text).ok());
            Some(name.ok_or_else(|| range("a snapshot's name", len.into()))?)
        }
    };
    let pages = raw.pages.get();
    if pages < 2 {
        return Err(range("a layer's number of pages", pages.into()));
    }
    Ok(LayerInfo {
        id: LayerId(raw.object.get()),
        first_epoch: Epoch(raw.first_epoch.get()),
        last_epoch: Epoch(raw.last_epoch.get()),
        opened_us: raw.opened_us.get(),
        sealed_us: raw.sealed_us.get(),
        counts: EntryCounts {
            added: raw.added.get(),
            modified: raw.modified.get(),
            deleted: raw.deleted.get(),
            passed: raw.passed.get(),
        },
        mapped_blocks: raw.mapped_blocks.get(),
        pages,
        reclaim: raw.flags.get() & FLAG_RECLAIM != 0,
        snapshot,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Head {
        let geometry = Geometry::new(1 << 30, 4096).unwrap();
        let layer = |id: u64, first: u32, last: u32, name: Option<&str>| LayerInfo {
            id: LayerId(id),
            first_epoch: Epoch(first),
            last_epoch: Epoch(last),
            opened_us: 10,
            sealed_us: 20,
            counts: EntryCounts { added: 1, modified: 2, deleted: 3, passed: 4 },
            mapped_blocks: 9,
            pages: 3,
            reclaim: id == 2,
            snapshot: name.map(|name| SnapshotName::new(name).unwrap()),
        };
        let layers = vec![layer(2, 1, 4, None), layer(7, 5, 5, Some("monday")), layer(3, 8, 9, None)];
        let generation = Generation(3);
        Head {
            generation,
            sequence: 8,
            numbers_taken_to: 9,
            layers,
            ..Head::new(VolumeUuid([7; 16]), geometry)
        }
    }

    #[test]
    fn a_head_reads_back_and_answers() {
        let head = sample();
        assert_eq!(Head::verify(&head.encode()), Ok(head.clone()));
        assert_eq!(head.written_back_epoch(), Epoch(9));
        assert_eq!(head.layers_up_to(Epoch(5)).map(<[_]>::len), Some(2));
        assert_eq!(head.layers_up_to(Epoch(6)), None);
        assert_eq!(head.layer_holding(Epoch(3)).map(|layer| layer.id), Some(LayerId(2)));
        assert_eq!(head.layer_holding(Epoch(6)), None);
        assert_eq!(head.snapshots().count(), 1);
    }

    fn origin(uuid: u8, below: u64) -> Origin {
        Origin {
            volume: VolumeUuid([uuid; 16]),
            below,
            epoch: Epoch(5),
            address: "/srv/origin".to_owned(),
            promoting: false,
            left: false,
        }
    }

    #[test]
    fn a_clones_head_reads_back_and_what_cannot_be_is_refused() {
        let clone = Head { origins: vec![origin(1, 3), origin(2, 8)], ..sample() };
        assert_eq!(Head::verify(&clone.encode()), Ok(clone.clone()));
        let owner = |number| super::super::origin::owner(&clone.origins, number).map(|origin| origin.below);
        assert_eq!([2, 3, 7, 8].map(owner), [Some(3), Some(8), Some(8), None]);
        let broken: [fn(&mut Head); 6] = [
            |head| head.origins[1].below = 3,
            |head| head.origins[1].below = 10,
            |head| head.origins[0].below = 1,
            |head| head.origins[1].volume = head.origins[0].volume,
            |head| head.origins[1].volume = head.volume,
            |head| head.origins[0].address.clear(),
        ];
        for (number, change) in broken.iter().enumerate() {
            let mut head = clone.clone();
            change(&mut head);
            assert!(Head::verify(&head.encode()).is_err(), "case {number}");
        }
        let mut plain = clone.encode();
        plain[8] = 1;
        let sum = sum(&plain);
        plain[12..16].copy_from_slice(&sum.to_le_bytes());
        assert!(Head::verify(&plain).is_err(), "version 1 has no origins");
    }

    #[test]
    fn every_flipped_byte_and_every_shortening_is_found() {
        let good = Head { origins: vec![origin(1, 3)], ..sample() }.encode();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                assert!(Head::verify(&bytes).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Head::verify(&good[..at]).is_err());
        }
        let mut longer = good;
        longer.push(0);
        assert!(Head::verify(&longer).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_even_with_a_right_checksum() {
        let broken: [fn(&mut Head); 8] = [
            |head| head.layers[1].first_epoch = Epoch(4),
            |head| head.layers[0].last_epoch = Epoch(0),
            |head| head.layers[1].id = LayerId(2),
            |head| head.layers[1].id = LayerId(9),
            |head| head.layers[0].snapshot = head.layers[1].snapshot.clone(),
            |head| head.layers[0].pages = 1,
            |head| head.layers[0].mapped_blocks = u32::MAX,
            |head| head.numbers_taken_to = 0,
        ];
        for (number, change) in broken.iter().enumerate() {
            let mut head = sample();
            change(&mut head);
            assert!(Head::verify(&head.encode()).is_err(), "case {number}");
        }
        let mut newer = sample().encode();
        newer[8] = 3;
        let sum = sum(&newer);
        newer[12..16].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(Head::verify(&newer), Err(Fault::NewerFormat { found: 3, .. })));
    }

    #[test]
    fn there_is_always_a_next_epoch() {
        let mut head = sample();
        let Some(last) = head.layers.last_mut() else { panic!("it has layers") };
        last.last_epoch = Epoch(u32::MAX - 1);
        assert!(Head::verify(&head.encode()).is_ok());
        if let Some(last) = head.layers.last_mut() {
            last.last_epoch = Epoch(u32::MAX);
        }
        assert!(matches!(Head::verify(&head.encode()), Err(Fault::Range { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_with_a_right_checksum_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 128..1800), layers in 0u32..5, version in 1u32..3) {
            bytes[..8].copy_from_slice(&MARK);
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            bytes[80..84].copy_from_slice(&(version - 1).to_le_bytes());
            let len = bytes.len() as u64;
            bytes[16..24].copy_from_slice(&len.to_le_bytes());
            bytes[40..48].copy_from_slice(&(1u64 << 30).to_le_bytes());
            bytes[48..52].copy_from_slice(&4096u32.to_le_bytes());
            bytes[52..56].copy_from_slice(&layers.to_le_bytes());
            let sum = sum(&bytes);
            bytes[12..16].copy_from_slice(&sum.to_le_bytes());
            let _ = Head::verify(&bytes);
        }
    }
}
