//! Who may connect: root and the daemon's own user, by the credentials that the kernel vouches for.
//!
//! A connection takes one of a limited number of places, so that clients, however many, leave the process its file
//! descriptors. One that does not begin in time is ended here; one that has begun is asked by HTTP/2 whether it is there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tracing::warn;

use super::server::Limits;

/// What every client of HTTP/2 sends first, in bytes.
const PREFACE_BYTES: usize = 24;

/// How long to wait after a failed accept (no free descriptor), so that it does not spin.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Whether a process of user `peer` may use the API of a daemon that runs as user `own`.
pub(super) fn is_allowed(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// The connections of those who may connect; others are closed at once and noted in the log.
pub(super) fn accept(listener: UnixListener, limits: Limits) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let own = nix::unistd::geteuid().as_raw();
    let places = Arc::new(Semaphore::new(limits.connections));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = next(&listener, &places) => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, place)) => {
                    if may_use(&stream, own) {
                        let connection = Connection::new(stream, place, limits.client_patience);
                        if sender.send(Ok(connection)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    warn!(%error, "the API cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// A place, and then who takes it.
async fn next(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// A client's connection, in its place.
pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes of the preface that have come, and until when all of them have to.
    begun: usize,
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: UnixStream, place: OwnedSemaphorePermit, patience: Duration) -> Self {
        Self { stream, begun: 0, deadline: Box::pin(sleep(patience)), _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        if Pin::new(&mut this.stream).poll_read(context, buffer)?.is_pending() {
            if this.begun < PREFACE_BYTES {
                ready!(this.deadline.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Pending;
        }
        this.begun = this.begun.saturating_add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn may_use(stream: &UnixStream, own: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if is_allowed(peer.uid(), own) => true,
        Ok(peer) => {
            warn!(uid = peer.uid(), pid = peer.pid(), "refused a user who may not use the API");
            false
        }
        Err(error) => {
            warn!(%error, "refused a connection whose user is not known");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user() {
        assert!(is_allowed(0, 1000));
        assert!(is_allowed(1000, 1000));
        assert!(!is_allowed(1001, 1000));
        assert!(!is_allowed(1000, 0));
    }
}
