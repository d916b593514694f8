//! The calls of the schema: check, ask the engine on a thread that may block, convert the answer.

use std::sync::{Arc, Mutex, PoisonError};

use forerun::api::v1::forerun_server::Forerun;
use forerun::api::v1::{
    AdjustPredictionThresholdRequest, AdjustPredictionThresholdResponse, CollectGarbageRequest,
    CollectGarbageResponse, CreatePredictiveSnapshotRequest, CreatePredictiveSnapshotResponse,
    DeleteSnapshotRequest, DeleteSnapshotResponse, DiffSnapshotsRequest, DiffSnapshotsResponse,
    GetPrefetchStatusRequest, GetPrefetchStatusResponse, GetVolumeStatusRequest, GetVolumeStatusResponse,
    GrowFastTierRequest, GrowFastTierResponse, GrowVolumeRequest, GrowVolumeResponse, ListChainsRequest,
    ListChainsResponse, ListSnapshotsRequest, ListSnapshotsResponse, PromoteRequest, PromoteResponse,
    ReportTrainerRequest, ReportTrainerResponse, SyncSnapshotRequest, SyncSnapshotResponse,
    WatchChangeVectorsRequest,
};
use forerun::config::SnapshotName;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use forerun::utc::{Utc, now_us};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::check::{self, DIFF_PAGE, DiffToken, SNAPSHOT_PAGE, SnapshotToken, failed, refused};
use super::follow::{Follower, MESSAGES_WAITING_MAX, Message};
use super::plane::{ControlError, ControlPlane, CreatedSnapshot, Deletion, FastGrowth, Snapshot, WriteBack};
use super::server::{Limits, until_stopped};
use super::status::TrainerReport;
use super::{convert, report};
use crate::background::Collected;

/// How many names are tried for a snapshot that is named after the time.
const TIME_NAMES_TRIED_MAX: u32 = 100;

type Answer<T> = Result<Response<T>, Status>;

/// The server's state: the volume, and what the trainer last said.
pub(super) struct Service {
    plane: Arc<dyn ControlPlane>,
    report: Mutex<Option<Arc<TrainerReport>>>,
    limits: Limits,
    followers: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(plane: Arc<dyn ControlPlane>, limits: Limits, stopped: watch::Receiver<bool>) -> Self {
        Self {
            plane,
            report: Mutex::new(None),
            limits,
            followers: Arc::new(Semaphore::new(limits.followers)),
            stopped,
        }
    }

    /// Asks the engine where blocking hurts nobody.
    async fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn ControlPlane) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Status> {
        let plane = Arc::clone(&self.plane);
        tokio::task::spawn_blocking(move || operation(plane.as_ref()))
            .await
            .map_err(|error| Status::internal(format!("the engine failed: {error}")))?
            .map_err(failed)
    }

    fn check_volume(&self, volume_id: &str) -> Result<(), Status> {
        check::volume(volume_id, self.plane.volume())
    }

    /// The trainer's last report. A panic elsewhere cannot leave it half-written: it is replaced whole.
    fn last_report(&self) -> Option<Arc<TrainerReport>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A snapshot.
    async fn find(&self, name: &SnapshotName) -> Result<Snapshot, Status> {
        let name = name.clone();
        self.ask(move |plane| {
            let found = plane.snapshots()?.into_iter().find(|snapshot| snapshot.name == name);
            found.ok_or_else(|| ControlError::no_snapshot(plane.volume(), &name))
        })
        .await
    }

    /// The epoch of a snapshot.
    async fn epoch_of(&self, name: &str) -> Result<Epoch, Status> {
        self.find(&check::snapshot(name)?).await.map(|snapshot| snapshot.epoch)
    }

    /// Waits until an epoch is on the capacity tier: without a thread, and no longer than whoever called waits.
    async fn written_back(&self, epoch: Epoch) -> Result<(), Status> {
        let mut progress = self.plane.write_back();
        loop {
            let WriteBack { epoch: written_back, error } = progress.borrow_and_update().clone();
            let volume = self.plane.volume();
            let unavailable = |why: &str| {
                Err(Status::unavailable(format!("volume {volume}: epoch {epoch} is not written back: {why}")))
            };
            if written_back >= epoch {
                return Ok(());
            }
            if !error.is_empty() {
                return unavailable(&error);
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return unavailable("it is being closed") },
                () = until_stopped(self.stopped.clone()) => return unavailable("it is being closed"),
            }
        }
    }

    /// Where a page of a diff begins: what the token says, provided that it is of the diff asked for.
    async fn diff_page(&self, request: &DiffSnapshotsRequest) -> Result<DiffToken, Status> {
        let token = DiffToken::from_text(&request.page_token)?;
        let from = if request.from.is_empty() { None } else { Some(self.epoch_of(&request.from).await?) };
        let to = if request.to.is_empty() {
            token.map_or_else(|| *self.plane.sealed().borrow(), |token| token.to)
        } else {
            self.epoch_of(&request.to).await?
        };
        if from.is_some_and(|from| from > to) {
            let (from, to) =
                (&request.from, if request.to.is_empty() { "the newest epoch" } else { &request.to });
            return Err(refused(format!("{from} is newer than {to}; the older snapshot comes first")));
        }
        match token {
            None => Ok(DiffToken { from, to, block: BlockIndex(0) }),
            Some(token) if token.from == from && token.to == to => Ok(token),
            Some(_) => Err(refused("page_token belongs to another diff; begin again with an empty one")),
        }
    }
}

