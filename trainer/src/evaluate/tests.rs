//! The evaluation as a whole.

use super::*;
use crate::rng::Rng;
use crate::testing::vector_of;

/// Without the network's training, which a debug build takes a minute for.
fn quick() -> Config {
    Config { steps_per_epoch: 0, cpu_seconds_per_epoch: 600.0, frontier_candidates: 512, ..Config::default() }
}

fn cut(horizon: Horizon, without_chains: bool) -> Cut {
    Cut { epoch: EpochLength::Count(150), block: BlockSize::default(), horizon, without_chains }
}

/// Real traces lie beside the workspace where there are any; they are not part of it.
#[test]
fn on_a_real_trace_what_is_learned_beats_the_simple_predictors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces/fin1_excerpt.csv.zst");
    if !path.exists() {
        eprintln!("skipped 1 test: there is no trace {}", path.display());
        return;
    }
    let cut = cut(Horizon::DEFAULT, false);
    let report = evaluate(&path, cut, &quick(), |_, _| {}).expect("evaluated");
    let of = |name: &str| report.predictors.iter().find(|predictor| predictor.name == name);
    let map = |name: &str| of(name).map_or(0.0, |predictor| predictor.mean_average_precision);
    assert!(map("linear") >= map("decayed-rate-3"), "{}", report.table());
    assert!(report.served.mean_average_precision > 0.45 && report.pays, "{}", report.table());
    assert!(report.reach > 0.95 && report.served.calibration_error < 0.1, "{}", report.table());
}

/// Hot blocks, a log that grows, some noise.
fn vectors(seed: u64, epochs: std::ops::RangeInclusive<u32>) -> Vec<ChangeVector> {
    let mut rng = Rng::new(seed);
    let epoch = |epoch: u32| {
        let mut blocks: Vec<u32> = (0..60).map(|at| at * 37).filter(|_| rng.unit() < 0.8).collect();
        blocks.extend(50_000 + epoch * 12..50_000 + epoch * 12 + 12);
        blocks.extend((0..8).map(|_| 10_000 + rng.below(20_000) as u32));
        blocks.sort_unstable();
        blocks.dedup();
        vector_of(epoch, &blocks)
    };
    epochs.map(epoch).collect()
}

/// What is said of the first epochs must not depend on those that follow: scores, choice and costs aside, to the last bit.
#[test]
fn a_shuffled_future_changes_nothing_that_was_predicted_before_it() {
    let past = vectors(1, 1..=12);
    let judgements = |future: Vec<ChangeVector>| {
        let mut learner = Learner::new(Config { steps_per_epoch: 4, ..quick() }, 1 << 20).expect("made");
        let mut said = Vec::new();
        for vector in past.iter().chain(&future) {
            let report = learner.observe(vector, Effort::Full).expect("learned");
            said.push(format!("{:?} {:?} {}", report.served, report.judgements, report.reach));
        }
        said
    };
    let as_it_came = vectors(2, 13..=18);
    let mut shuffled = vectors(2, 13..=18);
    shuffled.reverse();
    // The past's last judgement is about epoch 12, made before any of the future was seen.
    let (first, second) = (judgements(as_it_came), judgements(shuffled));
    assert_eq!(first[..past.len()], second[..past.len()]);
    assert_ne!(first[past.len()..], second[past.len()..]);
}

#[test]
fn a_report_has_every_predictor_and_adds_up() {
    let vectors = vectors(3, 1..=40);
    let cut = cut(Horizon::new(3).expect("in range"), true);
    let report = walk("made", &vectors, 1 << 20, cut, &quick(), |_, _| {}).expect("walked");
    let without = report.without_chains.as_ref().expect("asked for");
    let of = |all: &[report::PredictorReport], name: &str| -> f64 {
        all.iter().find(|own| own.name == name).map_or(0.0, |own| own.mean_average_precision)
    };
    assert!(of(&report.predictors, "chains") > 0.4 && of(&without.predictors, "chains") == 0.0);
    assert_eq!(of(&report.predictors, "last-epoch"), of(&without.predictors, "last-epoch"));
    assert!(report.chains.iter().map(|chain| chain.epochs).sum::<usize>() >= 30, "{}", report.table());
    assert!(report.table().contains("served minus the best single one"));
    assert_eq!((report.epochs, report.scored_epochs, report.predictors.len()), (40, 8, Predictor::ALL.len()));
    assert!(report.served.mean_average_precision > 0.7, "{}", report.table());
    assert!(report.served.f1 > 0.6 && report.served.f1 <= 1.0, "{}", report.table());
    let ahead = report.horizon.as_ref().expect("asked for");
    // Predictions after the 33rd to the 37th epoch: those after it have not ended.
    assert_eq!((ahead.epochs, ahead.scored), (3, 5), "{}", report.table());
    assert!(ahead.mean_average_precision > 0.6 && ahead.calibration_error < 0.3, "{}", report.table());
    let table = report.table();
    for predictor in Predictor::ALL {
        assert!(table.contains(predictor.name()), "{table}");
    }
    let json = serde_json::to_value(&report).expect("JSON");
    assert!(json["served"]["added"]["coverage_100"].is_number() && json["cost"]["facts"].is_number());
}

#[test]
fn cost_is_measured_with_about_as_many_candidates() {
    let cost = cost::measure(5000, &quick()).expect("measured");
    assert!((5000..=5334).contains(&cost.candidates), "{}", cost.line());
    assert!(cost.cost.scoring() > 0.0 && cost.peak_memory_bytes > 0);
}
