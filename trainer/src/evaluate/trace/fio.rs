//! What fio writes with `write_iolog` and reads with `read_iolog`.
//!
//! Version 2: `file action [offset length]`, where `wait` has microseconds in place of the offset. Version 3 has the
//! microseconds since the beginning before the file.

use anyhow::{Context, Result, bail};

use super::{Format, Op, Request, number};

/// Microseconds between requests where there is no time.
const STEP_US: u64 = 1000;

pub(super) struct Iolog {
    timed: bool,
    now_us: u64,
    file: Option<String>,
}

impl Iolog {
    /// The log whose first line has this after `fio version `.
    pub fn of_version(rest: &str) -> Result<Self> {
        let timed = match rest.split_whitespace().next() {
            Some("2") => false,
            Some("3") => true,
            _ => bail!("fio iologs of version 2 and 3 are read, not \"fio version {rest}\""),
        };
        Ok(Self { timed, now_us: 0, file: None })
    }

    fn request(&mut self, file: &str, op: Op, rest: &[&str]) -> Result<Request> {
        let [offset, len, ..] = rest else { bail!("an offset and a length have to follow") };
        let known = self.file.get_or_insert_with(|| file.to_owned());
        if known != file {
            bail!("{file} after {known}: a trace is of one device; split the file");
        }
        let (offset_bytes, len_bytes) = (number("the offset", offset)?, number("the length", len)?);
        if !self.timed {
            self.now_us = self.now_us.saturating_add(STEP_US);
        }
        Ok(Request { timestamp_us: self.now_us, op, offset_bytes, len_bytes })
    }
}

impl Format for Iolog {
    fn line(&mut self, line: &str) -> Result<Option<Request>> {
        if line.starts_with("fio version ") {
            return Ok(None);
        }
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        if self.timed {
            if fields.is_empty() {
                return Ok(None);
            }
            self.now_us = number("the time", fields.remove(0))?;
        }
        let [file, action, rest @ ..] = fields.as_slice() else {
            bail!("wanted a file and an action, found {line:?}");
        };
        let op = match *action {
            "read" => Op::Read,
            "write" => Op::Write,
            "trim" => Op::Discard,
            "wait" if !self.timed => {
                let us = number("the wait", rest.first().context("a wait has microseconds")?)?;
                self.now_us = self.now_us.saturating_add(us);
                return Ok(None);
            }
            "add" | "open" | "close" | "sync" | "datasync" | "wait" => return Ok(None),
            other => bail!("{other:?} is no action of a fio iolog"),
        };
        self.request(file, op, rest).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::requests_of;
    use super::*;

    #[test]
    fn versions_2_and_3() {
        let two = "fio version 2 iolog\n/dev/a add\n/dev/a open\n/dev/a write 4096 8192\n/dev/a wait 5000\n/dev/a trim 0 65536\n\
                   /dev/a sync\n/dev/a read 0 512\n/dev/a close\n";
        let requests = requests_of(two).expect("a log");
        let seen: Vec<_> =
            requests.iter().map(|request| (request.timestamp_us, request.op, request.len_bytes)).collect();
        assert_eq!(seen, [(1000, Op::Write, 8192), (7000, Op::Discard, 65_536), (8000, Op::Read, 512)]);
        let three = "fio version 3 iolog\n0 /dev/a add\n12 /dev/a open\n140 /dev/a write 4096 8192\n";
        assert_eq!(requests_of(three).expect("a log")[0].timestamp_us, 140);
        for bad in [
            "fio version 1 iolog",
            "fio version 2 iolog\n/dev/a write 1",
            "fio version 2 iolog\n/dev/a write 0 1\n/dev/b write 0 1",
            "fio version 3 iolog\n/dev/a write 0 1",
        ] {
            assert!(requests_of(bad).is_err(), "{bad}");
        }
    }
}
