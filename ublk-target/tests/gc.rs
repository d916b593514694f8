//! Garbage of a real volume: told, given back when it is asked for, and nothing else with it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::path::Path;
use std::time::{Duration, Instant};

use forerun::geometry::BLOCK_BYTES;
use ublk_target::control::ControlPlane;
use ublk_target::engine::Open;
use ublk_target::offline::check::{Places, Quiet, check};
use ublk_target::request::Operation;

mod support;

use support::*;

const BLOCKS: u64 = 300;
/// What is deleted goes half a minute later.
const LIMIT: Duration = Duration::from_secs(90);

/// Incompressible, and another one for each block and mark.
fn content(block: u64, mark: u64) -> Vec<u8> {
    let mut state = block << 32 | mark << 1 | 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..BLOCK_BYTES).map(|_| next()).collect()
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Deleted meanwhile.
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn what_deleted_snapshots_held_is_given_back_when_it_is_asked_for() {
    let rig = Rig::new(4096);
    let (opened, control) = rig.open(Open::Fresh);
    let volume = opened.backend.clone();
    // Of each third of the blocks another snapshot has the last word, so that no segment is without live data.
    for (mark, snapshot) in ["one", "two", "three"].iter().enumerate() {
        for block in (0..BLOCKS).filter(|block| block % 3 >= mark as u64) {
            let mut data = content(block, mark as u64);
            request(
                &*volume,
                Operation::Write { fua: false },
                block * BLOCK_BYTES,
                &mut data,
                BLOCK_BYTES as u32,
            )
            .expect("written");
        }
        control.create_snapshot(&name(snapshot), None).expect("a snapshot");
        written_back(&control, snapshot);
    }
    let whole = bytes_below(&rig.root.join("capacity"));
    let live = BLOCKS * BLOCK_BYTES;
    assert!(whole > 2 * live - live / 10, "three snapshots hold {whole} bytes");
    control.delete_snapshot(&name("one")).expect("deleted");
    control.delete_snapshot(&name("two")).expect("deleted");

    let garbage = control.garbage().expect("what there is");
    let merges_or_copies = garbage.merged_layers > 0 || garbage.compacted_segments > 0;
    let already = garbage.queued_objects > 0;
    assert!(merges_or_copies || already, "two thirds of what there is are not needed any more: {garbage:?}");
    let (_, collected) = control.collect_garbage().expect("given back");
    let after = control.garbage().expect("what there is");
    assert!(
        after.merged_layers == 0 && after.compacted_segments == 0,
        "there is more: {after:?}, {collected:?}"
    );

    let begun = Instant::now();
    let left = loop {
        let left = bytes_below(&rig.root.join("capacity"));
        if left < live + live / 4 {
            break left;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "{left} of {whole} bytes are left, {live} are live: {:?}",
            control.garbage()
        );
        std::thread::sleep(Duration::from_millis(250));
    };
    println!("{whole} bytes, {left} after {:?}; {collected:?}", begun.elapsed());
    for block in 0..BLOCKS {
        let data = read(&*volume, block * BLOCK_BYTES, BLOCK_BYTES as usize);
        assert!(data == content(block, block % 3), "block {block}");
    }
    drop(volume);
    drop(control);
    opened.close().expect("a clean stop");
    let outcome = check(&Places::of(&rig.config), &mut Quiet).expect("a check");
    assert_eq!(outcome.findings, [], "{}", outcome.text());
}
