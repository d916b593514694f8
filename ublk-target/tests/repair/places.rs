//! Where a repair writes, and where it never does; what an attempt that did not come to its end leaves.

use forerun::config::CapacityAddress;
use ublk_target::capacity_tier::VolumeUuid;
use ublk_target::engine::{Open, Opened};
use ublk_target::fast_tier::PendingState;
use ublk_target::offline::repair::RepairOptions;

use crate::cases::{Case, objects};
use crate::support::write;
use crate::template::Template;

fn refused(case: &mut Case, options: &RepairOptions, words: &str) {
    let error = case.try_repair(options).expect_err("refused");
    assert!(format!("{error:#}").contains(words), "{error:#}");
}

#[test]
fn never_over_what_is_there() {
    let mut case = Case::of(&Template::get().clean);
    let old = case.config.clone();
    let before = std::fs::read(&old.fast.path).expect("the fast tier");
    let link = case.root.join("link");
    std::os::unix::fs::symlink(&old.fast.path, &link).expect("a link");
    for to_fast in [old.fast.path.clone(), link] {
        let options = RepairOptions { to_fast: Some(to_fast), ..case.new_fast() };
        refused(&mut case, &options, "the only copy");
    }
    let folder = case.folder();
    let places: [CapacityAddress; 5] = [
        folder.clone().into(),
        folder.join("segments").into(),
        case.root.clone().into(),
        // The same among objects.
        objects(&folder),
        objects(&case.root),
    ];
    for to_capacity in places {
        let options = RepairOptions { to_capacity: Some(to_capacity), ..case.both() };
        refused(&mut case, &options, "the only copy");
    }
    // Somebody's files.
    let others = case.root.join("others");
    std::fs::create_dir(&others).expect("a folder");
    std::fs::write(others.join("letter"), "dear").expect("written");
    let options = RepairOptions { to_capacity: Some(others.clone().into()), ..case.both() };
    refused(&mut case, &options, "not empty");
    let options = RepairOptions { to_capacity: Some(objects(&others)), ..case.both() };
    refused(&mut case, &options, "letter");
    let options = RepairOptions { to_fast: Some(others.join("letter")), ..case.new_fast() };
    refused(&mut case, &options, "fast tier");
    assert_eq!(std::fs::read(others.join("letter")).expect("there"), b"dear");
    refused(&mut case, &RepairOptions::default(), "--to-fast");
    let neither = RepairOptions { without_fast: true, without_capacity: true, ..case.both() };
    refused(&mut case, &neither, "nothing to repair from");
    assert_eq!(case.config, old);
    assert!(std::fs::read(&old.fast.path).expect("the fast tier") == before);
}

/// A volume that nothing is wrong with moves to new places with everything it has, and the old ones stay as they were.
#[test]
fn a_sound_volume_moves() {
    for crashed in [false, true] {
        let image = if crashed { &Template::get().crashed } else { &Template::get().clean };
        let mut case = Case::of(image);
        assert_eq!((case.dump(false), case.dump(true)), (0, 0), "nothing is broken");
        let old = case.config.clone();
        let before = std::fs::read(&old.fast.path).expect("the fast tier");
        let report = case.repaired(&case.both());
        assert!(report.lost.is_empty(), "{report:?}");
        assert!(std::fs::read(&old.fast.path).expect("the fast tier") == before, "only read");
        assert_ne!(case.config.fast.path, old.fast.path);
        assert!(report.kept.iter().all(|path| path.exists()));
        let kept = forerun::config::VolumeConfig::load_file(&report.kept[0]).expect("the old configuration");
        assert_eq!(kept, old);
    }
}

/// From a directory to an object store, from there to another place of it, and back into a directory.
#[test]
fn a_sound_volume_moves_to_an_object_store_and_back() {
    let mut case = Case::of(&Template::get().crashed);
    let places = [objects(&case.root.join("store/a")), objects(&case.root.join("store/b"))];
    for address in [&places[0], &places[1]] {
        let options = RepairOptions { to_capacity: Some(address.clone()), ..RepairOptions::default() };
        let report = case.try_repair(&options).expect("moved");
        assert!(report.lost.is_empty(), "{report:?}");
        assert_eq!(&case.config.capacity.address, address);
        assert!(case.check().is_clean(), "{}", case.check().text());
    }
    // One in the other.
    let inside = objects(&case.root.join("store/b/c"));
    let inside = RepairOptions { to_capacity: Some(inside), ..case.new_fast() };
    refused(&mut case, &inside, "the only copy");
    // The old ones are volumes, not attempts.
    let back = RepairOptions { to_capacity: Some(places[0].clone()), ..case.new_fast() };
    refused(&mut case, &back, "not empty");
    let options =
        RepairOptions { to_capacity: Some(case.root.join("directory").into()), ..RepairOptions::default() };
    let report = case.repaired(&options);
    assert!(report.lost.is_empty(), "{report:?}");
}

