//! Restore, clone, promote and forget on real files, through the whole engine: what a volume reads after each.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::path::Path;
use std::time::{Duration, Instant};

use forerun::config::{FastTierConfig, VolumeConfig, VolumeName};
use forerun::geometry::Epoch;
use ublk_target::capacity_tier::{EntryCounts, Head, LayerId, LayerInfo, SnapshotName, VolumeUuid};
use ublk_target::control::ControlPlane;
use ublk_target::engine::{Open, OpenError, Opened, VolumeControl};
use ublk_target::offline::check::{Places, Quiet, check};
use ublk_target::offline::{clone, restore};

mod support;

use support::*;

fn open(rig: &Rig, config: &VolumeConfig) -> (Opened, VolumeControl) {
    let files = rig.paths.volume(&config.name);
    std::fs::create_dir_all(files.run_dir()).expect("a run folder");
    let opened = Opened::open(config, &files, Open::Fresh).expect("it opens");
    let control = VolumeControl::new(config.clone(), rig.paths.clone(), opened.backend.clone());
    (opened, control)
}

/// The same volume with another fast tier.
fn on_another(rig: &Rig, name: &str) -> VolumeConfig {
    VolumeConfig {
        name: VolumeName::new(name).unwrap(),
        fast: FastTierConfig { path: rig.root.join(format!("{name}.fast")), size_bytes: Some(FAST_BYTES) },
        ..rig.config.clone()
    }
}

/// A clone of the volume.
fn clone_config(rig: &Rig, name: &str) -> VolumeConfig {
    let mut config = on_another(rig, name);
    config.uuid = uuid::Uuid::new_v4();
    config.capacity.address = rig.root.join(format!("{name}.capacity")).into();
    config
}

fn findings(config: &VolumeConfig) -> Vec<String> {
    let outcome = check(&Places::of(config), &mut Quiet).expect("checked");
    assert!(outcome.is_clean(), "{}", outcome.text());
    outcome.findings.into_iter().map(|finding| finding.what).collect()
}

fn directory(config: &VolumeConfig) -> &Path {
    config.capacity.address.directory().expect("a directory")
}

fn objects(directory: &Path) -> usize {
    let count = |folder| std::fs::read_dir(directory.join(folder)).map_or(0, Iterator::count);
    count("segments") + count("layers")
}

#[test]
fn a_lost_machine_goes_on_from_the_capacity_tier() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    write(&*opened.backend, 0, 1, 300_000 / 4096 * 4096);
    control.create_snapshot(&name("first"), None).expect("a snapshot");
    written_back(&control, "first");
    write(&*opened.backend, 0, 2, 4096);
    let restored = on_another(&rig, "w");
    let files = rig.paths.volume(&restored.name);
    let refused = restore::restore(&restored, &files, false).expect_err("it has a writer");
    assert!(format!("{refused:#}").contains("is in use by process"), "{refused:#}");
    drop(control);
    opened.close().expect("a clean stop");

    let seen = restore::look(&rig.config.capacity.address).expect("a look");
    assert_eq!((seen.uuid.clone(), seen.size_bytes), (rig.config.uuid.to_string(), VOLUME_BYTES));
    let from = restore::restore(&restored, &files, false).expect("restored");
    assert_eq!((from.epoch, from.snapshots.as_slice()), (seen.epoch, &["first".to_owned()][..]));
    let (opened, control) = open(&rig, &restored);
    assert!(all_are(&read(&*opened.backend, 0, 65536), 1), "the write after the snapshot is lost");
    write(&*opened.backend, 1 << 20, 3, 65536);
    control.create_snapshot(&name("second"), None).expect("a snapshot");
    let epoch = written_back(&control, "second");
    assert!(epoch > Epoch(65_536), "beyond all that the lost machine can have had");
    drop(control);
    opened.close().expect("a clean stop");
    assert_eq!(findings(&restored), Vec::<String>::new());

    // The lost machine turns up again.
    let late = Opened::open(&rig.config, &rig.paths.volume(&rig.config.name), Open::Fresh);
    assert!(matches!(late, Err(OpenError::FastTierIsOld { .. })));
    let (opened, _control) = open(&rig, &restored);
    assert!(all_are(&read(&*opened.backend, 1 << 20, 65536), 3));
    opened.close().expect("a clean stop");
}

