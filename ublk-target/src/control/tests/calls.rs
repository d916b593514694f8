//! Each call as its users make it.

use forerun::api::v1;
use tonic::Code;

use super::{Limits, Rig, id, run};

#[test]
fn snapshots_are_idempotent_by_name_and_named_after_the_time_without_one() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let request = v1::CreatePredictiveSnapshotRequest {
            volume_id: id(),
            prediction_horizon: 3,
            name: "mon".into(),
        };
        let first = client.create_predictive_snapshot(request.clone()).await.expect("made").into_inner();
        assert!(first.created);
        assert_eq!(first.prediction_horizon, 3);
        let again = client.create_predictive_snapshot(request).await.expect("found").into_inner();
        assert!(!again.created);
        assert_eq!(again.snapshot, first.snapshot);

        let unnamed = v1::CreatePredictiveSnapshotRequest { volume_id: id(), ..Default::default() };
        let mut names = Vec::new();
        for _ in 0..3 {
            let made = client.create_predictive_snapshot(unnamed.clone()).await.expect("made").into_inner();
            assert!(made.created);
            assert_eq!(made.prediction_horizon, 3, "the volume's own");
            names.push(made.snapshot.expect("a snapshot").name);
        }
        names.dedup();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| name.starts_with("auto-2")), "{names:?}");

        let sync = v1::SyncSnapshotRequest { volume_id: id(), name: "mon".into() };
        let synced = client.sync_snapshot(sync).await.expect("synced").into_inner().snapshot;
        assert!(synced.expect("a snapshot").on_capacity_tier);
        let delete = v1::DeleteSnapshotRequest { volume_id: id(), name: "mon".into() };
        client.delete_snapshot(delete.clone()).await.expect("deleted");
        let gone = client.delete_snapshot(delete).await.expect_err("gone");
        assert_eq!(gone.code(), Code::NotFound);
        assert!(gone.message().contains("has no snapshot mon"), "{}", gone.message());
    });
}

#[test]
fn snapshots_come_in_pages_oldest_first() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        for name in ["c", "a", "b", "e", "d"] {
            rig.volume.seal(1, Some(&name.parse().expect("a name")));
        }
        let mut request = v1::ListSnapshotsRequest { volume_id: id(), page_size: 2, ..Default::default() };
        let mut pages = Vec::new();
        loop {
            let page = client.list_snapshots(request.clone()).await.expect("listed").into_inner();
            pages.push(page.snapshots.into_iter().map(|snapshot| snapshot.name).collect::<Vec<_>>());
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(pages, [vec!["c", "a"], vec!["b", "e"], vec!["d"]]);
        let request = v1::ListSnapshotsRequest { volume_id: id(), page_size: 1, ..Default::default() };
        let clones = client.list_snapshots(request).await.expect("listed").into_inner().clones;
        assert_eq!((clones.len(), clones[0].name.as_str(), clones[0].epoch), (1, "copy", 1));
        let request = v1::PromoteRequest { volume_id: id() };
        let origins = client.promote(request).await.expect("promoted").into_inner().origins;
        assert_eq!((origins[0].address.as_str(), origins[0].shared_bytes), ("/srv/origin", 1 << 20));
        let other = v1::PromoteRequest { volume_id: "other".into() };
        assert_eq!(client.promote(other).await.expect_err("refused").code(), Code::NotFound);
    });
}

#[test]
fn a_diff_keeps_its_two_moments_over_all_its_pages() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        rig.volume.seal(10, Some(&"old".parse().expect("a name")));
        rig.volume.seal(25, None);
        let mut request = v1::DiffSnapshotsRequest {
            volume_id: id(),
            from: "old".into(),
            page_size: 10,
            ..Default::default()
        };
        let mut blocks = Vec::new();
        loop {
            let page = client.diff_snapshots(request.clone()).await.expect("a page").into_inner();
            blocks.extend(page.changes.iter().map(|change| change.block));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            rig.volume.seal(10_000, None);
        }
        assert_eq!(blocks, (0..25).collect::<Vec<_>>());

        rig.volume.seal(5, Some(&"new".parse().expect("a name")));
        let between = |from: &str, to: &str, page_token: &str| v1::DiffSnapshotsRequest {
            volume_id: id(),
            from: from.into(),
            to: to.into(),
            page_size: 0,
            page_token: page_token.into(),
        };
        let same = client.diff_snapshots(between("new", "new", "")).await.expect("empty").into_inner();
        assert!(same.changes.is_empty());
        let reversed = client.diff_snapshots(between("new", "old", "")).await.expect_err("reversed");
        assert_eq!(reversed.code(), Code::InvalidArgument);
        assert!(reversed.message().contains("the older snapshot comes first"));
        let foreign = client.diff_snapshots(between("old", "new", "d:1:1:0")).await.expect_err("foreign");
        assert!(foreign.message().contains("belongs to another diff"));
    });
}

