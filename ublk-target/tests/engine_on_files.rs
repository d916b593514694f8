//! The whole engine in this process, on real files and through io_uring, without any ublk: requests,
//! snapshots, write-back, kill and clean stop, and the offline check of every damaged byte.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch};
use ublk_target::capacity_tier::{CapacityTier, VolumeUuid};
use ublk_target::control::ControlPlane;
use ublk_target::engine::{Open, Opened, SnapshotBackend, create};
use ublk_target::offline::restore::restore;
use ublk_target::request::Operation;

mod support;

use support::*;

#[test]
fn data_snapshots_and_reopening() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    assert!(all_are(&read(&*volume, 0, 1 << 20), 0), "a new volume is zeros");
    write(&*volume, 0, 1, 300_000 / 4096 * 4096);
    write(&*volume, 10 << 20, 2, 4096);
    let first = control.create_snapshot(&name("first"), None).expect("a snapshot");
    assert!(first.created && !control.create_snapshot(&name("first"), None).expect("again").created);
    write(&*volume, 4096, 3, 4096);
    request(&*volume, Operation::Discard, 10 << 20, &mut [], 65536).expect("a discard");
    write(&*volume, 20 << 20, 4, 131_072);
    control.create_snapshot(&name("second"), None).expect("a snapshot");
    write(&*volume, 0, 5, 4096);
    let check = |volume: &ublk_target::engine::VolumeBackend| {
        assert!(all_are(&read(volume, 0, 4096), 5));
        assert!(all_are(&read(volume, 4096, 4096), 3));
        assert!(all_are(&read(volume, 8192, 65536), 1));
        assert!(all_are(&read(volume, 10 << 20, 65536), 0));
        assert!(all_are(&read(volume, 20 << 20, 131_072), 4));
    };
    check(&volume);
    let changes = control
        .diff(
            Some(first.snapshot.epoch),
            written_back(&control, "second"),
            forerun::geometry::BlockIndex(0),
            100,
        )
        .expect("a diff");
    let told: Vec<_> = changes.iter().map(|change| (change.block.0, change.kind.name())).collect();
    assert_eq!(told, [(0, "modified"), (160, "deleted"), (320, "added"), (321, "added")]);

    // A snapshot is read from the capacity tier alone.
    let shown = SnapshotBackend::open(
        &rig.config.capacity.address,
        *rig.config.uuid.as_bytes(),
        &ublk_target::capacity_tier::SnapshotName::new("first").expect("a name"),
    )
    .expect("the snapshot opens");
    assert!(all_are(&read(&shown, 0, 65536), 1));
    assert!(all_are(&read(&shown, 10 << 20, 4096), 2));
    assert!(all_are(&read(&shown, 20 << 20, 131_072), 0));
    let refused = request(&shown, Operation::Write { fua: false }, 0, &mut [0; 4096], 4096);
    assert_eq!(refused.expect_err("read-only").raw_os_error(), Some(nix::libc::EROFS));
    assert!(control.delete_snapshot(&name("first")).is_err(), "a snapshot that is shown is in use");
    drop(shown);

    drop(control);
    drop(volume);
    opened.close().expect("a clean stop");
    let (opened, control) = rig.open(Open::Fresh);
    assert_eq!(opened.info.end, ublk_target::fast_tier::LastEnd::Clean);
    // At once, before the background has done anything.
    assert_eq!(control.snapshots().expect("a list").len(), 2);
    assert!(!control.create_snapshot(&name("first"), None).expect("it is there").created);
    check(&opened.backend.clone());
    opened.close().expect("a clean stop");
}

#[test]
fn more_than_the_fast_tier_holds() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    // 96 MiB over a fast tier of 64 MiB, twice, so that everything is evicted and read back.
    for round in 0..2u8 {
        for block in 0..1536u64 {
            write(&*volume, block << 16, (block % 251) as u8 + round, 65536);
        }
    }
    for block in 0..1536u64 {
        let data = read(&*volume, (block << 16) + 8192, 4096);
        assert!(all_are(&data, (block % 251) as u8 + 1), "block {block}");
    }
    let status = control.volume_status().expect("a status");
    assert!(status.evictions > 0 && status.read_misses > 0, "{status:?}");
    drop(volume);
    opened.close().expect("a clean stop");
}

