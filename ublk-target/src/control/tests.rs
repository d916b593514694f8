//! The server over a real socket, in front of a volume that is not real.

mod calls;
mod fake;
mod following;
mod hostile;

use std::path::PathBuf;
use std::sync::Arc;

use forerun::api::v1::forerun_client::ForerunClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::{ControlServer, Limits};
use fake::FakeVolume;

/// A server on a socket in a directory of its own, and the volume behind it.
struct Rig {
    server: ControlServer,
    volume: Arc<FakeVolume>,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = Arc::new(FakeVolume::new());
        let path = directory.path().join("data/api.sock");
        let server = ControlServer::start(volume.clone(), &path, limits).expect("started");
        Self { server, volume, _directory: directory }
    }

    fn client(&self) -> impl Future<Output = ForerunClient<Channel>> + use<> {
        let path: PathBuf = self.server.path().into();
        let connect = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        async {
            let endpoint = Endpoint::from_static("http://socket");
            ForerunClient::new(endpoint.connect_with_connector(connect).await.expect("connected"))
        }
    }
}

fn id() -> String {
    "data".into()
}

/// Runs a test's future; the server has its own runtime on its own thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("within a minute");
    });
}
