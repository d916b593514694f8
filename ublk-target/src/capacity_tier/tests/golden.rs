//! The bytes of each version of the formats, as committed in `golden/`: what was written once has to be read for ever.
//!
//! With FORERUN_WRITE_GOLDEN=1 the files are written anew; for a new version of the format only, beside the
//! old ones.

use std::path::PathBuf;

use forerun::geometry::{BlockIndex, Epoch, Generation, SegmentId};

use super::super::codec::Codec;
use super::super::entry::{Entry, EntryKind};
use super::super::head::Head;
use super::super::layer_page::{self, Closing, Opening, Page, TableIdentity};
use super::super::record::{RecordHeader, read_record};
use super::super::segment::{SegmentBuilder, SegmentHeader};
use super::super::*;
use super::model::{BLOCK, VOLUME, geometry, name};

fn golden(file: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/capacity_tier/golden").join(file);
    if std::env::var_os("FORERUN_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn head() -> Head {
    let layer = LayerInfo {
        id: LayerId(2),
        first_epoch: Epoch(1),
        last_epoch: Epoch(4),
        opened_us: 1_764_000_000_000_000,
        sealed_us: 1_764_000_060_000_000,
        counts: EntryCounts { added: 1, modified: 1, deleted: 1, passed: 1 },
        mapped_blocks: 2,
        pages: 3,
        reclaim: true,
        snapshot: Some(name("monday")),
    };
    let base = Head::new(VOLUME, geometry());
    Head { generation: Generation(3), sequence: 8, numbers_taken_to: 9, layers: vec![layer], ..base }
}

fn table() -> (TableIdentity, Vec<Page>) {
    let entry = |block, kind: EntryKind| Entry {
        block: BlockIndex(block),
        epoch: Epoch(4),
        kind,
        sub_blocks: 7,
        place: kind.after().then(|| Place::new(SegmentId(1), block + 1, 2).unwrap()),
    };
    let entries = vec![
        entry(1, EntryKind::Added),
        entry(2, EntryKind::Modified),
        entry(3, EntryKind::Deleted),
        entry(4, EntryKind::Passed),
    ];
    let opening = Opening {
        first_epoch: Epoch(1),
        last_epoch: Epoch(4),
        opened_us: 1_764_000_000_000_000,
        sealed_us: 1_764_000_060_000_000,
        generation: Generation(3),
    };
    let counts = EntryCounts { added: 1, modified: 1, deleted: 1, passed: 1 };
    let pages =
        vec![Page::Opening(opening), Page::Entries(entries), Page::Closing(Closing { counts, pages: 3 })];
    (TableIdentity { volume: VOLUME, layer: LayerId(2) }, pages)
}

#[test]
fn version_1_of_head() {
    let bytes = golden("head-v1.bin", &head().encode());
    assert_eq!(Head::verify(&bytes), Ok(head()));
    assert!(bytes == head().encode());
}

#[test]
fn version_2_of_head_is_a_clones() {
    let origin = |uuid: u8, below, epoch, address: &str| Origin {
        volume: VolumeUuid([uuid; 16]),
        below,
        epoch: Epoch(epoch),
        address: address.to_owned(),
        promoting: uuid == 2,
        left: uuid == 1,
    };
    let origins = vec![origin(1, 3, 2, "/srv/first"), origin(2, 7, 4, "s3://bucket/second")];
    let clone = Head { origins, ..head() };
    let bytes = golden("head-v2.bin", &clone.encode());
    assert_eq!(bytes[8], 2, "a program of version 1 refuses it and says why");
    assert_eq!(Head::verify(&bytes), Ok(clone.clone()));
    assert!(bytes == clone.encode());
    assert_eq!(head().encode()[8], 1, "what is no clone is read by every version");
}

#[test]
fn version_1_of_a_pin() {
    let pin = Pin {
        origin: VOLUME,
        clone: VolumeUuid([2; 16]),
        below: 7,
        epoch: Epoch(4),
        created_us: 1_764_000_000_000_000,
        name: "copy".to_owned(),
        address: "/srv/copy".to_owned(),
        broken: None,
    };
    let bytes = golden("pin-v1.bin", &pin.encode());
    assert_eq!(bytes.len(), PIN_BYTES);
    assert_eq!(Pin::decode(&bytes, VOLUME, pin.clone), Ok(pin.clone()));
    assert!(bytes == pin.encode());
}

#[test]
fn version_1_of_a_layer() {
    let (identity, pages) = table();
    let mut bytes = Vec::new();
    for (number, page) in (0..).zip(&pages) {
        match page {
            Page::Opening(opening) => layer_page::encode_opening(identity, opening, &mut bytes),
            Page::Entries(entries) => layer_page::encode_entries(identity, number, entries, &mut bytes),
            Page::Closing(closing) => layer_page::encode_closing(identity, closing, &mut bytes),
        }
    }
    let there = golden("layer-v1.bin", &bytes);
    assert!(there == bytes);
    for ((number, page), expected) in (0..).zip(there.chunks(layer_page::PAGE_BYTES)).zip(pages) {
        assert_eq!(layer_page::decode(page, identity, number), Ok(expected));
    }
}

#[test]
fn version_1_of_a_segment() {
    // A raw one would be 64 KiB; the compressed one is given, since compressors may change and decompressors
    // may not.
    let text: Vec<u8> = b"forerun ".iter().copied().cycle().take(BLOCK).collect();
    let mut compressor = super::super::codec::Compressor::default();
    let mut builder = SegmentBuilder::new(VOLUME, SegmentId(1), Generation(3), Epoch(4), Vec::new());
    let (codec, stored) = compressor.compress(&text);
    let mut places = Vec::new();
    for (block, codec, stored) in [(1, Codec::Zero, &[][..]), (2, codec, stored)] {
        let header = RecordHeader::new(VOLUME, SegmentId(1), BlockIndex(block), Epoch(4), codec, stored);
        places.push(builder.append(&header, stored).unwrap());
    }
    let bytes = golden("segment-v1.bin", &builder.finish().1);
    let header = SegmentHeader::decode(&bytes, VOLUME, SegmentId(1)).unwrap();
    assert_eq!((header.records, header.epoch, header.generation), (2, Epoch(4), Generation(3)));
    let mut out = vec![1; BLOCK];
    let mut read = |at: usize| {
        let place = places[at];
        let record = &bytes[place.offset_bytes() as usize..][..place.len_bytes()];
        read_record(record, VOLUME, place, BlockIndex(at as u32 + 1), &mut out).unwrap();
        out.clone()
    };
    assert!(read(0).iter().all(|byte| *byte == 0));
    assert!(read(1) == text);
}
