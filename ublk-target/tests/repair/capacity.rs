//! Damage to the capacity tier: HEAD, tables, segments, records.

use std::path::{Path, PathBuf};

use ublk_target::capacity_tier::{CapacityTier, LayerId, ObjectName};
use ublk_target::offline::repair::{RepairOptions, Report};

use crate::cases::Case;
use crate::template::Template;

const PAGE: usize = 4096;
const UNIT: usize = 512;

type Change = fn(&mut Vec<u8>);
/// Which of so many pages.
type Which = fn(usize) -> usize;
type Harm = fn(&mut [u8]);
/// Destroyed, and zeroed.
const HARMS: [Harm; 2] = [noise, |bytes| bytes.fill(0)];

fn segments(case: &Case) -> Vec<PathBuf> {
    let list = std::fs::read_dir(case.folder().join("segments")).expect("a folder");
    let mut all: Vec<PathBuf> = list.map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}

/// The tables that HEAD names, by number: one that was merged into another stays for a while, and nobody looks at it.
fn tables(case: &Case) -> Vec<PathBuf> {
    let (folder, address) = (case.folder(), &case.config.capacity.address);
    let head =
        tokio_uring::start(async { CapacityTier::open_reader(address, None).await.expect("a tier").head() });
    let mut ids: Vec<LayerId> = head.layers().iter().map(|layer| layer.id).collect();
    ids.sort_unstable_by_key(|id| id.0);
    ids.iter().map(|id| folder.join(ObjectName::layer(*id).to_string())).collect()
}

fn largest(objects: &[PathBuf]) -> PathBuf {
    objects.iter().max_by_key(|path| path.metadata().expect("a file").len()).expect("an object").clone()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("an object");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("damaged");
}

fn noise(bytes: &mut [u8]) {
    let mut word = bytes.len() as u64 | 1;
    for byte in bytes {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (word >> 56) as u8;
    }
}

/// Damages a copy, checks, repairs with these options, compares.
fn case(what: &str, options: fn(&Case) -> RepairOptions, damage: impl Fn(&Case)) -> Report {
    case_in(Case::of(&Template::get().crashed), what, options, damage)
}

fn case_in(
    mut case: Case,
    what: &str,
    options: fn(&Case) -> RepairOptions,
    damage: impl Fn(&Case),
) -> Report {
    damage(&case);
    let outcome = case.check();
    assert!(!outcome.is_clean(), "{what}: not found");
    assert!(case.dump(true) > 0, "{what}: a dump marks it");
    let refused = case.try_repair(&case.new_fast()).expect_err("the capacity tier would stay damaged");
    assert!(format!("{refused:#}").contains("--to-capacity"), "{what}: {refused:#}");
    let dry = case.try_repair(&RepairOptions { dry_run: true, ..options(&case) }).expect("told");
    let report = case.repaired(&options(&case));
    assert_eq!(dry.lost, report.lost, "{what}: a dry run tells the same");
    report
}

fn both(case: &Case) -> RepairOptions {
    case.both()
}

fn new_capacity(case: &Case) -> RepairOptions {
    case.new_capacity()
}

fn remove_heads(case: &Case) {
    case.heads().iter().for_each(|head| std::fs::remove_file(head).expect("removed"));
}

