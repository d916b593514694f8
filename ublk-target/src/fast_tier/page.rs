//! The page: 4 KiB that say what they are. All metadata of the fast tier is made of these.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `forerunF` |
//! | 8 | 4 | kind: 1 superblock, 2 journal record, 3 checkpoint header, 4 checkpoint page |
//! | 12 | 4 | CRC-32C of salt and page, this field taken as zero; the salt is kind u32, number u64 |
//! | 16 | 16 | the volume's UUID |
//! | 32 | 8 | number: which page of its kind this is, by its place |
//! | 40 | 8 | generation of the superblock under which it was written |
//! | 48 | 8 | sequence: a record's LSN, a checkpoint's number, 0 in a superblock |
//! | 56 | 4 | part, from 0 |
//! | 60 | 4 | parts |
//! | 64 | 4 | bytes of payload |
//! | 68 | 4 | zero |
//! | 72 | 4024 | payload, then zeros |
//!
//! All numbers are little-endian. Always true: a page is accepted only at the place it was written for,
//! for the volume it was written for, with every byte of it (padding included) as it was written. A
//! page that is torn, stale or misdirected is no page.

use crc_fast::{CrcAlgorithm, Digest};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes in a page.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of payload in a page, at most.
pub const PAYLOAD_BYTES: usize = PAGE_BYTES - size_of::<Header>();
/// The largest generation, sequence or LSN: no tier gets there, and from here nothing that counts on overflows.
pub const COUNT_MAX: u64 = u64::MAX >> 1;
/// The first bytes of every page.
pub const MAGIC: [u8; 8] = *b"forerunF";

/// What a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// A superblock.
    Superblock = 1,
    /// Part of a commit in the journal.
    Record = 2,
    /// What makes a checkpoint valid.
    CheckpointHeader = 3,
    /// Part of a checkpoint's content.
    CheckpointPage = 4,
}

/// What a page says of itself, beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// What it is for.
    pub kind: Kind,
    /// Which one of its kind, by its place.
    pub number: u64,
    /// The generation of the superblock it was written under.
    pub generation: u64,
    /// A record's LSN, a checkpoint's number.
    pub sequence: u64,
    /// Which part of a whole, from 0.
    pub part: u32,
    /// How many parts the whole has.
    pub parts: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    kind: U32,
    crc: U32,
    volume: [u8; 16],
    number: U64,
    generation: U64,
    sequence: U64,
    part: U32,
    parts: U32,
    payload_bytes: U32,
    zero: U32,
}

/// Why bytes are no page of the kind, place and volume looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPage {
    /// There is no page at all.
    Absent,
    /// There is a page, or once was; its checksum is wrong, or it was written for another place.
    Damaged,
    /// There is a sound page of another volume.
    OtherVolume(Uuid),
}

/// Writes a page over `page`; `payload` is at most [`PAYLOAD_BYTES`] long, and what is longer is cut off.
pub fn seal(page: &mut [u8], volume: Uuid, label: Label, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES && page.len() == PAGE_BYTES);
    page.fill(0);
    let Ok((header, body)) = Header::mut_from_prefix(page) else { return };
    let bytes = payload.len().min(body.len());
    for (to, from) in body.iter_mut().zip(payload) {
        *to = *from;
    }
    *header = Header {
        magic: MAGIC,
        kind: U32::new(label.kind as u32),
        crc: U32::new(0),
        volume: *volume.as_bytes(),
        number: U64::new(label.number),
        generation: U64::new(label.generation),
        sequence: U64::new(label.sequence),
        part: U32::new(label.part),
        parts: U32::new(label.parts),
        payload_bytes: U32::new(bytes as u32),
        zero: U32::new(0),
    };
    let crc = checksum(header, body, label.kind, label.number);
    header.crc = U32::new(crc);
}

/// Reads the page that should be at place `number`, of any volume.
///
/// # Errors
/// Why there is none.
pub fn open_any(page: &[u8], kind: Kind, number: u64) -> Result<(Uuid, Label, &[u8]), NoPage> {
    let (header, body) = Header::ref_from_prefix(page).map_err(|_| NoPage::Absent)?;
    if header.magic != MAGIC {
        return Err(NoPage::Absent);
    }
    if page.len() != PAGE_BYTES
        || header.kind.get() != kind as u32
        || header.number.get() != number
        || header.crc.get() != checksum(header, body, kind, number)
    {
        return Err(NoPage::Damaged);
    }
    let label = Label {
        kind,
        number,
        generation: header.generation.get(),
        sequence: header.sequence.get(),
        part: header.part.get(),
        parts: header.parts.get(),
    };
    if label.generation > COUNT_MAX || label.sequence > COUNT_MAX || label.part >= label.parts {
        return Err(NoPage::Damaged);
    }
    let payload = body.get(..header.payload_bytes.get() as usize).ok_or(NoPage::Damaged)?;
    Ok((Uuid::from_bytes(header.volume), label, payload))
}

