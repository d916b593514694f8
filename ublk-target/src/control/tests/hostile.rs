//! What must be refused, with the reason, and what must not stop the server.

use std::io::Write;
use std::os::unix::net::UnixStream;

use forerun::api::v1;
use tonic::{Code, Status};

use super::{ControlServer, Limits, Rig, id, run};

#[track_caller]
fn refused(status: &Status, words: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(words), "{}", status.message());
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        for threshold in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
            let request = v1::AdjustPredictionThresholdRequest { volume_id: id(), threshold };
            let status = client.adjust_prediction_threshold(request).await.expect_err("out of range");
            refused(&status, "the range is 0.05 to 1");
        }
        for name in ["../../etc/passwd", "-x", "Ä", "a b", &"x".repeat(1 << 20)] {
            let request = v1::CreatePredictiveSnapshotRequest {
                volume_id: id(),
                prediction_horizon: 0,
                name: name.into(),
            };
            let status = client.create_predictive_snapshot(request).await.expect_err("not a name");
            refused(&status, "1 to 63 characters");
            assert!(status.message().len() < 500, "a message stays short");
        }
        let request =
            v1::CreatePredictiveSnapshotRequest { volume_id: id(), prediction_horizon: 65, name: "a".into() };
        let status = client.create_predictive_snapshot(request).await.expect_err("too far");
        refused(&status, "the range is 1 to 64");
        let request = v1::ListSnapshotsRequest { volume_id: id(), page_size: 10_001, ..Default::default() };
        refused(&client.list_snapshots(request).await.expect_err("too many"), "1 to 10000");
        let request = v1::DiffSnapshotsRequest { volume_id: id(), page_size: 100_001, ..Default::default() };
        refused(&client.diff_snapshots(request).await.expect_err("too many"), "1 to 100000");
    });
}

#[test]
fn tokens_that_nobody_gave_are_refused() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        rig.volume.seal(5, None);
        for page_token in
            ["x", "d:", "d:1:2", "d:-1:2:3", "d:9:1:0", "s:1:a", "d:0:1:99999999999", "d:0:1:1:1"]
        {
            let request = v1::DiffSnapshotsRequest {
                volume_id: id(),
                page_token: page_token.into(),
                ..Default::default()
            };
            refused(&client.diff_snapshots(request).await.expect_err(page_token), "page_token");
        }
        for page_token in ["x", "s:", "s:1", "s:1:../..", "d:0:1:0"] {
            let request = v1::ListSnapshotsRequest {
                volume_id: id(),
                page_token: page_token.into(),
                ..Default::default()
            };
            refused(&client.list_snapshots(request).await.expect_err(page_token), "page_token");
        }
    });
}

#[test]
fn other_volumes_and_the_engines_errors_have_their_codes() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let ask = |volume_id: &str| v1::GetVolumeStatusRequest { volume_id: volume_id.into() };
        let status = client.get_volume_status(ask("other")).await.expect_err("unknown");
        assert_eq!(status.code(), Code::NotFound);
        refused(&client.get_volume_status(ask("")).await.expect_err("empty"), "it is empty");
        let request = v1::CreatePredictiveSnapshotRequest {
            volume_id: id(),
            prediction_horizon: 0,
            name: "full".into(),
        };
        let status = client.create_predictive_snapshot(request).await.expect_err("full");
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "the capacity tier is full"));
        let request = v1::SyncSnapshotRequest { volume_id: id(), name: "none".into() };
        assert_eq!(client.sync_snapshot(request).await.expect_err("unknown").code(), Code::NotFound);
    });
}

