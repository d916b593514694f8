//! Epochs come back; damage of any kind is put aside and never stops the trainer.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use forerun::change_vector::{Change, ChangeKind};
use forerun::geometry::BlockIndex;

use super::*;
use crate::rng::Rng;

const VOLUME: [u8; 16] = [3; 16];

fn vector(epoch: u32, blocks: usize) -> ChangeVector {
    let mut rng = Rng::new(u64::from(epoch));
    let mut block = 0;
    let changes = (0..blocks).map(|_| {
        block += 1 + rng.below(1000) as u32;
        let sub_blocks = 1 + rng.below(16) as u8;
        Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks }
    });
    ChangeVector::new(Epoch(epoch), 10, 20, changes.collect()).expect("sorted")
}

fn filled(folder: &Path, epochs: u32) {
    let mut history = open(folder).expect("opens").of_volume(VOLUME, 4096).expect("ours");
    for epoch in 1..=epochs {
        history.append(&vector(epoch, 200)).expect("stored");
    }
}

#[test]
fn epochs_come_back_in_order_even_large_ones() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("history");
    let mut history = open(&folder).expect("opens").of_volume(VOLUME, 3).expect("ours");
    assert_eq!(history.last(), None);
    for (epoch, blocks) in [(1, 0), (2, 10), (3, 100_000), (5, 50)] {
        history.append(&vector(epoch, blocks)).expect("stored");
    }
    assert!(history.append(&vector(5, 1)).is_err(), "not new");
    drop(history);
    let opened = open(&folder).expect("opens");
    assert_eq!((opened.volume, opened.quarantined.is_none()), (Some(VOLUME), true));
    let history = opened.of_volume(VOLUME, 3).expect("ours");
    assert_eq!(history.last(), Some(Epoch(5)));
    let all: Vec<_> = history.from(Epoch(0)).collect::<Result<_, _>>().expect("readable");
    assert_eq!(all, [vector(3, 100_000), vector(5, 50)], "three epochs' worth are kept");
}

#[test]
fn another_volume_starts_afresh() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    filled(dir.path(), 3);
    let history = open(dir.path()).expect("opens").of_volume([9; 16], 4096).expect("ours");
    assert_eq!(history.last(), None);
    drop(history);
    let history = open(dir.path()).expect("opens").of_volume(VOLUME, 4096).expect("ours");
    assert_eq!(history.last(), None, "the first volume's epochs were dropped");
}

#[test]
fn damage_is_put_aside_and_the_history_can_be_filled_again() {
    for damage in ["zero the middle", "cut to a half", "random head", "no database at all"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("history");
        filled(&folder, 40);
        let db = folder.join("db");
        let len = fs::metadata(&db).expect("there").len();
        let file = OpenOptions::new().write(true).open(&db).expect("there");
        match damage {
            "zero the middle" => {
                for at in (4096..64 << 10).step_by(4096) {
                    file.write_all_at(&[0x5a; 512], at).expect("written");
                }
            }
            "cut to a half" => file.set_len(len / 2).expect("cut"),
            "random head" => file.write_all_at(&[0xff; 8192], 0).expect("written"),
            _ => {
                fs::remove_file(&db).expect("removed");
                fs::write(folder.join("conf"), "nonsense").expect("written");
            }
        }
        let opened = open(&folder).expect("opens whatever happened");
        let mut history = opened.of_volume(VOLUME, 4096).expect("ours");
        let have = history.last().map_or(0, |last| last.0);
        assert!(have <= 40);
        for epoch in have + 1..=41 {
            history.append(&vector(epoch, 200)).expect("stored");
        }
        drop(history);
        let opened = open(&folder).expect("opens");
        assert!(opened.quarantined.is_none(), "{damage}: {:?}", opened.quarantined);
        let history = opened.of_volume(VOLUME, 4096).expect("ours");
        let stored: Vec<_> = history.from(Epoch(0)).map(|vector| vector.expect("readable").epoch.0).collect();
        assert_eq!(stored.last(), Some(&41), "{damage}");
        assert!(stored.is_sorted(), "{damage}");
    }
}