#[test]
fn garbage_is_told_and_collected_only_when_asked() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let ask = |dry_run| v1::CollectGarbageRequest { volume_id: id(), dry_run };
        let told = client.collect_garbage(ask(true)).await.expect("told").into_inner();
        assert_eq!(
            (told.segment_bytes, told.live_bytes, told.queued_bytes, told.deleted_bytes),
            (100, 60, 7, 0)
        );
        let done = client.collect_garbage(ask(false)).await.expect("done").into_inner();
        assert_eq!((done.queued_objects, done.deleted_objects, done.deleted_bytes), (2, 2, 7));
    });
}

#[test]
fn a_volume_grows_and_does_not_shrink() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let grow = |size_bytes| v1::GrowVolumeRequest { volume_id: id(), size_bytes };
        let grown = client.grow_volume(grow(1 << 30)).await.expect("grown").into_inner();
        assert_eq!((grown.previous_size_bytes, grown.size_bytes), (64 << 20, 1 << 30));
        for (size, says) in
            [(32 << 20, "does not shrink"), ((64 << 20) + 1, "multiple of 64 KiB"), (u64::MAX, "64 TiB")]
        {
            let refused = client.grow_volume(grow(size)).await.expect_err("refused");
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(says), "{}", refused.message());
        }
    });
}

#[test]
fn a_fast_tier_grows_to_a_size_or_by_one_or_to_all_there_is() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let grow =
            |size_bytes, more_bytes| v1::GrowFastTierRequest { volume_id: id(), size_bytes, more_bytes };
        for (size, more, becomes) in [(128 << 20, 0, 128 << 20), (0, 64 << 20, 128 << 20), (0, 0, 1 << 30)] {
            let grown = client.grow_fast_tier(grow(size, more)).await.expect("grown").into_inner();
            assert_eq!((grown.previous_size_bytes, grown.size_bytes), (64 << 20, becomes));
            assert!(grown.block_bytes < becomes);
        }
        let both = client.grow_fast_tier(grow(1, 1)).await.expect_err("which of them?");
        assert_eq!(both.code(), Code::InvalidArgument);
    });
}

#[test]
fn the_threshold_and_the_trainers_report_show_in_the_status() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let request = v1::AdjustPredictionThresholdRequest { volume_id: id(), threshold: 0.7 };
        let adjusted = client.adjust_prediction_threshold(request).await.expect("set").into_inner();
        assert_eq!((adjusted.previous_threshold, adjusted.threshold), (0.5, 0.7));

        let ask = v1::GetPrefetchStatusRequest { volume_id: id() };
        let before = client.get_prefetch_status(ask.clone()).await.expect("a status").into_inner();
        assert_eq!((before.threshold, before.redirects, before.trainer_reported_us), (0.7, 9, 0));
        let likeness = Some(v1::ChainLikeness { blocks: 0.8, volume: 1.0, ..Default::default() });
        let chain = v1::Chain {
            id: 4,
            epochs: vec![1, 2],
            similarity: 0.9,
            likeness,
            pruned_by_number: 7,
            linked_from_similarity: 0.6,
            pruned_above_epochs: 9,
            ..Default::default()
        };
        let report = v1::ReportTrainerRequest {
            volume_id: id(),
            serving_predictor: "lstm".into(),
            serving_reason: "best over 24 epochs".into(),
            pays: true,
            predictors: vec![v1::PredictorScore { name: "lstm".into(), recall: 0.5, ..Default::default() }],
            chains: vec![chain.clone()],
            epoch: 2,
            score_window_epochs: 24,
        };
        client.report_trainer(report).await.expect("taken");
        let after = client.get_prefetch_status(ask).await.expect("a status").into_inner();
        assert_eq!(after.serving_predictor, "lstm");
        assert_eq!(after.predictors.len(), 1);
        assert!(after.trainer_reported_us > 0);
        let chains = client.list_chains(v1::ListChainsRequest { volume_id: id() }).await.expect("chains");
        assert_eq!(chains.into_inner().chains, [chain]);
        assert!(rig.volume.reports.lock().expect("reports")[0].pays);

        let ask = v1::GetVolumeStatusRequest { volume_id: id() };
        let status = client.get_volume_status(ask).await.expect("a status").into_inner();
        assert_eq!((status.device.as_str(), status.pid), ("/dev/ublkb7", std::process::id()));
    });
}
