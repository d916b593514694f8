//! The picture: title, map, predictions, axes, legend. All places are here.

use forerun::change_vector::ChangeKind;
use forerun::config::format_size;
use forerun::geometry::BLOCK_BYTES;
use forerun::prediction::Prediction;
use forerun::prediction_table::TableInfo;
use forerun::utc::Utc;

use super::super::super::output::{count, counted};
use super::super::contents::exact_size;
use super::cells::{Cells, KINDS, Shade, index};
use super::drawing::{Anchor, Drawing, Ink, SHADES};
use super::rows::BREAK_HEIGHT;
use super::scale::{self, about};

const WIDTH: u32 = 1240;
const HEIGHT: u32 = 1000;
/// The map of the past.
const MAP_X: u32 = 140;
const MAP_Y: u32 = 130;
const MAP_WIDTH: u32 = 850;
/// The map's height.
pub const MAP_HEIGHT: u32 = 640;
/// No epoch is wider.
const COLUMN_WIDTH_MAX: u32 = 60;
/// The two columns of predictions, apart from the past.
const PREDICTED_GAP: u32 = 60;
const PREDICTED_WIDTH: u32 = 70;
const PREDICTED_SPACE: u32 = 20;
/// Labels of epochs are at least this far apart: a date fits between.
const LABEL_WIDTH: u32 = 100;
/// From a label's middle to the line it stands on.
const LABEL_DROP: u32 = 5;
const LINE_HEIGHT: u32 = 20;
const LEGEND_Y: u32 = MAP_Y + MAP_HEIGHT + 96;
const SWATCH_WIDTH: u32 = 96;
const SWATCH_HEIGHT: u32 = 14;

/// From which share of a cell's blocks on it has which shade.
const SHARE_STEPS: [f64; 3] = [0.02, 0.1, 0.5];
const SHARE_WORDS: [&str; 4] = ["under 2 %", "2-10 %", "10-50 %", "from 50 %"];
/// From which probability on a cell has which shade.
const PROBABILITY_STEPS: [f64; 3] = [0.25, 0.5, 0.75];
const PROBABILITY_WORDS: [&str; 4] = ["p < 0.25", "from 0.25", "from 0.5", "from 0.75"];

/// What is shown.
pub struct Subject<'t> {
    pub volume: String,
    pub size_bytes: u64,
    /// The second column of predictions is of those from here on.
    pub from_probability: f64,
    /// What the table says of itself; `None` where nothing was published yet.
    pub table: Option<&'t TableInfo>,
    /// Why there is no past.
    pub note: Option<String>,
    pub cells: Cells,
}

/// Draws the picture.
pub fn draw(subject: &Subject, predictions: &[Prediction]) -> Drawing {
    let mut drawing = Drawing {
        width: WIDTH,
        height: HEIGHT,
        title: title(subject),
        rectangles: Vec::new(),
        texts: Vec::new(),
    };
    headings(&mut drawing, subject);
    past(&mut drawing, subject);
    predicted(&mut drawing, subject, predictions);
    breaks(&mut drawing, subject);
    offsets(&mut drawing, subject);
    legend(&mut drawing, subject);
    drawing
}

fn title(subject: &Subject) -> String {
    let Subject { volume, size_bytes, .. } = subject;
    format!("volume {volume} ({}): what changed and what is expected to", about(*size_bytes))
}

fn headings(drawing: &mut Drawing, subject: &Subject) {
    let columns = &subject.cells.columns;
    let past = match (columns.first(), columns.last()) {
        (Some(first), Some(last)) => {
            let (first, last) = (first.moment, last.moment);
            let epochs = if first.epoch == last.epoch {
                format!("epoch {}", first.epoch)
            } else {
                format!("epochs {} to {}", first.epoch, last.epoch)
            };
            let (from, to) = (Utc::from_us(first.opened_us), Utc::from_us(last.sealed_us));
            format!("past: {epochs}, {from} to {to} (UTC)")
        }
        _ => "past: no epochs".into(),
    };
    let expected = match subject.table {
        Some(info) => format!(
            "expected: within {} after epoch {}, by {}, published {} (UTC); threshold {}",
            counted(info.horizon.epochs().into(), "epoch"),
            info.epoch,
            info.model,
            Utc::from_us(info.published_us),
            subject.from_probability,
        ),
        None => format!("expected: no predictions yet; threshold {}", subject.from_probability),
    };
    let title = drawing.title.clone();
    for (line, (words, ink)) in
        [(title, Ink::TEXT), (past, Ink::FAINT), (expected, Ink::FAINT)].into_iter().enumerate()
    {
        drawing.text(MAP_X, 30 + line as u32 * 22, Anchor::Start, ink, words);
    }
    let above = MAP_Y - 12;
    drawing.text(MAP_X - 14, above, Anchor::End, Ink::FAINT, "offset");
    drawing.text(MAP_X + MAP_WIDTH, above, Anchor::End, Ink::TEXT, "past epochs");
    let middle = predicted_x(0) + (predicted_x(1) + PREDICTED_WIDTH - predicted_x(0)) / 2;
    drawing.text(middle, above, Anchor::Middle, Ink::TEXT, "expected next");
}

