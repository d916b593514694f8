//! The superblock: whose tier this is, where everything is, and whether it was left in order.
//!
//! There are two copies, in the first and the last page of the tier; either suffices. The payload of the
//! page (its common part is in [`super::page`]):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | format version: 1, or 2 of a tier that has grown (its checkpoint areas lie behind its slots) |
//! | 4 | 4 | 1 after a clean stop, else 0 |
//! | 8 | 8 | after a clean stop: the journal's last LSN |
//! | 16 | 8 | created, in microseconds since 1970 |
//! | 24 | 8 | the volume's size in bytes |
//! | 32 | 4 | the volume's logical block size in bytes |
//! | 36 | 4 | slots |
//! | 40 | 8 | the tier's size in bytes |
//! | 48 | 8 | journal offset in bytes |
//! | 56 | 8 | journal size in bytes |
//! | 64 | 8 | checkpoint A's offset in bytes |
//! | 72 | 8 | checkpoint B's offset in bytes |
//! | 80 | 8 | size of each checkpoint area in bytes |
//! | 88 | 8 | slot area's offset in bytes |
//!
//! Always true: the generation grows with each writing (one at each opening, one at each clean stop), and
//! the two copies are written one after the other with a sync between, the worse one first. So a crash
//! leaves at least one sound copy, and the sound one with the highest generation is the newest. A copy
//! is not used before [`Unverified::verify`] has compared it with the tier and the volume it is to
//! belong to.

use std::io;

use forerun::geometry::{Geometry, Lsn};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::device::FastDevice;
use super::error::FastTierError;
use super::layout::Layout;
use super::page::{self, Kind, Label, NoPage, PAGE_BYTES};
use crate::aligned::AlignedBuffer;

/// The newest format version that is understood, and that of a tier that has grown.
pub const FORMAT_VERSION: u32 = 2;
/// The version of a tier that has not.
const PLAIN_VERSION: u32 = 1;

/// A superblock that fits its tier and its volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The volume.
    pub volume: Uuid,
    /// Counts the writings of the superblock.
    pub generation: u64,
    /// The journal's last LSN if the tier was stopped cleanly.
    pub clean: Option<Lsn>,
    /// When the tier was made, in microseconds since 1970.
    pub created_us: u64,
    /// The volume's shape.
    pub geometry: Geometry,
    /// Where everything is.
    pub layout: Layout,
}

/// One copy as it was found: sound as a page, and compared with nothing yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unverified {
    volume: Uuid,
    generation: u64,
    version: u32,
    fields: Option<(Option<Lsn>, u64, u64, u32, Layout)>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Payload {
    version: U32,
    clean: U32,
    last_lsn: U64,
    created_us: U64,
    size_bytes: U64,
    logical_block_bytes: U32,
    slots: U32,
    tier_bytes: U64,
    journal_offset: U64,
    journal_bytes: U64,
    checkpoint_a: U64,
    checkpoint_b: U64,
    checkpoint_bytes: U64,
    slots_offset: U64,
}

/// The two copies as they were found, and where, in bytes.
pub struct Copies(pub [Result<Unverified, NoPage>; 2], pub [u64; 2]);

impl Copies {
    /// Reads both copies of a tier whose size is given by its device; the second is looked for at the end of
    /// the device and, where the first says so, at the end that the tier had when it was made.
    ///
    /// # Errors
    /// I/O.
    pub fn read(device: &dyn FastDevice) -> io::Result<Self> {
        if device.size_bytes() < 2 * PAGE_BYTES as u64 {
            return Ok(Self([Err(NoPage::Absent), Err(NoPage::Absent)], [0, 0]));
        }
        let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
        device.read_at(0, &mut page)?;
        let first = Unverified::parse(&page, 0);
        let end = device.size_bytes() / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let stated = match &first {
            Ok(first) => first.tier_bytes(),
            // Where a page that is torn says that the tier ends there may be a sound copy: it proves itself.
            Err(NoPage::Damaged) => tier_bytes_of_damaged(&page),
            Err(_) => None,
        };
        if let Some(stated) = stated.filter(|bytes| (2 * PAGE_BYTES as u64..end).contains(bytes)) {
            let last = stated - PAGE_BYTES as u64;
            let second = read_copy(device, last, 1)?;
            if first.is_ok() || second.is_ok() {
                return Ok(Self([first, second], [0, last]));
            }
        }
        let last = end - PAGE_BYTES as u64;
        let second = read_copy(device, last, 1)?;
        Ok(Self([first, second], [0, last]))
    }

    /// The newest sound copy.
    ///
    /// # Errors
    /// There is none; `tier` names it in the message.
    pub fn newest(&self, tier: &str) -> Result<&Unverified, FastTierError> {
        let sound = self.0.iter().filter_map(|copy| copy.as_ref().ok());
        sound.max_by_key(|copy| copy.generation).ok_or_else(|| {
            if self.0.iter().any(|copy| matches!(copy, Err(NoPage::Damaged))) {
                FastTierError::BothDamaged(tier.to_owned())
            } else {
                FastTierError::Foreign(tier.to_owned())
            }
        })
    }