#[test]
fn head() {
    let lost: [(&str, Change); 4] = [
        ("random", |bytes| noise(bytes)),
        ("zeros", |bytes| bytes.fill(0)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
    ];
    for (what, how) in lost {
        let report = case(what, both, |case| case.heads().iter().for_each(|head| change(head, how)));
        assert!(report.lost.blocks.is_empty() && report.lost.doubtful.is_empty(), "{what}: {report:?}");
        assert!(report.lost.snapshots.iter().any(|change| change.name.is_none()), "{what}: names are lost");
    }
    case("missing", both, remove_heads);
    // Of another volume, or a table in its place.
    case("a table", both, |case| {
        std::fs::copy(&tables(case)[0], &case.heads()[0]).expect("copied");
    });
}

/// An older HEAD is whole; only the fast tier knows that there was a newer one.
#[test]
fn an_old_head() {
    let mut case = Case::of(&Template::get().crashed);
    case.repaired(&case.new_fast());
    let head = case.folder().join("HEAD");
    std::fs::copy(Template::get().earlier.capacity.join("HEAD"), &head).expect("copied");
    let outcome = case.check();
    assert!(outcome.findings.iter().any(|finding| finding.tier == "both"), "{}", outcome.text());
    let files = case.paths.volume(&case.config.name);
    let opened = ublk_target::engine::Opened::open(&case.config, &files, ublk_target::engine::Open::Fresh);
    assert!(opened.is_err(), "what was written back since would be missed without a word");
    let options = RepairOptions { to_fast: Some(case.root.join("third")), ..case.both() };
    let report = case.try_repair(&options).expect("repaired");
    assert!(report.lost.blocks.is_empty(), "{report:?}");
    assert!(!case.check().is_damaged());
}

#[test]
fn pages_of_tables() {
    let harm = |number: Which, how: Harm| {
        move |case: &Case| {
            change(&largest(&tables(case)), |bytes| {
                let at = number(bytes.len() / PAGE) * PAGE;
                how(&mut bytes[at..at + PAGE]);
            });
        }
    };
    let numbers: [(&str, Which); 3] = [("first", |_| 0), ("middle", |n| n / 2), ("last", |n| n - 1)];
    for (what, number) in numbers {
        for how in HARMS {
            // Nothing of this layer was merged: its records prove what it said.
            let report = case(what, new_capacity, harm(number, how));
            assert!(report.lost.is_empty(), "{what}: {report:?}");
        }
    }
    let report = case("swapped pages", new_capacity, |case| {
        change(&largest(&tables(case)), |bytes| {
            let (a, b) = (bytes[PAGE..2 * PAGE].to_vec(), bytes[2 * PAGE..3 * PAGE].to_vec());
            bytes[PAGE..2 * PAGE].copy_from_slice(&b);
            bytes[2 * PAGE..3 * PAGE].copy_from_slice(&a);
        });
    });
    assert!(report.lost.is_empty(), "{report:?}");
    case("cut", new_capacity, |case| {
        change(&largest(&tables(case)), |bytes| bytes.truncate(2 * PAGE + 100));
    });
}

#[test]
fn whole_tables() {
    for number in [0, 1] {
        case("missing", new_capacity, |case| {
            let layers = tables(case);
            std::fs::remove_file(&layers[number.min(layers.len() - 1)]).expect("removed");
        });
    }
    case("swapped", new_capacity, |case| {
        let layers = tables(case);
        let (a, b) = (std::fs::read(&layers[0]).expect("a"), std::fs::read(&layers[1]).expect("b"));
        std::fs::write(&layers[0], b).expect("swapped");
        std::fs::write(&layers[1], a).expect("swapped");
    });
    case("a table and HEAD", both, |case| {
        std::fs::remove_file(&tables(case)[0]).expect("removed");
        remove_heads(case);
    });
}

#[test]
fn segments_and_records() {
    let largest_segment = |case: &Case| largest(&segments(case));
    // The header alone: every record tells itself.
    for how in HARMS {
        let report = case("header", new_capacity, |case| {
            change(&largest_segment(case), |bytes| how(&mut bytes[..UNIT]));
        });
        assert!(report.lost.is_empty(), "{report:?}");
    }
    // Records: blocks that the fast tier has too are saved, others are told.
    for how in HARMS {
        let report = case("records", new_capacity, |case| {
            for segment in segments(case) {
                change(&segment, |bytes| {
                    let records = bytes.chunks_exact_mut(UNIT).skip(1);
                    records.step_by(7).for_each(how);
                });
            }
        });
        assert!(!report.lost.is_empty() && report.blocks_supplied > 0, "{report:?}");
        assert!(report.lost.snapshots.iter().all(|change| change.kept_as.is_some()));
    }
    case("swapped records", new_capacity, |case| {
        change(&largest_segment(case), |bytes| {
            let (a, b) = (bytes[UNIT..2 * UNIT].to_vec(), bytes[2 * UNIT..3 * UNIT].to_vec());
            bytes[UNIT..2 * UNIT].copy_from_slice(&b);
            bytes[2 * UNIT..3 * UNIT].copy_from_slice(&a);
        });
    });
    case("cut", new_capacity, |case| {
        change(&largest_segment(case), |bytes| bytes.truncate(bytes.len() / 3));
    });
    case("missing", new_capacity, |case| std::fs::remove_file(largest_segment(case)).expect("removed"));
    let report = case("swapped", new_capacity, |case| {
        let all = segments(case);
        let (a, b) = (std::fs::read(&all[0]).expect("a"), std::fs::read(&all[1]).expect("b"));
        std::fs::write(&all[0], b).expect("swapped");
        std::fs::write(&all[1], a).expect("swapped");
    });
    assert!(report.lost.is_empty(), "each record tells where it belongs: {report:?}");
    case("a segment and a table", new_capacity, |case| {
        std::fs::remove_file(largest_segment(case)).expect("removed");
        std::fs::remove_file(largest(&tables(case))).expect("removed");
    });
}

/// What is read and how is the same on an object store; that it is found and named there is not.
#[test]
fn objects() {
    type Wanted = fn(&Case) -> RepairOptions;
    type Damage = fn(&Case);
    let kinds: [(&str, Wanted, Damage); 5] = [
        ("HEADs missing", both, remove_heads),
        ("HEADs random", both, |case| {
            case.heads().iter().for_each(|head| change(head, |bytes| noise(bytes)))
        }),
        ("a table missing", new_capacity, |case| std::fs::remove_file(&tables(case)[0]).expect("removed")),
        ("a segment missing", new_capacity, |case| {
            std::fs::remove_file(largest(&segments(case))).expect("removed");
        }),
        ("a segment cut", new_capacity, |case| {
            change(&largest(&segments(case)), |bytes| bytes.truncate(bytes.len() / 3));
        }),
    ];
    let image = &Template::get().crashed;
    for (what, options, damage) in kinds {
        case_in(Case::in_objects(image), what, options, damage);
    }
}

/// A partly valid dirty slot over a damaged record cannot be written back: the volume goes on, but never comes clean.
#[test]
fn a_damaged_record_below_a_dirty_slot() {
    let mut case = Case::of(&Template::get().clean);
    for segment in segments(&case) {
        change(&segment, |bytes| noise(&mut bytes[UNIT..]));
    }
    let outcome = case.check();
    assert!(
        outcome
            .findings
            .iter()
            .any(|finding| finding.tier == "both" && finding.what.contains("cannot be written back")),
        "{}",
        outcome.text()
    );
    let report = case.repaired(&case.new_capacity());
    assert!(
        report.lost.blocks.iter().any(|loss| loss.in_volume && loss.sub_blocks != u16::MAX),
        "{report:?}"
    );
}

#[test]
fn the_capacity_tier_is_gone() {
    let image = &Template::get().crashed;
    for (segments_only, kind) in [
        (true, Case::of as fn(_) -> _),
        (false, Case::of),
        (true, Case::in_objects),
        (false, Case::in_objects),
    ] {
        let mut case: Case = kind(image);
        let directory = case.folder();
        if segments_only {
            std::fs::remove_dir_all(directory.join("segments")).expect("removed");
            assert!(!case.check().is_clean());
            case.repaired(&case.both());
            continue;
        }
        std::fs::remove_dir_all(&directory).expect("removed");
        let refused = case.try_repair(&case.both()).expect_err("it may only be unmounted");
        assert!(format!("{refused:#}").contains("--without-capacity"), "{refused:#}");
        let report = case.repaired(&RepairOptions { without_capacity: true, ..case.both() });
        assert!(!report.lost.doubtful.is_empty());
    }
}

#[test]
fn both_tiers_are_damaged() {
    let mut case = Case::of(&Template::get().crashed);
    remove_heads(&case);
    case.fast(|bytes| {
        let end = bytes.len();
        noise(&mut bytes[..PAGE]);
        noise(&mut bytes[end - PAGE..]);
    });
    assert!(case.check().is_damaged());
    let report = case.repaired(&case.both());
    assert!(report.lost.writes.is_none() && report.lost.blocks.is_empty(), "{report:?}");
}
