//! Cuts a trace into epochs and makes the change vectors that the target would have made.
//!
//! As with the target, an epoch in which nothing was written does not end: it goes on to the next time at which one would.
//!
//! A block has 64 KiB, as the target's, or what is asked for; it always has 16 sub-blocks.
//!
//! A block is added when it is first written or was discarded before, deleted when it is discarded as a
//! whole, else modified.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, MAX_VOLUME_BYTES, SubBlockMask};

use super::trace::{Op, Request};

/// How long an epoch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochLength {
    /// So many microseconds.
    Time(u64),
    /// So many requests.
    Requests(usize),
    /// All of the same time, which is so short that the trace makes this many.
    Count(u64),
}

impl FromStr for EpochLength {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(requests) = text.strip_suffix("-requests") {
            let requests =
                requests.parse().with_context(|| format!("{requests:?} is no number of requests"))?;
            if requests == 0 {
                bail!("an epoch has at least one request");
            }
            return Ok(Self::Requests(requests));
        }
        let units = [("ms", 1_000), ("us", 1), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
        for (unit, us) in units {
            if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<u64>().ok()) {
                if count == 0 {
                    bail!("an epoch takes some time");
                }
                return Ok(Self::Time(count.saturating_mul(us)));
            }
        }
        bail!("an epoch is like 5m, 30s, 500ms, 1h or 1000-requests, not {text:?}")
    }
}

/// A block's size, in bytes: a power of two from 4 KiB to 4 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockSize(u64);

impl Default for BlockSize {
    fn default() -> Self {
        Self(BLOCK_BYTES)
    }
}

impl BlockSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for BlockSize {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let units = [("K", 10), ("M", 20), ("KiB", 10), ("MiB", 20)];
        let parsed = units
            .iter()
            .find_map(|(unit, shift)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(1 << shift));
        match parsed.or_else(|| text.parse().ok()) {
            Some(bytes) if bytes.is_power_of_two() && (4 << 10..=4 << 20).contains(&bytes) => Ok(Self(bytes)),
            _ => bail!("a block is a power of two from 4K to 4M, like 64K, not {text:?}"),
        }
    }
}

/// The change vectors of a trace, and the volume's size in blocks.
///
/// # Errors
/// A request past the largest volume, or more epochs than can be numbered.
pub fn change_vectors(
    requests: &[Request],
    length: EpochLength,
    block: BlockSize,
) -> Result<(Vec<ChangeVector>, u32)> {
    let start_us = requests.first().map_or(0, |request| request.timestamp_us);
    let end_us = requests.last().map_or(0, |request| request.timestamp_us);
    let (length, before_us) = match length {
        EpochLength::Count(count) => {
            let (us, all_us) = (time_for(requests, count), end_us - start_us + 1);
            // The last epoch is a whole one, since the mean counts it like any other: the first began before the trace.
            (EpochLength::Time(us), all_us.next_multiple_of(us) - all_us)
        }
        other => (other, 0),
    };
    let (mut vectors, mut open) = (Vec::new(), Open { block: block.bytes(), ..Open::default() });
    let mut blocks = 1024;
    let mut index = 0u64;
    for (at, request) in requests.iter().enumerate() {
        let now = match length {
            EpochLength::Requests(count) => (at / count) as u64,
            EpochLength::Time(us) => (request.timestamp_us.saturating_sub(start_us) + before_us) / us,
            EpochLength::Count(_) => 0,
        };
        if vectors.len() > 1 << 20 {
            bail!("more than a million epochs; take longer ones");
        }
        if index < now && !open.changes.is_empty() {
            let sealed_us = match length {
                EpochLength::Time(us) => start_us + (index + 1) * us - before_us,
                _ => request.timestamp_us,
            };
            vectors.push(open.seal(vectors.len() as u32 + 1, sealed_us)?);
        }
        index = now;
        let end = request.offset_bytes.checked_add(request.len_bytes).filter(|end| *end <= MAX_VOLUME_BYTES);
        let end = end.with_context(|| format!("request {at} lies past the largest volume, 64 TiB"))?;
        blocks = blocks.max(u32::try_from(end.div_ceil(block.bytes()))?);
        open.take(request);
    }
    if !open.changes.is_empty() {
        vectors.push(open.seal(vectors.len() as u32 + 1, end_us)?);
    }
    Ok((vectors, blocks))
}

/// A time, in microseconds, by which writes and discards fall into at least `count` epochs; about the longest, found by halving. 1 where
/// they are too few.
fn time_for(requests: &[Request], count: u64) -> u64 {
    let end_us = requests.last().map_or(0, |request| request.timestamp_us);
    let before_end = |request: &Request| end_us.saturating_sub(request.timestamp_us);
    let changes = || requests.iter().filter(|request| request.op != Op::Read);
    let epochs = |us: u64| {
        let (mut last, mut epochs) = (None, 0u64);
        for request in changes() {
            let epoch = before_end(request) / us;
            epochs += u64::from(last != Some(epoch));
            last = Some(epoch);
        }
        epochs
    };
    let (mut enough, mut too_long) = (1, changes().next().map_or(0, before_end) + 2);
    while enough + 1 < too_long {
        let middle = u64::midpoint(enough, too_long);
        if epochs(middle) >= count { enough = middle } else { too_long = middle }
    }
    enough
}

/// The open epoch: what was written and discarded in each block.
#[derive(Default)]
struct Open {
    /// Bytes of a block.
    block: u64,
    changes: BTreeMap<u32, (SubBlockMask, bool)>,
    holds_data: HashSet<u32>,
    opened_us: u64,
}

