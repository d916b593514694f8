//! A table comes back as it was published, and nothing else ever comes back.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::layout::{BufferHeader, Entry, FileHeader, buffer_offset, crc32c, header_crc};
use super::*;
use crate::prediction::{PredictedKind, Probability};

const VOLUME: [u8; 16] = [7; 16];
const BLOCKS: u32 = 100_000;

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("predictions");
    Fixture { _dir: dir, path }
}

fn prediction(block: u32, probability: f32) -> Prediction {
    Prediction {
        block: BlockIndex(block),
        kind: PredictedKind::Modified,
        probability: Probability::new(probability).expect("in range"),
    }
}

fn publish(writer: &mut TableWriter, predictions: &[Prediction]) -> TableInfo {
    writer.publish("lstm", Epoch(5), Horizon::DEFAULT, predictions).expect("published")
}

#[test]
fn what_is_published_comes_back_once_and_sorted() {
    let at = fixture();
    let mut reader = TableReader::new(&at.path);
    assert!(reader.read(VOLUME, BLOCKS).expect("no file").is_none());
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
    assert!(reader.read(VOLUME, BLOCKS).expect("empty").is_none());
    let info = publish(&mut writer, &[prediction(3, 0.2), prediction(9, 0.9), prediction(1, 0.2)]);
    let table = reader.read(VOLUME, BLOCKS).expect("valid").expect("new");
    assert_eq!(table.info, info);
    assert_eq!(table.predictions, [prediction(9, 0.9), prediction(1, 0.2), prediction(3, 0.2)]);
    assert!(reader.read(VOLUME, BLOCKS).expect("valid").is_none(), "taken already");
    for round in 0..5 {
        publish(&mut writer, &[prediction(round, 0.5)]);
        let table = reader.read(VOLUME, BLOCKS).expect("valid").expect("new");
        assert_eq!(table.predictions, [prediction(round, 0.5)]);
    }
}

#[test]
fn a_restarted_writer_goes_on_in_a_new_file() {
    let at = fixture();
    let mut reader = TableReader::new(&at.path);
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
    publish(&mut writer, &[prediction(1, 0.5)]);
    assert!(reader.read(VOLUME, BLOCKS).expect("valid").is_some());
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created again");
    assert!(writer.is_in_place());
    assert!(reader.read(VOLUME, BLOCKS).expect("empty").is_none());
    publish(&mut writer, &[]);
    assert!(reader.read(VOLUME, BLOCKS).expect("valid").expect("new").predictions.is_empty());
}

