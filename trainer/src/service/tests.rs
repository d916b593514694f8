//! End to end in one process: a target that serves the API's trait on a unix socket, and the service against it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forerun::api::v1::forerun_server::{Forerun, ForerunServer};
use forerun::api::v1::*;
use forerun::prediction::PredictedKind;
use forerun::prediction_table::{Table, TableReader};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::*;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const BLOCKS: u32 = 16_384;
type Answer<T> = std::result::Result<Response<T>, Status>;

/// What outlives a restart of the fake target, and what the test looks at.
#[derive(Clone)]
struct Target {
    epochs: Arc<Mutex<Vec<WatchChangeVectorsResponse>>>,
    news: broadcast::Sender<WatchChangeVectorsResponse>,
    asked_from: Arc<Mutex<Vec<u32>>>,
    reports: Arc<Mutex<Vec<ReportTrainerRequest>>>,
}

impl Target {
    fn new() -> Self {
        Self {
            epochs: Arc::default(),
            news: broadcast::channel(64).0,
            asked_from: Arc::default(),
            reports: Arc::default(),
        }
    }

    /// Seals the next epoch: hot blocks, and a log that grows.
    fn seal(&self) {
        let mut epochs = self.epochs.lock().expect("not poisoned");
        let epoch = epochs.len() as u32 + 1;
        let hot = (0..20).map(|at| at * 100);
        let log = 8000 + epoch * 5..=8000 + epoch * 5 + 5;
        let change = |block| BlockChange { block, kind: 2, sub_blocks: 3 };
        let message = WatchChangeVectorsResponse {
            epoch,
            opened_us: u64::from(epoch) * 10_000_000,
            sealed_us: u64::from(epoch + 1) * 10_000_000,
            changes: hot.chain(log).map(change).collect(),
            read_blocks: (0..30).map(|at| 10_001 + at * 7).collect(),
            reads_known: true,
            complete: true,
            prediction_horizon: 1,
            volume_blocks: BLOCKS,
            volume_uuid: UUID.to_owned(),
            ..Default::default()
        };
        epochs.push(message.clone());
        let _ = self.news.send(message);
    }

    /// Serves on a thread and a runtime of its own, whose end cuts all connections as a kill does.
    fn serve(&self, socket: &Path) -> Serving {
        let _ = std::fs::remove_file(socket);
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("bound");
        listener.set_nonblocking(true).expect("set");
        let server = ForerunServer::new(self.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let incoming = UnixListenerStream::new(UnixListener::from_std(listener).expect("a listener"));
                let server = tonic::transport::Server::builder().add_service(server);
                tokio::select! {
                    _ = server.serve_with_incoming(incoming) => {}
                    _ = stopped => {}
                }
            });
        });
        Serving { stop, thread }
    }

    fn last_report(&self) -> Option<ReportTrainerRequest> {
        self.reports.lock().expect("not poisoned").last().cloned()
    }
}

struct Serving {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Serving {
    fn kill(self) {
        drop(self.stop);
        self.thread.join().expect("no panic");
    }
}

/// What `async_trait` makes of a method; it does not look into macros.
type Later<'a, T> = Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>;

macro_rules! not_served {
    ($($name:ident: $request:ty => $response:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(&'life0 self, _: Request<$request>) -> Later<'async_trait, $response>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        })*
    };
}

#[tonic::async_trait]
impl Forerun for Target {
    async fn get_volume_status(&self, _: Request<GetVolumeStatusRequest>) -> Answer<GetVolumeStatusResponse> {
        Ok(Response::new(GetVolumeStatusResponse {
            uuid: UUID.to_owned(),
            size_bytes: u64::from(BLOCKS) * BLOCK_BYTES,
            ..Default::default()
        }))
    }

    async fn get_prefetch_status(
        &self,
        _: Request<GetPrefetchStatusRequest>,
    ) -> Answer<GetPrefetchStatusResponse> {
        Ok(Response::new(GetPrefetchStatusResponse { prediction_horizon: 1, ..Default::default() }))
    }

    type WatchChangeVectorsStream = Pin<
        Box<dyn tokio_stream::Stream<Item = std::result::Result<WatchChangeVectorsResponse, Status>> + Send>,
    >;