#[test]
fn a_clone_of_a_running_volume_and_a_clone_of_that() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    for block in 0..64u64 {
        write(&*opened.backend, block << 16, block as u8 + 1, 65536);
    }
    control.create_snapshot(&name("base"), None).expect("a snapshot");
    written_back(&control, "base");
    let copy = clone_config(&rig, "copy");
    let origin = &rig.config.capacity.address;
    let made = clone::clone(&copy, &rig.paths.volume(&copy.name), origin, &name("base")).expect("a clone");
    assert_eq!(made.uuid, copy.uuid.to_string());
    assert_eq!(objects(directory(&copy)), 0, "nothing is copied");
    let again = clone::clone(&copy, &rig.paths.volume(&copy.name), origin, &name("base"));
    again.expect("the same again goes on with what is there");
    let clones = control.clones().expect("a list");
    assert_eq!((clones.len(), clones[0].name.as_str()), (1, "copy"));

    let (copied, of_copy) = open(&rig, &copy);
    write(&*copied.backend, 0, 200, 4096);
    write(&*opened.backend, 4096, 201, 4096);
    of_copy.create_snapshot(&name("mine"), None).expect("a snapshot");
    written_back(&of_copy, "mine");
    let second = clone_config(&rig, "second");
    clone::clone(&second, &rig.paths.volume(&second.name), &copy.capacity.address, &name("mine"))
        .expect("a clone");
    let (twice, of_second) = open(&rig, &second);
    for volume in [&copied, &twice] {
        assert!(all_are(&read(&*volume.backend, 0, 4096), 200));
        assert!(all_are(&read(&*volume.backend, 4096, 61_440), 1));
        assert!(all_are(&read(&*volume.backend, 5 << 16, 65536), 6));
    }
    assert_eq!(control.clones().expect("a list").len(), 2, "the origin keeps what both need");

    // The second stands alone, whatever becomes of the others.
    assert_eq!(of_second.promote().expect("promoted").len(), 2);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !of_second.volume_status().expect("a status").origins.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", of_second.volume_status().expect("a status").origins);
        std::thread::sleep(Duration::from_millis(50));
        // Asking again presses on; by itself it goes on every ten seconds.
        of_second.promote().expect("promoted");
    }
    drop((control, of_copy, of_second));
    for volume in [opened, copied, twice] {
        volume.close().expect("a clean stop");
    }
    let told = findings(&rig.config);
    let shared =
        |what: &String| what.contains("clone copy at") && what.contains("shares what this volume held");
    assert!(told.iter().any(shared), "{told:?}");
    assert_eq!(findings(&copy).iter().filter(|what| what.contains("shares")).count(), 0);
    std::fs::remove_dir_all(directory(&rig.config)).expect("the origin goes");
    std::fs::remove_dir_all(directory(&copy)).expect("and the first clone");
    let (twice, _control) = open(&rig, &second);
    assert!(all_are(&read(&*twice.backend, 0, 4096), 200));
    for block in 1..64u64 {
        assert!(all_are(&read(&*twice.backend, block << 16, 65536), block as u8 + 1), "block {block}");
    }
    twice.close().expect("a clean stop");
}

#[test]
fn what_fails_is_taken_back_and_what_is_gone_is_forgotten() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    write(&*opened.backend, 0, 1, 65536);
    control.create_snapshot(&name("base"), None).expect("a snapshot");
    written_back(&control, "base");
    drop(control);
    opened.close().expect("a clean stop");
    let copy = clone_config(&rig, "copy");
    let (files, origin) = (rig.paths.volume(&copy.name), &rig.config.capacity.address);
    let missing = clone::clone(&copy, &files, origin, &name("other")).expect_err("no such snapshot");
    assert!(format!("{missing:#}").contains("there is no snapshot 'other'"), "{missing:#}");
    std::fs::write(&copy.fast.path, [7; 4096]).expect("written");
    clone::clone(&copy, &files, origin, &name("base")).expect_err("no place for a fast tier");
    assert!(!directory(&copy).exists() && !directory(&rig.config).join("clones").exists());
    std::fs::remove_file(&copy.fast.path).expect("removed");

    clone::clone(&copy, &files, origin, &name("base")).expect("a clone");
    let refused = clone::forget_at(origin, copy.uuid, false).expect_err("it is there");
    assert!(format!("{refused:#}").contains("it shares this volume's data"), "{refused:#}");
    std::fs::remove_dir_all(directory(&copy)).expect("it goes");
    let told = findings(&rig.config);
    assert!(told.len() == 1 && told[0].contains("which is not there"), "{told:?}");
    let refused = clone::forget_at(origin, copy.uuid, false).expect_err("it may be in the making");
    assert!(format!("{refused:#}").contains("only just now"), "{refused:#}");
    clone::forget_at(origin, copy.uuid, true).expect("forgotten");
    assert_eq!(findings(&rig.config), Vec::<String>::new());
}

#[test]
fn a_volume_with_much_history_is_restored() {
    let rig = Rig::new(4096);
    // As many layers as HEAD has room for: only HEAD is read.
    let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
    let layer = |number: u32| LayerInfo {
        id: LayerId(number.into()),
        first_epoch: Epoch(number),
        last_epoch: Epoch(number),
        opened_us: number.into(),
        sealed_us: u64::from(number) + 1,
        counts: EntryCounts { added: 1_000, ..EntryCounts::default() },
        mapped_blocks: 1_000,
        pages: 9,
        reclaim: false,
        snapshot: number.is_multiple_of(2).then(|| SnapshotName::new(format!("s{number}")).expect("a name")),
    };
    let base = Head::new(uuid, rig.config.geometry);
    let head = Head { layers: (1..=16_000).map(layer).collect(), numbers_taken_to: 1 << 20, ..base };
    std::fs::write(directory(&rig.config).join("HEAD"), head.encode()).expect("written");
    let restored = on_another(&rig, "w");
    let begun = Instant::now();
    let from = restore::restore(&restored, &rig.paths.volume(&restored.name), false).expect("restored");
    println!("restored with 16,000 layers in {:?}", begun.elapsed());
    assert_eq!((from.epoch, from.snapshots.len()), (16_000, 8_000));
}
