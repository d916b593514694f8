//! A volume that becomes larger: in use, while it is stopped, and with a crash at each step on the way.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forerun::config::{CapacityTierConfig, FastTierConfig, VolumeConfig, VolumeName};
use ublk_target::aligned::AlignedBuffer;
use ublk_target::capacity_tier::{CapacityTier, VolumeUuid};
use ublk_target::control::{ControlPlane, ErrorKind, FastGrowth};
use ublk_target::engine::{DeviceFacts, Open, Opened, VolumeControl, create};
use ublk_target::fast_tier::salvage::{Extent, Known, salvage};
use ublk_target::offline::check::{Places, Quiet, Severity, check};
use ublk_target::request::Operation;

mod support;

use support::*;

const GROWN: u64 = 3 * VOLUME_BYTES;

/// Opens the volume with a device that takes each size, or that fails.
fn open_with_device(rig: &Rig, works: bool) -> (Opened, VolumeControl, Arc<AtomicU64>) {
    let (opened, control) = rig.open(Open::Fresh);
    let shown = Arc::new(AtomicU64::new(0));
    let told = shown.clone();
    let resize = move |bytes| {
        told.store(bytes, Ordering::Relaxed);
        if works { Ok(()) } else { Err("the driver says no".to_owned()) }
    };
    control.set_device(DeviceFacts::default(), Some(Box::new(resize)));
    (opened, control, shown)
}

fn flush(opened: &Opened) {
    request(&*opened.backend, Operation::Flush, 0, &mut [], 0).expect("a flush");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_all(&path, &copy),
            kind if kind.is_file() => drop(std::fs::copy(&path, &copy).unwrap()),
            _ => {}
        }
    }
}

/// The volume as a crash at this moment leaves it, but for what only the process's memory has: its tiers and its configuration,
/// copied.
fn crashed(rig: &Rig, size_bytes: Option<u64>) -> Rig {
    let mut copy = Rig::new(rig.config.geometry.logical_block_bytes());
    for entry in ["fast", "capacity"] {
        let path = copy.root.join(entry);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
    }
    copy_all(&rig.root, &copy.root);
    let files = copy.paths.volume(&rig.config.name);
    let stored = VolumeConfig::load(&rig.config.name, &rig.paths.volume(&rig.config.name))
        .unwrap_or(rig.config.clone());
    copy.config =
        VolumeConfig { capacity: copy.config.capacity.clone(), fast: copy.config.fast.clone(), ..stored };
    if let Some(bytes) = size_bytes {
        copy.config.geometry = copy.config.geometry.grown_to(bytes).unwrap();
    }
    let _ = std::fs::remove_file(files.pending());
    copy
}

fn is_sound(rig: &Rig) {
    let outcome = check(&Places::of(&rig.config), &mut Quiet).expect("a check");
    // A crash leaves objects that nothing refers to.
    let damage = outcome.findings.iter().filter(|found| found.severity != Severity::Note);
    assert_eq!(damage.count(), 0, "{}", outcome.text());
}

fn head_size(rig: &Rig) -> u64 {
    let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
    let tier =
        tokio_uring::start(CapacityTier::open_reader(&rig.config.capacity.address, Some(uuid))).unwrap();
    tier.head().geometry.size_bytes()
}

#[test]
fn a_volume_in_use_grows() {
    let rig = Rig::new(4096);
    let (opened, control, shown) = open_with_device(&rig, true);
    let volume = opened.backend.clone();
    write(&*volume, VOLUME_BYTES - 65536, 1, 65536);
    let grown = control.grow(GROWN).expect("it grows");
    assert_eq!((grown.previous_size_bytes, grown.size_bytes), (VOLUME_BYTES, GROWN));
    assert_eq!((shown.load(Ordering::Relaxed), control.volume_status().unwrap().size_bytes), (GROWN, GROWN));
    assert_eq!(control.blocks(), (GROWN >> 16) as u32);
    assert!(all_are(&read(&*volume, VOLUME_BYTES, 1 << 20), 0), "the new room is zeros");
    write(&*volume, GROWN - 65536, 2, 65536);
    write(&*volume, VOLUME_BYTES, 3, 4096);
    control.create_snapshot(&name("grown"), None).expect("a snapshot");
    written_back(&control, "grown");
    write(&*volume, VOLUME_BYTES + 65536, 4, 4096);
    flush(&opened);
    assert_eq!(control.grow(GROWN).expect("its own size").previous_size_bytes, GROWN);
    let smaller = control.grow(VOLUME_BYTES).expect_err("it does not shrink");
    assert_eq!(smaller.kind, ErrorKind::Invalid);

    let look = |opened: &Opened| {
        let volume = &*opened.backend;
        assert!(all_are(&read(volume, VOLUME_BYTES - 65536, 65536), 1));
        assert!(all_are(&read(volume, GROWN - 65536, 65536), 2));
        assert!(all_are(&read(volume, VOLUME_BYTES, 4096), 3));
        assert!(all_are(&read(volume, VOLUME_BYTES + 65536, 4096), 4));
    };
    look(&opened);
    let copy = crashed(&rig, None);
    assert_eq!(copy.config.geometry.size_bytes(), GROWN, "the configuration has the new size");
    is_sound(&copy);
    let (again, _) = copy.open(Open::Fresh);
    look(&again);
    again.close().expect("a clean stop");
    is_sound(&copy);

    drop(volume);
    opened.close().expect("a clean stop");
    assert_eq!(head_size(&rig), GROWN);
}

