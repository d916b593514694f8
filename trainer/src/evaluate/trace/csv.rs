//! Traces as comma-separated values: our own, MSR Cambridge's, vscsiStats's.

use anyhow::{Context, Result, bail};

use super::{Format, Op, Request, number, sectors};

/// Which of them a first line belongs to, a header or a request.
pub(super) fn recognise(first: &str) -> Result<Box<dyn Format>> {
    let fields: Vec<&str> = split(first);
    match fields.as_slice() {
        ["timestamp_us", ..] | [_, _, _, _] => Ok(Box::new(Own)),
        ["Timestamp", "Hostname", ..] | [_, _, _, "Read" | "Write", ..] => Ok(Box::new(Msr::default())),
        [comment, ..] if comment.starts_with('#') => Ok(Box::new(Vscsi)),
        [serial, _, _, _, _, _] if serial.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Box::new(Vscsi)),
        _ => bail!(
            "no trace format that is known begins with {first:?}: \
             wanted is timestamp_us,op,offset_bytes,len_bytes, MSR Cambridge or vscsiStats CSV, blkparse's output or a fio iolog"
        ),
    }
}

fn split(line: &str) -> Vec<&str> {
    line.split(',').map(str::trim).collect()
}

/// `timestamp_us,op,offset_bytes,len_bytes`; `op` is `R`, `W`, `D` (discard) or `A` (read or write).
struct Own;

impl Format for Own {
    fn line(&mut self, line: &str) -> Result<Option<Request>> {
        let fields = split(line);
        let [timestamp, op, offset, len] = fields.as_slice() else {
            bail!("wanted timestamp_us,op,offset_bytes,len_bytes, found {line:?}");
        };
        if *timestamp == "timestamp_us" {
            return Ok(None);
        }
        let op = match *op {
            "R" | "r" => Op::Read,
            "W" | "w" => Op::Write,
            "A" | "a" => Op::Access,
            "D" | "d" => Op::Discard,
            other => bail!("op is R, W, D or A, not {other:?}"),
        };
        Ok(Some(Request {
            timestamp_us: number("timestamp_us", timestamp)?,
            op,
            offset_bytes: number("offset_bytes", offset)?,
            len_bytes: number("len_bytes", len)?,
        }))
    }
}

/// `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime` (Narayanan, Donnelly, Rowstron, FAST 2008): the time in
/// 100 ns since 1601, offset and size in bytes.
#[derive(Default)]
struct Msr {
    disk: Option<(String, String)>,
}

impl Format for Msr {
    fn line(&mut self, line: &str) -> Result<Option<Request>> {
        let fields = split(line);
        let [timestamp, host, disk, kind, offset, len, ..] = fields.as_slice() else {
            bail!("wanted Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime, found {line:?}");
        };
        if *timestamp == "Timestamp" {
            return Ok(None);
        }
        let (known_host, known_disk) =
            self.disk.get_or_insert_with(|| ((*host).to_owned(), (*disk).to_owned()));
        if known_host != host || known_disk != disk {
            bail!(
                "{host} disk {disk} after {known_host} disk {known_disk}: a trace is of one device; split the file"
            );
        }
        let op = match *kind {
            "Read" => Op::Read,
            "Write" => Op::Write,
            other => bail!("Type is Read or Write, not {other:?}"),
        };
        Ok(Some(Request {
            timestamp_us: number("Timestamp", timestamp)? / 10,
            op,
            offset_bytes: number("Offset", offset)?,
            len_bytes: number("Size", len)?,
        }))
    }
}

/// `Serial Number,IO Data Length,Num SG Entries,Command Type,LBN,Time Stamp (microseconds)`: the length in bytes, the
/// place in sectors; the command is a word, or the number of the SCSI command.
struct Vscsi;

impl Format for Vscsi {
    fn line(&mut self, line: &str) -> Result<Option<Request>> {
        if line.starts_with('#') || line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Ok(None);
        }
        let fields = split(line);
        let [_, len, _, command, lbn, timestamp, ..] = fields.as_slice() else {
            bail!("wanted serial,bytes,SG entries,command,LBN,microseconds, found {line:?}");
        };
        let Some(op) = scsi(command)? else { return Ok(None) };
        Ok(Some(Request {
            timestamp_us: number("the time stamp", timestamp)?,
            op,
            offset_bytes: sectors("LBN", lbn)?,
            len_bytes: number("IO Data Length", len)?,
        }))
    }
}

/// What a SCSI command does, by its name or operation code (SBC-3, table 10); `None`: it moves no data of the volume.
fn scsi(command: &str) -> Result<Option<Op>> {
    let code = match command.to_ascii_lowercase().as_str() {
        "read" => return Ok(Some(Op::Read)),
        "write" => return Ok(Some(Op::Write)),
        "unmap" => return Ok(Some(Op::Discard)),
        other => match other.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => other.parse().ok(),
        },
    };
    let code = code.with_context(|| format!("the command is no SCSI command: {command:?}"))?;
    Ok(match code {
        0x08 | 0x28 | 0x88 | 0xa8 => Some(Op::Read),
        0x0a | 0x2a | 0x8a | 0xaa | 0x41 | 0x93 => Some(Op::Write),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::requests_of;
    use super::*;

    #[test]
    fn our_own() {
        let requests = requests_of("timestamp_us,op,offset_bytes,len_bytes\n12,W,4096,512\n13,a,0,1\n");
        let requests = requests.expect("two lines");
        let wanted = Request { timestamp_us: 12, op: Op::Write, offset_bytes: 4096, len_bytes: 512 };
        assert_eq!((requests.len(), requests[0], requests[1].op), (2, wanted, Op::Access));
        for bad in ["1,X,2,3", "a,W,2,3", "1,W,-2,3", "1,W,2,3\n1,W,2,3,4"] {
            assert!(requests_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn msr_cambridge() {
        let requests = requests_of(
            "128166372003061629,usr,0,Read,7014609920,24576,41286\n128166372016382155,usr,0,Write,1317441536,8192,1963\n",
        );
        let requests = requests.expect("two lines");
        assert_eq!(requests[1].timestamp_us - requests[0].timestamp_us, 1_332_053);
        let wanted = (Op::Write, 1_317_441_536, 8192);
        assert_eq!((requests[1].op, requests[1].offset_bytes, requests[1].len_bytes), wanted);
        let two = requests_of("1,usr,0,Read,0,512,1\n2,usr,1,Read,0,512,1\n").expect_err("two disks");
        assert!(format!("{two:#}").contains("one device"), "{two:#}");
    }

    #[test]
    fn vscsi_stats() {
        let requests = requests_of(
            "#Vscsi Cmd Trace. (Trace Format Version 1)\n#Serial Number,IO Data Length,Num SG Entries,Command Type,LBN,Time Stamp (microseconds)\n\
             2147483692,4096,1,write,24048792,2756778716647\n7,512,1,0x28,8,2756783857269\n8,0,0,53,0,2756783857270\n",
        );
        let requests = requests.expect("two requests");
        let wanted = Request {
            timestamp_us: 2_756_778_716_647,
            op: Op::Write,
            offset_bytes: 24_048_792 * 512,
            len_bytes: 4096,
        };
        assert_eq!((requests.len(), requests[0], requests[1].op), (2, wanted, Op::Read));
    }
}
