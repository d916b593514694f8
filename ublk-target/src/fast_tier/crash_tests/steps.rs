//! One thread, so that the steps of a life have the same numbers each time: a cut at each of them.

use super::*;
use crate::fast_tier::check::check_device;
use crate::fast_tier::sim::Random;
use crate::fast_tier::{Health, LastEnd};

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
    first_life_on(formatted(seed), machine, seed, cut)
}

fn first_life_on(disk: Arc<SimDisk>, machine: &Machine, seed: u64, cut: u64) -> (Arc<SimDisk>, Past, bool) {
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

/// Bytes of a disk on which a tier of [`layout`] grows, in two steps.
const ROOMY: u64 = 8 << 20;

#[test]
fn a_cut_or_a_kill_at_any_step_of_growth_loses_nothing() {
    let (mut cuts, mut grown_at_the_end, mut small) = (0, 0, 0);
    for seed in 500..503 {
        let whole = first_life_on(formatted_on(seed, ROOMY), &Machine::new(), seed, u64::MAX / 2);
        assert!(whole.2);
        let steps = whole.0.steps() - formatted_on(seed, ROOMY).steps();
        for cut in 1..=steps + 1 {
            println!("seed {seed}, cut {cut} of {steps}");
            let mut machine = Machine::new();
            let (disk, past, clean) = first_life_on(formatted_on(seed, ROOMY), &machine, seed, cut);
            assert_eq!(clean, cut > steps);
            cuts += 1;
            let killed = Arc::new(disk.after_kill());
            drop(reopen(&machine, &killed, &past, true));
            for image in 0..4 {
                machine.boot += 1;
                let found = Arc::new(disk.after_power_cut(seed * 1000 + cut * 10 + image));
                let (tier, n) = reopen(&machine, &found, &past, false);
                grown_at_the_end += u32::from(tier.layout().tier_bytes == ROOMY);
                small += u32::from(!tier.layout().has_grown());
                // It grows again, or for the first time, and all of it is there after that.
                let (past, clean) = live(tier, &past, n, seed, 14, true);
                assert!(clean);
                machine.boot += 1;
                let (tier, _) = reopen(&machine, &Arc::new(found.after_power_cut(cut)), &past, true);
                assert_eq!(tier.layout().tier_bytes, ROOMY);
                drop(tier);
                let report = check_device(&*found, "the disk", None).expect("it can be read");
                assert!(report.findings.is_empty(), "{:?}", report.findings);
            }
        }
    }
    println!("{cuts} cuts; of what was found {small} had not grown, and {grown_at_the_end} all the way");
    assert!(small > 0 && grown_at_the_end > 0);
}

/// Growth that is cut off tells whoever asked, and what is found is one of the two.
#[test]
fn a_disk_that_fails_while_it_grows_fails_the_tier_or_changes_nothing() {
    let (mut failed_for_good, mut only_superblock) = (0, false);
    let mut step = 1;
    loop {
        let machine = Machine::new();
        let disk = formatted_on(step, ROOMY);
        let (tier, ..) = machine.open(&disk).expect("opened");
        let engine = Mutex::new(Engine::resume(&tier, &Past::none(), 0, step));
        (0..20).try_for_each(|_| lock(&engine).change()).expect("written");
        let log = tier.committer();
        log.commit_blocking().expect("durable");
        let deltas = lock(&engine).deltas();
        lock(&engine).acknowledge(deltas);
        // Acknowledged to a process, and in the pending log only.
        (0..6).try_for_each(|_| lock(&engine).change()).expect("written");
        let before = disk.steps();
        disk.fail_at(step);
        let walk = Halves { engine: &engine, between: &|| () };
        let grown = smol::block_on(log.grow(&tier.superblock(), &walk, ROOMY));
        let (failed, health) = (log.failure().is_some(), log.status().health);
        if disk.steps() - before < step {
            assert!(grown.is_ok() && !failed, "nothing failed");
            break;
        }
        failed_for_good += u32::from(failed);
        let unchanged = grown.is_err() && !failed;
        if unchanged && step % 2 == 0 {
            // A commit may have met the fault; the next one is good, and nothing else is the matter.
            log.commit_blocking().expect("durable");
            assert_eq!(
                log.status().health,
                Health::Good,
                "step {step}: it was said that nothing has changed"
            );
        }
        drop((tier, log));
        let past = engine.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).end();
        // After a failed sync nobody knows what of the data is there.
        let sync_failed = health_words(&health).contains("make writes durable");
        let (tier, _) = reopen(&machine, &Arc::new(disk.after_kill()), &past, !sync_failed);
        assert!(!unchanged || !tier.layout().has_grown(), "step {step}: it has grown and was said not to");
        only_superblock |= failed && !sync_failed;
        step += 1;
    }
    assert!(failed_for_good > 0 && only_superblock && step > 8, "{failed_for_good} of {step}");
}

fn health_words(health: &Health) -> &str {
    match health {
        Health::Good => "",
        Health::Degraded(words) | Health::Failed(words) => words,
    }
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