#[test]
fn calls_that_wait_for_write_back_hold_nobody_up() {
    let rig = Rig::new(Limits { blocking_threads: 2, ..Limits::default() });
    run(async {
        rig.volume.held_up.store(true, std::sync::atomic::Ordering::SeqCst);
        rig.volume.seal(3, Some(&"slow".parse().expect("a name")));
        let waiting: Vec<_> = (0..30)
            .map(|number| {
                let client = rig.client();
                tokio::spawn(async move {
                    let mut client = client.await;
                    match number % 3 {
                        0 => {
                            let ask = v1::SyncSnapshotRequest { volume_id: id(), name: "slow".into() };
                            client.sync_snapshot(ask).await.map(|_| ())
                        }
                        1 => {
                            let ask = v1::DiffSnapshotsRequest { volume_id: id(), ..Default::default() };
                            client.diff_snapshots(ask).await.map(|_| ())
                        }
                        _ => {
                            let ask = v1::DeleteSnapshotRequest { volume_id: id(), name: "slow".into() };
                            client.delete_snapshot(ask).await.map(|_| ())
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let mut client = rig.client().await;
        for _ in 0..5 {
            let ask = v1::GetVolumeStatusRequest { volume_id: id() };
            client.get_volume_status(ask).await.expect("answered while others wait");
        }
        assert!(waiting.iter().all(|call| !call.is_finished()), "a call did not wait");
        let error =
            crate::control::WriteBack { epoch: forerun::geometry::Epoch(0), error: "no space".into() };
        rig.volume.written_back.send_replace(error);
        for call in waiting {
            let status = call.await.expect("ended").expect_err("write-back does not get on");
            assert_eq!(status.code(), Code::Unavailable);
            assert!(
                status.message().contains("epoch 1 is not written back: no space"),
                "{}",
                status.message()
            );
        }
    });
}

#[test]
fn a_report_out_of_bounds_is_refused_whole() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        let good = v1::ReportTrainerRequest { volume_id: id(), ..Default::default() };
        let score = v1::PredictorScore::default();
        let chain = v1::Chain::default();
        let bad = [
            v1::ReportTrainerRequest { predictors: vec![score.clone(); 65], ..good.clone() },
            v1::ReportTrainerRequest {
                predictors: vec![v1::PredictorScore { precision: f64::NAN, ..score }],
                ..good.clone()
            },
            v1::ReportTrainerRequest { chains: vec![chain.clone(); 10_001], ..good.clone() },
            v1::ReportTrainerRequest {
                chains: vec![v1::Chain { epochs: vec![1; 1_001], ..chain.clone() }],
                ..good.clone()
            },
            v1::ReportTrainerRequest {
                chains: vec![v1::Chain { similarity: 1.5, ..chain.clone() }],
                ..good.clone()
            },
            v1::ReportTrainerRequest {
                chains: vec![v1::Chain { pruned_below_similarity: -0.1, ..chain.clone() }],
                ..good.clone()
            },
            v1::ReportTrainerRequest {
                chains: vec![v1::Chain {
                    likeness: Some(v1::ChainLikeness { volume: f64::NAN, ..Default::default() }),
                    ..chain
                }],
                ..good.clone()
            },
            v1::ReportTrainerRequest { serving_reason: "x".repeat(5_000), ..good.clone() },
        ];
        for report in bad {
            assert_eq!(client.report_trainer(report).await.expect_err("bad").code(), Code::InvalidArgument);
        }
        assert!(rig.volume.reports.lock().expect("reports").is_empty());
        let huge = v1::ReportTrainerRequest { serving_reason: "x".repeat(5 << 20), ..good };
        assert!(client.report_trainer(huge).await.is_err(), "larger than any request may be");
    });
}

#[test]
fn noise_on_the_socket_leaves_the_server_as_it_was() {
    let rig = Rig::new(Limits::default());
    let mut open = Vec::new();
    for noise in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff", &[0; 70_000], b""]
    {
        let mut stream = UnixStream::connect(rig.server.path()).expect("connected");
        let _ = stream.write_all(noise);
        open.push(stream);
    }
    run(async {
        let request = v1::GetVolumeStatusRequest { volume_id: id() };
        rig.client().await.get_volume_status(request).await.expect("answers all the same");
    });
}

#[test]
fn half_open_connections_are_few_and_end() {
    let patience = std::time::Duration::from_millis(700);
    let rig = Rig::new(Limits { connections: 4, client_patience: patience, ..Limits::default() });
    let began = std::time::Instant::now();
    let open: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = UnixStream::connect(rig.server.path()).expect("connected");
            // Nothing, a part of the preface, or all of it and then silence.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            let len = [0, 5, preface.len()][number % 3];
            let _ = stream.write_all(&preface[..len]);
            stream
        })
        .collect();
    run(async {
        let request = v1::GetVolumeStatusRequest { volume_id: id() };
        let answer = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            rig.client().await.get_volume_status(request).await
        });
        answer.await.expect("its turn comes").expect("answers");
    });
    assert!(began.elapsed() >= patience, "it had to wait for a place");
    drop(open);
}

#[test]
fn a_second_server_is_refused_and_a_stop_does_not_wait_for_clients() {
    let rig = Rig::new(Limits::default());
    let second = ControlServer::start(rig.volume.clone(), rig.server.path(), Limits::default());
    assert!(second.err().expect("refused").to_string().contains("another target serves this volume"));
    let path = rig.server.path().to_owned();
    run(async {
        let mut client = rig.client().await;
        let request = v1::WatchChangeVectorsRequest { volume_id: id(), from_epoch: 1 };
        let mut stream = client.watch_change_vectors(request).await.expect("a stream").into_inner();
        let started = std::time::Instant::now();
        drop(rig.server);
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        assert!(!path.exists());
        assert!(!matches!(stream.message().await, Ok(Some(_))), "the stream ends");
    });
}
