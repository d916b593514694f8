//! What `blkparse` prints by default: device, processor, number, time, process, action, kind, sector, `+`, sectors.
//!
//! A request passes several actions. Taken is where it enters the queue (`Q`); if a trace has none of these, where it is
//! given to the driver (`D`), else where it completes (`C`).

use anyhow::{Context, Result, bail};

use super::{Format, Op, Request, sectors};

/// The actions that requests are taken from, the best first.
const ACTIONS: [&str; 3] = ["Q", "D", "C"];

#[derive(Default)]
pub(super) struct Blkparse {
    device: Option<String>,
    /// By action, in the order of [`ACTIONS`].
    requests: [Vec<Request>; ACTIONS.len()],
}

/// Whether a line is one that blkparse prints for a request.
pub(super) fn is_one(line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let device = fields.first().and_then(|device| device.split_once(','));
    device.is_some_and(|(major, minor)| all_digits(major) && all_digits(minor))
        && fields.get(1).is_some_and(|processor| all_digits(processor))
        && fields.get(3).is_some_and(|time| time.contains('.'))
}

impl Format for Blkparse {
    fn line(&mut self, line: &str) -> Result<Option<Request>> {
        // At its end blkparse prints sums, which begin with a name.
        if !is_one(line) {
            return Ok(None);
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, _, _, time, _, action, kind, sector, "+", count, ..] = fields.as_slice() else {
            return Ok(None);
        };
        let Some(list) =
            ACTIONS.iter().position(|known| known == action).and_then(|at| self.requests.get_mut(at))
        else {
            return Ok(None);
        };
        let Some(op) = op_of(kind) else { return Ok(None) };
        let known = self.device.get_or_insert_with(|| (*device).to_owned());
        if known != device {
            bail!("device {device} after {known}: a trace is of one device; blktrace -d traces one");
        }
        list.push(Request {
            timestamp_us: micros(time)?,
            op,
            offset_bytes: sectors("the sector", sector)?,
            len_bytes: sectors("the number of sectors", count)?,
        });
        Ok(None)
    }

    fn end(&mut self) -> Result<Vec<Request>> {
        let taken = self.requests.iter_mut().find(|list| !list.is_empty());
        Ok(taken.map(std::mem::take).unwrap_or_default())
    }
}

/// The letters of a request: `D` discards, `W` writes, `R` reads, others say how.
fn op_of(kind: &str) -> Option<Op> {
    // A flush before it is an F at the beginning.
    match kind.trim_start_matches('F').chars().next()? {
        'D' => Some(Op::Discard),
        'W' => Some(Op::Write),
        'R' => Some(Op::Read),
        _ => None,
    }
}

/// `seconds.nanoseconds` in microseconds.
fn micros(time: &str) -> Result<u64> {
    let wrong = || format!("the time is not seconds.nanoseconds: {time:?}");
    let (seconds, fraction) = time.split_once('.').with_context(wrong)?;
    let seconds: u64 = seconds.parse().with_context(wrong)?;
    let mut nanos = 0;
    for at in 0..9 {
        let digit = fraction.as_bytes().get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            bail!(wrong());
        }
        nanos = nanos * 10 + u64::from(digit - b'0');
    }
    seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(nanos / 1000)).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::super::tests::requests_of;
    use super::*;

    #[test]
    fn requests_are_taken_once_where_they_enter_the_queue() {
        let text = "  8,0    1        1     0.000000000   697  Q  WS 223490 + 8 [kjournald]\n\
                    \x20 8,0    1        2     0.000001829   697  G  WS 223490 + 8 [kjournald]\n\
                    \x20 8,0    1        3     0.000003000   697  D  WS 223490 + 8 [kjournald]\n\
                    \x20 8,0    1        4     1.500000000   697  Q  RA 8 + 16 [cat]\n\
                    \x20 8,0    1        5     1.500000001   697  Q FWFS 24 + 8 [x]\n\
                    \x20 8,0    1        6     1.6           697  Q   D 32 + 64 [fstrim]\n\
                    \x20 8,0    1        7     1.7           697  Q  FN [x]\n\
                    \x20 8,0    0        0     1.8             0  m   N cfq workload slice:300\n\
                    CPU0 (8,0):\n Reads Queued:           1,        8KiB\n";
        let requests = requests_of(text).expect("a trace");
        let ops: Vec<_> = requests.iter().map(|request| (request.timestamp_us, request.op)).collect();
        let wanted =
            [(0, Op::Write), (1_500_000, Op::Read), (1_500_000, Op::Write), (1_600_000, Op::Discard)];
        assert_eq!(ops, wanted);
        assert_eq!((requests[0].offset_bytes, requests[0].len_bytes), (223_490 * 512, 4096));
        let issued = "8,16 3 11 0.009507758 697 D W 8 + 8 [x]\n8,16 3 12 0.010 697 C W 8 + 8 [0]\n";
        assert_eq!(requests_of(issued).expect("a trace").len(), 1);
        let two = "8,0 1 1 0.0 1 Q W 8 + 8 [x]\n8,16 1 1 0.0 1 Q W 8 + 8 [x]\n";
        assert!(requests_of(two).is_err());
    }
}