#[test]
fn what_does_not_belong_is_refused_by_name() {
    let at = fixture();
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
    assert!(matches!(
        writer.publish("x", Epoch(1), Horizon::DEFAULT, &[prediction(4, 0.5), prediction(4, 0.6)]),
        Err(TableError::Duplicate(BlockIndex(4)))
    ));
    publish(&mut writer, &[prediction(4, 0.5)]);
    let read = |volume, blocks| TableReader::new(&at.path).read(volume, blocks);
    assert!(matches!(read([8; 16], BLOCKS), Err(TableError::Volume)));
    assert!(matches!(read(VOLUME, 4), Err(TableError::Entry { index: 0, .. })));
    assert!(read(VOLUME, 5).is_ok());
    for len in [0, 1, 63, 64, 4096, FILE_BYTES - 1, FILE_BYTES + 1] {
        OpenOptions::new().write(true).open(&at.path).expect("there").set_len(len).expect("cut");
        assert!(matches!(read(VOLUME, BLOCKS), Err(TableError::Length { .. })), "{len} bytes");
    }
    let mut reader = TableReader::new(at.path.parent().expect("a folder"));
    assert!(matches!(reader.read(VOLUME, BLOCKS), Err(TableError::NotAFile(_))));
    // Neither waited for nor followed.
    let folder = at.path.parent().expect("a folder");
    let (fifo, link) = (folder.join("fifo"), folder.join("link"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    std::os::unix::fs::symlink(&at.path, &link).expect("made");
    assert!(matches!(TableReader::new(&fifo).read(VOLUME, BLOCKS), Err(TableError::NotAFile(_))));
    assert!(matches!(TableReader::new(&link).read(VOLUME, BLOCKS), Err(TableError::Io { .. })));
}

#[test]
fn an_older_table_is_stale() {
    let at = fixture();
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
    publish(&mut writer, &[prediction(4, 0.5)]);
    let old = fs::read(&at.path).expect("readable");
    publish(&mut writer, &[prediction(5, 0.5)]);
    let mut reader = TableReader::new(&at.path);
    assert!(reader.read(VOLUME, BLOCKS).expect("valid").is_some());
    fs::write(&at.path, old).expect("put back");
    assert!(matches!(reader.read(VOLUME, BLOCKS), Err(TableError::Stale { .. })));
}

const HOUR_US: u64 = 3_600_000_000;
const NOW_US: u64 = 1_795_427_100_000_000;

fn publish_at(writer: &mut TableWriter, now_us: u64) -> u64 {
    let predictions = [prediction(4, 0.5)];
    writer.publish_at("lstm", Epoch(5), Horizon::DEFAULT, &predictions, now_us).expect("published").generation
}

#[test]
fn a_clock_that_is_set_back_makes_no_table_stale() {
    for back_us in [HOUR_US, GENERATION_AHEAD_US - 1, 400 * GENERATION_AHEAD_US] {
        for (restarted, silent) in [(false, false), (true, false), (true, true)] {
            let at = fixture();
            let mut reader = TableReader::new(&at.path);
            let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
            publish_at(&mut writer, NOW_US);
            assert!(reader.read_at(VOLUME, BLOCKS, NOW_US).expect("valid").is_some());
            let now_us = NOW_US - back_us;
            assert_eq!(
                reader.read_at(VOLUME, BLOCKS, now_us).is_ok(),
                back_us < GENERATION_AHEAD_US,
                "the table of before"
            );
            if restarted {
                writer = TableWriter::create(&at.path, VOLUME).expect("created again");
            }
            if silent {
                // Ended before it had published anything.
                writer = TableWriter::create(&at.path, VOLUME).expect("created once more");
            }
            for later in 1..4 {
                publish_at(&mut writer, now_us + later);
                let read = reader.read_at(VOLUME, BLOCKS, now_us + later);
                assert!(read.expect("valid").is_some(), "{back_us} µs back, {restarted}, {silent}");
            }
        }
    }
}

#[test]
fn a_hostile_generation_does_not_shut_out_those_that_follow() {
    for generation in [u64::MAX, NOW_US + GENERATION_AHEAD_US + 1, NOW_US + GENERATION_AHEAD_US] {
        let at = fixture();
        let mut reader = TableReader::new(&at.path);
        forge_generation(&at.path, generation);
        let read = reader.read_at(VOLUME, BLOCKS, NOW_US);
        if generation > NOW_US + GENERATION_AHEAD_US {
            assert!(matches!(read, Err(TableError::Ahead { found }) if found == generation), "{read:?}");
        } else {
            assert!(read.expect("plausible").is_some());
        }
        let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
        let later_us = NOW_US + 1_000_000;
        publish_at(&mut writer, later_us);
        assert!(reader.read_at(VOLUME, BLOCKS, later_us).expect("valid").is_some(), "after {generation}");
    }
}

fn forge_generation(path: &std::path::Path, generation: u64) {
    forge(path, &[(1, 1, 0.5)], None, 1);
    let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut bytes = [0; size_of::<BufferHeader>()];
    file.read_exact_at(&mut bytes, buffer_offset(1)).expect("read");
    bytes[16..24].copy_from_slice(&generation.to_le_bytes());
    let crc = header_crc(&bytes).to_le_bytes();
    bytes[124..].copy_from_slice(&crc);
    file.write_all_at(&bytes, buffer_offset(1)).expect("written");
}

/// Writes a table whose checksums are right, whatever it holds.
fn forge(path: &std::path::Path, entries: &[(u32, u8, f32)], claimed: Option<u32>, horizon: u32) {
    drop(TableWriter::create(path, VOLUME).expect("created"));
    let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut bytes = Vec::new();
    for &(block, kind, probability) in entries {
        let entry = Entry { block: block.into(), kind, reserved: [0; 3], probability: probability.into() };
        bytes.extend_from_slice(entry.as_bytes());
    }
    let mut header = BufferHeader {
        magic: *b"FRPREDBF",
        sequence: 1.into(),
        generation: 1.into(),
        volume: VOLUME,
        model: [0; 32],
        epoch: 1.into(),
        horizon: horizon.into(),
        published_us: 0.into(),
        entries: claimed.unwrap_or(entries.len() as u32).into(),
        reserved: [0; 28],
        entries_crc: crc32c(&bytes).into(),
        crc: 0.into(),
    };
    header.crc = header_crc(header.as_bytes()).into();
    file.write_all_at(header.as_bytes(), buffer_offset(1)).expect("written");
    file.write_all_at(&bytes, buffer_offset(1) + size_of::<BufferHeader>() as u64).expect("written");
    let mut header = FileHeader {
        magic: *b"FRPREDTB",
        version: VERSION.into(),
        entry_bytes: (ENTRY_BYTES as u32).into(),
        max_entries: (MAX_ENTRIES as u32).into(),
        reserved_a: 0.into(),
        sequence: 1.into(),
        volume: VOLUME,
        reserved_b: [0; 12],
        crc: 0.into(),
    };
    header.crc = header_crc(header.as_bytes()).into();
    file.write_all_at(header.as_bytes(), 0).expect("written");
}

#[test]
fn a_hostile_writer_with_right_checksums_is_refused() {
    let at = fixture();
    let read = |entries: &[(u32, u8, f32)], claimed, horizon| {
        forge(&at.path, entries, claimed, horizon);
        TableReader::new(&at.path).read(VOLUME, BLOCKS)
    };
    assert!(read(&[(1, 1, 0.5)], None, 1).is_ok());
    for bad in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
        assert!(matches!(read(&[(1, 1, bad)], None, 1), Err(TableError::Entry { .. })), "{bad}");
    }
    for kind in [0, 5, 255] {
        assert!(matches!(read(&[(1, kind, 0.5)], None, 1), Err(TableError::Entry { .. })), "kind {kind}");
    }
    assert!(matches!(read(&[(1, 1, 0.5), (2, 1, 0.6)], None, 1), Err(TableError::Entry { index: 1, .. })));
    assert!(matches!(read(&[(1, 1, 0.5), (1, 2, 0.5)], None, 1), Err(TableError::Duplicate(_))));
    assert!(matches!(read(&[(BLOCKS, 1, 0.5)], None, 1), Err(TableError::Entry { .. })));
    assert!(matches!(read(&[], Some(u32::MAX), 1), Err(TableError::Field(_))));
    assert!(matches!(read(&[], Some(MAX_ENTRIES as u32), 1), Err(TableError::Checksum(_))));
    assert!(matches!(read(&[], None, 0), Err(TableError::Field("horizon"))));
    assert!(matches!(read(&[], None, 65), Err(TableError::Field("horizon"))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any change of bytes that are in use is either refused or was no change.
    #[test]
    fn altered_tables_are_never_taken(
        at_byte in 0u64..(64 + 128 + 12 * 20),
        mask in 1u8..,
        more in proptest::collection::vec((0u64..(64 + 128 + 12 * 20), any::<u8>()), 0..4),
    ) {
        let at = fixture();
        let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
        let predictions: Vec<_> = (0..20).map(|block| prediction(block, 0.5)).collect();
        publish(&mut writer, &predictions);
        let good = TableReader::new(&at.path).read(VOLUME, BLOCKS).expect("valid").expect("new");
        let file = OpenOptions::new().read(true).write(true).open(&at.path).expect("there");
        for (offset, mask) in std::iter::once((at_byte, mask)).chain(more) {
            let place = if offset < 64 { offset } else { buffer_offset(1) + offset - 64 };
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).expect("read");
            file.write_all_at(&[byte[0] ^ mask], place).expect("written");
        }
        if let Ok(table) = TableReader::new(&at.path).read(VOLUME, BLOCKS) {
            prop_assert_eq!(table, Some(good));
        }
    }

    /// Random bytes in place of header and buffers are refused without a panic.
    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096), keep_header: bool) {
        let at = fixture();
        let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
        publish(&mut writer, &[prediction(1, 0.5)]);
        let file = OpenOptions::new().write(true).open(&at.path).expect("there");
        if !bytes.is_empty() {
            file.write_all_at(&bytes, if keep_header { buffer_offset(1) } else { 0 }).expect("written");
            prop_assert!(TableReader::new(&at.path).read(VOLUME, BLOCKS).is_err());
        }
    }
}

#[test]
fn a_reader_beside_a_writer_sees_only_whole_tables() {
    let at = fixture();
    let mut writer = TableWriter::create(&at.path, VOLUME).expect("created");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let probability = (round % 100) as f32 / 100.0;
                let predictions: Vec<_> = (0..500).map(|block| prediction(block, probability)).collect();
                publish(&mut writer, &predictions);
            }
        });
        let mut reader = TableReader::new(&at.path);
        let mut taken = 0;
        for _ in 0..2000 {
            match reader.read(VOLUME, BLOCKS) {
                Ok(Some(table)) => {
                    taken += 1;
                    let first = table.predictions[0].probability;
                    assert!(table.predictions.iter().all(|entry| entry.probability == first));
                }
                Ok(None) | Err(TableError::Torn(_) | TableError::Checksum(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(taken > 0);
    });
}