/// Creates a snapshot named after the time; a name that is taken gets a number.
fn create_named_after_time(
    plane: &dyn ControlPlane,
    time_us: u64,
    horizon: Option<Horizon>,
) -> Result<CreatedSnapshot, ControlError> {
    let base = format!("auto-{}", Utc::from_us(time_us).compact());
    let mut last = None;
    for number in 1..=TIME_NAMES_TRIED_MAX {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        let name = SnapshotName::new(name)
            .map_err(|error| ControlError::new(super::ErrorKind::Internal, error.to_string()))?;
        let created = plane.create_snapshot(&name, horizon)?;
        if created.created {
            return Ok(created);
        }
        last = Some(created);
    }
    // A hundred snapshots in one second: the newest of them will do.
    last.ok_or_else(|| ControlError::new(super::ErrorKind::Internal, "no name was tried"))
}

/// One page of the snapshots, oldest first, and the token of the next.
fn snapshot_page(
    mut snapshots: Vec<Snapshot>,
    after: Option<&SnapshotToken>,
    size: usize,
) -> ListSnapshotsResponse {
    let key = |snapshot: &Snapshot| SnapshotToken { epoch: snapshot.epoch, name: snapshot.name.clone() };
    snapshots.retain(|snapshot| after.is_none_or(|after| key(snapshot) > *after));
    snapshots.sort_by_cached_key(key);
    let more = snapshots.len() > size;
    snapshots.truncate(size);
    let next_page_token =
        snapshots.last().filter(|_| more).map(|last| key(last).to_text()).unwrap_or_default();
    ListSnapshotsResponse {
        snapshots: snapshots.into_iter().map(convert::snapshot).collect(),
        next_page_token,
        clones: Vec::new(),
    }
}

