//! The API's requests as `tests/fuzz` calls them: decoded from the wire, checked, and written again.
//!
//! Panics where a promise does not hold: what passes a check is within the range that the check names, and a
//! token or message that is read is written again as the same.

use forerun::api::v1;
use forerun::config::{SnapshotName, VolumeName};
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use prost::Message;

use super::check::{self, DIFF_PAGE, DiffToken, SNAPSHOT_PAGE, SnapshotToken};
use super::{convert, report};

/// The longest message that goes back to a client, in bytes.
const STATUS_BYTES_MAX: usize = 1_000;

/// A message, which once more through the wire is the same.
fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let once = message.encode_to_vec();
    // Compared as bytes: a NaN is not equal to itself.
    let twice = M::decode(once.as_slice()).map(|again| again.encode_to_vec());
    assert_eq!(twice.ok(), Some(once), "a message comes back as it was");
    Some(message)
}

fn refused<T>(result: &Result<T, tonic::Status>) -> bool {
    result.as_ref().err().is_some_and(|status| {
        assert!(status.message().len() <= STATUS_BYTES_MAX, "{} bytes of message", status.message().len());
        true
    })
}

fn volume(asked: &str) {
    let Ok(served) = VolumeName::new("data") else { panic!("a name") };
    let result = check::volume(asked, &served);
    assert_eq!(refused(&result), asked != "data");
}

fn snapshot(name: &str) {
    if let Ok(name) = check::snapshot(name) {
        assert!(!name.as_str().is_empty() && name.as_str().len() <= 63);
        assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'));
    }
}

fn tokens(text: &str) {
    let token = SnapshotToken::from_text(text);
    if !refused(&token)
        && let Ok(Some(token)) = token
    {
        assert_eq!(SnapshotToken::from_text(&token.to_text()).ok().flatten(), Some(token));
    }
    let token = DiffToken::from_text(text);
    if !refused(&token)
        && let Ok(Some(token)) = token
    {
        assert!(token.from.is_none_or(|from| from <= token.to));
        assert_eq!(DiffToken::from_text(&token.to_text()).ok().flatten(), Some(token));
    }
}

/// A request: its first byte says which, the rest is protobuf.
pub fn request(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 10 {
        0 => {
            let Some(request) = decoded::<v1::CreatePredictiveSnapshotRequest>(bytes) else { return };
            volume(&request.volume_id);
            snapshot(&request.name);
            if let Ok(horizon) = Horizon::new(request.prediction_horizon) {
                assert_eq!(horizon.epochs(), request.prediction_horizon);
            }
        }
        1 => {
            let Some(request) = decoded::<v1::AdjustPredictionThresholdRequest>(bytes) else { return };
            volume(&request.volume_id);
            if let Ok(threshold) = Threshold::new(request.threshold) {
                assert!(threshold.as_f64() > 0.0 && threshold.as_f64() <= 1.0);
            }
        }
        2 => {
            let Some(request) = decoded::<v1::ListSnapshotsRequest>(bytes) else { return };
            volume(&request.volume_id);
            tokens(&request.page_token);
            let size = SNAPSHOT_PAGE.size(request.page_size);
            assert!(refused(&size) || size.is_ok_and(|size| (1..=10_000).contains(&size)));
        }
        3 => {
            let Some(request) = decoded::<v1::DiffSnapshotsRequest>(bytes) else { return };
            volume(&request.volume_id);
            tokens(&request.page_token);
            snapshot(&request.from);
            snapshot(&request.to);
            let size = DIFF_PAGE.size(request.page_size);
            assert!(refused(&size) || size.is_ok_and(|size| (1..=100_000).contains(&size)));
        }
        4 => {
            let Some(request) = decoded::<v1::ReportTrainerRequest>(bytes) else { return };
            volume(&request.volume_id);
            let (chains, predictors) = (request.chains.len(), request.predictors.len());
            let checked = report::check(request, 1);
            if !refused(&checked)
                && let Ok(report) = checked
            {
                assert_eq!((report.chains.len(), report.predictors.len()), (chains, predictors));
                assert!(report.predictors.iter().all(|score| (0.0..=1.0).contains(&score.precision)));
                let chains: Vec<v1::Chain> = report.chains.iter().map(convert::chain).collect();
                assert!(chains.iter().all(|chain| chain.epochs.len() <= 1_000));
            }
        }
        5 => {
            let Some(request) = decoded::<v1::WatchChangeVectorsRequest>(bytes) else { return };
            volume(&request.volume_id);
            assert!(Epoch(request.from_epoch).max(Epoch::FIRST) >= Epoch::FIRST);
        }
        6 => {
            let Some(request) = decoded::<v1::DeleteSnapshotRequest>(bytes) else { return };
            volume(&request.volume_id);
            snapshot(&request.name);
        }
        7 => {
            let Some(request) = decoded::<v1::SyncSnapshotRequest>(bytes) else { return };
            volume(&request.volume_id);
            snapshot(&request.name);
        }
        8 => {
            // What a client reads: the target is as little to be trusted with lengths.
            decoded::<v1::WatchChangeVectorsResponse>(bytes);
            decoded::<v1::GetVolumeStatusResponse>(bytes);
            decoded::<v1::GetPrefetchStatusResponse>(bytes);
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                tokens(text);
                volume(text);
                snapshot(text);
            }
        }
    }
}

/// What clients send, for the seeds.
///
/// # Panics
/// Where a name here is none.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let id = || "data".to_owned();
    let Ok(name) = SnapshotName::new("monday") else { panic!("a name") };
    let snapshots = SnapshotToken { epoch: Epoch(3), name };
    let diff = DiffToken { from: Some(Epoch(1)), to: Epoch(3), block: BlockIndex(77) };
    let score = v1::PredictorScore {
        name: "lstm".to_owned(),
        mean_average_precision: 0.5,
        precision: 0.25,
        recall: 1.0,
        epochs: 9,
    };
    let chain = v1::Chain { id: 1, epochs: vec![1, 2, 300], similarity: 0.75, ..Default::default() };
    let messages = [
        v1::CreatePredictiveSnapshotRequest {
            volume_id: id(),
            prediction_horizon: 3,
            name: "monday".to_owned(),
        }
        .encode_to_vec(),
        v1::AdjustPredictionThresholdRequest { volume_id: id(), threshold: 0.7 }.encode_to_vec(),
        v1::ListSnapshotsRequest { volume_id: id(), page_size: 10, page_token: snapshots.to_text() }
            .encode_to_vec(),
        v1::DiffSnapshotsRequest {
            volume_id: id(),
            from: "monday".to_owned(),
            to: "tuesday".to_owned(),
            page_size: 100,
            page_token: diff.to_text(),
        }
        .encode_to_vec(),
        v1::ReportTrainerRequest {
            volume_id: id(),
            predictors: vec![score],
            chains: vec![chain],
            serving_predictor: "lstm".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        v1::WatchChangeVectorsRequest { volume_id: id(), from_epoch: 4 }.encode_to_vec(),
        v1::DeleteSnapshotRequest { volume_id: id(), name: "monday".to_owned() }.encode_to_vec(),
        v1::SyncSnapshotRequest { volume_id: id(), name: "monday".to_owned() }.encode_to_vec(),
        v1::WatchChangeVectorsResponse { epoch: 3, complete: true, volume_uuid: id(), ..Default::default() }
            .encode_to_vec(),
        diff.to_text().into_bytes(),
    ];
    (0..).zip(messages).map(|(which, message)| ("request", [&[which][..], &message].concat())).collect()
}
