//! One thread, so that the steps of a life have the same numbers each time: a cut at each of them.

use super::*;
use crate::fast_tier::LastEnd;
use crate::fast_tier::check::check_device;
use crate::fast_tier::sim::Random;

const TURNS: u64 = 24;

/// Opens, compares, and returns which state of the past it is.
fn reopen(machine: &Machine, disk: &Arc<SimDisk>, past: &Past, all: bool) -> (FastTier<SimDisk>, usize) {
    let (tier, recovered, _) = machine.open(disk).expect("opened");
    let n = past.find(&recovered, all);
    past.check_data(&tier, n);
    (tier, n)
}

/// The first life, cut off at `cut` (counted from the opening on).
fn first_life(machine: &Machine, seed: u64, cut: u64) -> (Arc<SimDisk>, Past, bool) {
    let disk = formatted(seed);
    disk.cut_at(cut);
    let none = Past::none();
    match machine.open(&disk) {
        Ok((tier, recovered, _)) => {
            let n = none.find(&recovered, true);
            let (past, clean) = live(tier, &none, n, seed, TURNS, true);
            (disk, past, clean)
        }
        Err(error) => {
            assert!(matches!(error, FastTierError::Tier { .. }), "{error}");
            (disk, none, false)
        }
    }
}

fn total_steps(seed: u64) -> u64 {
    let (disk, _, clean) = first_life(&Machine::new(), seed, u64::MAX / 2);
    assert!(clean);
    disk.steps() - formatted(seed).steps()
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged() {
    let (mut cuts, mut openings) = (0, 0);
    for seed in 0..6 {
        let steps = total_steps(seed);
        for cut in 1..=steps + 1 {
            println!("seed {seed}, cut {cut} of {steps}");
            let mut machine = Machine::new();
            let (disk, past, clean) = first_life(&machine, seed, cut);
            assert_eq!(clean, cut > steps);
            cuts += 1;
            for image in 0..4 {
                machine.boot += 1;
                let found = Arc::new(disk.after_power_cut(seed * 1000 + cut * 10 + image));
                let (tier, n) = reopen(&machine, &found, &past, false);
                drop(tier);
                openings += 1;
                // And it is the same state whoever opens it again, however often the opening is cut off.
                let mut at = 1 + (cut + image) % 3;
                loop {
                    machine.boot += 1;
                    let again = Arc::new(disk.after_power_cut(seed * 1000 + cut * 10 + image));
                    again.cut_at(at);
                    if machine.open(&again).is_ok() {
                        break;
                    }
                    let after = Arc::new(again.after_power_cut(at));
                    machine.boot += 1;
                    let (_, recovered, _) = machine.open(&after).expect("opened");
                    assert_eq!(past.find(&recovered, false), n);
                    openings += 2;
                    at += 3;
                }
            }
        }
    }
    println!("{cuts} cuts, {openings} openings");
}

#[test]
fn a_kill_at_any_step_loses_nothing_at_all() {
    let (mut kills, mut openings) = (0, 0);
    for seed in 100..104 {
        let steps = total_steps(seed);
        for cut in 1..=steps {
            println!("seed {seed}, kill {cut} of {steps}");
            let machine = Machine::new();
            let (disk, past, clean) = first_life(&machine, seed, cut);
            assert!(!clean);
            kills += 1;
            // Killed again and again while it takes over, at each step.
            let mut found = Arc::new(disk.after_kill());
            // Where nothing is torn there is nothing to complain of, in the midst of a clean stop neither.
            let report = check_device(&*found, "the disk", None).expect("it can be read");
            let stale: Vec<_> =
                report.findings.iter().filter(|found| found.what.contains("of generation")).collect();
            assert!(stale.is_empty(), "{stale:?}");
            let mut at = 1;
            loop {
                found.cut_at(at);
                openings += 1;
                match machine.open(&found) {
                    Ok((tier, recovered, info)) => {
                        let n = past.find(&recovered, true);
                        past.check_data(&tier, n);
                        assert!(info.end != LastEnd::Crashed || cut <= 2, "{info:?}");
                        break;
                    }
                    Err(error) => assert!(matches!(error, FastTierError::Tier { .. }), "{error}"),
                }
                found = Arc::new(found.after_kill());
                at += 1;
            }
            // What was taken over is durable.
            let (_, recovered, _) = Machine { boot: 9, ..Machine::new() }
                .open(&Arc::new(found.after_power_cut(cut)))
                .expect("opened");
            past.find(&recovered, true);
        }
    }
    println!("{kills} kills, {openings} openings");
}

#[test]
fn many_lives_on_one_disk() {
    let (mut lives, mut cuts, mut kills) = (0, 0, 0);
    for seed in 200..230 {
        let mut random = Random(seed);
        let mut machine = Machine::new();
        let mut disk = formatted(seed);
        let mut past = Past::none();
        let mut all = true;
        for life in 0..20 {
            println!("seed {seed}, life {life}");
            let (tier, n) = reopen(&machine, &disk, &past, all);
            if !random.one_in(8) {
                disk.cut_at(1 + random.below(60));
            }
            let stop = random.one_in(2);
            let clean;
            (past, clean) = live(tier, &past, n, random.next(), 1 + random.below(20), stop);
            lives += 1;
            let cut = random.one_in(2);
            disk = if cut { disk.after_power_cut(random.next()) } else { disk.after_kill() }.into();
            machine.boot += u128::from(cut);
            cuts += u32::from(cut);
            kills += u32::from(!cut);
            // Power gone or not: what a clean stop left is all there.
            all = clean || !cut;
        }
    }
    println!("{lives} lives, {cuts} power cuts, {kills} kills");
}

#[test]
fn half_a_format_is_no_tier() {
    let whole = formatted(1).steps();
    for cut in 1..=whole + 1 {
        for image in 0..10 {
            let mut machine = Machine::new();
            let disk = SimDisk::new(layout().tier_bytes, cut * 100 + image);
            disk.cut_at(cut);
            let made = write(&disk, layout(), &format_options()).is_ok();
            assert_eq!(made, cut > whole);
            machine.boot += 1;
            match machine.open(&Arc::new(disk.after_power_cut(image))) {
                Ok((_, recovered, _)) => assert_eq!(recovered, Recovered::default()),
                Err(FastTierError::Foreign(_) | FastTierError::BothDamaged(_)) => assert!(!made),
                Err(error) => panic!("cut {cut}, image {image}: {error}"),
            }
        }
    }
}

#[test]
fn a_pending_log_of_another_time_is_not_replayed() {
    let machine = Machine::new();
    let disk = formatted(1);
    let (tier, ..) = machine.open(&disk).expect("opened");
    let (past, _) = live(tier, &Past::none(), 0, 7, 1, false);
    let stale = std::fs::read(&machine.pending).expect("read");
    let (tier, n) = reopen(&machine, &disk, &past, true);
    let (past, _) = live(tier, &past, n, 8, 3, false);
    let (tier, n) = reopen(&machine, &disk, &past, true);
    drop(tier);
    // The file of two lives ago comes back, of the same boot.
    std::fs::write(&machine.pending, stale).expect("written");
    let (_, recovered, info) = machine.open(&disk).expect("opened");
    assert_eq!(past.find(&recovered, true), n);
    assert_eq!(info.pending_deltas, 0);
}
