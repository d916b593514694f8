//! Where messages go: stderr, and from a daemon also syslog.
//!
//! The stock `ublk` closes a daemon's stderr, so that syslog is the only way to say why a device
//! could not be made. It is spoken to over its socket; where there is none, the kernel's log takes
//! the messages (journald reads both).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const SYSLOG_SOCKET: &str = "/dev/log";
const KERNEL_LOG: &str = "/dev/kmsg";
/// Facility daemon (3), severities error (3) and notice (5).
const ERROR: u8 = 3 << 3 | 3;
const NOTICE: u8 = 3 << 3 | 5;
/// The kernel's log takes no longer lines.
const LINE_LIMIT_BYTES: usize = 900;

static DAEMON: OnceLock<()> = OnceLock::new();

/// Sets up messages for a process in the foreground: to stderr. `RUST_LOG` chooses which.
pub(super) fn to_stderr() {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr);
    if subscriber.with_target(false).try_init().is_err() {
        tracing::debug!("messages are set up already");
    }
}

/// Sets up messages for a daemon: to syslog, panics too.
pub(super) fn to_syslog() {
    let _ = DAEMON.set(());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(Syslog);
    if subscriber.with_target(false).with_ansi(false).without_time().try_init().is_err() {
        tracing::debug!("messages are set up already");
    }
    std::panic::set_hook(Box::new(|panic| send(ERROR, &format!("panicked: {panic}"))));
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,libublk=warn"))
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
