//! The I/O scheduler of a new device: none.
//!
//! Requests are put in order where they are served, by the fast tier's own queue. With the one that the kernel gives
//! a device with one queue (mq-deadline), every request is dispatched by a worker of the kernel, on Linux 7.3
//! with zero copy at a sixth of the rate (docs/benchmarks.md). Who wants another one sets it afterwards.
//!
//! The kernel waits for the requests under way before it changes the scheduler, and nothing ends that wait but their
//! answers. So the change is made by another process: a thread of this one would outlive a kill, keep the fast tier's
//! lock, and with it keep the next target from answering those requests.

use std::io::{Error, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often it is tried: a device that is deleted meanwhile refuses the change before its files are gone.
const TRIES: usize = 3;

/// Takes the scheduler off, beside everything else.
pub(super) fn take_off(id: u32) {
    let path = format!("/sys/block/ublkb{id}/queue/scheduler");
    let told = path.clone();
    let change = move || {
        for left in (0..TRIES).rev() {
            let Err(error) = write_none(&path) else { return };
            if left == 0 {
                tracing::warn!(%error, path, "the device keeps the kernel's I/O scheduler");
            } else {
                std::thread::sleep(Duration::from_secs(1));
            }
            if !Path::new(&path).exists() {
                tracing::debug!(%error, path, "the device went before its I/O scheduler was taken off");
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("scheduler".to_owned()).spawn(change) {
        tracing::warn!(%error, path = told, "the device keeps the kernel's I/O scheduler");
    }
}

/// Writes `none` into the file of the kernel, by another process. (`tee` says why the kernel refuses; a shell's `echo`
/// calls everything an I/O error.)
fn write_none(path: &str) -> Result<(), Error> {
    let mut tee = Command::new("tee")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // The pipe is closed here, which ends what `tee` reads. That it cannot be written to is said by `tee` itself.
    let written = tee.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(b"none"));
    let ended = tee.wait_with_output()?;
    if !ended.status.success() {
        return Err(Error::other(String::from_utf8_lossy(&ended.stderr).trim().to_owned()));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::write_none;

    #[test]
    fn what_the_kernel_says_is_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("scheduler");
        std::fs::write(&file, "mq-deadline").unwrap();
        write_none(file.to_str().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "none");
        let gone = directory.path().join("gone/scheduler");
        let error = write_none(gone.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("No such file or directory"), "{error}");
        assert!(write_none("/dev/full").unwrap_err().to_string().contains("No space left"));
    }
}
