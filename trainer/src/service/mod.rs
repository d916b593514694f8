//! The sidecar as a service: connected to the target as long as there is one, for ever.
//!
//! The connection runs on the caller's thread, learning on another ([`worker`]). When the target is
//! away, restarts or sends nonsense, the connection is made again, at growing intervals; the epochs that were
//! missed then come from the target. It ends on SIGTERM or SIGINT only.

mod assemble;
mod lane;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forerun::api::v1;
use forerun::api::v1::forerun_client::ForerunClient;
use forerun::geometry::BLOCK_BYTES;
use forerun::prediction::Horizon;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::config::Config;
use assemble::Assembly;
use worker::{Work, Worker};

/// Vectors that wait for the learning thread at most.
const QUEUE: usize = 4;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest message taken, in bytes: 1,000,000 changes, with room.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Where a volume's trainer finds and leaves things.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The target's socket.
    pub socket: PathBuf,
    /// The prediction table.
    pub table: PathBuf,
    /// What is kept: history, weights, scores, and a lock.
    pub state_dir: PathBuf,
}

/// Serves a volume until `stop` completes.
///
/// # Errors
/// The state folder cannot be used, or another trainer has it. A target that is away is no error.
pub async fn run(
    volume_id: &str,
    paths: Paths,
    config: Config,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let _lock = lock(&paths.state_dir)?;
    let (work, queue) = mpsc::channel(QUEUE);
    let (report, reports) = watch::channel(None);
    let worker = Worker::new(volume_id.to_owned(), paths.clone(), config, report)?;
    let thread = std::thread::Builder::new().name("learning".to_owned()).spawn(move || worker.run(queue))?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        result = serve(volume_id, &paths.socket, &work, reports) => result?,
        () = stop => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(work);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    if joined.is_err() {
        bail!("the learning thread panicked; the log says where");
    }
    Ok(())
}

/// Takes the state folder for this process.
fn lock(state_dir: &Path) -> Result<File> {
    fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot create the state folder {}", state_dir.display()))?;
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another trainer is using {}; there can be one a volume", state_dir.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Connects again and again; returns only if the learning thread is gone.
async fn serve(
    volume_id: &str,
    socket: &Path,
    work: &mpsc::Sender<Work>,
    mut reports: watch::Receiver<Option<v1::ReportTrainerRequest>>,
) -> Result<()> {
    let mut wait = FIRST_WAIT;
    let mut said = String::new();
    loop {
        let mut connected = false;
        let Err(error) = session(volume_id, socket, work, &mut reports, &mut connected).await else {
            wait = FIRST_WAIT;
            continue;
        };
        if work.is_closed() {
            bail!("the learning thread ended; the log says why");
        }
        if connected {
            wait = FIRST_WAIT;
            said.clear();
        }
        // The same trouble again and again is said once.
        let message = forerun::told(&error);
        if message != said {
            warn!("no connection to the target at {}: {message}; trying again", socket.display());
            said = message;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// One connection, until it ends.
async fn session(
    volume_id: &str,
    socket: &Path,
    work: &mpsc::Sender<Work>,
    reports: &mut watch::Receiver<Option<v1::ReportTrainerRequest>>,
    connected: &mut bool,
) -> Result<()> {
    let mut client = connect(socket).await?;
    let volume = v1::GetVolumeStatusRequest { volume_id: volume_id.to_owned() };
    let status = timed(client.get_volume_status(volume)).await.context("asking for the volume")?;
    let uuid = assemble::parse_uuid(&status.uuid).context("the volume has no uuid")?;
    let blocks = u32::try_from(status.size_bytes / BLOCK_BYTES).unwrap_or(0);
    if blocks == 0 || blocks > 1 << 30 {
        bail!("a volume has 64 MiB to 64 TiB, not {} bytes", status.size_bytes);
    }
    let prefetch = v1::GetPrefetchStatusRequest { volume_id: volume_id.to_owned() };
    let prefetch = timed(client.get_prefetch_status(prefetch)).await.context("asking for the horizon")?;
    let horizon = Horizon::new(prefetch.prediction_horizon).unwrap_or(Horizon::DEFAULT);
    let (last, answer) = oneshot::channel();
    work.send(Work::Volume { uuid, blocks, horizon, last }).await.context("the learning thread ended")?;
    let last = answer.await.context("the learning thread ended")?;

    let from = v1::WatchChangeVectorsRequest {
        volume_id: volume_id.to_owned(),
        from_epoch: last.0.saturating_add(1),
    };
    let mut stream =
        client.watch_change_vectors(from).await.context("asking for change vectors")?.into_inner();
    info!("connected to {}; change vectors from epoch {}", socket.display(), last.0.saturating_add(1));
    *connected = true;
    let mut assembly = Assembly::new(uuid, blocks, last);
    // A target that was restarted does not know what was reported to the one before.
    reports.mark_changed();
    loop {
        tokio::select! {
            message = stream.message() => {
                let Some(message) = message.context("receiving change vectors")? else {
                    bail!("the target ended the stream");
                };
                let received = assembly.take(message)?;
                let next = match received.vector {
                    Some(vector) => Work::Vector { vector, reads: received.reads, horizon: received.horizon },
                    None => Work::Horizon(received.horizon),
                };
                work.send(next).await.context("the learning thread ended")?;
            }
            changed = reports.changed() => {
                changed.context("the learning thread ended")?;
                let report = reports.borrow_and_update().clone();
                if let Some(report) = report {
                    timed(client.report_trainer(report)).await.context("reporting")?;
                }
            }
        }
    }
}

async fn connect(socket: &Path) -> Result<ForerunClient<Channel>> {
    let path = socket.to_str().context("the socket's path is not UTF-8")?;
    // tonic wants absolute paths in unix: URIs.
    let path = std::path::absolute(path)?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))?.connect_timeout(CALL_TIMEOUT);
    let channel = endpoint.connect().await.context("connecting")?;
    Ok(ForerunClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// A call's answer, or an error when it takes too long.
async fn timed<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T> {
    Ok(tokio::time::timeout(CALL_TIMEOUT, call).await.context("no answer in time")??.into_inner())
}
