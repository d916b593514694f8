//! Ranges, words and JSON, also with the names of a real file system.

use std::collections::BTreeMap;
use std::process::Command;

use forerun::config::VolumeConfig;
use forerun::files::{Kind, Metadata, Named, Owner, Part};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch};
use forerun::prediction::{Horizon, PredictedKind, Prediction};

use super::contents::{exact_size, in_words};
use super::*;

pub fn predicted(block: u32, kind: impl Into<PredictedKind>, probability: f32) -> Prediction {
    let probability = Probability::new(probability).expect("within 0 to 1");
    Prediction { block: BlockIndex(block), kind: kind.into(), probability }
}

/// Each range's first block, number of blocks, kind, and probability in hundredths.
fn told(predictions: &[Prediction], from: f32) -> Vec<(u64, u64, PredictedKind, u64)> {
    let told = |expected: &Expected| {
        let ByteRange { offset_bytes, length_bytes } = expected.range;
        let hundredths = (expected.probability * 100.0).round() as u64;
        (offset_bytes / BLOCK_BYTES, length_bytes / BLOCK_BYTES, expected.kind, hundredths)
    };
    expected::ranges(predictions, from).iter().map(told).collect()
}

#[test]
fn alike_neighbours_are_one_range() {
    use PredictedKind::{Added, Deleted, Modified};
    let predictions = [
        predicted(3, Added, 0.92),
        predicted(9, Modified, 0.90),
        predicted(2, Added, 0.90),
        predicted(4, Added, 0.94),
        predicted(5, Added, 0.86),
        predicted(6, Modified, 0.86),
        predicted(0, Deleted, 1.0),
        predicted(10, Modified, 0.5),
    ];
    let expected = [
        (0, 1, Deleted, 100),
        // 0.04 apart; the next is 0.08 away.
        (2, 3, Added, 92),
        (9, 1, Modified, 90),
        (5, 1, Added, 86),
        (6, 1, Modified, 86),
    ];
    assert_eq!(told(&predictions, 0.8), expected);
    assert_eq!(told(&predictions, 0.5).last(), Some(&(10, 1, Modified, 50)));
    assert_eq!(told(&[], 0.0), []);
    let last = u32::MAX;
    assert_eq!(told(&[predicted(last, Added, 0.5)], 0.0), [(last.into(), 1, Added, 50)]);
}

#[test]
fn every_block_above_the_threshold_is_in_one_range() {
    let predictions: Vec<Prediction> = (0..5_000_u32)
        .map(|block| predicted(block, PredictedKind::Modified, (block * 7919 % 1_000) as f32 / 1_000.0))
        .collect();
    let blocks: u64 = told(&predictions, 0.3).iter().map(|(_, blocks, ..)| blocks).sum();
    assert_eq!(blocks, 3_500);
}

#[test]
fn sizes_are_exact() {
    for (bytes, text) in [
        (0, "0"),
        (512, "512 B"),
        (65_536, "64 KiB"),
        (3 << 20, "3 MiB"),
        ((3 << 20) + 65_536, "3,136 KiB"),
        (5 << 40, "5 TiB"),
    ] {
        assert_eq!(exact_size(bytes), text);
    }
}

fn named() -> Named {
    let piece = |offset_bytes, length_bytes, what| forerun::files::Piece {
        range: ByteRange { offset_bytes, length_bytes },
        what,
    };
    let of = |inode, part, offset_bytes| forerun::files::What::Inode { inode, part, offset_bytes };
    let structure = |what, group| forerun::files::What::Metadata(Metadata { what, group: Some(group) });
    let owner = |kind, path: Option<&str>| Owner { kind, size_bytes: 1 << 20, path: path.map(Into::into) };
    Named {
        file_system: "ext4",
        pieces: vec![
            piece(0, 4_096, of(12, Part::Data, 1 << 20)),
            piece(4_096, 61_440, of(12, Part::End, (1 << 20) + 4_096)),
            piece(65_536, 16_384, of(13, Part::Data, 0)),
            piece(81_920, 8_192, of(14, Part::Data, 0)),
            piece(90_112, 4_096, of(12, Part::Map, 0)),
            piece(94_208, 4_096, of(15, Part::Attributes, 0)),
            piece(98_304, 20_480, of(13, Part::Data, 32_768)),
            piece(118_784, 12_288, structure("inode table", 3)),
            piece(131_072, 65_536, forerun::files::What::Free),
            piece(196_608, 4_096, structure("block bitmap", 3)),
            piece(200_704, 4_096, structure("block bitmap", 4)),
            piece(204_800, 4_096, structure("inode bitmap", 3)),
        ],
        owners: BTreeMap::from([
            (12, owner(Kind::File, Some("/var/log/app.log"))),
            (13, owner(Kind::Directory, Some("/var"))),
            (14, owner(Kind::Symlink, Some("/link"))),
            (15, owner(Kind::File, None)),
        ]),
        damaged: 2,
    }
}

#[test]
fn contents_in_words() {
    let named = named();
    let words = |offset_bytes, length_bytes| in_words(&named, ByteRange { offset_bytes, length_bytes });
    assert_eq!(words(0, 65_536), "+60 KiB at the end of /var/log/app.log, /var/log/app.log at 1 MiB");
    assert_eq!(words(8_192, 16_384), "+16 KiB at the end of /var/log/app.log");
    assert_eq!(words(65_536, 65_536), "directory /var, inode table of group 3, link /link, and 2 more");
    assert_eq!(words(90_112, 8_192), "map of /var/log/app.log, attributes of inode 15, which has no name");
    assert_eq!(words(131_072, 65_536), "free space");
    assert_eq!(words(196_608, 65_536), "block bitmap of groups 3 to 4, inode bitmap of group 3");
}