    /// The copy to write first: the one that would be missed less.
    #[must_use]
    pub fn worse(&self) -> usize {
        let generation = |copy: &Result<Unverified, NoPage>| copy.as_ref().map_or(0, |copy| copy.generation);
        let [first, second] = &self.0;
        usize::from(generation(second) < generation(first))
    }
}

/// What a page that is no sound superblock says of the tier's size, in bytes; a multiple of a page.
fn tier_bytes_of_damaged(page: &[u8]) -> Option<u64> {
    let (payload, _) = Payload::ref_from_prefix(page::payload_of_any(page)?).ok()?;
    let bytes = payload.tier_bytes.get();
    bytes.is_multiple_of(PAGE_BYTES as u64).then_some(bytes)
}

fn read_copy(device: &dyn FastDevice, offset: u64, copy: u64) -> io::Result<Result<Unverified, NoPage>> {
    let mut buffer = AlignedBuffer::zeroed(PAGE_BYTES);
    device.read_at(offset, &mut buffer)?;
    Ok(Unverified::parse(&buffer, copy))
}

impl Unverified {
    /// Reads a copy from its page.
    ///
    /// # Errors
    /// There is no sound page.
    pub fn parse(bytes: &[u8], copy: u64) -> Result<Self, NoPage> {
        let (volume, label, payload) = page::open_any(bytes, Kind::Superblock, copy)?;
        let (version, _) = U32::ref_from_prefix(payload).map_err(|_| NoPage::Damaged)?;
        let mut read = Self { volume, generation: label.generation, version: version.get(), fields: None };
        if read.version == 0 {
            return Err(NoPage::Damaged);
        }
        // Of a later version no more can be said than which one it is.
        if read.version <= FORMAT_VERSION {
            let (payload, _) = Payload::ref_from_prefix(payload).map_err(|_| NoPage::Damaged)?;
            let layout = Layout {
                tier_bytes: payload.tier_bytes.get(),
                journal_offset: payload.journal_offset.get(),
                journal_bytes: payload.journal_bytes.get(),
                checkpoint_offsets: [payload.checkpoint_a.get(), payload.checkpoint_b.get()],
                checkpoint_bytes: payload.checkpoint_bytes.get(),
                slots_offset: payload.slots_offset.get(),
                slots: payload.slots.get(),
            };
            let clean = (payload.clean.get() == 1).then_some(Lsn(payload.last_lsn.get()));
            let created_us = payload.created_us.get();
            let size = payload.size_bytes.get();
            read.fields = Some((clean, created_us, size, payload.logical_block_bytes.get(), layout));
        }
        Ok(read)
    }

    fn tier_bytes(&self) -> Option<u64> {
        self.fields.as_ref().map(|(.., layout)| layout.tier_bytes)
    }

    /// Its generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Accepts the copy for a tier of `size_bytes` bytes, of the volume `wanted` if that is given; `tier`
    /// names it in messages.
    ///
    /// # Errors
    /// A newer version, another volume, a tier that has shrunk, or contents that make no sense.
    pub fn verify(
        &self,
        tier: &str,
        size_bytes: u64,
        wanted: Option<Uuid>,
    ) -> Result<Superblock, FastTierError> {
        let senseless =
            |what: &str| FastTierError::Damaged { what: format!("superblock: {what}"), offset: 0 };
        let Some((clean, created_us, volume_bytes, logical_block_bytes, layout)) = self.fields else {
            let (found, known) = (self.version, FORMAT_VERSION);
            return Err(FastTierError::Newer { tier: tier.to_owned(), found, known });
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != self.volume) {
            return Err(FastTierError::OtherVolume { tier: tier.to_owned(), found: self.volume, wanted });
        }
        if size_bytes < layout.tier_bytes {
            let stated_bytes = layout.tier_bytes;
            return Err(FastTierError::Shrunk { tier: tier.to_owned(), size_bytes, stated_bytes });
        }
        let geometry = Geometry::new(volume_bytes, logical_block_bytes)
            .map_err(|error| senseless(&error.to_string()))?;
        if !layout.is_sound() {
            return Err(senseless("the areas overlap or lie outside of the tier"));
        }
        Ok(Superblock {
            volume: self.volume,
            generation: self.generation,
            clean,
            created_us,
            geometry,
            layout,
        })
    }
}

