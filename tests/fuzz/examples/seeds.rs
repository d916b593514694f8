//! Writes the seeds, `corpus/TARGET/seed-N`, from what real encoders write: `cargo run --example seeds`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::config::VolumeConfig;
use forerun::files::{ByteRange, Kind, Part, What, name_ranges};
use forerun::geometry::{BlockIndex, Epoch};

#[allow(dead_code, unreachable_pub, reason = "the whole file of the trainer, of which not all is called")]
#[path = "../../../trainer/src/history/codec.rs"]
mod codec;

const TOML: &str = "version = 1\nname = \"data\"\nuuid = \"6f9619ff-8b86-4d01-b42d-00c04fc964ff\"\nsize_bytes = 10737418240\n\
logical_block_bytes = 4096\nsync_interval_seconds = 60\nthreshold = 0.5\nprediction_horizon = 1\nprediction = true\n\
created_us = 1795426800000000\n[fast]\npath = \"/dev/nvme0n1p3\"\nsize_bytes = 1073741824\n[capacity]\npath = \"/srv/forerun/data\"\n";

fn texts() -> Vec<(&'static str, Vec<u8>)> {
    assert!(VolumeConfig::from_toml(TOML).is_ok(), "the seed is a configuration");
    let text = |how: u8, text: &str| [&[how], text.as_bytes()].concat();
    let pid = format!(
        "{:\0<32}{}\0",
        "123\n", r#"{"target":{"name":"forerun","volume":"data","not_granted":["zero copy"]}}"#
    );
    vec![
        ("config", text(0, TOML)),
        ("config", text(1, r#"{"dev_id":3,"pid":17,"snapshot":"mon"}"#)),
        ("config", text(1, r#"{"dev_id":3,"pid":17}"#)),
        ("config", text(2, "64MiB")),
        ("config", text(2, "data-1.main_x")),
        ("contract", text(0, "add\n-t\nforerun\n--volume\ndata\n-n\n3\n-q\n2\n-d\n64\n--eventfd\n7")),
        ("contract", text(0, "add\n--volume\ndata\n--snapshot\nmon\n-n\n-1\n-z")),
        ("contract", text(0, "recover\n-n\n5\n--eventfd\n4")),
        ("contract", text(0, "del\n-n\n1\n--wait\n5")),
        ("contract", text(0, "check\n--fast\n/dev/null\n--json")),
        ("contract", text(1, &pid)),
    ]
}

fn predictions() -> Vec<u8> {
    let mut seed = vec![0; 4 + 60 + 124];
    seed[0] = 15;
    seed[1] = 5;
    let buffer = 64;
    // Generation, horizon, then two entries.
    seed[buffer + 16] = 9;
    seed[buffer + 40..buffer + 44].copy_from_slice(b"lstm");
    seed[buffer + 76] = 1;
    for (block, probability) in [(8_u32, 0.9_f32), (3, 0.25)] {
        seed.extend_from_slice(&block.to_le_bytes());
        seed.extend_from_slice(&[2, 0, 0, 0]);
        seed.extend_from_slice(&probability.to_le_bytes());
    }
    seed
}

fn history() -> Vec<Vec<u8>> {
    let change = |block, kind| Change { block: BlockIndex(block), kind, sub_blocks: 3 };
    let changes = vec![
        change(1, ChangeKind::Added),
        change(70_000, ChangeKind::Modified),
        change(80_000, ChangeKind::Deleted),
    ];
    let vector = ChangeVector::new(Epoch(5), 1, 2, changes).unwrap_or_else(|error| panic!("{error}"));
    let whole = codec::encode(&vector).unwrap_or_else(|error| panic!("{error}"));
    let packed = &whole[36..whole.len() - 4];
    let plain = zstd::bulk::decompress(packed, 4096).unwrap_or_else(|error| panic!("{error}"));
    let len = (plain.len() as u32).to_le_bytes();
    vec![
        [&[0; 9][..], &whole].concat(),
        [&[1, 3, 0, 0, 0][..], &len, &plain].concat(),
        [&[3, 3, 0, 0, 0][..], &len, packed].concat(),
    ]
}

/// What `forerun predict` reads of small file systems that their own tools make: e2fsprogs, xfsprogs.
fn files() -> Vec<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("forerun-seeds-{}", std::process::id()));
    let root = folder.join("root");
    let made = fs::create_dir_all(root.join("dir"))
        .and_then(|()| fs::write(root.join("large"), [7; 30_000]))
        .and_then(|()| fs::write(root.join("dir/small"), "small"))
        .and_then(|()| std::os::unix::fs::symlink("x/".repeat(50), root.join("dir/link")));
    made.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let small = "-q -F -b 1024 -N 16 -I 128 -O ^has_journal,^resize_inode,^metadata_csum";
    let seeds = [
        (1_u64, "mkfs.ext4", format!("{small} -d {}", root.display())),
        (1, "mkfs.ext4", format!("{small},^extent,^64bit -d {}", root.display())),
        (16, "mkfs.xfs", "-q -f -d agcount=1".into()),
    ]
    .map(|(mebibytes, mkfs, options)| {
        let image = folder.join("image");
        let file = fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20));
        file.unwrap_or_else(|error| panic!("{}: {error}", image.display()));
        // mkfs.xfs makes so small a file system for its own tests only, which it knows by these.
        let status = std::process::Command::new(mkfs)
            .args(options.split(' '))
            .arg(&image)
            .envs([("TEST_DIR", "/"), ("TEST_DEV", "/"), ("QA_CHECK_FS", "1")])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{mkfs} of e2fsprogs or xfsprogs is needed");
        sectors(&fs::read(&image).unwrap_or_else(|error| panic!("{}: {error}", image.display())))
    });
    let _ = fs::remove_dir_all(folder);
    seeds.into()
}

