//! Warming up on real files, through the whole engine: the warm list outlives the machine, and an empty fast tier is filled
//! in its order.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::time::{Duration, Instant};

use forerun::config::{FastTierConfig, HydrateOrder, VolumeConfig, VolumeName};
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use ublk_target::background::{Hydration, HydrationState};
use ublk_target::capacity_tier::{CapacityTier, VolumeUuid, WarmList};
use ublk_target::control::ControlPlane;
use ublk_target::engine::{Open, Opened, VolumeControl};
use ublk_target::offline::check::{Places, Quiet, check};
use ublk_target::offline::restore;

mod support;

use support::*;

/// Blocks that are written once, and those that are read and written after that.
const COLD: std::ops::Range<u64> = 100..400;
const USED: [u64; 6] = [399, 150, 7, 1500, 151, 320];

/// The volume with an empty fast tier, as on another machine.
fn restored(rig: &Rig, name: &str, hydrate: HydrateOrder) -> (VolumeConfig, Opened, VolumeControl) {
    let config = VolumeConfig {
        name: VolumeName::new(name).unwrap(),
        fast: FastTierConfig { path: rig.root.join(format!("{name}.fast")), size_bytes: Some(FAST_BYTES) },
        hydrate,
        ..rig.config.clone()
    };
    let files = rig.paths.volume(&config.name);
    std::fs::create_dir_all(files.run_dir()).expect("a run folder");
    restore::restore(&config, &files, false).expect("restored");
    let opened = Opened::open(&config, &files, Open::Fresh).expect("it opens");
    let control = VolumeControl::new(config.clone(), rig.paths.clone(), opened.backend.clone());
    (config, opened, control)
}

fn hydrated(control: &VolumeControl) -> Hydration {
    let begun = Instant::now();
    loop {
        let hydration = control.volume_status().expect("a status").hydration;
        let under_way = [HydrationState::Waiting, HydrationState::Listed, HydrationState::Rest];
        if !under_way.contains(&hydration.state) {
            return hydration;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "hydration does not end: {hydration:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn list(rig: &Rig) -> Option<WarmList> {
    let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
    tokio_uring::start(async {
        let tier =
            CapacityTier::open_reader(&rig.config.capacity.address, Some(uuid)).await.expect("a reader");
        tier.warm_list().await.expect("a sound list, or none")
    })
}

fn misses(control: &VolumeControl) -> u64 {
    control.volume_status().expect("a status").read_misses
}

#[test]
fn an_empty_fast_tier_is_filled_in_the_order_of_use() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    assert_eq!(hydrated(&control).state, HydrationState::Done, "there is nothing to be fetched");
    for block in COLD.chain(USED) {
        write(&*opened.backend, block * BLOCK_BYTES, block as u8, BLOCK_BYTES as usize);
    }
    control.create_snapshot(&name("all"), None).expect("a snapshot");
    written_back(&control, "all");
    for _ in 0..3 {
        for block in USED {
            assert!(all_are(&read(&*opened.backend, block * BLOCK_BYTES, 4096), block as u8));
        }
    }
    write(&*opened.backend, 7 * BLOCK_BYTES, 7, 4096);
    // A snapshot brings the list with it, some seconds after the start.
    let begun = Instant::now();
    let made = loop {
        control.create_snapshot(&name(&format!("s{}", begun.elapsed().as_secs())), None).expect("a snapshot");
        if let Some(list) = list(&rig) {
            break list;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no warm list is written");
        std::thread::sleep(Duration::from_secs(1));
    };
    let order: Vec<u64> = made.blocks().map(|block| u64::from(block.0)).collect();
    let place = |block: u64| order.iter().position(|other| *other == block).expect("it is on the list");
    let last_used = USED.map(place).into_iter().max().unwrap();
    let colder = COLD.filter(|block| !USED.contains(block)).map(place).min().unwrap();
    assert!(last_used < colder, "what was used is not in front: {order:?}");
    opened.close().expect("a clean stop");

    // Every order but 'off' brings what was used, and no read of it waits then.
    for (which, order) in
        [HydrateOrder::Expected, HydrateOrder::Hot, HydrateOrder::Address].into_iter().enumerate()
    {
        let (config, opened, control) = restored(&rig, &format!("v{which}"), order);
        let end = hydrated(&control);
        assert_eq!(end.state, HydrationState::Done, "{order:?}: {end:?}");
        let blocks = COLD.chain(USED).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(end.fetched_bytes, blocks.len() as u64 * BLOCK_BYTES, "{order:?}");
        let before = misses(&control);
        for block in blocks {
            assert!(
                all_are(&read(&*opened.backend, block * BLOCK_BYTES, BLOCK_BYTES as usize), block as u8),
                "block {block}"
            );
        }
        assert_eq!(misses(&control), before, "{order:?}: a read waited");
        drop(control);
        opened.close().expect("a clean stop");
        let outcome = check(&Places::of(&config), &mut Quiet).expect("checked");
        assert!(outcome.is_clean(), "{}", outcome.text());
    }

    // Without hydration reads wait; what they read first is on the next list, in front.
    let (_, opened, control) = restored(&rig, "off", HydrateOrder::Off);
    assert_eq!(hydrated(&control).state, HydrationState::Off);
    let before = misses(&control);
    assert!(all_are(&read(&*opened.backend, 150 * BLOCK_BYTES, 4096), 150));
    assert_eq!(misses(&control), before + 1);
    let begun = Instant::now();
    let next = loop {
        std::thread::sleep(Duration::from_secs(1));
        control
            .create_snapshot(&name(&format!("off{}", begun.elapsed().as_secs())), None)
            .expect("a snapshot");
        match list(&rig) {
            Some(list) if list.made_us > made.made_us => break list,
            _ => assert!(begun.elapsed() < Duration::from_secs(60), "no other warm list is written"),
        }
    };
    assert_eq!(next.first_bands, 1);
    assert_eq!(
        next.bands.first(),
        Some(&vec![BlockIndex(150)]),
        "what a start with an empty fast tier read first"
    );
    drop(control);
    opened.close().expect("a clean stop");
}

#[test]
fn a_warm_list_that_is_damaged_costs_its_order_and_nothing_else() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    write(&*opened.backend, 5 * BLOCK_BYTES, 5, BLOCK_BYTES as usize);
    control.create_snapshot(&name("one"), None).expect("a snapshot");
    written_back(&control, "one");
    drop(control);
    opened.close().expect("a clean stop");
    let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
    tokio_uring::start(async {
        let (address, geometry) = (&rig.config.capacity.address, rig.config.geometry);
        let tier = CapacityTier::open_writer(address, uuid, geometry).await.expect("a writer");
        for bands in [vec![vec![BlockIndex(1)]], vec![vec![BlockIndex(5)]]] {
            tier.put_warm_list(&WarmList { bands, ..WarmList::default() }).await.expect("written");
        }
        tier.close().await;
    });
    let folder = rig.config.capacity.address.directory().unwrap().join("warm");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "the older one is deleted");
    assert_eq!(list(&rig).map(|list| list.bands), Some(vec![vec![BlockIndex(5)]]));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0], bytes).unwrap();

    let outcome = check(&Places::of(&rig.config), &mut Quiet).expect("checked");
    assert!(outcome.is_clean(), "{}", outcome.text());
    assert!(
        outcome.text().contains("the order in which a restored volume warms up is not known"),
        "{}",
        outcome.text()
    );
    let (_, opened, control) = restored(&rig, "w", HydrateOrder::Expected);
    let end = hydrated(&control);
    assert_eq!((end.state, end.fetched_bytes, end.listed), (HydrationState::Done, BLOCK_BYTES, 0));
    assert!(all_are(&read(&*opened.backend, 5 * BLOCK_BYTES, BLOCK_BYTES as usize), 5));
    opened.close().expect("a clean stop");
}

