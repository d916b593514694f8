//! The server's life: bind, serve on a thread of its own, stop.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use forerun::api::v1::forerun_server::ForerunServer;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tonic::transport::Server;
use tracing::error;

use super::plane::ControlPlane;
use super::service::Service;
use super::{peers, socket};

/// How long calls that are under way may go on after a stop.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What a server may hold at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Threads for calls into the engine.
    pub blocking_threads: usize,
    /// Clients that follow the change vectors at the same time.
    pub followers: usize,
    /// Connections at the same time; the next one waits until one of them ends.
    pub connections: usize,
    /// How long a client may take to begin, and then to answer when it is asked whether it is still there.
    pub client_patience: Duration,
    /// Requests under way on one connection.
    pub requests_per_connection: usize,
    /// Bytes of one request.
    pub request_bytes: usize,
    /// How long a follower may leave what it asked for unread before it is disconnected.
    pub follower_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blocking_threads: 16,
            followers: 8,
            connections: 64,
            client_patience: Duration::from_secs(60),
            requests_per_connection: 32,
            request_bytes: 4 << 20,
            follower_patience: Duration::from_secs(60),
        }
    }
}

/// A server that could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another process answers on the socket.
    #[error("{path}: another target serves this volume already; `forerun list` shows it")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in the socket's place.
    #[error("{path} is there and is no socket; move it away")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The path does not fit into a socket's address.
    #[error(
        "{path} is too long for a socket, the limit is {limit} bytes; set FORERUN_RUN_DIR to a shorter directory"
    )]
    PathTooLong {
        /// The socket.
        path: PathBuf,
        /// The longest path, in bytes.
        limit: usize,
    },
    /// The file or its directory could not be made.
    #[error("cannot {action} the API's socket {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The thread or its runtime could not be made.
    #[error("cannot start the API's thread: {0}")]
    Thread(io::Error),
}

/// A running server; stops when dropped.
pub struct ControlServer {
    path: PathBuf,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Serves `plane` on the socket at `path`. Clients can connect when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(plane: Arc<dyn ControlPlane>, path: &Path, limits: Limits) -> Result<Self, StartError> {
        let listener = socket::bind(path)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits.blocking_threads)
            .build()
            .map_err(StartError::Thread)?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || serve(runtime, listener, plane, limits, stopped))
            .map_err(StartError::Thread)?;
        Ok(Self { path: path.into(), stop, thread: Some(thread) })
    }

    /// Where it serves.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(
    runtime: Runtime,
    listener: UnixListener,
    plane: Arc<dyn ControlPlane>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let result = runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let service = ForerunServer::new(Service::new(plane, limits, stopped.clone()))
            .max_decoding_message_size(limits.request_bytes);
        let grace = stopped.clone();
        let serving = Server::builder()
            .concurrency_limit_per_connection(limits.requests_per_connection)
            .max_concurrent_streams(u32::try_from(limits.requests_per_connection).ok())
            .http2_keepalive_interval(Some(limits.client_patience))
            .http2_keepalive_timeout(Some(limits.client_patience))
            .add_service(service)
            .serve_with_incoming_shutdown(peers::accept(listener, limits), until_stopped(stopped));
        tokio::select! {
            served = serving => served.map_err(io::Error::other),
            // A client that keeps its connection open must not keep the daemon from ending.
            () = async { until_stopped(grace).await; tokio::time::sleep(STOP_GRACE).await } => Ok(()),
        }
    });
    if let Err(error) = result {
        error!(%error, "the API has stopped");
    }
    // A call may wait in the engine for long; the process ends without it.
    runtime.shutdown_background();
}

/// Waits until the server is told to stop or its owner is gone.
pub(super) async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