    async fn watch_change_vectors(
        &self,
        request: Request<WatchChangeVectorsRequest>,
    ) -> Answer<Self::WatchChangeVectorsStream> {
        let from = request.into_inner().from_epoch;
        self.asked_from.lock().expect("not poisoned").push(from);
        let mut news = self.news.subscribe();
        let old: Vec<_> = self.epochs.lock().expect("not poisoned").iter().cloned().collect();
        let (send, receive) = mpsc::channel(8);
        tokio::spawn(async move {
            for message in old.into_iter().filter(|message| message.epoch >= from) {
                if send.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            while let Ok(message) = news.recv().await {
                if send.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn report_trainer(&self, request: Request<ReportTrainerRequest>) -> Answer<ReportTrainerResponse> {
        self.reports.lock().expect("not poisoned").push(request.into_inner());
        Ok(Response::new(ReportTrainerResponse {}))
    }

    not_served! {
        create_predictive_snapshot: CreatePredictiveSnapshotRequest => CreatePredictiveSnapshotResponse;
        adjust_prediction_threshold: AdjustPredictionThresholdRequest => AdjustPredictionThresholdResponse;
        collect_garbage: CollectGarbageRequest => CollectGarbageResponse;
        grow_volume: GrowVolumeRequest => GrowVolumeResponse;
        grow_fast_tier: GrowFastTierRequest => GrowFastTierResponse;
        list_snapshots: ListSnapshotsRequest => ListSnapshotsResponse;
        delete_snapshot: DeleteSnapshotRequest => DeleteSnapshotResponse;
        diff_snapshots: DiffSnapshotsRequest => DiffSnapshotsResponse;
        sync_snapshot: SyncSnapshotRequest => SyncSnapshotResponse;
        list_chains: ListChainsRequest => ListChainsResponse;
        promote: PromoteRequest => PromoteResponse;
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    target: Target,
    stop: Option<oneshot::Sender<()>>,
    service: Option<tokio::task::JoinHandle<Result<()>>>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { dir, target: Target::new(), stop: None, service: None }
    }

    fn paths(&self) -> Paths {
        let at = |name: &str| self.dir.path().join(name);
        Paths { socket: at("api.sock"), table: at("predictions"), state_dir: at("state") }
    }

    fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let paths = self.paths();
        self.stop = Some(stop);
        self.service = Some(tokio::spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            run("test", paths, Config::default(), stopped).await
        }));
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(service) = self.service.take() {
            service.await.expect("no panic").expect("a clean end");
        }
    }

    /// Waits until the trainer has reported an epoch, and gives the table that it published.
    async fn table_after(&self, epoch: u32) -> Table {
        let started = Instant::now();
        loop {
            if self.target.last_report().is_some_and(|report| report.epoch == epoch) {
                let uuid = assemble::parse_uuid(UUID).expect("a uuid");
                let mut reader = TableReader::new(&self.paths().table);
                let table = reader.read(uuid, BLOCKS).expect("sound").expect("published");
                // It reports first, and publishes then.
                if table.info.epoch.0 == epoch {
                    return table;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(60), "nothing reported of epoch {epoch}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn from_change_vectors_to_predictions_through_restarts_of_both() {
    let mut at = Fixture::new();
    at.start();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let server = at.target.serve(&at.paths().socket);
    for epoch in 1..=5 {
        at.target.seal();
        at.table_after(epoch).await;
    }
    let table = at.table_after(5).await;
    let expected = |block: u32| {
        let found = table.predictions.iter().find(|prediction| prediction.block.0 == block);
        found.map_or(0.0, |prediction| prediction.probability.get())
    };
    assert!(expected(300) > 0.5, "a hot block: {}", expected(300));
    assert!(expected(8000 + 27) > expected(8000 + 60), "the log's continuation");
    let read = table.predictions.iter().find(|prediction| prediction.block.0 == 10_001 + 70);
    let read = read.expect("a block that is read in each epoch");
    assert!(read.probability.get() > 0.5 && read.kind == PredictedKind::Read, "{read:?}");
    assert!(
        table
            .predictions
            .iter()
            .all(|prediction| prediction.block.0 < 10_000 || prediction.kind == PredictedKind::Read)
    );
    let report = at.target.last_report().expect("reported");
    assert!(report.pays && report.serving_reason.contains("; reads: "), "{report:?}");
    assert_eq!(report.chains.first().map(|chain| chain.epochs.len()), Some(5));
    assert_eq!(report.predictors.len(), crate::predictors::PREDICTORS);

    // The target goes away and comes back; what was sealed in between is asked for.
    server.kill();
    at.target.seal();
    let server = at.target.serve(&at.paths().socket);
    at.target.seal();
    at.table_after(7).await;
    assert_eq!(at.target.asked_from.lock().expect("not poisoned").last(), Some(&6));

    // The trainer goes away and comes back, and knows what it knew.
    at.stop().await;
    at.target.seal();
    at.start();
    at.table_after(8).await;
    assert_eq!(at.target.asked_from.lock().expect("not poisoned").last(), Some(&8));
    let tally = at.target.last_report().expect("reported").predictors[0].epochs;
    assert!(tally >= 6, "scores survive: {tally} epochs");

    // Its history is lost: it is rebuilt from the target; that of reads is still there.
    at.stop().await;
    assert!(at.paths().state_dir.join("read-history").is_dir());
    std::fs::remove_dir_all(at.paths().state_dir.join("history")).expect("removed");
    at.target.seal();
    at.start();
    at.table_after(9).await;
    assert_eq!(at.target.asked_from.lock().expect("not poisoned").last(), Some(&1));
    at.stop().await;
    server.kill();
}

#[tokio::test]
async fn there_is_one_trainer_a_volume() {
    let at = Fixture::new();
    let _held = lock(&at.paths().state_dir).expect("first");
    let error = run("test", at.paths(), Config::default(), async {}).await.expect_err("second");
    assert!(error.to_string().contains("another trainer"), "{error}");
}