/// What lies where a page's payload does, sound or not.
pub fn payload_of_any(page: &[u8]) -> Option<&[u8]> {
    page.get(size_of::<Header>()..)
}

/// Reads the page of `volume` that should be at place `number`.
///
/// # Errors
/// Why there is none.
pub fn open(page: &[u8], volume: Uuid, kind: Kind, number: u64) -> Result<(Label, &[u8]), NoPage> {
    // Most pages of a ring that are of no use are of this volume, so the cheap look comes first.
    let (found, label, payload) = open_any(page, kind, number)?;
    if found != volume {
        return Err(NoPage::OtherVolume(found));
    }
    Ok((label, payload))
}

/// Reads a page wherever it lies: it need only be what it says of itself.
pub fn open_anywhere(page: &[u8], volume: Uuid, kind: Kind) -> Option<Label> {
    let (header, _) = Header::ref_from_prefix(page).ok()?;
    open(page, volume, kind, header.number.get()).ok().map(|(label, _)| label)
}

fn checksum(header: &Header, body: &[u8], kind: Kind, number: u64) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&(kind as u32).to_le_bytes());
    digest.update(&number.to_le_bytes());
    let bytes = header.as_bytes();
    let (before, rest) = bytes.split_at(12);
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(rest.split_at(4).1);
    digest.update(body);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LABEL: Label =
        Label { kind: Kind::Record, number: 7, generation: 2, sequence: 9, part: 1, parts: 3 };

    fn sealed(payload: &[u8]) -> (Uuid, Vec<u8>) {
        let volume = Uuid::from_u128(77);
        let mut page = vec![0xEE; PAGE_BYTES];
        seal(&mut page, volume, LABEL, payload);
        (volume, page)
    }

    #[test]
    fn a_page_is_what_was_sealed() {
        assert_eq!(size_of::<Header>(), 72);
        let (volume, page) = sealed(b"some deltas");
        assert_eq!(open(&page, volume, Kind::Record, 7), Ok((LABEL, b"some deltas".as_slice())));
        assert_eq!(open(&page, volume, Kind::Record, 8), Err(NoPage::Damaged));
        assert_eq!(open(&page, volume, Kind::CheckpointPage, 7), Err(NoPage::Damaged));
        assert_eq!(open(&page, Uuid::nil(), Kind::Record, 7), Err(NoPage::OtherVolume(volume)));
        assert_eq!(open(&[0; PAGE_BYTES], volume, Kind::Record, 7), Err(NoPage::Absent));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let (volume, page) = sealed(&[5; 100]);
        for at in 0..PAGE_BYTES {
            let mut changed = page.clone();
            changed[at] ^= 0x10;
            assert!(open(&changed, volume, Kind::Record, 7).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_label_that_cannot_be_is_no_page() {
        let volume = Uuid::from_u128(77);
        let mut page = vec![0; PAGE_BYTES];
        for (label, good) in [
            (LABEL, true),
            (Label { generation: COUNT_MAX, ..LABEL }, true),
            (Label { generation: u64::MAX, ..LABEL }, false),
            (Label { sequence: u64::MAX, ..LABEL }, false),
            (Label { part: 0, parts: 0, ..LABEL }, false),
            (Label { part: 3, ..LABEL }, false),
        ] {
            seal(&mut page, volume, label, b"");
            assert_eq!(open(&page, volume, Kind::Record, 7).is_ok(), good, "{label:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..5000), magic in any::<bool>()
        ) {
            if magic {
                bytes.splice(0..0, MAGIC);
            }
            let _ = open(&bytes, Uuid::nil(), Kind::Superblock, 0);
        }

        #[test]
        fn any_payload_comes_back(payload in proptest::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES)) {
            let (volume, page) = sealed(&payload);
            prop_assert_eq!(open(&page, volume, Kind::Record, 7), Ok((LABEL, payload.as_slice())));
        }
    }
}
