//! Following the change vectors: in order, in pieces, resumed, and never at the engine's cost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forerun::api::v1;
use tonic::Code;

use super::{Limits, Rig, id, run};

fn from(epoch: u32) -> v1::WatchChangeVectorsRequest {
    v1::WatchChangeVectorsRequest { volume_id: id(), from_epoch: epoch }
}

#[test]
fn old_epochs_come_first_then_each_as_it_is_sealed() {
    let rig = Rig::new(Limits::default());
    run(async {
        let mut client = rig.client().await;
        for changed in [0, 3, 40_000] {
            rig.volume.seal(changed, Some(&format!("s{changed}").parse().expect("a name")));
        }
        let mut stream = client.watch_change_vectors(from(0)).await.expect("a stream").into_inner();
        for (epoch, changed, pieces) in [(1, 0, 1), (2, 3, 2), (3, 40_000, 4)] {
            let (mut blocks, mut reads, mut messages) = (Vec::new(), Vec::new(), 0);
            loop {
                let message = stream.message().await.expect("no error").expect("a message");
                assert_eq!(message.epoch, epoch);
                assert_eq!(message.snapshot, format!("s{changed}"));
                assert_eq!((message.opened_us, message.sealed_us, message.volume_blocks), (10, 20, 100_000));
                blocks.extend(message.changes.iter().map(|change| change.block));
                assert!(message.reads_known);
                reads.extend(message.read_blocks);
                messages += 1;
                if message.complete {
                    break;
                }
            }
            assert_eq!(blocks, (0..changed).collect::<Vec<_>>());
            assert_eq!(reads, (changed..2 * changed).collect::<Vec<_>>());
            assert_eq!(messages, pieces);
        }
        let live = tokio::time::timeout(Duration::from_millis(100), stream.message()).await;
        assert!(live.is_err(), "nothing to send yet");
        rig.volume.seal(1, None);
        let message = stream.message().await.expect("no error").expect("a message");
        assert_eq!((message.epoch, message.snapshot.as_str()), (4, ""));

        let mut resumed = client.watch_change_vectors(from(4)).await.expect("a stream").into_inner();
        assert_eq!(resumed.message().await.expect("no error").expect("a message").epoch, 4);
        let mut ahead = client.watch_change_vectors(from(u32::MAX)).await.expect("a stream").into_inner();
        let waits = tokio::time::timeout(Duration::from_millis(100), ahead.message()).await;
        assert!(waits.is_err(), "an epoch of the future is waited for");
    });
}

#[test]
fn a_follower_that_takes_nothing_is_sent_away_and_comes_back() {
    let limits = Limits { follower_patience: Duration::from_millis(300), followers: 1, ..Limits::default() };
    let rig = Rig::new(limits);
    run(async {
        let mut client = rig.client().await;
        for _ in 0..200 {
            rig.volume.seal(40_000, None);
        }
        let mut stream = client.watch_change_vectors(from(1)).await.expect("a stream").into_inner();
        let second = client.watch_change_vectors(from(1)).await.expect_err("one is the limit");
        assert_eq!(second.code(), Code::ResourceExhausted);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let read = rig.volume.vectors_read.load(Ordering::SeqCst);
        assert!(read < 100, "{read} vectors were read for a client that takes nothing");
        let mut last = 0;
        while let Some(message) = stream.message().await.expect("no error") {
            if message.complete {
                last = message.epoch;
            }
        }
        assert!(last < 200, "the stream ended early");
        let mut resumed = client.watch_change_vectors(from(last + 1)).await.expect("room again").into_inner();
        assert_eq!(resumed.message().await.expect("no error").expect("a message").epoch, last + 1);
    });
}

#[test]
fn a_follower_that_goes_away_leaves_room() {
    let rig = Rig::new(Limits { followers: 1, ..Limits::default() });
    run(async {
        for _ in 0..5 {
            let mut client = rig.client().await;
            let mut tries = 0;
            loop {
                match client.watch_change_vectors(from(1)).await {
                    Ok(stream) => break drop(stream),
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
                }
                tries += 1;
                assert!(tries < 100, "the one before still holds its place");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}
