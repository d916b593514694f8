//! ext2, ext3, ext4 and XFS, as `forerun predict` reads them to name what lies where.
//!
//! Input: the device's size in MiB less one (1, modulo 16), then sectors: number (2, little-endian), content (512). What has none
//! is zeros. Checksums are not verified by the reader, so that none is set right here.
#![no_main]

use std::collections::HashMap;
use std::io;

use forerun::files::{ByteRange, ReadAt, What, name_ranges};

const SECTOR_BYTES: usize = 512;

struct Device<'d>(HashMap<u64, &'d [u8]>);

impl ReadAt for Device<'_> {
    fn read_exact_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        bytes.fill(0);
        let mut at = 0;
        while at < bytes.len() {
            let place = offset_bytes + at as u64;
            let within = (place % SECTOR_BYTES as u64) as usize;
            let count = (SECTOR_BYTES - within).min(bytes.len() - at);
            if let Some(sector) = self.0.get(&(place / SECTOR_BYTES as u64)) {
                bytes[at..at + count].copy_from_slice(&sector[within..within + count]);
            }
            at += count;
        }
        Ok(())
    }
}

fn read(data: &[u8]) {
    let Some((size, sectors)) = data.split_first() else { return };
    let size_bytes = u64::from(size % 16 + 1) << 20;
    let records = sectors.chunks_exact(2 + SECTOR_BYTES);
    let device = Device(
        records.map(|record| (u64::from(record[0]) | u64::from(record[1]) << 8, &record[2..])).collect(),
    );
    let asked = [
        ByteRange { offset_bytes: 0, length_bytes: 65_536 },
        ByteRange { offset_bytes: 100_000, length_bytes: u64::MAX },
    ];
    let Ok(named) = name_ranges(&device, size_bytes, &asked) else { return };
    let told: u64 = named.pieces.iter().map(|piece| piece.range.length_bytes).sum();
    assert_eq!(told, size_bytes - (100_000 - 65_536), "all that was asked for, and once");
    assert!(named.pieces.is_sorted_by(|a, b| a.end_bytes() <= b.range.offset_bytes));
    for piece in &named.pieces {
        if let What::Inode { inode, .. } = piece.what {
            assert!(named.owners.contains_key(&inode), "whose it is, is told");
        }
    }
    for path in named.owners.values().filter_map(|owner| owner.path.as_ref()) {
        assert!(!path.chars().any(char::is_control), "a path is safe to print");
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(data, 256, read));
