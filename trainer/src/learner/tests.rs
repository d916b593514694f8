//! Learning as a whole: no look at the future, patterns found, small epochs served early.

use forerun::change_vector::Change;

use super::*;
use crate::testing::vector_of;

const BLOCKS: u32 = 1 << 20;

fn config() -> Config {
    Config { cpu_seconds_per_epoch: 600.0, ..Config::default() }
}

fn learner() -> Learner {
    Learner::new(config(), BLOCKS).expect("made")
}

/// Like a small database: hot blocks, a log that grows, and some noise.
fn database_epoch(epoch: u32, rng: &mut Rng) -> ChangeVector {
    let mut blocks: Vec<u32> = (0..40).map(|at| at * 37).filter(|_| rng.unit() < 0.9).collect();
    blocks.extend(50_000 + epoch * 12..=50_000 + epoch * 12 + 12);
    blocks.extend((0..4).map(|_| 10_000 + rng.below(20_000) as u32));
    blocks.sort_unstable();
    blocks.dedup();
    vector_of(epoch, &blocks)
}

#[test]
fn small_epochs_are_predicted_after_a_few() {
    let (mut learner, mut rng) = (learner(), Rng::new(1));
    for epoch in 1..=6 {
        learner.observe(&database_epoch(epoch, &mut rng), Effort::Full).expect("learned");
    }
    let (serving, predictions) = learner.predictions(Horizon::DEFAULT);
    let next = database_epoch(7, &mut rng);
    let likely: Vec<_> =
        predictions.iter().filter(|prediction| prediction.probability.get() >= 0.5).collect();
    let right = likely
        .iter()
        .filter(|prediction| next.changes().iter().any(|change| change.block == prediction.block));
    let (right, all) = (right.count(), likely.len());
    assert!(learner.scoreboard().pays(), "{}", learner.reason());
    assert!(right * 10 >= all * 7, "{} by {serving:?}: {right} of {all} right", learner.reason());
    assert!(right * 10 >= next.changes().len() * 6, "{right} of {} found", next.changes().len());
}

#[test]
fn predictions_do_not_depend_on_the_future() {
    let run = |future_seed| {
        let (mut learner, mut rng) = (learner(), Rng::new(1));
        let mut seen = Vec::new();
        for epoch in 1..=5 {
            learner.observe(&database_epoch(epoch, &mut rng), Effort::Full).expect("learned");
            seen.push(learner.predictions(Horizon::DEFAULT));
        }
        let mut other = Rng::new(future_seed);
        learner.observe(&database_epoch(6, &mut other), Effort::Full).expect("learned");
        (seen, learner.predictions(Horizon::DEFAULT))
    };
    let (first, second) = (run(100), run(200));
    assert_eq!(first.0, second.0, "the same past, another future");
    assert_ne!(first.1, second.1, "a future once seen counts");
}

#[test]
fn a_rhythm_is_learned_that_the_last_epoch_does_not_show() {
    let mut learner = learner();
    let mut sums = [0.0; PREDICTORS];
    for epoch in 1..=40u32 {
        // Three groups of blocks that take turns.
        let blocks: Vec<u32> = (0..60).map(|at| at * 11 + epoch % 3 * 7000).collect();
        let report = learner.observe(&vector_of(epoch, &blocks), Effort::Full).expect("learned");
        if epoch > 30 {
            for (sum, quality) in sums.iter_mut().zip(report.judgements) {
                *sum += quality.map_or(0.0, |judged| judged.quality.average_precision) / 10.0;
            }
        }
    }
    let of = |predictor: Predictor| sums[predictor as usize];
    assert!(of(Predictor::LastEpoch) < 0.1);
    assert!(of(Predictor::Lstm) > 0.9, "{sums:?}");
    assert!(of(Predictor::ContextTables) > 0.9, "{sums:?}");
    assert!(of(Predictor::SimilarEpochs) > 0.9, "{sums:?}");
}

#[test]
fn noise_does_not_pay() {
    let (mut learner, mut rng) = (learner(), Rng::new(1));
    for epoch in 1..=8 {
        let mut blocks: Vec<u32> = (0..200).map(|_| rng.below(BLOCKS as usize) as u32).collect();
        blocks.sort_unstable();
        blocks.dedup();
        learner.observe(&vector_of(epoch, &blocks), Effort::Full).expect("learned");
    }
    assert!(!learner.scoreboard().pays(), "{}", learner.reason());
}

#[test]
fn scores_come_back_only_for_the_epoch_they_are_of() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("scores.json");
    let (mut first, mut rng) = (learner(), Rng::new(1));
    let epochs: Vec<_> = (1..=4).map(|epoch| database_epoch(epoch, &mut rng)).collect();
    for epoch in &epochs {
        first.observe(epoch, Effort::Full).expect("learned");
    }
    first.save_scores(&path).expect("saved");
    let mut second = learner();
    assert!(second.load_scores(&path).is_err(), "no epoch taken yet");
    for epoch in &epochs {
        second.observe(epoch, Effort::CatchUp).expect("learned");
    }
    assert!(second.load_scores(&path).expect("usable"));
    assert_eq!(second.reason(), first.reason());
    std::fs::write(&path, "{}").expect("written");
    assert!(second.load_scores(&path).is_err());
    assert!(!second.load_scores(&dir.path().join("none")).expect("none"));
}