impl Superblock {
    /// The page of copy 0 or 1.
    #[must_use]
    pub fn to_page(&self, copy: u64) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::zeroed(PAGE_BYTES);
        let [checkpoint_a, checkpoint_b] = self.layout.checkpoint_offsets;
        let payload = Payload {
            version: U32::new(if self.layout.has_grown() { FORMAT_VERSION } else { PLAIN_VERSION }),
            clean: U32::new(self.clean.is_some().into()),
            last_lsn: U64::new(self.clean.unwrap_or_default().0),
            created_us: U64::new(self.created_us),
            size_bytes: U64::new(self.geometry.size_bytes()),
            logical_block_bytes: U32::new(self.geometry.logical_block_bytes()),
            slots: U32::new(self.layout.slots),
            tier_bytes: U64::new(self.layout.tier_bytes),
            journal_offset: U64::new(self.layout.journal_offset),
            journal_bytes: U64::new(self.layout.journal_bytes),
            checkpoint_a: U64::new(checkpoint_a),
            checkpoint_b: U64::new(checkpoint_b),
            checkpoint_bytes: U64::new(self.layout.checkpoint_bytes),
            slots_offset: U64::new(self.layout.slots_offset),
        };
        let generation = self.generation;
        let label =
            Label { kind: Kind::Superblock, number: copy, generation, sequence: 0, part: 0, parts: 1 };
        page::seal(&mut buffer, self.volume, label, payload.as_bytes());
        buffer
    }

    /// Writes both copies, `first` before the other, each durable before the next step.
    ///
    /// # Errors
    /// I/O; then at most the copy that was being written is torn.
    pub fn write(&self, device: &dyn FastDevice, first: usize) -> io::Result<()> {
        let [a, b] = self.layout.superblock_offsets();
        let order = if first == 0 { [(0, a), (1, b)] } else { [(1, b), (0, a)] };
        for (copy, offset) in order {
            device.write_at(offset, &self.to_page(copy))?;
            device.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fast_tier::sim::SimDisk;
    use proptest::prelude::*;

    fn superblock() -> Superblock {
        Superblock {
            volume: Uuid::from_u128(5),
            generation: 3,
            clean: Some(Lsn(9)),
            created_us: 1,
            geometry: Geometry::new(1 << 30, 512).expect("a valid shape"),
            layout: Layout::for_tier(64 << 20).expect("large enough"),
        }
    }

    #[test]
    fn a_superblock_is_read_as_it_was_written() {
        let written = superblock();
        let read = Unverified::parse(&written.to_page(1), 1).expect("sound");
        let verified = read.verify("tier", 64 << 20, Some(written.volume)).expect("fits");
        assert_eq!(verified, written);
        assert!(Unverified::parse(&written.to_page(1), 0).is_err());
    }

    #[test]
    fn a_torn_copy_tells_where_the_other_one_may_be() {
        let disk = SimDisk::new(96 << 20, 1);
        let written = superblock();
        written.write(&disk, 0).expect("written");
        // Torn behind what it says: sound no more, and the tier ends before its device does.
        let mut torn = written.to_page(0);
        torn[100] ^= 1;
        disk.write_at(0, &torn).expect("written");
        let found = Copies::read(&disk).expect("read");
        assert_eq!((&found.0[0], found.1), (&Err(NoPage::Damaged), [0, (64 << 20) - 4096]));
        let newest = found.newest("tier").expect("the other copy");
        assert_eq!(newest.verify("tier", 96 << 20, Some(written.volume)).expect("fits"), written);
        // Where it says nonsense, at the device's end.
        torn[72 + 40..72 + 48].fill(0xff);
        disk.write_at(0, &torn).expect("written");
        let at_the_end = Superblock { layout: written.layout.grown_to(96 << 20).expect("grown"), ..written };
        disk.write_at((96 << 20) - 4096, &at_the_end.to_page(1)).expect("written");
        let found = Copies::read(&disk).expect("read");
        assert_eq!(found.1, [0, (96 << 20) - 4096]);
        assert!(found.newest("tier").is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let read = Unverified::parse(&superblock().to_page(0), 0).expect("sound");
        let shrunk = read.verify("tier", 63 << 20, None);
        assert!(matches!(shrunk, Err(FastTierError::Shrunk { .. })));
        let foreign = read.verify("tier", 64 << 20, Some(Uuid::nil()));
        assert!(matches!(foreign, Err(FastTierError::OtherVolume { .. })));
        let mut overlapping = superblock();
        overlapping.layout.checkpoint_offsets[1] -= 4096;
        let read = Unverified::parse(&overlapping.to_page(0), 0).expect("sound");
        assert!(matches!(read.verify("tier", 64 << 20, None), Err(FastTierError::Damaged { .. })));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
        let label =
            Label { kind: Kind::Superblock, number: 0, generation: 1, sequence: 0, part: 0, parts: 1 };
        page::seal(&mut page, Uuid::nil(), label, &7u32.to_le_bytes());
        let read = Unverified::parse(&page, 0).expect("sound");
        assert!(matches!(read.verify("tier", 1 << 30, None), Err(FastTierError::Newer { found: 7, .. })));
        // There never was a version 0.
        let sound = superblock().to_page(0);
        let (_, _, payload) = page::open_any(&sound, Kind::Superblock, 0).expect("sound");
        let mut none = payload.to_vec();
        none[..4].fill(0);
        page::seal(&mut page, Uuid::nil(), label, &none);
        assert_eq!(Unverified::parse(&page, 0), Err(NoPage::Damaged));
    }

    proptest! {
        #[test]
        fn any_payload_is_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
            let label = Label { kind: Kind::Superblock, number: 0, generation: 1, sequence: 0, part: 0, parts: 1 };
            page::seal(&mut page, Uuid::nil(), label, &payload);
            if let Ok(read) = Unverified::parse(&page, 0) {
                let _ = read.verify("tier", 1 << 40, None);
            }
        }
    }
}
