//! Block traces in the formats that people have, compressed with zstd or not.
//!
//! | format | recognised by | time |
//! |---|---|---|
//! | `timestamp_us,op,offset_bytes,len_bytes` | that header, or four fields | as it says |
//! | MSR Cambridge CSV | seven fields, the fourth `Read` or `Write` | 100 ns since 1601 |
//! | vscsiStats CSV (a trace of commands) | its header, or six fields with a number first | as it says, microseconds |
//! | blkparse's default output | a device as `8,0` and a processor first | seconds |
//! | fio iolog, versions 2 and 3 | `fio version N iolog` | version 3: microseconds; version 2: `wait`s, else none |
//!
//! Where there is no time, requests are a millisecond apart: it is the order that counts then. All requests of a trace
//! have to be of one device.

mod blkparse;
mod csv;
mod fio;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Bytes of a sector, the unit of blkparse and of vscsiStats.
const SECTOR_BYTES: u64 = 512;
/// A line longer than this is none of a trace, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// What a request does to the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Nothing changes.
    Read,
    /// The range is written.
    Write,
    /// The range is read or written; taken as a change.
    Access,
    /// The range is discarded.
    Discard,
}

/// One request of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// When, in microseconds.
    pub timestamp_us: u64,
    /// What.
    pub op: Op,
    /// Where, in bytes.
    pub offset_bytes: u64,
    /// How long, in bytes.
    pub len_bytes: u64,
}

/// Reads a whole trace; requests ascend by time.
///
/// # Errors
/// A file that cannot be read, a format that is not known, or a line that is none of it; the line is named.
pub fn read(path: &Path) -> Result<Vec<Request>> {
    let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
    let packed = path.extension().is_some_and(|extension| extension == "zst");
    let plain: Box<dyn Read> = if packed { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
    let mut requests = parse(BufReader::new(plain)).with_context(|| path.display().to_string())?;
    // Completions and several processors come out of order; equal times keep theirs.
    requests.sort_by_key(|request| request.timestamp_us);
    Ok(requests)
}

/// One format's reader, which sees a line after the other.
trait Format {
    /// The request in a line, if there is one.
    fn line(&mut self, line: &str) -> Result<Option<Request>>;
    /// All requests, where it had to see the last line first.
    fn end(&mut self) -> Result<Vec<Request>> {
        Ok(Vec::new())
    }
}

fn parse(mut lines: impl BufRead) -> Result<Vec<Request>> {
    let mut format: Option<Box<dyn Format>> = None;
    let (mut requests, mut line) = (Vec::new(), Vec::new());
    for number in 1u64.. {
        line.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let here = || format!("line {number}");
        if read.with_context(here)? == 0 {
            break;
        }
        if line.len() as u64 == LINE_BYTES_MAX {
            bail!("line {number} has more than {LINE_BYTES_MAX} bytes: this is no trace");
        }
        let text = std::str::from_utf8(&line).with_context(here)?.trim();
        if text.is_empty() {
            continue;
        }
        let reader = match &mut format {
            Some(reader) => reader,
            None => format.insert(recognise(text).with_context(here)?),
        };
        requests.extend(reader.line(text).with_context(here)?);
    }
    if let Some(mut reader) = format {
        requests.extend(reader.end()?);
    }
    Ok(requests)
}

/// Which format a trace has, by its first line.
fn recognise(first: &str) -> Result<Box<dyn Format>> {
    if let Some(rest) = first.strip_prefix("fio version ") {
        return Ok(Box::new(fio::Iolog::of_version(rest)?));
    }
    if blkparse::is_one(first) {
        return Ok(Box::new(blkparse::Blkparse::default()));
    }
    csv::recognise(first)
}

/// A number of a line, with its name in the error.
fn number(name: &str, text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("{name} is no number: {text:?}"))
}

/// So many sectors in bytes.
fn sectors(name: &str, text: &str) -> Result<u64> {
    number(name, text)?.checked_mul(SECTOR_BYTES).with_context(|| format!("{name} is too large: {text}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn requests_of(text: &str) -> Result<Vec<Request>> {
        parse(text.as_bytes())
    }

    #[test]
    fn what_is_no_trace_is_named() {
        for (text, said) in [
            ("PK\u{3}\u{4}", "no trace format"),
            ("a b c", "no trace format"),
            ("1,W,0,512\n2,W,0\n", "line 2"),
            (&"x".repeat(5000), "more than 4096 bytes"),
        ] {
            let error = requests_of(text).expect_err(text);
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
        assert!(requests_of("").expect("nothing").is_empty());
    }

    proptest! {
        #[test]
        fn anything_is_a_trace_or_an_error(
            first in prop_oneof![
                Just("fio version 3 iolog"), Just("fio version 2 iolog"), Just("1,W,0,512"),
                Just("8,0 1 1 0.000000000 12 Q WS 8 + 8 [a]"), Just("128166372003061629,usr,0,Read,0,512,1"),
                Just("1,4096,1,write,24,99"), Just("timestamp_us,op,offset_bytes,len_bytes"),
            ],
            rest in proptest::collection::vec("[0-9A-Za-z,.+ :\\[\\]-]{0,60}", 0..20),
        ) {
            let _ = requests_of(&format!("{first}\n{}", rest.join("\n")));
        }
    }
}