/// An attempt that was cut off before the configuration was replaced is begun anew, whatever it had come to.
#[test]
fn an_attempt_that_was_cut_off_is_begun_anew() {
    let mut case = Case::of(&Template::get().crashed);
    let old = case.config.clone();
    let files = case.paths.volume(&old.name);
    let first = case.try_repair(&case.both()).expect("repaired");
    // As if the last step had not been made: both new tiers are there, the volume is the old one.
    old.store(&files).expect("stored");
    std::fs::write(case.root.join("new-capacity/REPAIR"), format!("{}\n", old.uuid)).expect("the mark");
    case.config = old.clone();
    let second = case.repaired(&case.both());
    assert_eq!(first.lost, second.lost);
    // A capacity tier in the middle of being written: segments, no HEAD.
    let mut case = Case::of(&Template::get().crashed);
    let directory = case.root.join("new-capacity");
    std::fs::create_dir_all(directory.join("segments")).expect("a folder");
    std::fs::write(directory.join("segments/0000000000000001"), "half").expect("half a segment");
    std::fs::write(directory.join("REPAIR"), format!("{}\n", case.config.uuid)).expect("the mark");
    std::fs::write(case.root.join("new-fast"), vec![0; 64 << 20]).expect("half a tier");
    let third = case.repaired(&case.both());
    assert!(third.lost.is_empty());
    // The same among objects; another volume's attempt is left alone.
    let mut case = Case::in_objects(&Template::get().crashed);
    let folder = case.root.join("new-capacity");
    let theirs = folder.join("repairs/00000000000000000000000000000001");
    for (path, bytes) in [
        (folder.join("segments/0000000000000001"), "half"),
        (folder.join("heads/0000000000000000-0000000000000001"), "a HEAD"),
        (theirs.clone(), "a mark"),
    ] {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("an object");
    }
    let both = case.both();
    refused(&mut case, &both, "not empty");
    std::fs::rename(&theirs, theirs.with_file_name(VolumeUuid(*case.config.uuid.as_bytes()).to_string()))
        .expect("ours");
    let fourth = case.repaired(&both);
    assert!(fourth.lost.is_empty());
    assert_eq!(std::fs::read_dir(folder.join("repairs")).map_or(0, Iterator::count), 0, "the mark is gone");
}

/// A log of pending changes of before, whose generation the new tier would have had by chance, is not believed.
#[test]
fn an_old_pending_log_is_not_taken_for_the_new_tiers() {
    let mut case = Case::of(&Template::get().clean);
    let files = case.paths.volume(&case.config.name);
    let open = |case: &Case| Opened::open(&case.config, &files, Open::Fresh).expect("it opens");
    // A new tier of a lost one would get generation 16.
    loop {
        let opened = open(&case);
        write(&*opened.backend, 0, 7, 4096);
        let bytes = std::fs::read(files.pending()).expect("a pending log");
        let generation = u64::from_le_bytes(bytes[64..72].try_into().expect("eight bytes"));
        opened.close().expect("a clean stop");
        assert!(generation <= 16, "it goes past 16");
        if generation == 16 {
            std::fs::write(files.pending(), bytes).expect("as a killed target leaves it");
            break;
        }
    }
    std::fs::remove_file(&case.config.fast.path).expect("removed");
    let options = RepairOptions { without_fast: true, ..case.new_fast() };
    case.try_repair(&options).expect("repaired");
    let opened = open(&case);
    assert_eq!(opened.info.pending, PendingState::Foreign);
    opened.close().expect("a clean stop");
}

/// What a repair keeps is never written over by the next one, however soon that comes.
#[test]
fn every_repair_keeps_its_own_report() {
    let mut case = Case::of(&Template::get().clean);
    let mut kept = Vec::new();
    for name in ["second", "third", "fourth"] {
        let options = RepairOptions { to_fast: Some(case.root.join(name)), ..case.new_fast() };
        kept.extend(case.try_repair(&options).expect("repaired").kept);
    }
    let count = kept.len();
    kept.sort();
    kept.dedup();
    assert_eq!((kept.len(), count), (6, 6));
    assert!(kept.iter().all(|path| path.exists()));
}
