//! The prediction table, as the target reads it: the file a trainer, or anybody in its place, has left.
//!
//! Input: how (1), sequence (1), number of entries (2), file header (60), buffer header (124), entries. The checksums
//! are set right as the first byte says, bit by bit: 1 file header, 2 buffer header, 4 entries; 8 also sets what
//! the reader compares (magic, version, sizes, volume, sequence).
#![no_main]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use forerun::prediction_table::{
    BUFFER_BYTES, ENTRY_BYTES, FILE_BYTES, HEADER_BYTES, MAX_ENTRIES, TableError, TableReader, VERSION,
};

const VOLUME: [u8; 16] = [7; 16];
const BLOCKS: u32 = 1 << 20;
static FILE: LazyLock<(PathBuf, File)> = LazyLock::new(|| {
    let path = forerun_fuzz::scratch("predictions");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file.set_len(FILE_BYTES).is_ok());
    (path, file)
});

fn crc(bytes: &[u8]) -> [u8; 4] {
    (crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_le_bytes()
}

fn read(data: &[u8]) {
    let mut input = data.to_vec();
    input.resize(input.len().max(4 + 60 + 124), 0);
    let (front, entries) = input.split_at_mut(4 + 60 + 124);
    let (head, buffer) = front.split_at_mut(4 + 60);
    let (how, file_header) = head.split_at_mut(4);
    let (fix, sequence) = (how[0], u64::from(how[1]));
    let entries = &entries[..entries.len() / ENTRY_BYTES * ENTRY_BYTES];
    if fix & 8 != 0 {
        file_header[..8].copy_from_slice(b"FRPREDTB");
        file_header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        file_header[12..16].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
        file_header[16..20].copy_from_slice(&(MAX_ENTRIES as u32).to_le_bytes());
        file_header[24..32].copy_from_slice(&sequence.to_le_bytes());
        file_header[32..48].copy_from_slice(&VOLUME);
        buffer[..8].copy_from_slice(b"FRPREDBF");
        buffer[8..16].copy_from_slice(&sequence.to_le_bytes());
        buffer[24..40].copy_from_slice(&VOLUME);
        buffer[88..92].copy_from_slice(&(entries.len() as u32 / ENTRY_BYTES as u32).to_le_bytes());
    }
    if fix & 4 != 0 {
        buffer[120..].copy_from_slice(&crc(entries));
    }
    let mut bytes = [&*file_header, &[0; 4]].concat();
    if fix & 1 != 0 {
        bytes[60..].copy_from_slice(&crc(file_header));
    }
    let (path, file) = &*FILE;
    let at = HEADER_BYTES + (sequence % 2) * BUFFER_BYTES;
    let sealed = [&*buffer, &if fix & 2 != 0 { crc(buffer) } else { [0; 4] }, entries].concat();
    assert!(file.write_all_at(&bytes, 0).is_ok() && file.write_all_at(&sealed, at).is_ok());
    let mut reader = TableReader::new(path);
    match reader.read(VOLUME, BLOCKS) {
        Ok(None) => {}
        Ok(Some(table)) => {
            assert!(table.predictions.len() <= MAX_ENTRIES && table.info.generation > 0);
            let mut blocks: Vec<u32> =
                table.predictions.iter().map(|prediction| prediction.block.0).collect();
            assert!(blocks.iter().all(|block| *block < BLOCKS));
            assert!(table.predictions.is_sorted_by(|a, b| a.probability.get() >= b.probability.get()));
            assert!(
                table
                    .predictions
                    .iter()
                    .all(|prediction| (0.0..=1.0).contains(&prediction.probability.get()))
            );
            blocks.sort_unstable();
            blocks.dedup();
            assert_eq!(blocks.len(), table.predictions.len(), "no block is predicted twice");
            assert!(matches!(reader.read(VOLUME, BLOCKS), Ok(None)), "each table is taken once");
        }
        Err(TableError::Io { source, .. }) => panic!("a file that is there is read: {source}"),
        Err(_) => {}
    }
}

// A count of entries that is larger than the input reads the file's zeros: up to all of a buffer.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let room = vec![0; data.len() + 2 * BUFFER_BYTES as usize / 64];
    forerun_fuzz::bounded(&room, 64, |_| read(data));
});