#[test]
fn small_writes_on_a_volume_of_512_byte_blocks() {
    let rig = Rig::new(512);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    write(&*volume, 0, 1, 65536);
    control.create_snapshot(&name("s"), None).expect("a snapshot");
    write(&*volume, 512, 2, 512);
    write(&*volume, 4096 + 3584, 3, 1024);
    write(&*volume, 65536 + 512, 4, 512);
    let data = read(&*volume, 0, 65536 + 4096);
    for (sector, bytes) in data.chunks(512).enumerate() {
        let expected = match sector {
            1 => 2,
            15 | 16 => 3,
            129 => 4,
            0..=127 => 1,
            _ => 0,
        };
        assert!(all_are(bytes, expected), "sector {sector}");
    }
    drop(volume);
    opened.close().expect("a clean stop");
}

/// A capacity tier that takes nothing: epochs are told of all the same, and it goes on by itself when that ends.
#[test]
fn a_capacity_tier_that_fails_holds_up_nothing_but_write_back() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    let segments = rig.root.join("capacity/segments");
    std::fs::rename(&segments, rig.root.join("away")).expect("moved away");
    write(&*volume, 0, 1, 65536);
    let epoch = control.create_snapshot(&name("told"), None).expect("a snapshot").snapshot.epoch;
    let deadline = Instant::now() + Duration::from_secs(30);
    while *control.sealed().borrow() < epoch || control.write_back().borrow().error.is_empty() {
        assert!(Instant::now() < deadline, "not told, or no failure is seen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let told = control.change_vector(epoch).expect("readable").expect("told");
    assert_eq!((told.vector.epoch, told.vector.changes().len()), (epoch, 1));
    assert!(control.volume_status().expect("a status").health.starts_with("degraded: write-back"));
    write(&*volume, 65536, 2, 4096);
    assert!(all_are(&read(&*volume, 0, 65536), 1));
    std::fs::rename(rig.root.join("away"), &segments).expect("moved back");
    while control.write_back().borrow().epoch < epoch {
        assert!(Instant::now() < deadline, "write-back does not go on by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(control.volume_status().expect("a status").health, "healthy");
    drop(volume);
    opened.close().expect("a clean stop");
}

/// A fast tier that is full of what the capacity tier does not take: no snapshot that would make overwrites wait.
#[test]
fn a_snapshot_is_refused_before_overwrites_would_wait() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    let segments = rig.root.join("capacity/segments");
    std::fs::rename(&segments, rig.root.join("away")).expect("moved away");
    write(&*volume, 0, 1, 65536);
    control.create_snapshot(&name("one"), None).expect("a snapshot while there is room");
    // While write-back seems to get on, epochs end early as room gets short.
    let deadline = Instant::now() + Duration::from_secs(30);
    while control.write_back().borrow().error.is_empty() {
        assert!(Instant::now() < deadline, "no failure is seen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let slots = control.volume_status().expect("a status").fast_tier.total_bytes >> 16;
    for block in 1..slots - 8 {
        write(&*volume, block << 16, 2, 65536);
    }
    let refused = control.create_snapshot(&name("two"), None).expect_err("no room for overwrites");
    let words = refused.to_string();
    assert!(words.contains("full of data that waits to be written back"), "{words}");
    for block in 1..slots - 8 {
        write(&*volume, block << 16, 3, 4096);
    }
    let status = control.volume_status().expect("a status");
    assert_eq!((status.waits_for_room, status.epochs_not_written_back), (0, 1), "{status:?}");
    assert!(status.write_back_failures > 0 && status.health.starts_with("degraded: write-back"));
    std::fs::rename(rig.root.join("away"), &segments).expect("moved back");
    let deadline = Instant::now() + Duration::from_secs(90);
    while control.create_snapshot(&name("two"), None).is_err() {
        assert!(Instant::now() < deadline, "still refused");
        std::thread::sleep(Duration::from_millis(50));
    }
    written_back(&control, "two");
    assert!(all_are(&read(&*volume, 65536, 4096), 3) && all_are(&read(&*volume, 65536 + 4096, 61440), 2));
    drop(volume);
    opened.close().expect("a clean stop");
}

#[test]
fn a_second_target_is_refused() {
    let rig = Rig::new(4096);
    let (opened, _control) = rig.open(Open::Fresh);
    let again = Opened::open(&rig.config, &rig.paths.volume(&rig.config.name), Open::Fresh);
    let message = format!("{:#}", anyhow::Error::from(again.err().expect("in use")));
    assert!(message.contains("use"), "{message}");
    opened.close().expect("a clean stop");
    assert!(create(&rig.config).is_err(), "tiers that hold a volume are not formatted again");
}

/// Every file under a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// `forerun check` finds each of 1,000 single damaged bytes on the capacity tier.
#[test]
fn every_damaged_byte_of_the_capacity_tier_is_found() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    for epoch in 0..3u8 {
        for block in 0..20u64 {
            let data: Vec<u8> =
                (0..65536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ epoch).collect();
            let offset = (block * 3 + u64::from(epoch)) << 16;
            request(&*volume, Operation::Write { fua: false }, offset, &mut data.clone(), 65536)
                .expect("a write");
        }
        control.create_snapshot(&name(&format!("s{epoch}")), None).expect("a snapshot");
        written_back(&control, &format!("s{epoch}"));
    }
    drop((volume, control));
    opened.close().expect("a clean stop");
    let capacity = rig.root.join("capacity");
    let damaged = || {
        let report = tokio_uring::start(CapacityTier::check(&capacity, None, &mut |_| ()));
        report.map_or(true, |report| !report.is_clean())
    };
    assert!(!damaged(), "sound before");
    let mut all = Vec::new();
    files(&capacity, &mut all);
    all.retain(|path| path.file_name().is_some_and(|name| name != "LOCK" && name != "RESERVE"));
    all.sort();
    let lens: Vec<u64> = all.iter().map(|path| path.metadata().expect("a file").len()).collect();
    let total: u64 = lens.iter().sum();
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    for round in 0..1000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of them in HEAD and layers, which are small beside the segments.
        let small: Vec<usize> =
            (0..all.len()).filter(|at| !all[*at].to_string_lossy().contains("segments")).collect();
        let (file, at) = if round % 2 == 0 {
            let file = small[(seed >> 33) as usize % small.len()];
            (file, (seed >> 11) % lens[file].max(1))
        } else {
            let mut at = (seed >> 11) % total;
            let mut file = 0;
            while at >= lens[file] {
                at -= lens[file];
                file += 1;
            }
            (file, at)
        };
        if lens[file] == 0 {
            continue;
        }
        let mut bytes = std::fs::read(&all[file]).expect("a file");
        bytes[at as usize] ^= 1 << (seed >> 60 & 7);
        std::fs::write(&all[file], &bytes).expect("damage");
        assert!(damaged(), "byte {at} of {} (round {round})", all[file].display());
        bytes[at as usize] ^= 1 << (seed >> 60 & 7);
        std::fs::write(&all[file], &bytes).expect("mended");
    }
    assert!(!damaged(), "sound again");
}

/// How soon a volume of so many blocks of data (`FORERUN_BLOCKS`; 4 Mi, 256 GiB of data, by default) is open after it was lost; prints
/// it. On a directory, whose tables are read from the page cache, or on an empty store at `FORERUN_TEST_STORE`, whose server is told
/// through `FORERUN_FAULTS` to take so long for each request (`FORERUN_DELAY_MS`) once the data is there.
#[test]
#[ignore = "a measurement: takes minutes and gigabytes"]
fn how_soon_a_large_volume_is_open() {
    let set = |name| std::env::var(name).ok();
    let number =
        |name, otherwise| set(name).map_or(otherwise, |value| value.parse::<u32>().expect("a number"));
    let blocks = number("FORERUN_BLOCKS", 4 << 20);
    let store = set("FORERUN_TEST_STORE").map(|store| store.parse().expect("an address"));
    let rig = Rig::sized(u64::from(blocks) << 16, 1 << 30, 4096, store);
    let block_of = |block: u32| {
        let mut data = vec![0; 65536];
        data[..4].copy_from_slice(&(block + 1).to_le_bytes());
        data
    };
    tokio_uring::start(async {
        let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
        let address = &rig.config.capacity.address;
        let tier = CapacityTier::open_writer(address, uuid, rig.config.geometry).await.expect("a writer");
        let mut layer = tier.begin_layer(Epoch(1), 0, 1).expect("a layer");
        for block in 0..blocks {
            layer.put(BlockIndex(block), ChangeKind::Added, 16, &block_of(block)).await.expect("room");
        }
        layer.commit(None, blocks).await.expect("a layer");
        tier.close().await;
    });
    std::fs::remove_file(&rig.config.fast.path).expect("lost");
    if let Some(faults) = set("FORERUN_FAULTS") {
        let delay = number("FORERUN_DELAY_MS", 0);
        std::fs::write(faults, format!("delay_ms = {delay}\n")).expect("told");
    }
    let paths = rig.paths.volume(&rig.config.name);
    let begun = Instant::now();
    restore(&rig.config, &paths, false).expect("restored");
    let restored = begun.elapsed();
    let (opened, _control) = rig.open(Open::Fresh);
    let open = begun.elapsed();
    let at = blocks / 3;
    assert_eq!(read(&*opened.backend, u64::from(at) << 16, 65536), block_of(at));
    println!(
        "{blocks} blocks: restored after {restored:?}, open after {open:?}, a block is read after {:?}",
        begun.elapsed()
    );
    opened.close().expect("a clean stop");
}