/// The left edge of a column of predictions.
const fn predicted_x(column: u32) -> u32 {
    MAP_X + MAP_WIDTH + PREDICTED_GAP + column * (PREDICTED_WIDTH + PREDICTED_SPACE)
}

fn past(drawing: &mut Drawing, subject: &Subject) {
    let cells = &subject.cells;
    let count = cells.columns.len() as u32;
    // Few epochs stand next to the predictions, where they end.
    let width = MAP_WIDTH.min(count * COLUMN_WIDTH_MAX);
    let left = MAP_X + MAP_WIDTH - width;
    let edge = |column: u32| left + (width * column).checked_div(count).unwrap_or(0);
    if count == 0 {
        let why = subject.note.as_deref().unwrap_or("none has ended yet");
        let (x, y) = (MAP_X + MAP_WIDTH / 2, MAP_Y + MAP_HEIGHT / 2);
        drawing.text(x, y, Anchor::Middle, Ink::TEXT, format!("no past epochs: {why}"));
    }
    drawing.fill(MAP_X, MAP_Y, left - MAP_X, MAP_HEIGHT, Ink::BREAK);
    for (number, column) in (0..).zip(&cells.columns) {
        let (x, next) = (edge(number), edge(number + 1));
        // A hair of paper between columns that are wide enough for one.
        let gap = u32::from(next - x >= 8);
        paint(drawing, subject, &cells.shades(column), SHARE_STEPS, (x, next - x - gap));
    }
    // Colour by colour, for a small file; nothing overlaps yet.
    drawing.rectangles.sort_by_key(|rectangle| rectangle.ink);
    drawing.frame(MAP_X, MAP_Y, MAP_WIDTH, MAP_HEIGHT);
    let every = (LABEL_WIDTH * count).div_ceil(width.max(1));
    let below = MAP_Y + MAP_HEIGHT;
    for moment in scale::epochs(&cells.columns, every as usize) {
        let (x, next) = (edge(moment.column as u32), edge(moment.column as u32 + 1));
        let middle = x + (next - x) / 2;
        drawing.fill(middle, below + 1, 1, 5, Ink::LINE);
        drawing.text(middle, below + 20, Anchor::Middle, Ink::TEXT, moment.epoch);
        drawing.text(middle, below + 20 + LINE_HEIGHT, Anchor::Middle, Ink::FAINT, moment.time);
        if let Some(date) = moment.date {
            drawing.text(middle, below + 20 + 2 * LINE_HEIGHT, Anchor::Middle, Ink::FAINT, date);
        }
    }
    if count > 0 {
        for (line, words) in (0..).zip(["epoch", "sealed", "(UTC)"]) {
            drawing.text(
                MAP_X - LABEL_WIDTH / 2,
                below + 20 + line * LINE_HEIGHT,
                Anchor::End,
                Ink::FAINT,
                words,
            );
        }
    }
}

/// Paints a column of cells: neighbours of one colour in one piece.
fn paint(
    drawing: &mut Drawing,
    subject: &Subject,
    shades: &[Option<Shade>],
    steps: [f64; 3],
    (x, width): (u32, u32),
) {
    let rows = &subject.cells.rows.rows;
    let inks = shades.iter().map(|shade| shade.map(|shade| ink(shade.kind, step(shade.value, steps))));
    let cells: Vec<(u32, u32, Option<Ink>)> =
        rows.iter().zip(inks).map(|(row, ink)| (row.y, row.height, ink)).collect();
    for run in cells.chunk_by(|a, b| a.2 == b.2 && a.0 + a.1 == b.0) {
        if let Some((y, _, Some(ink))) = run.first() {
            let height = run.iter().map(|(_, height, _)| height).sum();
            drawing.fill(x, MAP_Y + y, width, height, *ink);
        }
    }
}

/// Which of the shades a value has, 0 for the palest.
fn step(value: f64, steps: [f64; 3]) -> u8 {
    steps.iter().filter(|step| value >= **step).count() as u8
}

fn ink(kind: ChangeKind, shade: u8) -> Ink {
    let Ink(first) = Ink::KINDS.get(index(kind)).copied().unwrap_or(Ink::TEXT);
    Ink(first + shade.min(SHADES - 1))
}

