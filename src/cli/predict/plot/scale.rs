//! Ticks of the two axes, and their words.

use forerun::geometry::BLOCK_BYTES;
use forerun::utc::Utc;

use super::super::super::output::count;
use super::super::contents::exact_size;
use super::cells::Column;
use super::rows::Segment;

/// Ticks down are at least this far apart.
const TICK_HEIGHT_MIN: u32 = 40;
/// A label is this high.
const LABEL_HEIGHT: u32 = 16;
/// The greatest number in a label.
const NUMBER_MAX: u64 = 99_999;
/// The units of sizes, as powers of two.
const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];

/// Where a tick is, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// From the map's edge.
    pub at: u32,
    pub words: String,
}

/// The ticks of a segment: where it begins, and the round offsets in it.
pub fn offsets(segment: &Segment) -> Vec<Tick> {
    let (first, blocks) = (u64::from(segment.first), u64::from(segment.blocks).max(1));
    let mut ticks = vec![Tick { at: segment.y, words: beginning(first * BLOCK_BYTES) }];
    let height = u64::from(segment.height);
    let mut step = 1;
    while step * height < blocks * u64::from(TICK_HEIGHT_MIN) {
        step *= 2;
    }
    // Round offsets where they are short; else how far it is from the segment's beginning.
    let absolute = unit_of(step * BLOCK_BYTES, (first + blocks) * BLOCK_BYTES);
    let mut block = if absolute.is_some() { (first / step + 1) * step } else { first + step };
    while block < first + blocks {
        let down = (block - first) * height / blocks;
        let is_free = down >= LABEL_HEIGHT.into() && height - down >= u64::from(LABEL_HEIGHT) / 2;
        if is_free {
            let words = match absolute {
                Some(unit) => in_unit(block * BLOCK_BYTES, unit),
                None => format!("+{}", exact_size((block - first) * BLOCK_BYTES)),
            };
            ticks.push(Tick { at: segment.y + down as u32, words });
        }
        block += step;
    }
    ticks
}

/// The largest unit in which multiples of a step up to an end have at most two decimals (quarters), if numbers stay short.
fn unit_of(step_bytes: u64, end_bytes: u64) -> Option<(u32, &'static str)> {
    let unit = UNITS.iter().find(|(shift, _)| step_bytes * 4 >= 1 << shift).copied()?;
    (end_bytes >> unit.0 <= NUMBER_MAX).then_some(unit)
}

fn in_unit(bytes: u64, (shift, unit): (u32, &str)) -> String {
    let quarters = (bytes >> (shift - 2)) & 3;
    let decimals = [".25", ".5", ".75"].get((quarters as usize).wrapping_sub(1)).copied().unwrap_or("");
    format!("{}{decimals} {unit}", count(bytes >> shift))
}

/// An offset: exact where that is short, else with three decimals.
fn beginning(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match exact {
        Some((shift, _)) if bytes >> shift > NUMBER_MAX => about(bytes),
        _ => exact_size(bytes),
    }
}

/// A size with at most three decimals, in the largest unit that it has one of.
pub fn about(bytes: u64) -> String {
    match UNITS.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let text = format!("{:.3}", bytes as f64 / (1_u64 << shift) as f64);
            format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
        }
        None => exact_size(bytes),
    }
}

/// The words at an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moments {
    /// The column's number, from 0.
    pub column: usize,
    pub epoch: String,
    /// The time of day it was sealed at.
    pub time: String,
    /// The date, where it is another than at the tick before.
    pub date: Option<String>,
}

/// Ticks of epochs, each so many columns from the next, the newest among them.
pub fn epochs(columns: &[Column], every: usize) -> Vec<Moments> {
    let every = every.max(1);
    let newest = columns.len().saturating_sub(1) % every;
    let mut last_date = None;
    let mut moments = Vec::new();
    for (column, Column { moment, .. }) in columns.iter().enumerate().skip(newest).step_by(every) {
        let sealed = Utc::from_us(moment.sealed_us).to_string();
        let (date, time) = sealed.split_once(' ').unwrap_or((&sealed, ""));
        let is_new = last_date.as_deref() != Some(date);
        moments.push(Moments {
            column,
            epoch: moment.epoch.to_string(),
            time: time.to_owned(),
            date: is_new.then(|| date.to_owned()),
        });
        last_date = Some(date.to_owned());
    }
    moments
}
