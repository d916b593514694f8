//! Damage to the fast tier: each kind of page, each kind of damage.

use ublk_target::engine::{Open, OpenError, Opened};
use ublk_target::fast_tier::layout::Layout;
use ublk_target::offline::repair::{RepairOptions, Report};

use crate::cases::Case;
use crate::support::FAST_BYTES;
use crate::template::{Image, Template};

const PAGE: usize = 4096;
const KINDS: [u32; 2] = [2, 4];

/// What happens to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    Random,
    Zeros,
    Swapped,
    Stale,
}

pub const HARMS: [Harm; 4] = [Harm::Random, Harm::Zeros, Harm::Swapped, Harm::Stale];

fn layout() -> Layout {
    Layout::for_tier(FAST_BYTES).expect("a layout")
}

fn field(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The sound pages of a kind from `offset` on: place, and sequence.
fn pages(bytes: &[u8], kind: u32, offset: u64, len: u64) -> Vec<(usize, u64)> {
    let page = |at: usize| &bytes[at..at + PAGE];
    let is = |at: usize| page(at).starts_with(b"forerunF") && page(at)[8..12] == kind.to_le_bytes();
    (offset as usize..(offset + len) as usize)
        .step_by(PAGE)
        .filter(|at| is(*at))
        .map(|at| (at, field(page(at), 48)))
        .collect()
}

/// Harms the page at `at`; `other` is one of its kind, `old` the tier as it was earlier.
fn harm(bytes: &mut [u8], at: usize, other: usize, old: &[u8], how: Harm) {
    match how {
        Harm::Random => {
            let mut word = at as u64 | 1;
            for byte in &mut bytes[at..at + PAGE] {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (word >> 56) as u8;
            }
        }
        Harm::Zeros => bytes[at..at + PAGE].fill(0),
        Harm::Swapped => {
            let (mine, theirs) = (bytes[at..at + PAGE].to_vec(), bytes[other..other + PAGE].to_vec());
            bytes[at..at + PAGE].copy_from_slice(&theirs);
            bytes[other..other + PAGE].copy_from_slice(&mine);
        }
        Harm::Stale => bytes[at..at + PAGE].copy_from_slice(&old[at..at + PAGE]),
    }
}

fn earlier() -> Vec<u8> {
    std::fs::read(&Template::get().earlier.fast).expect("the earlier fast tier")
}

/// Damages, checks, repairs into a new fast tier; whether all of it was saved.
fn case(image: &Image, what: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut case = Case::of(image);
    case.fast(change);
    let outcome = case.check();
    if outcome.is_clean() && what.contains("Stale") {
        // An older header over the newest one is what a crash leaves just before the newest is there: the checkpoint
        // before it and the journal since say the same. One superblock as it was before the stop is what a crash between the
        // two leaves. The volume opens as it is, and nothing is missing.
        case.compare(&Report::default());
        return true;
    }
    assert!(!outcome.is_clean(), "{what}: not found");
    case.dump(true);
    let report = case.repaired(&case.new_fast());
    if let Some(writes) = &report.lost.writes {
        let newest = case.template.snapshots.iter().map(|(_, epoch, _)| epoch.0).max();
        assert!(
            Some(writes.as_of_epoch) == newest || writes.as_of_epoch == case.template.written_back.0,
            "{what}"
        );
    }
    report.lost.is_empty()
}

#[test]
fn superblocks() {
    let [a, b] = layout().superblock_offsets().map(|offset| offset as usize);
    let old = earlier();
    for image in [&Template::get().clean, &Template::get().crashed] {
        for how in HARMS {
            let crashed = std::ptr::eq(image, &Template::get().crashed);
            if how == Harm::Stale && crashed {
                // Within one opening they are not written, so there is no older version of them.
                continue;
            }
            if how != Harm::Swapped {
                let what = |copy| format!("superblock {copy}, {how:?}");
                assert!(case(image, &what('A'), |bytes| harm(bytes, a, b, &old, how)), "{how:?}");
                assert!(case(image, &what('B'), |bytes| harm(bytes, b, a, &old, how)), "{how:?}");
            }
            if how == Harm::Stale {
                // Both as before the stop: just what a crash at its very end leaves, and nothing is lost by it.
                continue;
            }
            // Exchanged with one another both are lost; of zeros too; the layout follows from the size.
            let both = |bytes: &mut Vec<u8>| {
                harm(bytes, a, b, &old, how);
                if how != Harm::Swapped {
                    harm(bytes, b, a, &old, how);
                }
            };
            assert!(case(image, "both superblocks", both), "{how:?}");
        }
    }
}

#[test]
fn checkpoints() {
    let layout = layout();
    let old = earlier();
    let [first, second] = layout.checkpoint_offsets.map(|offset| offset as usize);
    for image in [&Template::get().clean, &Template::get().crashed] {
        let bytes = std::fs::read(&image.fast).expect("the fast tier");
        for how in HARMS {
            for (at, other) in [(first, second), (second, first)] {
                let unchanged = how == Harm::Stale && old[at..at + PAGE] == bytes[at..at + PAGE];
                if !unchanged {
                    case(image, &format!("header at {at}, {how:?}"), |bytes| {
                        harm(bytes, at, other, &old, how)
                    });
                }
                let content =
                    pages(&bytes, KINDS[1], at as u64 + PAGE as u64, layout.checkpoint_bytes - PAGE as u64);
                let number = field(&bytes[at..at + PAGE], 48);
                let mine: Vec<usize> =
                    content.iter().filter(|(_, of)| *of == number).map(|(at, _)| *at).collect();
                if let [page, .., last] = mine[..] {
                    let stale = how == Harm::Stale && old[page..page + PAGE] == bytes[page..page + PAGE];
                    if !stale {
                        let what = format!("checkpoint page at {page}, {how:?}");
                        case(image, &what, |bytes| harm(bytes, page, last, &old, how));
                    }
                }
            }
            if how != Harm::Swapped {
                // Neither checkpoint: what is left is the journal, or the capacity tier alone.
                case(image, &format!("both headers, {how:?}"), |bytes| {
                    for at in [first, second] {
                        harm(bytes, at, at, &old, how);
                    }
                });
            }
        }
    }
}

#[test]
fn journal_records() {
    let (layout, old, image) = (layout(), earlier(), &Template::get().crashed);
    let bytes = std::fs::read(&image.fast).expect("the fast tier");
    let start =
        [0, 1].map(|area| field(&bytes[layout.checkpoint_offsets[area] as usize..], 72)).into_iter().max();
    let mut records = pages(&bytes, KINDS[0], layout.journal_offset, layout.journal_bytes);
    records.retain(|(_, lsn)| Some(*lsn) > start);
    records.sort_by_key(|(_, lsn)| *lsn);
    assert!(records.len() > 20, "{} records", records.len());
    let last = records.last().expect("records").0;
    for at in [0, 1, records.len() / 2, records.len() - 2] {
        let record = records[at].0;
        for how in HARMS {
            if how == Harm::Stale && old[record..record + PAGE] == bytes[record..record + PAGE] {
                continue;
            }
            case(image, &format!("record {at}, {how:?}"), |bytes| harm(bytes, record, last, &old, how));
        }
    }
}

/// A record that was the last one and is destroyed looks like a commit that the power cut tore: the format says so. A
/// clean stop knows its last record, and takes a checkpoint after which none is needed.
#[test]
fn the_last_record_of_a_crashed_tier_looks_torn() {
    let (layout, image) = (layout(), &Template::get().crashed);
    let mut case = Case::of(image);
    case.fast(|bytes| {
        let mut records = pages(bytes, KINDS[0], layout.journal_offset, layout.journal_bytes);
        records.sort_by_key(|(_, lsn)| *lsn);
        let newest = records.last().expect("records").1;
        for (at, _) in records.iter().filter(|(_, lsn)| *lsn == newest) {
            bytes[*at..*at + PAGE].fill(0);
        }
    });
    assert!(case.check().is_clean());
    // All but the last flush is there: the last block that was written.
    let report = case.try_repair(&case.new_fast()).expect("repaired");
    assert!(report.lost.is_empty());
}

/// Slots have no checksum: damage in them is the device's to tell, and no tool here can. What the device cannot read
/// it tells, and that is reported; here it is a tier that was cut off.
#[test]
fn a_tier_that_was_cut_off() {
    let layout = layout();
    for image in [&Template::get().clean, &Template::get().crashed] {
        for keep in [0, 1, 4095, 4096, layout.journal_offset as usize + 10 * PAGE] {
            case(image, &format!("cut to {keep}"), |bytes| bytes.truncate(keep));
        }
        // Within the slots: the metadata is whole, but for the second superblock.
        let middle = layout.slots_offset as usize + 100 * 65536 + 3 * PAGE;
        assert!(!case(image, "cut in the slots", |bytes| bytes.truncate(middle)), "slots are lost");
    }
}

#[test]
fn the_fast_tier_is_gone() {
    let mut case = Case::of(&Template::get().crashed);
    std::fs::remove_file(&case.config.fast.path).expect("removed");
    let refused = case.try_repair(&case.new_fast()).expect_err("it may only be unplugged");
    assert!(format!("{refused:#}").contains("--without-fast"), "{refused:#}");
    let options = RepairOptions { without_fast: true, ..case.new_fast() };
    let report = case.repaired(&options);
    assert_eq!(report.lost.writes.expect("told").as_of_epoch, case.template.written_back.0);
}

/// After a repair the old fast tier can never come back over what the repaired volume has written since.
#[test]
fn the_old_fast_tier_is_refused_afterwards() {
    for without_fast in [false, true] {
        let mut case = Case::of(&Template::get().crashed);
        let old = case.config.clone();
        case.repaired(&RepairOptions { without_fast, ..case.new_fast() });
        let opened = Opened::open(&old, &case.paths.volume(&old.name), Open::Fresh);
        assert!(matches!(opened.err().expect("refused"), OpenError::FastTierIsOld { .. }));
    }
}

/// An older copy of the fast tier than the capacity tier knows.
#[test]
fn an_old_copy_of_the_fast_tier() {
    let mut case = Case::of(&Template::get().crashed);
    case.repaired(&case.new_fast());
    // The repaired volume has written on; now the tier of before is put in the new one's place.
    std::fs::copy(&Template::get().crashed.fast, &case.config.fast.path).expect("copied");
    let outcome = case.check();
    assert!(outcome.findings.iter().any(|finding| finding.tier == "both"), "{}", outcome.text());
    let options = RepairOptions { to_fast: Some(case.root.join("third")), ..case.new_fast() };
    let report = case.try_repair(&options).expect("repaired");
    assert!(report.lost.writes.is_some_and(|writes| writes.why.contains("old copy")));
    assert!(!case.check().is_damaged());
}