fn predicted(drawing: &mut Drawing, subject: &Subject, predictions: &[Prediction]) {
    let below = MAP_Y + MAP_HEIGHT + 20;
    let from = format!("p >= {}", subject.from_probability);
    for (column, from, words) in [(0, 0.0, "all"), (1, subject.from_probability, &from)] {
        let x = predicted_x(column);
        let shades = subject.cells.predicted(predictions, from);
        paint(drawing, subject, &shades, PROBABILITY_STEPS, (x, PREDICTED_WIDTH));
        drawing.frame(x, MAP_Y, PREDICTED_WIDTH, MAP_HEIGHT);
        drawing.text(x + PREDICTED_WIDTH / 2, below, Anchor::Middle, Ink::TEXT, words);
        let count = predictions.iter().filter(|p| p.probability.get() >= from as f32).count() as u64;
        let words = format_size(count * BLOCK_BYTES);
        drawing.text(x + PREDICTED_WIDTH / 2, below + LINE_HEIGHT, Anchor::Middle, Ink::FAINT, words);
    }
}

/// Marks what is left out, across everything.
fn breaks(drawing: &mut Drawing, subject: &Subject) {
    for left_out in &subject.cells.rows.breaks {
        let y = MAP_Y + left_out.y;
        for (x, width) in
            [(MAP_X, MAP_WIDTH), (predicted_x(0), PREDICTED_WIDTH), (predicted_x(1), PREDICTED_WIDTH)]
        {
            drawing.fill(x, y, width, BREAK_HEIGHT, Ink::BREAK);
            drawing.fill(x, y, width, 1, Ink::LINE);
            drawing.fill(x, y + BREAK_HEIGHT - 1, width, 1, Ink::LINE);
        }
        let size = format_size(u64::from(left_out.blocks) * BLOCK_BYTES);
        let words = format!("{size} left out: nothing changed, nothing is expected to");
        let y = y + BREAK_HEIGHT / 2 + LABEL_DROP;
        drawing.text(MAP_X + MAP_WIDTH / 2, y, Anchor::Middle, Ink::FAINT, words);
    }
}

fn offsets(drawing: &mut Drawing, subject: &Subject) {
    for segment in &subject.cells.rows.segments {
        for tick in scale::offsets(segment) {
            let y = MAP_Y + tick.at;
            drawing.fill(MAP_X - 7, y, 6, 1, Ink::LINE);
            drawing.text(MAP_X - 12, y + LABEL_DROP, Anchor::End, Ink::TEXT, tick.words);
        }
    }
}

fn legend(drawing: &mut Drawing, subject: &Subject) {
    let right = MAP_X + 5 * SWATCH_WIDTH + 120;
    let parts = [
        (MAP_X, "past: share of a cell's blocks that changed", SHARE_WORDS),
        (right, "expected: the highest probability in a cell", PROBABILITY_WORDS),
    ];
    for (x, heading, words) in parts {
        drawing.text(x, LEGEND_Y, Anchor::Start, Ink::TEXT, heading);
        for (shade, words) in (0..SHADES).zip(words) {
            let x = x + u32::from(shade) * SWATCH_WIDTH;
            for (line, kind) in (0..).zip(KINDS) {
                let y = LEGEND_Y + 12 + line * LINE_HEIGHT;
                drawing.fill(x, y, SWATCH_WIDTH - 4, SWATCH_HEIGHT, ink(kind, shade));
            }
            let (x, y) = (x + SWATCH_WIDTH / 2 - 2, LEGEND_Y + 12 + 3 * LINE_HEIGHT + 14);
            drawing.text(x, y, Anchor::Middle, Ink::FAINT, words);
        }
        for (line, kind) in (0..).zip(KINDS) {
            let (x, y) = (x + 4 * SWATCH_WIDTH + 4, LEGEND_Y + 12 + line * LINE_HEIGHT + SWATCH_HEIGHT - 2);
            drawing.text(x, y, Anchor::Start, Ink::TEXT, kind.name());
        }
    }
    let rows = &subject.cells.rows.rows;
    let blocks = |row: &super::rows::Row| row.blocks;
    let (least, most) = (rows.iter().map(blocks).min(), rows.iter().map(blocks).max());
    let size = |blocks: Option<u32>| u64::from(blocks.unwrap_or(0)) * BLOCK_BYTES;
    let height = match (size(least), size(most)) {
        (least, most) if least == most => exact_size(least),
        (least, most) => format!("{} to {}", format_size(least), format_size(most)),
    };
    let words = format!(
        "{} rows of {height} each; of several kinds in a cell, the one that most of its changed blocks have",
        count(rows.len() as u64)
    );
    drawing.text(MAP_X, LEGEND_Y + 12 + 3 * LINE_HEIGHT + 40, Anchor::Start, Ink::FAINT, words);
}
