//! Which part of the volume each row of the picture is.
//!
//! A volume of which little changes would be an empty picture with a few dots. So long stretches in which nothing
//! changes and nothing is expected to are left out: the rest is shown in segments, top to bottom, with a break between
//! them. A segment's height follows half its length and half what changes in it, so that the busy parts have more rows;
//! within a segment all rows are of about the same number of blocks. Every touched block is in exactly one row.

use super::touched::Touched;

/// At most so many stretches are left out.
const BREAKS_MAX: usize = 8;
/// A stretch that would take less than this share of the picture, or fewer blocks, stays.
const BREAK_SHARE: u64 = 16;
const BREAK_BLOCKS_MIN: u64 = 64;
/// So many blocks beside what changes stay, so that a segment does not end right at it.
const MARGIN_BLOCKS: u64 = 8;
/// The height of a break, in the picture's units: a line of text fits in.
pub const BREAK_HEIGHT: u32 = 20;
/// A segment is at least this high: its offset fits beside it.
const SEGMENT_HEIGHT_MIN: u32 = 16;
/// A row is at least this high.
const ROW_HEIGHT_MIN: u32 = 2;

/// A row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its first block, and how many there are in it.
    pub first: u32,
    pub blocks: u32,
    /// Its upper edge from the map's, and its height.
    pub y: u32,
    pub height: u32,
}

/// A part of the volume that is shown in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub first: u32,
    pub blocks: u32,
    pub y: u32,
    pub height: u32,
}

/// A stretch that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Break {
    pub first: u32,
    pub blocks: u32,
    pub y: u32,
}

/// The rows, top to bottom.
pub struct Rows {
    pub rows: Vec<Row>,
    pub segments: Vec<Segment>,
    pub breaks: Vec<Break>,
}

/// Blocks from the first to before the second.
type Stretch = (u64, u64);

impl Rows {
    /// Rows of a volume, for a map of a height.
    pub fn new(touched: &Touched, volume_blocks: u32, height: u32) -> Self {
        let left_out = left_out(touched, volume_blocks.into());
        // What is shown lies between what is left out.
        let (mut parts, mut at) = (Vec::new(), 0);
        for stretch in &left_out {
            parts.push(((at, stretch.0), false));
            parts.push((*stretch, true));
            at = stretch.1;
        }
        parts.push(((at, volume_blocks.into()), false));
        parts.retain(|((from, to), _)| from < to);

        let weights = weights(&parts, touched);
        let all: f64 = weights.iter().sum();
        let segments = parts.iter().filter(|part| !part.1).count() as u32;
        let fixed = left_out.len() as u32 * BREAK_HEIGHT + segments * SEGMENT_HEIGHT_MIN;
        let to_share = f64::from(height.saturating_sub(fixed));
        let mut made = Self { rows: Vec::new(), segments: Vec::new(), breaks: Vec::new() };
        let (mut y, mut before) = (0, 0.0);
        for (((from, to), is_break), weight) in parts.into_iter().zip(weights) {
            // Blocks of a volume fit in 32 bits.
            let (first, blocks) = (from as u32, (to - from) as u32);
            if is_break {
                made.breaks.push(Break { first, blocks, y });
                y += BREAK_HEIGHT;
                continue;
            }
            // By sums, so that the rounding does not add up.
            let shared = |weight: f64| (to_share * weight / all).round() as u32;
            let height = SEGMENT_HEIGHT_MIN + shared(before + weight) - shared(before);
            before += weight;
            made.segment(Segment { first, blocks, y, height });
            y += height;
        }
        made
    }

    fn segment(&mut self, segment: Segment) {
        let count = segment.blocks.min(segment.height / ROW_HEIGHT_MIN).max(1);
        let part = |whole: u32, nth: u32| (u64::from(whole) * u64::from(nth) / u64::from(count)) as u32;
        self.rows.extend((0..count).map(|nth| {
            let (from, to) = (part(segment.blocks, nth), part(segment.blocks, nth + 1));
            let (top, bottom) = (part(segment.height, nth), part(segment.height, nth + 1));
            Row { first: segment.first + from, blocks: to - from, y: segment.y + top, height: bottom - top }
        }));
        self.segments.push(segment);
    }

    /// The row that a block is in; `None` for one that is left out.
    pub fn of(&self, block: u32) -> Option<usize> {
        let index = self.rows.partition_point(|row| row.first <= block).checked_sub(1)?;
        self.rows.get(index).filter(|row| block - row.first < row.blocks).map(|_| index)
    }
}

/// How much of the height each part gets: the share of the blocks shown plus the share of those touched; 0 for a break.
fn weights(parts: &[(Stretch, bool)], touched: &Touched) -> Vec<f64> {
    let shown: u64 = parts.iter().filter(|part| !part.1).map(|((from, to), _)| to - from).sum();
    let mut blocks = touched.blocks().map(u64::from).peekable();
    let mut counts = Vec::with_capacity(parts.len());
    for ((_, to), _) in parts {
        let mut count = 0_u64;
        while blocks.next_if(|block| block < to).is_some() {
            count += 1;
        }
        counts.push(count);
    }
    let all: u64 = counts.iter().sum();
    let weight = |(((from, to), is_break), count): (&(Stretch, bool), u64)| match is_break {
        true => 0.0,
        false => (to - from) as f64 / shown.max(1) as f64 + count as f64 / all.max(1) as f64,
    };
    parts.iter().zip(counts).map(weight).collect()
}

/// The stretches that are left out, ascending.
fn left_out(touched: &Touched, volume_blocks: u64) -> Vec<Stretch> {
    let mut largest: Vec<Stretch> = Vec::new();
    let (mut at, mut any) = (0, false);
    let mut stretch = |from: u64, to: u64| {
        if to.saturating_sub(from) < BREAK_BLOCKS_MIN {
            return;
        }
        largest.push((from, to));
        if largest.len() > 2 * BREAKS_MAX {
            largest.sort_by_key(|(from, to)| std::cmp::Reverse(to - from));
            largest.truncate(BREAKS_MAX);
        }
    };
    for block in touched.blocks().map(u64::from).take_while(|block| *block < volume_blocks) {
        let from = if any { at + MARGIN_BLOCKS } else { 0 };
        stretch(from, block.saturating_sub(MARGIN_BLOCKS));
        (at, any) = (block + 1, true);
    }
    if !any {
        return Vec::new();
    }
    stretch(at + MARGIN_BLOCKS, volume_blocks);
    largest.sort_by_key(|(from, to)| std::cmp::Reverse(to - from));
    let mut shown = volume_blocks;
    let mut chosen: Vec<Stretch> = largest
        .into_iter()
        .take(BREAKS_MAX)
        .take_while(|(from, to)| {
            let worth_it = (to - from) * BREAK_SHARE > shown;
            shown -= if worth_it { to - from } else { 0 };
            worth_it
        })
        .collect();
    chosen.sort_unstable();
    chosen
}