impl Open {
    fn take(&mut self, request: &Request) {
        if request.op == Op::Read {
            return;
        }
        let (mut at, end) = (request.offset_bytes, request.offset_bytes + request.len_bytes);
        while at < end {
            let block = at / self.block;
            let within = at - block * self.block;
            let len = (self.block - within).min(end - at);
            at += len;
            let block = block as u32;
            if request.op == Op::Discard {
                if len == self.block
                    && (self.holds_data.contains(&block) || self.changes.contains_key(&block))
                {
                    self.changes.insert(block, (SubBlockMask::FULL, true));
                }
            } else {
                let (mask, deleted) = self.changes.entry(block).or_default();
                let before = if *deleted { SubBlockMask::EMPTY } else { *mask };
                *mask = before.union(touched(within, len, self.block));
                *deleted = false;
            }
        }
    }

    fn seal(&mut self, epoch: u32, sealed_us: u64) -> Result<ChangeVector> {
        let mut changes = Vec::with_capacity(self.changes.len());
        for (block, (mask, deleted)) in std::mem::take(&mut self.changes) {
            let held = if deleted { self.holds_data.remove(&block) } else { !self.holds_data.insert(block) };
            let kind = match (deleted, held) {
                (true, true) => ChangeKind::Deleted,
                (true, false) => continue,
                (false, true) => ChangeKind::Modified,
                (false, false) => ChangeKind::Added,
            };
            changes.push(Change { block: BlockIndex(block), kind, sub_blocks: mask.count() as u8 });
        }
        let opened_us = std::mem::replace(&mut self.opened_us, sealed_us);
        Ok(ChangeVector::new(Epoch(epoch), opened_us, sealed_us, changes)?)
    }
}

/// The sixteenths of a block that a range of bytes touches.
fn touched(within: u64, len: u64, block: u64) -> SubBlockMask {
    let (from, end) = (within * BLOCK_BYTES / block, ((within + len) * BLOCK_BYTES).div_ceil(block));
    SubBlockMask::touched(from, end.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_becomes_epochs() {
        let request =
            |timestamp_us, op, offset_bytes, len_bytes| Request { timestamp_us, op, offset_bytes, len_bytes };
        let requests = [
            request(0, Op::Write, 0, 4096),
            request(1, Op::Read, 1 << 20, 4096),
            request(5, Op::Write, BLOCK_BYTES - 4096, 8192),
            request(12, Op::Write, 0, 1),
            request(33, Op::Discard, 0, BLOCK_BYTES * 2 - 1),
        ];
        let (vectors, blocks) =
            change_vectors(&requests, EpochLength::Time(10), BlockSize::default()).expect("epochs");
        let of = |index: usize| -> Vec<_> {
            let changes = vectors[index].changes().iter();
            changes.map(|change| (change.block.0, change.kind, change.sub_blocks)).collect()
        };
        assert_eq!((vectors.len(), blocks), (3, 1024), "nothing was written in the third");
        assert_eq!(of(0), [(0, ChangeKind::Added, 2), (1, ChangeKind::Added, 1)]);
        assert_eq!(of(1), [(0, ChangeKind::Modified, 1)]);
        assert_eq!(of(2), [(0, ChangeKind::Deleted, 16)]);
        let times: Vec<_> = vectors.iter().map(|vector| (vector.epoch.0, vector.sealed_us)).collect();
        assert_eq!(times, [(1, 10), (2, 20), (3, 33)]);
        let by_count = change_vectors(&requests, EpochLength::Requests(2), BlockSize::default());
        assert_eq!(by_count.expect("epochs").0.len(), 3);
        let by_number =
            change_vectors(&requests, EpochLength::Count(3), BlockSize::default()).expect("epochs").0;
        assert_eq!((by_number.len(), by_number[2].sealed_us), (3, 33), "and not a fourth of one microsecond");
        let bursts: Vec<Request> = (0..40)
            .map(|at| request(at % 4 + at / 4 * 1_000_000, Op::Write, at * BLOCK_BYTES, 4096))
            .collect();
        for count in [2, 5, 10, 20, 40] {
            let (vectors, _) =
                change_vectors(&bursts, EpochLength::Count(count), BlockSize::default()).expect("epochs");
            assert!(
                (count..=2 * count).contains(&(vectors.len() as u64)),
                "{} epochs of {count}",
                vectors.len()
            );
            assert!(vectors.iter().all(|vector| !vector.changes().is_empty()));
        }
        let small = "4K".parse().expect("a size");
        let (vectors, _) = change_vectors(&requests, EpochLength::Time(10), small).expect("epochs");
        let changes: Vec<_> = vectors[0].changes().iter().map(|c| (c.block.0, c.sub_blocks)).collect();
        assert_eq!(changes, [(0, 16), (15, 16), (16, 16)]);
        assert_eq!(vectors[2].changes().len(), 3, "only what held data is deleted");
    }

    #[test]
    fn lengths_are_read() {
        assert_eq!("5m".parse::<EpochLength>().expect("minutes"), EpochLength::Time(300_000_000));
        assert_eq!("7-requests".parse::<EpochLength>().expect("requests"), EpochLength::Requests(7));
        assert_eq!("500ms".parse::<EpochLength>().expect("milliseconds"), EpochLength::Time(500_000));
        assert_eq!("1M".parse::<BlockSize>().expect("a size").bytes(), 1 << 20);
        for bad in ["", "64", "48K", "8M", "2KiB", "K"] {
            assert!(bad.parse::<BlockSize>().is_err(), "{bad}");
        }
        for bad in ["", "5", "0s", "0-requests", "5d", "-1s"] {
            assert!(bad.parse::<EpochLength>().is_err(), "{bad}");
        }
    }
}
