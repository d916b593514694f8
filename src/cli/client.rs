//! The API of a running volume.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use forerun::api::v1::forerun_client::ForerunClient;
use forerun::config::{Paths, VolumeConfig, VolumeName};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::failure::Failure;

/// How long a call may take, except one that waits for a write-back.
pub const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How long one that waits for a write-back may take.
pub const WAITING_CALL_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Answers may be larger than requests: a page of changes has up to a megabyte.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The client of one volume.
pub type Client = ForerunClient<Channel>;

/// Runs a command's calls.
///
/// # Errors
/// Those of the calls; no runtime.
pub fn block_on<T>(calls: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(calls)
}

/// Connects to a volume.
///
/// # Errors
/// No such volume; it is not running; this user may not use its socket.
pub async fn connect(paths: &Paths, volume: &VolumeName, limit: Duration) -> anyhow::Result<Client> {
    let files = paths.volume(volume);
    let socket = files.api_socket();
    match UnixStream::connect(&socket).await {
        Ok(stream) => drop(stream),
        Err(error) => return Err(explain(error, volume, &socket, &files.config_file())),
    }
    let path: PathBuf = socket.clone();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://socket")
        .timeout(limit)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("cannot connect to volume {volume} on {}", socket.display()))?;
    Ok(ForerunClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn explain(error: io::Error, volume: &VolumeName, socket: &Path, config: &Path) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound if !config.exists() => Failure::NotFound(format!(
            "there is no volume {volume} here; `forerun list` shows the volumes, `forerun create` makes one"
        ))
        .into(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::NotRunning(format!(
            "volume {volume} is not running (nothing answers on {}); start it with `forerun add {volume}`",
            socket.display()
        ))
        .into(),
        io::ErrorKind::PermissionDenied => {
            anyhow!("no right to use {}; only root and the target's own user have it", socket.display())
        }
        _ => anyhow!(error).context(format!("cannot connect to volume {volume} on {}", socket.display())),
    }
}

/// The failure of a call, with its exit code.
pub fn failure(status: Status) -> anyhow::Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::InvalidArgument => Failure::Refused(message).into(),
        Code::NotFound => Failure::NotFound(message).into(),
        Code::DeadlineExceeded | Code::Cancelled => {
            anyhow!("the volume did not answer in time ({message}); `forerun status` shows how it does")
        }
        _ if message.is_empty() => anyhow!("the volume refused the call: {:?}", status.code()),
        _ => anyhow!(message),
    }
}

/// Loads a volume's configuration.
///
/// # Errors
/// No such volume; a configuration that cannot be read.
pub fn load_config(paths: &Paths, volume: &VolumeName) -> anyhow::Result<VolumeConfig> {
    VolumeConfig::load(volume, &paths.volume(volume)).map_err(|error| match error {
        forerun::config::ConfigError::Unknown { .. } => Failure::NotFound(error.to_string()).into(),
        other => other.into(),
    })
}