/// The sectors of an image that are read, as the target `files` wants them.
fn sectors(image: &Vec<u8>) -> Vec<u8> {
    let size_bytes = image.len() as u64;
    let whole = ByteRange { offset_bytes: 0, length_bytes: size_bytes };
    let named = name_ranges(image, size_bytes, &[whole]).unwrap_or_else(|error| panic!("{error}"));
    let mut seed = vec![(size_bytes >> 20) as u8 - 1];
    for piece in &named.pieces {
        let wanted_bytes = match piece.what {
            // Of XFS's first inodes the most are not in use.
            What::Metadata(metadata) if metadata.what == "inodes" => 2_048,
            What::Metadata(metadata) if metadata.what != "log" => u64::MAX,
            What::Inode { part: Part::Map, .. } => u64::MAX,
            What::Inode { inode, part: Part::Data, .. } if named.owners[&inode].kind == Kind::Directory => {
                u64::MAX
            }
            _ => 0,
        };
        let start = piece.range.offset_bytes;
        for at in (start..piece.end_bytes().min(start.saturating_add(wanted_bytes))).step_by(512) {
            let sector = &image[at as usize..at as usize + 512];
            if sector.iter().any(|byte| *byte != 0) {
                seed.extend_from_slice(&((at / 512) as u16).to_le_bytes());
                seed.extend_from_slice(sector);
            }
        }
    }
    seed
}

fn main() {
    let mut seeds = ublk_target::fuzzing::fast_tier::seeds();
    seeds.extend(ublk_target::fuzzing::capacity_tier::seeds());
    seeds.extend(ublk_target::fuzzing::control::seeds());
    seeds.extend(texts());
    seeds.push(("prediction_table", predictions()));
    seeds.extend(history().into_iter().map(|seed| ("history", seed)));
    seeds.extend(files().into_iter().map(|seed| ("files", seed)));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut numbers = BTreeMap::new();
    for (target, bytes) in seeds {
        let number = numbers.entry(target).or_insert(0);
        *number += 1;
        let folder = corpus.join(target);
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(format!("seed-{number}")), &bytes));
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    println!("{} targets have seeds in {}", numbers.len(), corpus.display());
}
