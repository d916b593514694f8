//! Who may connect: root and the daemon's own user, by the credentials that the kernel vouches for.

use std::io;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

/// How long to wait after a failed accept (no free descriptor), so that it does not spin.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Whether a process of user `peer` may use the API of a daemon that runs as user `own`.
pub(super) fn is_allowed(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// The connections of those who may connect; others are closed at once and noted in the log.
pub(super) fn accept(listener: UnixListener) -> ReceiverStream<io::Result<UnixStream>> {
    let (sender, receiver) = mpsc::channel(1);
    let own = nix::unistd::geteuid().as_raw();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    if may_use(&stream, own) && sender.send(Ok(stream)).await.is_err() {
                        return;
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
