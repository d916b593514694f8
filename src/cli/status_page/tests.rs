//! The whole page, as a person sees it.

use forerun::api::v1::PredictorScore;

use super::*;

fn volume() -> GetVolumeStatusResponse {
    GetVolumeStatusResponse {
        volume_id: "data".into(),
        device: "/dev/ublkb3".into(),
        size_bytes: 100 << 30,
        logical_block_bytes: 4096,
        queues: 2,
        queue_depth: 128,
        transfer_mode: "zero copy".into(),
        started_us: 1_000_000,
        pid: 4711,
        health: "healthy".into(),
        open_epoch: 12,
        open_epoch_since_us: 3_590_000_000,
        sync_interval_seconds: 60,
        epochs_not_written_back: 1,
        written_back_epoch: 10,
        write_back_remaining_bytes: 8 << 20,
        write_back_eta_seconds: 3.0,
        mapped_bytes: 10 << 30,
        dirty_bytes: 24 << 20,
        memory_bytes: 30 << 20,
        fast_tier: Some(Tier {
            path: "/dev/nvme0n1p3".into(),
            total_bytes: 8 << 30,
            used_bytes: 4 << 30,
            clean_bytes: 3 << 30,
            ..Tier::default()
        }),
        capacity_tier: Some(Tier {
            path: "/srv/data".into(),
            total_bytes: 1 << 40,
            used_bytes: 12 << 30,
            clean_bytes: 0,
            ..Tier::default()
        }),
        read_requests: 1_234_567,
        read_bytes: 5 << 30,
        read_hits: 990,
        read_misses: 10,
        ..Default::default()
    }
}

#[test]
fn a_volume_that_predicts() {
    let prefetch = GetPrefetchStatusResponse {
        threshold: 0.7,
        prediction_horizon: 1,
        state: "on".into(),
        predictions_published: 2_000,
        predictions_above_threshold: 400,
        tables_accepted: 9,
        tables_refused: 1,
        last_refusal: "checksum".into(),
        reservations_made: 400,
        reservations_used: 300,
        reservations_wasted: 60,
        reservations_held: 40,
        redirects: 500,
        prefetched_bytes: 8 << 20,
        prefetched_used_bytes: 6 << 20,
        precision: 0.83,
        recall: 0.6,
        score_window_epochs: 24,
        serving_predictor: "lstm".into(),
        serving_reason: "best of 24 epochs".into(),
        predictors: vec![
            PredictorScore {
                name: "lstm".into(),
                mean_average_precision: 0.91,
                precision: 0.83,
                recall: 0.6,
                epochs: 24,
            },
            PredictorScore { name: "last epoch".into(), epochs: 24, ..Default::default() },
        ],
        trainer_reported_us: 3_598_000_000,
        table_epoch: 11,
        table_published_us: 3_595_000_000,
        read_precision: 0.75,
        read_recall: 0.5,
        acts_from: 0.75,
        missed_after_eviction: 0.625,
        acted_blocks: 3100.0,
        acted_missed: 31.0,
        control_blocks: 100.0,
        control_missed: 62.0,
        capacity_read_seconds: 0.0051,
        growth_bytes: 48 << 20,
        growth_kept_bytes: 32 << 20,
        ..Default::default()
    };
    let page = render(&volume(), &prefetch, 3_600_000_000);
    let expected = include_str!("predicting.txt");
    assert_eq!(page, expected, "the page is now:\n{page}");
}

#[test]
fn a_volume_that_nobody_has_used_or_trained() {
    let page = render(&volume(), &GetPrefetchStatusResponse::default(), 3_600_000_000);
    assert!(page.contains("  table         none yet\n"), "{page}");
    assert!(page.contains("  trainer       has not reported\n"), "{page}");
    let empty = render(&GetVolumeStatusResponse::default(), &GetPrefetchStatusResponse::default(), 0);
    assert!(!empty.contains("NaN"), "{empty}");
    assert!(empty.lines().all(|line| line.trim_end() == line), "no blanks at line ends:\n{empty}");
}

#[test]
fn a_clone_says_what_it_shares() {
    let origin = |address: &str, promoting| forerun::api::v1::Origin {
        address: address.into(),
        shared_bytes: 3 << 30,
        promoting,
        ..Default::default()
    };
    let origins = vec![origin("/srv/a", false), origin("/srv/b", true)];
    let text =
        render(&GetVolumeStatusResponse { origins, ..volume() }, &GetPrefetchStatusResponse::default(), 0);
    assert!(text.contains("3.0 GiB with its origin  /srv/a"), "{text}");
    assert!(text.contains("3.0 GiB with its origin, being copied  /srv/b"), "{text}");
}

#[test]
fn an_object_store_says_what_its_server_makes_of_conditions() {
    let found = "create-if-absent honoured, replace-if-unchanged ignored";
    let capacity = Tier { conditional_writes: found.into(), ..Tier::default() };
    let on_store = GetVolumeStatusResponse { capacity_tier: Some(capacity), ..volume() };
    let prefetch = GetPrefetchStatusResponse::default();
    let text = render(&on_store, &prefetch, 0);
    assert!(text.contains(&format!("\n  its server    conditional writes: {found}\n")), "{text}");
    assert!(!render(&volume(), &prefetch, 0).contains("conditional"), "a directory has no server");
}

#[test]
fn a_restored_volume_says_how_warm_it_is() {
    let text = |hydration: Hydration| {
        let volume = GetVolumeStatusResponse { hydration: Some(hydration), ..volume() };
        let page = render(&volume, &GetPrefetchStatusResponse::default(), 0);
        let lines =
            page.lines().filter(|line| line.starts_with("  warming up") || line.starts_with("  latency"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let listed = Hydration {
        state: "listed".into(),
        listed_blocks: 20_000,
        listed_done: 5_000,
        rest_blocks: 100_000,
        fetched_bytes: 300 << 20,
        seconds: 12.0,
        eta_seconds: 240.0,
        request_seconds: 0.004,
        steady_request_seconds: 0.001,
        read_hits: 0.6,
        steady_read_hits: 0.99,
        ..Default::default()
    };
    assert_eq!(
        text(listed.clone()),
        "  warming up    25 % of 20,000 blocks that are expected to be used first; 300.0 MiB fetched in 12 s, about 4 min left\n  \
           latency       400 % of what it was; 60 % of reads hit, 99 % before\n"
    );
    let full = Hydration {
        state: "full".into(),
        failed_blocks: 2,
        eta_seconds: 0.0,
        request_seconds: 0.001,
        steady: true,
        steady_after_bytes: 200 << 20,
        ..listed.clone()
    };
    assert_eq!(
        text(full),
        "  warming up    done, the fast tier is full; 300.0 MiB fetched in 12 s, 2 blocks could not be fetched\n  \
           latency       100 % of what it was; steady again after 200.0 MiB; 60 % of reads hit, 99 % before\n"
    );
    for (state, fetched_bytes) in [("off", 0), ("waiting", 0), ("done", 0), ("full", 0)] {
        assert_eq!(text(Hydration { state: state.into(), fetched_bytes, ..listed.clone() }), "");
    }
}