/// A history that somebody else has open is not damaged: it is waited for, then refused, and never put aside.
#[test]
fn a_history_in_use_stays_where_it_is() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("history");
    filled(&folder, 3);
    let holder = open(&folder).expect("opens");
    let refused = open(&folder).expect_err("it is in use").to_string();
    assert!(refused.contains("could not acquire lock"), "{refused}");
    drop(holder);
    let opened = open(&folder).expect("opens");
    assert!(opened.quarantined.is_none());
    assert_eq!(opened.of_volume(VOLUME, 4096).expect("ours").last(), Some(Epoch(3)));
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 1, "nothing was put aside");
}

#[test]
fn a_value_changed_behind_our_back_is_found_at_open() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("history");
    filled(&folder, 5);
    {
        let database = sled::Config::new().path(&folder).segment_size(SEGMENT_BYTES).open().expect("opens");
        let tree = database.open_tree(tree_name(VOLUME)).expect("there");
        tree.insert(key(Epoch(3), 0), vec![1; 100]).expect("written");
        database.flush().expect("flushed");
    }
    let opened = open(&folder).expect("opens");
    let (aside, why) = opened.quarantined.as_ref().expect("put aside");
    assert!(aside.exists() && why.contains("epoch 3"), "{why}");
    assert_eq!(opened.volume, None);
}

/// 100,000 epochs of a volume of 16 TiB: what is kept on disk and in memory is bounded. Prints what it takes.
#[test]
#[ignore = "takes minutes, and half a gigabyte on a file system whose syncs are fast"]
fn a_hundred_thousand_epochs_of_a_large_volume_fit() {
    const EPOCHS: u32 = 100_000;
    const BLOCKS: usize = 1 << 28;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("history");
    let mut history = open(&folder).expect("opens").of_volume(VOLUME, EPOCHS).expect("ours");
    let mut chains = crate::chain::Chains::new(crate::config::ChainConfig::default());
    let (mut rng, before) = (Rng::new(1), crate::cpu::peak_memory_bytes());
    let started = std::time::Instant::now();
    let mut changes_in_all = 0;
    for epoch in 1..=EPOCHS {
        // Eight kinds of epoch, each with 30 places of its own in which ten blocks change, and as many anywhere.
        let kind = rng.below(8) as u32;
        let mut blocks: Vec<u32> = (0..30)
            .flat_map(|place| {
                let start = (kind * 30 + place).wrapping_mul(2_654_435_769) % BLOCKS as u32;
                (start..start + 10).filter(|_| rng.unit() < 0.8).collect::<Vec<_>>()
            })
            .collect();
        blocks.extend((0..30).map(|_| rng.below(BLOCKS) as u32));
        blocks.sort_unstable();
        blocks.dedup();
        let change = |block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 3 };
        let opened_us = u64::from(epoch) * 300_000_000;
        let changes: Vec<_> = blocks.into_iter().map(change).collect();
        changes_in_all += changes.len();
        let vector =
            ChangeVector::new(Epoch(epoch), opened_us, opened_us + 300_000_000, changes).expect("sorted");
        history.append(&vector).expect("stored");
        chains.push(&vector);
    }
    let appended = started.elapsed();
    drop(history);
    let bytes: u64 = walk(&folder);
    let started = std::time::Instant::now();
    let opened = open(&folder).expect("opens");
    assert!(opened.quarantined.is_none());
    let history = opened.of_volume(VOLUME, EPOCHS).expect("ours");
    let grown = crate::cpu::peak_memory_bytes() - before;
    let members: usize = chains.list().iter().map(|chain| chain.epochs().count()).sum();
    eprintln!(
        "{EPOCHS} epochs, {changes_in_all} changes: {} MiB on disk, {} MiB more memory at most; {} chains with {members} epochs; \
         {:.0} s to append, {:.0} s to open",
        bytes >> 20,
        grown >> 20,
        chains.list().len(),
        appended.as_secs_f64(),
        started.elapsed().as_secs_f64(),
    );
    assert_eq!(history.last(), Some(Epoch(EPOCHS)));
    assert!(bytes < 1 << 30 && grown < 300 << 20, "{bytes} on disk, {grown} of memory");
    assert!(chains.list().len() <= 32 && members <= 32 * 1000);
}

/// The bytes of all files in a folder.
fn walk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable"));
    let bytes = |entry: fs::DirEntry| match entry.metadata().expect("there") {
        own if own.is_dir() => walk(&entry.path()),
        own => own.len(),
    };
    entries.map(bytes).sum()
}
