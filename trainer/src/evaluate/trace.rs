//! Block traces as CSV, compressed with zstd or not: `timestamp_us,op,offset_bytes,len_bytes`.
//!
//! `op` is `R` (read), `W` (write), `D` (discard), or `A` (unknown; taken as a change). A header line is skipped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What a request does to the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Nothing changes.
    Read,
    /// The range is written, or may be.
    Write,
    /// The range is discarded.
    Discard,
}

/// One line of a trace.
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

/// Reads a whole trace.
///
/// # Errors
/// A file that cannot be read, or a line that is none; it is named.
pub fn read(path: &Path) -> Result<Vec<Request>> {
    let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
    let packed = path.extension().is_some_and(|extension| extension == "zst");
    let plain: Box<dyn Read> = if packed { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
    let mut requests = Vec::new();
    for (index, line) in BufReader::new(plain).lines().enumerate() {
        let line = line.with_context(|| format!("{}, line {}", path.display(), index + 1))?;
        if line.trim().is_empty() || (index == 0 && line.starts_with("timestamp")) {
            continue;
        }
        requests.push(parse(&line).with_context(|| format!("{}, line {}", path.display(), index + 1))?);
    }
    Ok(requests)
}

fn parse(line: &str) -> Result<Request> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [timestamp, op, offset, len] = fields.as_slice() else {
        bail!("wanted timestamp_us,op,offset_bytes,len_bytes, found {line:?}");
    };
    let number = |name: &str, text: &str| text.parse::<u64>().with_context(|| format!("{name} {text:?}"));
    Ok(Request {
        timestamp_us: number("timestamp_us", timestamp)?,
        op: match *op {
            "R" | "r" => Op::Read,
            "W" | "w" | "A" | "a" => Op::Write,
            "D" | "d" => Op::Discard,
            other => bail!("op is R, W, D or A, not {other:?}"),
        },
        offset_bytes: number("offset_bytes", offset)?,
        len_bytes: number("len_bytes", len)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_mistakes_are_named() {
        let request = parse("12,W,4096,512").expect("a line");
        assert_eq!((request.timestamp_us, request.op, request.offset_bytes), (12, Op::Write, 4096));
        for bad in ["", "1,W,2", "1,X,2,3", "a,W,2,3", "1,W,-2,3", "1,W,2,3,4"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