#[test]
fn a_crash_on_the_way_leaves_a_volume_that_grows_when_it_is_opened() {
    let rig = Rig::new(512);
    let (opened, control, _) = open_with_device(&rig, false);
    write(&*opened.backend, 0, 1, 4096);
    control.create_snapshot(&name("before"), None).expect("a snapshot");
    written_back(&control, "before");
    flush(&opened);
    // After the configuration, and before the tiers.
    let first = crashed(&rig, Some(GROWN));
    // After the tiers, and before the device; the tiers' own next words may be lost as well.
    let failed = control.grow(GROWN).expect_err("the device does not follow");
    assert!(
        failed.message.contains("the driver says no") && failed.message.contains("started again"),
        "{failed:?}"
    );
    let last = crashed(&rig, None);
    for copy in [first, last] {
        assert_eq!(copy.config.geometry.size_bytes(), GROWN);
        let (again, control) = copy.open(Open::Fresh);
        assert_eq!(control.volume_status().unwrap().size_bytes, GROWN);
        assert!(all_are(&read(&*again.backend, 0, 4096), 1));
        write(&*again.backend, GROWN - 4096, 7, 4096);
        control.create_snapshot(&name("after"), None).expect("a snapshot");
        written_back(&control, "after");
        // It holds the fast tier open.
        drop(control);
        again.close().expect("a clean stop");
        assert_eq!(head_size(&copy), GROWN);
        is_sound(&copy);
    }
    opened.close().expect("a clean stop");
}

#[test]
fn a_driver_that_cannot_is_told_before_anything_changes() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let refused = control.grow(GROWN).expect_err("no UPDATE_SIZE");
    assert_eq!(refused.kind, ErrorKind::State);
    assert!(refused.message.contains("forerun del v"), "{}", refused.message);
    assert_eq!(control.volume_status().unwrap().size_bytes, VOLUME_BYTES);
    opened.close().expect("a clean stop");
    assert_eq!(head_size(&rig), VOLUME_BYTES);
}

#[test]
fn a_configuration_that_is_smaller_than_the_tiers_is_refused() {
    let mut rig = Rig::new(4096);
    rig.config.geometry = rig.config.geometry.grown_to(GROWN).unwrap();
    let (opened, _) = rig.open(Open::Fresh);
    opened.close().expect("a clean stop");
    let small = Rig::new(4096);
    rig.config.geometry = small.config.geometry;
    let refused = Opened::open(&rig.config, &rig.paths.volume(&rig.config.name), Open::Fresh);
    let message = format!("{:#}", anyhow::Error::from(refused.err().expect("smaller")));
    assert!(message.contains(&GROWN.to_string()) && message.contains("nothing was changed"), "{message}");
}

