//! A volume's API with answers that do not change, on a socket where `forerun` looks for it.

use std::os::unix::net::UnixListener;

use forerun::api::v1::forerun_server::{Forerun, ForerunServer};
use forerun::api::v1::*;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::rig::Rig;

/// Changes in the fake diff; three pages of them.
pub const CHANGES: u32 = 25;
const PAGE: u32 = 10;
/// Epochs before it are sealed.
const OPEN_EPOCH: u32 = 43;

struct FakeServer;

type Answer<T> = Result<Response<T>, Status>;

/// Serves volume `name` until the test ends.
pub fn serve(rig: &Rig, name: &str) {
    rig.configure(name);
    let files = rig.volume(name);
    std::fs::create_dir_all(files.run_dir()).unwrap();
    let listener = UnixListener::bind(files.api_socket()).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let server = tonic::transport::Server::builder().add_service(ForerunServer::new(FakeServer));
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
    });
}

fn snapshot(name: &str, epoch: u32) -> Snapshot {
    Snapshot {
        name: name.into(),
        epoch,
        created_us: 1_795_427_100_000_000 + u64::from(epoch) * 60_000_000,
        data_bytes: u64::from(epoch) << 28,
        added_blocks: 1_200,
        modified_blocks: 34,
        deleted_blocks: 5,
        change_bytes_per_second: 123_456.7,
        on_capacity_tier: epoch < 3,
    }
}

/// Of volume `old`.
const OLD_SNAPSHOTS: u32 = 60;

/// One each two hours; one of them has a name.
fn old_snapshot(number: u32) -> Snapshot {
    let name = if number == 4 { "before-the-update".to_owned() } else { format!("auto-{number}") };
    Snapshot {
        created_us: 1_795_427_100_000_000 + u64::from(number) * 7_200_000_000,
        ..snapshot(&name, number + 1)
    }
}

#[tonic::async_trait]
impl Forerun for FakeServer {
    async fn create_predictive_snapshot(
        &self,
        request: Request<CreatePredictiveSnapshotRequest>,
    ) -> Answer<CreatePredictiveSnapshotResponse> {
        let request = request.into_inner();
        if request.prediction_horizon > 64 {
            return Err(Status::invalid_argument(
                "the prediction horizon is 65 epochs; the range is 1 to 64",
            ));
        }
        let name = if request.name.is_empty() { "auto-20261123-094500" } else { &request.name };
        Ok(Response::new(CreatePredictiveSnapshotResponse {
            snapshot: Some(snapshot(name, 3)),
            created: name != "there",
            prediction_horizon: request.prediction_horizon.max(1),
            predictions_above_threshold: 1_234,
        }))
    }

    async fn get_prefetch_status(
        &self,
        _: Request<GetPrefetchStatusRequest>,
    ) -> Answer<GetPrefetchStatusResponse> {
        Ok(Response::new(GetPrefetchStatusResponse {
            threshold: 0.5,
            prediction_horizon: 1,
            state: "on".into(),
            ..Default::default()
        }))
    }

    async fn adjust_prediction_threshold(
        &self,
        request: Request<AdjustPredictionThresholdRequest>,
    ) -> Answer<AdjustPredictionThresholdResponse> {
        let threshold = request.into_inner().threshold;
        if !(0.05..=1.0).contains(&threshold) {
            let message = format!("the prediction threshold is {threshold}; the range is 0.05 to 1");
            return Err(Status::invalid_argument(message));
        }
        Ok(Response::new(AdjustPredictionThresholdResponse { previous_threshold: 0.5, threshold }))
    }

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Answer<CollectGarbageResponse> {
        let request = request.into_inner();
        if request.volume_id == "empty" {
            return Ok(Response::new(CollectGarbageResponse::default()));
        }
        let before = CollectGarbageResponse {
            segment_bytes: 10 << 30,
            live_bytes: 7 << 30,
            queued_objects: 12,
            queued_bytes: 96 << 20,
            pinned_bytes: 8 << 20,
            compacted_segments: 9,
            copied_bytes: 30 << 20,
            gained_bytes: 42 << 20,
            merged_layers: 4,
            ..CollectGarbageResponse::default()
        };
        Ok(Response::new(match request.dry_run {
            true => before,
            false => CollectGarbageResponse {
                layers_merged: 4,
                segments_compacted: 60,
                deleted_objects: 12,
                deleted_bytes: 96 << 20,
                ..before
            },
        }))
    }

