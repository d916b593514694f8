//! Where messages go: stderr, and from a daemon also syslog.
//!
//! The stock `ublk` closes a daemon's stderr, so that syslog is the only way to say why a device
//! could not be made. It is spoken to over its socket; where there is none, the kernel's log takes
//! the messages (journald reads both). `forerun add` gives a daemon a log file as its stderr: there they go too.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use nix::sys::stat::{major, minor};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const SYSLOG_SOCKET: &str = "/dev/log";
const KERNEL_LOG: &str = "/dev/kmsg";
/// Facility daemon (3), severities error (3) and notice (5).
const ERROR: u8 = 3 << 3 | 3;
const NOTICE: u8 = 3 << 3 | 5;
/// The kernel's log takes no longer lines.
const LINE_LIMIT_BYTES: usize = 900;

static DAEMON: OnceLock<()> = OnceLock::new();

/// Sets up messages for a process that serves a device. Before anything of it can fail.
pub(super) fn for_process(daemon: bool) {
    if daemon { to_syslog() } else { to_stderr() }
}

/// Sets up messages for a process in the foreground: to stderr. `RUST_LOG` chooses which.
pub(super) fn to_stderr() {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr);
    // As https://no-color.org wants it.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !plain;
    if subscriber.with_target(false).with_ansi(colours).try_init().is_err() {
        tracing::debug!("messages are set up already");
    }
}

/// Sets up messages for a daemon: to syslog, and to stderr where that leads somewhere; panics too.
fn to_syslog() {
    let _ = DAEMON.set(());
    // Syslog adds the time by itself.
    let syslog = tracing_subscriber::fmt::layer().with_writer(Syslog).without_time();
    let stderr = leads_somewhere(io::stderr().as_fd()).then(|| {
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false)
    });
    let layers = tracing_subscriber::registry()
        .with(filter())
        .with(syslog.with_target(false).with_ansi(false))
        .with(stderr);
    if layers.try_init().is_err() {
        tracing::debug!("messages are set up already");
    }
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        send(ERROR, &format!("panicked: {panic}"));
        print(panic);
    }));
}

/// Whether what is written to a descriptor can be read by somebody. A standard one that was closed has
/// become /dev/null by now.
fn leads_somewhere(fd: BorrowedFd<'_>) -> bool {
    let null = (1, 3);
    let Ok(metadata) = fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata()) else { return false };
    !(metadata.file_type().is_char_device() && (major(metadata.rdev()), minor(metadata.rdev())) == null)
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,libublk=warn,object_store=warn"))
}

/// Says why the program ends without success.
pub(super) fn failure(text: &str) {
    eprintln!("ublk.{}: {text}", super::TARGET_NAME);
    if DAEMON.get().is_some() {
        send(ERROR, text);
    }
}

/// Sends one message; there is nobody to tell if that fails.
fn send(priority: u8, text: &str) {
    let text = text.trim_end();
    let end = (0..=LINE_LIMIT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let text = &text[..end.unwrap_or(0)];
    let line = format!("<{priority}>ublk.{}[{}]: {text}", super::TARGET_NAME, std::process::id());
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(line.as_bytes(), SYSLOG_SOCKET));
    if sent.is_err() {
        let line = line.replace('\n', " | ");
        let _ = OpenOptions::new()
            .write(true)
            .open(KERNEL_LOG)
            .and_then(|mut log| log.write_all(line.as_bytes()));
    }
}

/// Takes each message as one write.
struct Syslog;

struct Line(u8);

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(NOTICE)
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line {
        Line(if *meta.level() == tracing::Level::ERROR { ERROR } else { NOTICE })
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0, &String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_leads_somewhere_and_the_null_device_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("log")).unwrap();
        assert!(leads_somewhere(file.as_fd()));
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!(!leads_somewhere(null.as_fd()));
        let zero = File::open("/dev/zero").unwrap();
        assert!(leads_somewhere(zero.as_fd()));
    }
}