#[test]
fn the_fast_tier_of_a_volume_in_use_grows() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    let slots = |control: &VolumeControl| control.volume_status().unwrap().fast_tier.total_bytes;
    let before = slots(&control);
    // More than the tier holds: what does not fit is on the capacity tier.
    let blocks = (before >> 16) + 200;
    for block in 0..blocks {
        write(&*volume, block << 16, block as u8, 65536);
    }
    flush(&opened);
    let small = crashed(&rig, None);
    let refused = control.grow_fast(FastGrowth::By(65536)).expect_err("too little");
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("grows to"), "{refused:?}");
    let refused = control.grow_fast(FastGrowth::To(1 << 20)).expect_err("it does not shrink");
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("shrink"), "{refused:?}");
    assert_eq!(std::fs::metadata(&rig.config.fast.path).unwrap().len(), FAST_BYTES, "nothing was changed");
    let refused = control.grow_fast(FastGrowth::To(1 << 60)).expect_err("no such room");
    assert!(refused.message.contains("take room"), "{refused:?}");
    assert_eq!(std::fs::metadata(&rig.config.fast.path).unwrap().len(), FAST_BYTES, "nothing was changed");
    let same =
        control.grow_fast(FastGrowth::To(FAST_BYTES + 100)).expect("its own size, but for part of a page");
    assert_eq!(same.size_bytes, FAST_BYTES);

    let grown = control.grow_fast(FastGrowth::By(FAST_BYTES)).expect("it grows");
    assert_eq!((grown.previous_size_bytes, grown.size_bytes), (FAST_BYTES, 2 * FAST_BYTES));
    assert_eq!(grown.block_bytes, slots(&control));
    assert!(slots(&control) > before + FAST_BYTES * 9 / 10);
    let again = control.grow_fast(FastGrowth::All).expect("all of it is in use");
    assert_eq!((again.previous_size_bytes, again.size_bytes), (2 * FAST_BYTES, 2 * FAST_BYTES));
    // Somebody has made the file larger: its last superblock is where the tier ends, which is not where the file does.
    let file = std::fs::OpenOptions::new().write(true).open(&rig.config.fast.path).unwrap();
    file.set_len(4 * FAST_BYTES).unwrap();
    let refused = control.grow_fast(FastGrowth::By(FAST_BYTES)).expect_err("half of what there is");
    assert!(refused.message.contains("all of its file or device"), "{refused:?}");
    file.set_len(2 * FAST_BYTES).unwrap();
    // As many blocks as there are now; each has its own slot.
    let more = (slots(&control) >> 16) - 100;
    for block in 0..more {
        write(&*volume, block << 16, block as u8 ^ 0x55, 65536);
    }
    flush(&opened);
    let look = |opened: &Opened, mark: u8| {
        for block in 0..if mark == 0 { blocks } else { more } {
            assert!(
                all_are(&read(&*opened.backend, block << 16, 65536), block as u8 ^ mark),
                "block {block}"
            );
        }
    };
    look(&opened, 0x55);
    let large = crashed(&rig, None);
    drop(volume);
    drop(control);
    opened.close().expect("a clean stop");
    is_sound(&rig);
    for (copy, mark, size) in [(small, 0, before), (large, 0x55, grown.block_bytes)] {
        is_sound(&copy);
        let (again, control) = copy.open(Open::Fresh);
        assert_eq!(slots(&control), size);
        look(&again, mark);
        control.grow_fast(FastGrowth::To(4 * FAST_BYTES)).expect("it grows, once more or for the first time");
        look(&again, mark);
        drop(control);
        again.close().expect("a clean stop");
        is_sound(&copy);
        let (again, control) = copy.open(Open::Fresh);
        assert!(slots(&control) > 3 * FAST_BYTES);
        look(&again, mark);
        drop(control);
        again.close().expect("a clean stop");
    }
    let stored = VolumeConfig::load(&rig.config.name, &rig.paths.volume(&rig.config.name)).unwrap();
    assert_eq!(stored.fast.size_bytes, Some(2 * FAST_BYTES));
}

/// On tiers of these sizes the journal is equally long, so that the first checkpoint area is at the same place and the slots
/// are not.
#[test]
fn a_grown_fast_tier_without_its_superblocks_is_not_taken_for_another() {
    const SMALL: u64 = 256 << 20;
    const LARGE: u64 = 320 << 20;
    let rig = Rig::new(4096);
    let config = VolumeConfig {
        name: VolumeName::new("w").unwrap(),
        uuid: uuid::Uuid::new_v4(),
        fast: FastTierConfig { path: rig.root.join("large"), size_bytes: Some(SMALL) },
        capacity: CapacityTierConfig { address: rig.root.join("other").into() },
        ..rig.config.clone()
    };
    let files = rig.paths.volume(&config.name);
    std::fs::create_dir_all(files.run_dir()).expect("a run folder");
    std::fs::create_dir_all(files.state_dir()).expect("a state folder");
    create(&config).expect("a new volume");
    let opened = Opened::open(&config, &files, Open::Fresh).expect("it opens");
    let control = VolumeControl::new(config.clone(), rig.paths.clone(), opened.backend.clone());
    let content = |block: u64| (block % 251) as u8 + 1;
    for block in 0..500 {
        write(&*opened.backend, block << 16, content(block), 65536);
    }
    flush(&opened);
    assert_eq!(control.grow_fast(FastGrowth::To(LARGE)).expect("it grows").size_bytes, LARGE);
    for block in 500..600 {
        write(&*opened.backend, block << 16, content(block), 65536);
    }
    drop(control);
    opened.close().expect("a clean stop");

    let known = Known {
        path: config.fast.path.clone(),
        volume: config.uuid,
        geometry: config.geometry,
        file_bytes: Some(LARGE),
        written_back: None,
        pending: None,
    };
    let file = std::fs::OpenOptions::new().write(true).open(&config.fast.path).unwrap();
    // One after the other; with one of them all is known.
    for (offset, whole) in [(0, true), (LARGE - 4096, false)] {
        file.write_all_at(&[0; 4096], offset).unwrap();
        let salvaged = salvage(&known).expect("what can be read");
        assert_eq!(salvaged.extent == Extent::Whole, whole, "{:?}", salvaged.notes);
        assert_eq!(whole, salvaged.recovered.holds.len() == 600, "{} slots", salvaged.recovered.holds.len());
        let mut data = AlignedBuffer::zeroed(65536);
        for holds in &salvaged.recovered.holds {
            salvaged.read_slot(holds.slot, &mut data).expect("read");
            assert!(all_are(&data, content(holds.block.0.into())), "{holds:?} is another block's");
        }
    }
}