    async fn grow_volume(&self, request: Request<GrowVolumeRequest>) -> Answer<GrowVolumeResponse> {
        let request = request.into_inner();
        match request.volume_id.as_str() {
            "old" => Err(Status::failed_precondition("volume old cannot grow while its device is there")),
            _ if request.size_bytes < 1 << 30 => Err(Status::invalid_argument("a volume does not shrink")),
            _ => Ok(Response::new(GrowVolumeResponse {
                previous_size_bytes: 1 << 30,
                size_bytes: request.size_bytes,
            })),
        }
    }

    async fn grow_fast_tier(&self, request: Request<GrowFastTierRequest>) -> Answer<GrowFastTierResponse> {
        let request = request.into_inner();
        let size_bytes = match (request.size_bytes, request.more_bytes) {
            (0, 0) => 4 << 30,
            (size, 0) => size,
            (_, more) => (1 << 30) + more,
        };
        if size_bytes < 1 << 30 {
            return Err(Status::invalid_argument("a fast tier does not shrink"));
        }
        let block_bytes = size_bytes - (64 << 20);
        Ok(Response::new(GrowFastTierResponse { previous_size_bytes: 1 << 30, size_bytes, block_bytes }))
    }

    async fn get_volume_status(
        &self,
        request: Request<GetVolumeStatusRequest>,
    ) -> Answer<GetVolumeStatusResponse> {
        Ok(Response::new(GetVolumeStatusResponse {
            volume_id: request.into_inner().volume_id,
            device: "/dev/ublkb7".into(),
            health: "healthy".into(),
            size_bytes: 1 << 30,
            open_epoch: OPEN_EPOCH,
            ..Default::default()
        }))
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let request = request.into_inner();
        let (snapshots, next_page_token) = match (request.volume_id.as_str(), request.page_token.as_str()) {
            ("empty", _) => (Vec::new(), String::new()),
            ("old", _) => ((0..OLD_SNAPSHOTS).map(old_snapshot).collect(), String::new()),
            (_, "") => (vec![snapshot("monday", 1), snapshot("tuesday", 2)], "2".into()),
            _ => (vec![snapshot("auto-20261123-094800", 3)], String::new()),
        };
        let clone = ClonedVolume {
            uuid: "00000000-0000-0000-0000-000000000009".into(),
            name: "try".into(),
            address: "/srv/try".into(),
            epoch: 2,
            created_us: 1_795_427_400_000_000,
        };
        let clones = if request.volume_id == "cloned" { vec![clone] } else { Vec::new() };
        Ok(Response::new(ListSnapshotsResponse { snapshots, next_page_token, clones }))
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Answer<PromoteResponse> {
        let origin = Origin {
            uuid: "00000000-0000-0000-0000-000000000007".into(),
            address: "/srv/data".into(),
            shared_bytes: 3 << 30,
            promoting: true,
        };
        let origins = if request.into_inner().volume_id == "empty" { Vec::new() } else { vec![origin] };
        Ok(Response::new(PromoteResponse { origins }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        match request.into_inner().name.as_str() {
            "monday" => Ok(Response::new(DeleteSnapshotResponse {})),
            "auto-9" => Err(Status::failed_precondition("volume old: snapshot auto-9 is attached")),
            name if name.starts_with("auto-") => Ok(Response::new(DeleteSnapshotResponse {})),
            name => Err(Status::not_found(format!("volume data has no snapshot {name}"))),
        }
    }

    async fn diff_snapshots(&self, request: Request<DiffSnapshotsRequest>) -> Answer<DiffSnapshotsResponse> {
        let request = request.into_inner();
        if request.from == request.to && !request.to.is_empty() {
            return Ok(Response::new(DiffSnapshotsResponse::default()));
        }
        let first: u32 = request.page_token.parse().unwrap_or(0);
        let end = (first + PAGE).min(CHANGES);
        let changes = (first..end)
            .map(|block| BlockChange {
                block: block * 3,
                kind: (block % 3 + 1) as i32,
                sub_blocks: block % 16 + 1,
            })
            .collect();
        let next_page_token = if end < CHANGES { end.to_string() } else { String::new() };
        Ok(Response::new(DiffSnapshotsResponse { changes, next_page_token }))
    }

    async fn sync_snapshot(&self, request: Request<SyncSnapshotRequest>) -> Answer<SyncSnapshotResponse> {
        match request.into_inner().name.as_str() {
            "monday" => Ok(Response::new(SyncSnapshotResponse { snapshot: Some(snapshot("monday", 1)) })),
            name => Err(Status::not_found(format!("volume data has no snapshot {name}"))),
        }
    }

    type WatchChangeVectorsStream = ReceiverStream<Result<WatchChangeVectorsResponse, Status>>;

    async fn watch_change_vectors(
        &self,
        request: Request<WatchChangeVectorsRequest>,
    ) -> Answer<Self::WatchChangeVectorsStream> {
        let WatchChangeVectorsRequest { volume_id, from_epoch: first } = request.into_inner();
        // The newest ones are not there yet.
        let end = if volume_id == "late" { OPEN_EPOCH - 3 } else { OPEN_EPOCH };
        let (pieces, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            // In two pieces each; then the stream waits for more, as the target's does.
            for (epoch, half) in (first..end).flat_map(|epoch| [(epoch, 0), (epoch, 1)]) {
                let change =
                    |n: u32| BlockChange { block: 500 * half + 20 * n, kind: 1 + half as i32, sub_blocks: 1 };
                let opened_us = 1_795_427_100_000_000 + u64::from(epoch) * 60_000_000;
                let piece = WatchChangeVectorsResponse {
                    epoch,
                    opened_us,
                    sealed_us: opened_us + 60_000_000,
                    changes: (0..5).map(change).collect(),
                    complete: half == 1,
                    ..Default::default()
                };
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
            pieces.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_trainer(&self, _: Request<ReportTrainerRequest>) -> Answer<ReportTrainerResponse> {
        Err(Status::unimplemented("not for the command line"))
    }

    async fn list_chains(&self, request: Request<ListChainsRequest>) -> Answer<ListChainsResponse> {
        if request.into_inner().volume_id == "empty" {
            return Ok(Response::new(ListChainsResponse::default()));
        }
        let chain = Chain {
            id: 1,
            epochs: vec![1, 2, 3, 5, 8, 13],
            first_us: 1_795_427_100_000_000,
            last_us: 1_795_430_700_000_000,
            similarity: 0.87,
            mean_changed_blocks: 160,
            pruned_by_age: 2,
            pruned_by_divergence: 1,
            likeness: Some(ChainLikeness {
                blocks: 0.8,
                regions: 0.9,
                run_lengths: 0.85,
                kinds: 1.0,
                volume: 0.9,
            }),
            pruned_by_number: 3,
            linked_from_similarity: 0.6,
            pruned_below_similarity: 0.3,
            pruned_after_hours: 840,
            pruned_above_epochs: 1000,
        };
        let single = Chain {
            id: 4,
            epochs: vec![9],
            first_us: 1_795_428_300_000_000,
            last_us: 1_795_428_300_000_000,
            similarity: 1.0,
            mean_changed_blocks: 12_000,
            ..Chain::default()
        };
        Ok(Response::new(ListChainsResponse {
            chains: vec![chain, single],
            reported_us: 1_795_430_700_000_000,
        }))
    }
}
