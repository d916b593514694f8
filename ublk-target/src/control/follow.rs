//! Following the change vectors: the sealed epochs from one on, then each as it is sealed.
//!
//! A follower pulls: its next epoch is read from the engine only when it has taken the one before,
//! so that its speed costs nothing but its own delay. One that takes nothing for long is
//! disconnected and comes back with `from_epoch`.

use std::sync::Arc;

use forerun::api::v1::WatchChangeVectorsResponse;
use forerun::geometry::Epoch;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tonic::Status;
use tracing::info;

use super::plane::{ControlPlane, SealedEpoch};
use super::server::{Limits, until_stopped};
use super::{check, convert};

/// Changes in one message, about 200 KB of it.
const CHANGES_PER_MESSAGE: usize = 16_384;
/// Read blocks in one message, about 200 KB of it.
const READS_PER_MESSAGE: usize = 49_152;
/// Messages that wait for a follower.
pub(super) const MESSAGES_WAITING_MAX: usize = 2;

/// What a follower is sent, or why it is not sent more.
pub(super) type Message = Result<WatchChangeVectorsResponse, Status>;

/// One client that follows.
pub(super) struct Follower {
    pub(super) plane: Arc<dyn ControlPlane>,
    pub(super) limits: Limits,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) messages: mpsc::Sender<Message>,
    /// The follower's place among those that are allowed.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The follower is gone, or was sent away.
struct Gone;

impl Follower {
    /// Sends what there is from `next` on, for ever.
    pub(super) async fn run(self, mut next: Epoch) {
        let mut sealed = self.plane.sealed();
        loop {
            // Noted before looking, so that an epoch sealed in between is not missed.
            let newest = *sealed.borrow_and_update();
            let found = if newest >= next { self.look(next).await } else { Ok(None) };
            let outcome = match found {
                Ok(Some(epoch)) => {
                    next = epoch.vector.epoch.next();
                    self.send_epoch(&epoch).await
                }
                Ok(None) => self.wait(&mut sealed).await,
                Err(status) => {
                    let _ = self.send(Err(status)).await;
                    Err(Gone)
                }
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn look(&self, from: Epoch) -> Result<Option<SealedEpoch>, Status> {
        let plane = Arc::clone(&self.plane);
        tokio::task::spawn_blocking(move || plane.change_vector(from))
            .await
            .map_err(|error| Status::internal(format!("the engine failed: {error}")))?
            .map_err(check::failed)
    }

    async fn wait(&self, sealed: &mut watch::Receiver<Epoch>) -> Result<(), Gone> {
        tokio::select! {
            changed = sealed.changed() => changed.map_err(|_| Gone),
            () = self.messages.closed() => Err(Gone),
            () = until_stopped(self.stopped.clone()) => Err(Gone),
        }
    }

    async fn send_epoch(&self, epoch: &SealedEpoch) -> Result<(), Gone> {
        let vector = &epoch.vector;
        let message = || WatchChangeVectorsResponse {
            epoch: vector.epoch.0,
            opened_us: vector.opened_us,
            sealed_us: vector.sealed_us,
            prediction_horizon: self.plane.horizon().epochs(),
            snapshot: epoch.snapshot.as_ref().map(ToString::to_string).unwrap_or_default(),
            volume_blocks: self.plane.blocks(),
            volume_uuid: self.plane.uuid(),
            reads_known: epoch.reads.is_some(),
            ..Default::default()
        };
        let reads = epoch.reads.as_deref();
        for reads in reads.unwrap_or_default().chunks(READS_PER_MESSAGE) {
            let read_blocks = reads.iter().map(|block| block.0).collect();
            self.send(Ok(WatchChangeVectorsResponse { read_blocks, ..message() })).await?;
        }
        let mut pieces = vector.changes().chunks(CHANGES_PER_MESSAGE).peekable();
        loop {
            let changes = pieces.next().unwrap_or_default().iter().map(convert::change).collect();
            let complete = pieces.peek().is_none();
            self.send(Ok(WatchChangeVectorsResponse { changes, complete, ..message() })).await?;
            if complete {
                return Ok(());
            }
        }
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        let sent = self.messages.send_timeout(message, self.limits.follower_patience);
        tokio::select! {
            sent = sent => sent.map_err(|_| {
                info!("a client that follows the change vectors is gone or took nothing for too long");
                Gone
            }),
            () = until_stopped(self.stopped.clone()) => Err(Gone),
        }
    }
}