#[test]
fn a_warm_list_that_was_being_written_is_passed_over() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    drop(control);
    opened.close().expect("a clean stop");
    let uuid = VolumeUuid(*rig.config.uuid.as_bytes());
    let bands = vec![vec![BlockIndex(5)]];
    tokio_uring::start(async {
        let (address, geometry) = (&rig.config.capacity.address, rig.config.geometry);
        let tier = CapacityTier::open_writer(address, uuid, geometry).await.expect("a writer");
        let list = WarmList { bands: bands.clone(), ..WarmList::default() };
        tier.put_warm_list(&list).await.expect("written");
        tier.close().await;
    });
    let folder = rig.config.capacity.address.directory().unwrap().join("warm");
    let whole = std::fs::read_dir(&folder).unwrap().next().expect("a list").unwrap().path();
    let number = u64::from_str_radix(whole.file_name().unwrap().to_str().unwrap(), 16).expect("a number");
    let bytes = std::fs::read(&whole).unwrap();
    let newer = folder.join(format!("{:016x}", number + 1));
    // Made, and not a byte of it written yet; some of it; all but the last byte.
    for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&newer, &bytes[..len]).unwrap();
        assert_eq!(list(&rig).map(|list| list.bands), Some(bands.clone()), "{len} bytes");
        let outcome = check(&Places::of(&rig.config), &mut Quiet).expect("checked");
        assert!(outcome.is_clean() && !outcome.text().contains("warms up"), "{}", outcome.text());
    }
    std::fs::remove_file(&whole).unwrap();
    std::fs::write(&newer, []).unwrap();
    let outcome = check(&Places::of(&rig.config), &mut Quiet).expect("checked");
    assert!(outcome.is_clean() && outcome.text().contains("warms up"), "{}", outcome.text());
}