#[tonic::async_trait]
impl Forerun for Service {
    async fn create_predictive_snapshot(
        &self,
        request: Request<CreatePredictiveSnapshotRequest>,
    ) -> Answer<CreatePredictiveSnapshotResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let horizon = match request.prediction_horizon {
            0 => None,
            epochs => Some(Horizon::new(epochs).map_err(refused)?),
        };
        let name = if request.name.is_empty() { None } else { Some(check::snapshot(&request.name)?) };
        let created = self
            .ask(move |plane| match name {
                Some(name) => plane.create_snapshot(&name, horizon),
                None => create_named_after_time(plane, now_us(), horizon),
            })
            .await?;
        Ok(Response::new(convert::created(created)))
    }

    async fn get_prefetch_status(
        &self,
        request: Request<GetPrefetchStatusRequest>,
    ) -> Answer<GetPrefetchStatusResponse> {
        self.check_volume(&request.into_inner().volume_id)?;
        let status = self.ask(|plane| plane.prefetch_status()).await?;
        Ok(Response::new(convert::prefetch_status(status, self.last_report().as_deref())))
    }

    async fn adjust_prediction_threshold(
        &self,
        request: Request<AdjustPredictionThresholdRequest>,
    ) -> Answer<AdjustPredictionThresholdResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let threshold = Threshold::new(request.threshold).map_err(refused)?;
        let previous = self.ask(move |plane| plane.set_threshold(threshold)).await?;
        Ok(Response::new(AdjustPredictionThresholdResponse {
            previous_threshold: previous.as_f64(),
            threshold: threshold.as_f64(),
        }))
    }

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Answer<CollectGarbageResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let (before, collected) = self
            .ask(move |plane| match request.dry_run {
                true => plane.garbage().map(|garbage| (garbage, Collected::default())),
                false => plane.collect_garbage(),
            })
            .await?;
        Ok(Response::new(convert::garbage(before, collected)))
    }

    async fn grow_volume(&self, request: Request<GrowVolumeRequest>) -> Answer<GrowVolumeResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let grown = self.ask(move |plane| plane.grow(request.size_bytes)).await?;
        Ok(Response::new(GrowVolumeResponse {
            previous_size_bytes: grown.previous_size_bytes,
            size_bytes: grown.size_bytes,
        }))
    }

    async fn grow_fast_tier(&self, request: Request<GrowFastTierRequest>) -> Answer<GrowFastTierResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let growth = match (request.size_bytes, request.more_bytes) {
            (0, 0) => FastGrowth::All,
            (size, 0) => FastGrowth::To(size),
            (0, more) => FastGrowth::By(more),
            _ => {
                let text = "size_bytes and more_bytes are both given: one of them says how large the fast tier is to be";
                return Err(Status::invalid_argument(text));
            }
        };
        let grown = self.ask(move |plane| plane.grow_fast(growth)).await?;
        Ok(Response::new(GrowFastTierResponse {
            previous_size_bytes: grown.previous_size_bytes,
            size_bytes: grown.size_bytes,
            block_bytes: grown.block_bytes,
        }))
    }

    async fn get_volume_status(
        &self,
        request: Request<GetVolumeStatusRequest>,
    ) -> Answer<GetVolumeStatusResponse> {
        self.check_volume(&request.into_inner().volume_id)?;
        let status = self.ask(|plane| plane.volume_status()).await?;
        Ok(Response::new(convert::volume_status(self.plane.volume(), self.plane.uuid(), status)))
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let size = SNAPSHOT_PAGE.size(request.page_size)?;
        let after = SnapshotToken::from_text(&request.page_token)?;
        let snapshots = self.ask(|plane| plane.snapshots()).await?;
        let clones = self.ask(|plane| plane.clones()).await?;
        let clones = clones.into_iter().map(convert::clone_info).collect();
        let page = snapshot_page(snapshots, after.as_ref(), size);
        Ok(Response::new(ListSnapshotsResponse { clones, ..page }))
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Answer<PromoteResponse> {
        self.check_volume(&request.into_inner().volume_id)?;
        let origins = self.ask(|plane| plane.promote()).await?;
        Ok(Response::new(PromoteResponse { origins: origins.into_iter().map(convert::origin).collect() }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let name = check::snapshot(&request.name)?;
        loop {
            let name = name.clone();
            match self.ask(move |plane| plane.delete_snapshot(&name)).await? {
                Deletion::Done => return Ok(Response::new(DeleteSnapshotResponse {})),
                Deletion::After(epoch) => self.written_back(epoch).await?,
            }
        }
    }

    async fn diff_snapshots(&self, request: Request<DiffSnapshotsRequest>) -> Answer<DiffSnapshotsResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let size = DIFF_PAGE.size(request.page_size)?;
        let page = self.diff_page(&request).await?;
        if page.from == Some(page.to) || page.to == Epoch(0) {
            return Ok(Response::new(DiffSnapshotsResponse::default()));
        }
        self.written_back(page.to).await?;
        let mut changes = self.ask(move |plane| plane.diff(page.from, page.to, page.block, size)).await?;
        changes.truncate(size);
        let next_page_token = changes
            .last()
            .filter(|_| changes.len() == size)
            .and_then(|last| last.block.0.checked_add(1))
            .map(|block| DiffToken { block: BlockIndex(block), ..page }.to_text())
            .unwrap_or_default();
        let changes = changes.iter().map(convert::change).collect();
        Ok(Response::new(DiffSnapshotsResponse { changes, next_page_token }))
    }

    async fn sync_snapshot(&self, request: Request<SyncSnapshotRequest>) -> Answer<SyncSnapshotResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let name = check::snapshot(&request.name)?;
        let epoch = self.find(&name).await?.epoch;
        self.written_back(epoch).await?;
        let snapshot = self.find(&name).await?;
        Ok(Response::new(SyncSnapshotResponse { snapshot: Some(convert::snapshot(snapshot)) }))
    }

    type WatchChangeVectorsStream = ReceiverStream<Message>;

    async fn watch_change_vectors(
        &self,
        request: Request<WatchChangeVectorsRequest>,
    ) -> Answer<Self::WatchChangeVectorsStream> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let permit = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| {
            let limit = self.limits.followers;
            Status::resource_exhausted(format!(
                "{limit} clients follow the change vectors already, the limit"
            ))
        })?;
        let (messages, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
        let follower = Follower {
            plane: Arc::clone(&self.plane),
            limits: self.limits,
            stopped: self.stopped.clone(),
            messages,
            _permit: permit,
        };
        tokio::spawn(follower.run(Epoch(request.from_epoch).max(Epoch::FIRST)));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_trainer(&self, request: Request<ReportTrainerRequest>) -> Answer<ReportTrainerResponse> {
        let request = request.into_inner();
        self.check_volume(&request.volume_id)?;
        let report = Arc::new(report::check(request, now_us())?);
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&report));
        self.ask(move |plane| {
            plane.report_trainer(&report);
            Ok(())
        })
        .await?;
        Ok(Response::new(ReportTrainerResponse {}))
    }

    async fn list_chains(&self, request: Request<ListChainsRequest>) -> Answer<ListChainsResponse> {
        self.check_volume(&request.into_inner().volume_id)?;
        let report = self.last_report();
        Ok(Response::new(ListChainsResponse {
            chains: report.iter().flat_map(|report| &report.chains).map(convert::chain).collect(),
            reported_us: report.map_or(0, |report| report.received_us),
        }))
    }
}