pub fn options(words: &[&str]) -> PredictOptions {
    let words = [&["forerun", "predict", "data"], words].concat();
    let arguments = <super::super::args::Arguments as clap::Parser>::try_parse_from(words).expect("parsed");
    match arguments.command {
        super::super::args::Command::Predict(options) => options,
        other => panic!("{other:?}"),
    }
}

pub fn config() -> VolumeConfig {
    VolumeConfig::from_toml(
        "version = 1\nname = \"data\"\nuuid = \"00000000-0000-0000-0000-000000000007\"\nsize_bytes = 67108864\n\
         logical_block_bytes = 4096\nsync_interval_seconds = 60\nthreshold = 0.5\nprediction_horizon = 1\n\
         prediction = true\ncreated_us = 0\n[fast]\npath = \"/f\"\n[capacity]\npath = \"/c\"\n",
    )
    .expect("a configuration")
}

pub fn table(predictions: Vec<Prediction>) -> Table {
    let info = TableInfo {
        generation: 9,
        model: "lstm".into(),
        epoch: Epoch(41),
        horizon: Horizon::new(1).expect("a horizon"),
        published_us: 1_000_000,
    };
    Table { info, predictions }
}

#[test]
fn the_page() {
    let predictions = vec![
        predicted(0, PredictedKind::Added, 0.93),
        predicted(1, PredictedKind::Modified, 0.75),
        predicted(2, PredictedKind::Added, 0.6),
    ];
    let mut report = report(&options(&["--limit", "2"]), 0.5, Some(table(predictions)));
    report.names = Names::Found(named());
    assert_eq!(
        page::text(&report, 181_000_000),
        "predictions for 1 epoch after epoch 41, by lstm, published 3 min ago\n   \
         P  KIND      OFFSET  LENGTH  WHAT\n\
         0.93  added          0  64 KiB  +60 KiB at the end of /var/log/app.log, /var/log/app.log at 1 MiB\n\
         0.75  modified  64 KiB  64 KiB  directory /var, inode table of group 3, link /link, and 2 more\n\
         2 ranges, 128.0 KiB, from p = 0.5; 1 less probable left out\n\
         2 structures of the ext4 file system cannot be read, or changed meanwhile: names may be missing\n"
    );
    let json = serde_json::to_value(page::json(&report)).expect("JSON");
    let growth = serde_json::json!({
        "offset_bytes": 4_096, "length_bytes": 61_440, "what": "growth", "inode": 12, "inode_kind": "file",
        "path": "/var/log/app.log", "file_offset_bytes": 1_052_672, "structure": null, "group": null,
    });
    assert_eq!(json["ranges"][0]["contents"][1], growth);
    let structure = &json["ranges"][1]["contents"][5];
    assert_eq!((&structure["what"], &structure["structure"]), (&"structure".into(), &"inode table".into()));
    assert_eq!((&structure["group"], &structure["path"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!((&json["file_system"], &json["left_out"]), (&"ext4".into(), &1.into()));
    assert_eq!(json["damaged_structures"], 2);
}

#[test]
fn the_names_come_from_the_device() {
    let directory = tempfile::tempdir().expect("a directory");
    let (root, image) = (directory.path().join("root"), directory.path().join("image"));
    std::fs::create_dir_all(root.join("var/log")).expect("made");
    std::fs::write(root.join("var/log/app.log"), vec![7; 3 << 20]).expect("written");
    let file = std::fs::File::create(&image).expect("made");
    file.set_len(config().geometry.size_bytes()).expect("as large as the volume");
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-b", "4096", "-d"]).arg(&root).arg(&image);
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let status = mkfs.env("PATH", path).status().expect("ci/setup installs e2fsprogs, which this test needs");
    assert!(status.success());

    let all: Vec<Prediction> = (0..1_024).map(|block| predicted(block, PredictedKind::Added, 0.9)).collect();
    let mut report = report(&options(&[]), 0.5, Some(table(all)));
    assert_eq!(report.ranges.len(), 1);
    let device = image.display().to_string();
    report.names = names(&device, &config(), &report.ranges);
    let json = serde_json::to_value(page::json(&report)).expect("JSON");
    assert_eq!(json["file_system"], "ext4");
    let pieces = json["ranges"][0]["contents"].as_array().expect("pieces");
    let of_log = |what: &str| -> u64 {
        let is_of_it =
            |piece: &&serde_json::Value| piece["path"] == "/var/log/app.log" && piece["what"] == what;
        pieces.iter().filter(is_of_it).filter_map(|piece| piece["length_bytes"].as_u64()).sum()
    };
    assert_eq!(of_log("content"), 3 << 20);
    assert!(of_log("growth") > 0, "{pieces:?}");

    std::fs::write(&image, [0; 4_096]).expect("written");
    report.names = names(&device, &config(), &report.ranges);
    let text = page::text(&report, 0);
    let why = "no ext2, ext3, ext4 or XFS file system begins at the device's first byte";
    assert!(text.ends_with(&format!("no files are named: {device}: {why}\n")), "{text}");
    let missing = names("/dev/not-there", &config(), &report.ranges);
    assert!(matches!(missing, Names::Missing(why) if why.contains("cannot open /dev/not-there")));
}