#[test]
fn a_longer_horizon_expects_more() {
    let (mut learner, mut rng) = (learner(), Rng::new(1));
    for epoch in 1..=6 {
        learner.observe(&database_epoch(epoch, &mut rng), Effort::CatchUp).expect("learned");
    }
    let sum = |epochs| {
        let (_, predictions) = learner.predictions(Horizon::new(epochs).expect("in range"));
        predictions.iter().map(|prediction| f64::from(prediction.probability.get())).sum::<f64>()
    };
    assert!(sum(1) < sum(4) && sum(4) <= sum(64));
}

#[test]
fn a_rhythm_is_seen_two_epochs_ahead_without_the_network() {
    let mut learner = learner();
    let horizon = Horizon::new(2).expect("in range");
    learner.set_horizon(horizon);
    // Twelve groups take turns, of which an epoch has the end of one and the beginning of the next.
    let group = |epoch: u32| (0..60).map(move |at| at * 3 + epoch % 12 * 500 + epoch % 12 / 6 * 20_000);
    let blocks_of = |epoch: u32| group(epoch).skip(20).chain(group(epoch + 1).take(20));
    for epoch in 1..=60 {
        let mut blocks: Vec<u32> = blocks_of(epoch).collect();
        blocks.sort_unstable();
        learner.observe(&vector_of(epoch, &blocks), Effort::CatchUp).expect("learned");
    }
    let (_, predictions) = learner.predictions(horizon);
    let mean = |epoch: u32| {
        let blocks: Vec<u32> = blocks_of(epoch).collect();
        let of = predictions.iter().filter(|prediction| blocks.contains(&prediction.block.0));
        of.map(|prediction| prediction.probability.get()).sum::<f32>() / blocks.len() as f32
    };
    let means: Vec<f32> = (61..=66).map(mean).collect();
    assert!(means[0] > 0.8 && means[1] > 0.8, "within the horizon: {means:?}");
    assert!(means[3] < 0.2 && means[4] < 0.2, "beyond it: {means:?}");
}

#[test]
fn the_network_learns_the_horizon_and_the_kind() {
    let mut learner = learner();
    let horizon = Horizon::new(3).expect("in range");
    learner.set_horizon(horizon);
    for epoch in 1..=40u32 {
        // Three groups take turns; the third is deleted each time it comes after it was written.
        let group = epoch % 3;
        let kind = match (group, epoch % 2) {
            (2, 0) => ChangeKind::Deleted,
            (2, _) => ChangeKind::Added,
            _ => ChangeKind::Modified,
        };
        let change = |at: u32| Change { block: BlockIndex(at * 11 + group * 7000), kind, sub_blocks: 4 };
        let opened_us = u64::from(epoch) * 10_000_000;
        let vector = ChangeVector::new(Epoch(epoch), opened_us, opened_us + 1, (0..60).map(change).collect());
        learner.observe(&vector.expect("ascending"), Effort::Full).expect("learned");
    }
    // After epoch 40 comes group 2 (epoch 41, an addition), then 0, then 1.
    let mean = |by, group: u32| {
        let (_, predictions) = learner.predictions_by(horizon, by);
        let own = predictions.iter().filter(|prediction| prediction.block.0 / 7000 == group);
        own.map(|prediction| prediction.probability.get()).sum::<f32>() / 60.0
    };
    for group in 0..3 {
        assert!(mean(HorizonBy::Network, group) > 0.9, "group {group}: {}", mean(HorizonBy::Network, group));
    }
    assert!(mean(HorizonBy::Formula, 1) > 0.9, "the formula looks at what came after epochs like the last");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("scores.json");
    learner.save_scores(&path).expect("saved");
    assert!(learner.load_scores(&path).expect("usable") && learner.horizon == horizon);
    learner.set_horizon(Horizon::DEFAULT);
    assert_eq!(learner.horizon_epochs, 0, "another horizon is learned anew");
}

#[test]
fn a_wrong_estimate_does_not_break_the_budget() {
    let mut learner =
        Learner::new(Config { cpu_seconds_per_epoch: 1e-4, ..Config::default() }, BLOCKS).expect("made");
    let blocks: Vec<u32> = (0..6000).map(|at| at * 9).collect();
    let mut report = EpochReport::default();
    for epoch in 1..=3 {
        // As on a machine that has become a thousand times slower.
        learner.network_seconds = Some(1e-9);
        report = learner.observe(&vector_of(epoch, &blocks), Effort::Full).expect("learned");
    }
    assert!(report.candidates >= 6000);
    assert!((1..1000).contains(&report.scored_by_network), "{} were scored", report.scored_by_network);
}
