//! Starting a target in the background and waiting until its device is there.
//!
//! The target is told a pipe's descriptor with `--eventfd` and answers on it, as it answers the stock
//! `ublk` tool: 8 bytes, a native-endian number that is the device's number plus 1, or something else
//! on failure. It ends without an answer when it fails early. What it prints is in its log; the part
//! printed since the start is shown when the start fails.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use forerun::config::make_private_dir;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use serde::Serialize;

use super::{output, programs};

/// How long a target may take to answer; it gives up a start by itself well before.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// The size from which a log is begun anew, in bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the log is shown when a start fails, in lines.
const SHOWN_LINES_MAX: usize = 20;

/// A log file, and where a start's own part of it begins.
pub struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    /// Opens a log for more, making its directory (0700) where it is missing.
    ///
    /// # Errors
    /// No rights; no room.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot open the log {}", path.display());
        if let Some(directory) = path.parent() {
            make_private_dir(directory).with_context(context)?;
        }
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(path).with_context(context)?;
        let mut begin = file.metadata().with_context(context)?.len();
        if begin > LOG_BYTES_MAX {
            file.set_len(0).with_context(context)?;
            begin = 0;
        }
        Ok(Self { path: path.to_owned(), file, begin })
    }

    /// The log as a program's output.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn output(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }

    /// The last lines printed since it was opened.
    fn last_lines(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.begin))?;
            file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)
        });
        if read.is_err() {
            return String::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(SHOWN_LINES_MAX))
            .map(|line| format!("\n  {line}"))
            .collect()
    }
}

/// A device that was started or taken over, as printed with `--json`.
#[derive(Serialize)]
pub struct Started {
    device: String,
    dev_id: u32,
    pid: u32,
}

impl Started {
    /// `/dev/ublkbN`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Prints the device's path, or all of it as JSON.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        Ok(if json { output::json(self) } else { output::text(&format!("{}\n", self.device)) }?)
    }
}

/// Starts `ublk-target` with these arguments in the background, and waits for its device.
///
/// # Errors
/// It cannot be found or started; it fails or does not answer in time. Then its own words are in the message.
pub fn start_target(arguments: &[String], log_path: &Path) -> anyhow::Result<Started> {
    let program = programs::find(programs::TARGET)?;
    let log = Log::open(log_path)?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot hand the pipe on")?;
    let mut command = Command::new(&program);
    command.args(arguments).args(["--eventfd".to_owned(), writer.as_raw_fd().to_string()]);
    let mut child = in_background(&mut command, &log)?
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // Only the target's end may stay open, or its exit would not be seen.
    drop(writer);
    match read_answer(reader, ANSWER_LIMIT) {
        Ok(Some(dev_id)) => Ok(Started { device: format!("/dev/ublkb{dev_id}"), dev_id, pid: child.id() }),
        outcome => Err(explain(outcome.err(), &mut child, &log)),
    }
}

/// Prepares a program to outlive this one and its terminal: a session of its own, its words in the log.
fn in_background<'c>(command: &'c mut Command, log: &Log) -> io::Result<&'c mut Command> {
    command.stdin(Stdio::null()).stdout(log.output()?).stderr(log.output()?);
    // SAFETY: between fork and exec only setsid is called, which allocates nothing and takes no lock.
    Ok(unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) })
}

/// Reads the answer: a device's number, or `None` for a failure.
fn read_answer(mut reader: PipeReader, limit: Duration) -> io::Result<Option<u32>> {
    let deadline = Instant::now() + limit;
    let mut answer = [0; 8];
    let mut filled = 0;
    while let Some(rest) = answer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        if ready == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", limit.as_secs()),
            ));
        }
        match reader.read(rest)? {
            0 => return Ok(None),
            count => filled += count,
        }
    }
    let number = u64::from_ne_bytes(answer).checked_sub(1);
    Ok(number.and_then(|number| u32::try_from(number).ok()))
}

fn explain(problem: Option<io::Error>, child: &mut Child, log: &Log) -> anyhow::Error {
    if problem.is_some() {
        // It is in an unknown state and nobody waits for it any more.
        let _ = child.kill();
    }
    let how = match (problem, child.wait()) {
        (Some(problem), _) => problem.to_string(),
        (None, Ok(status)) => status.to_string(),
        (None, Err(error)) => error.to_string(),
    };
    let lines = log.last_lines();
    let place = log.path.display();
    if lines.is_empty() {
        anyhow!("the target did not start ({how}) and said nothing; try --foreground")
    } else {
        anyhow!("the target did not start ({how}); it said (in {place}):{lines}")
    }
}

/// Starts a program in the background that nobody waits for; gives its process id.
///
/// # Errors
/// It cannot be started, or ends at once.
pub fn start_beside(program: &Path, arguments: &[&str], log_path: &Path) -> anyhow::Result<u32> {
    let log = Log::open(log_path)?;
    let mut child = in_background(Command::new(program).args(arguments), &log)?
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    std::thread::sleep(Duration::from_millis(100));
    if let Some(status) = child.try_wait()? {
        bail!("{} ended at once ({status}); it said:{}", program.display(), log.last_lines());
    }
    Ok(child.id())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn answer(bytes: &[u8], limit_ms: u64) -> io::Result<Option<u32>> {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(bytes).expect("written");
        let keep = (limit_ms > 0).then_some(writer);
        let answer = read_answer(reader, Duration::from_millis(limit_ms.max(1000)));
        drop(keep);
        answer
    }

    #[test]
    fn the_answers_of_a_target() {
        assert_eq!(answer(&8u64.to_ne_bytes(), 1).expect("read"), Some(7));
        assert_eq!(answer(&1u64.to_ne_bytes(), 1).expect("read"), Some(0));
        assert_eq!(answer(&0u64.to_ne_bytes(), 1).expect("read"), None);
        assert_eq!(answer(&0xffff_ffff_ffff_fffe_u64.to_ne_bytes(), 1).expect("read"), None);
        assert_eq!(answer(&[1, 2, 3], 0).expect("read"), None, "it ended in the middle");
        assert_eq!(answer(&[], 0).expect("read"), None, "it ended without a word");
        assert_eq!(answer(&[], 1).expect_err("nothing").kind(), io::ErrorKind::TimedOut);
    }
}
