//! Known vectors give known cells, and any input gives a picture that programs can read.

use std::io::Cursor;

use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};

use super::super::tests::{config, predicted, table};
use super::cells::{Moment, Shade};
use super::drawing::{Ink, PALETTE};
use super::rows::{Row, Rows};
use super::*;
use ChangeKind::{Added, Deleted, Modified};

const MINUTE_US: u64 = 60_000_000;
const BEGIN_US: u64 = 1_795_427_100_000_000;

fn vector(epoch: u32, changes: &[(u32, ChangeKind)]) -> ChangeVector {
    let change =
        |(block, kind): &(u32, ChangeKind)| Change { block: BlockIndex(*block), kind: *kind, sub_blocks: 1 };
    let opened = BEGIN_US + u64::from(epoch) * MINUTE_US;
    let changes = changes.iter().map(change).collect();
    ChangeVector::new(Epoch(epoch), opened, opened + MINUTE_US, changes).expect("a vector")
}

fn sized(blocks: u64) -> VolumeConfig {
    let text = config().to_toml().expect("TOML");
    let size = format!("size_bytes = {}", blocks * 65_536);
    VolumeConfig::from_toml(&text.replace("size_bytes = 67108864", &size)).expect("a configuration")
}

fn drawn(mut past: Past, blocks: u64, table: Option<&Table>) -> Drawing {
    let predictions = table.map_or(&[][..], |table| &table.predictions);
    draw(&mut past, &sized(blocks), predictions, |cells, past| Subject {
        volume: "data".into(),
        size_bytes: blocks * 65_536,
        from_probability: 0.5,
        table: table.map(|table| &table.info),
        note: past.note(),
        cells,
    })
    .expect("a picture")
}

fn touched(blocks: impl IntoIterator<Item = u32>) -> Touched {
    let mut touched = Touched::default();
    blocks.into_iter().for_each(|block| touched.add(block));
    touched
}

fn says(drawing: &Drawing, words: &str) -> bool {
    drawing.texts.iter().any(|text| text.words.contains(words))
}

#[test]
fn the_name_says_the_format() {
    for (name, format) in [("a.svg", Format::Svg), ("/x/b.PNG", Format::Png), ("c.png.svg", Format::Svg)] {
        assert_eq!(name.parse::<PlotFile>().expect("a format").format, format);
    }
    for name in ["a", "a.jpg", "svg", ".svg", "a.svg.gz", ""] {
        assert!(name.parse::<PlotFile>().is_err(), "{name}");
    }
}

#[test]
fn a_set_of_blocks_gives_them_back() {
    let blocks = [0, 1, 63, 64, 65_535, 65_536, 1 << 29, (1 << 30) - 1];
    assert_eq!(touched(blocks.into_iter().rev()).blocks().collect::<Vec<u32>>(), blocks);
}

#[test]
fn known_vectors_give_known_cells() {
    // 1,024 blocks, and 320 rows of 2 pixels: row n has the blocks from n * 1024 / 320 on.
    let spread: Vec<u32> = (0..1_024).step_by(32).collect();
    let rows = Rows::new(&touched(spread), 1_024, 640);
    assert_eq!((rows.rows.len(), rows.segments.len(), rows.breaks.len()), (320, 1, 0));
    assert_eq!(rows.rows[0], Row { first: 0, blocks: 3, y: 0, height: 2 });
    assert_eq!(rows.rows[319], Row { first: 1_020, blocks: 4, y: 638, height: 2 });
    let mut cells = Cells::new(rows);
    let moment = |epoch| Moment { epoch, opened_us: 0, sealed_us: 1 };
    let change = |block, kind| Change { block: BlockIndex(block), kind, sub_blocks: 1 };
    cells.add(moment(7), &[change(0, Added), change(1, Modified)]);
    cells.add(moment(7), &[change(2, Modified), change(1_020, Deleted)]);
    cells.add(moment(9), &[]);
    assert_eq!(cells.columns.iter().map(|column| column.moment.epoch).collect::<Vec<_>>(), [7, 9]);
    let shades = cells.shades(&cells.columns[0]);
    assert_eq!(shades[0], Some(Shade { kind: Modified, value: 1.0 }));
    assert_eq!(shades[319], Some(Shade { kind: Deleted, value: 0.25 }));
    assert_eq!(shades.iter().flatten().count(), 2);
    assert_eq!(cells.shades(&cells.columns[1]).iter().flatten().count(), 0);
    let predictions =
        [predicted(1, Added, 0.9), predicted(2, Modified, 0.4), predicted(1_023, Deleted, 0.49)];
    let all = cells.predicted(&predictions, 0.0);
    assert_eq!(all[0].map(|shade| shade.kind), Some(Added));
    assert_eq!(all.iter().flatten().count(), 2);
    assert_eq!(cells.predicted(&predictions, 0.5).iter().flatten().count(), 1);
}

#[test]
fn every_touched_block_is_in_the_row_that_has_it() {
    let volumes: [(u32, Vec<u32>); 6] = [
        (1_024, vec![]),
        (1_024, vec![5]),
        (1 << 28, vec![0, 1, 2, (1 << 28) - 1]),
        (1 << 30, (0..2_000).map(|n| n * 524_287 % (1 << 30)).collect()),
        (1 << 28, (0..3_000).map(|n| (n % 20) * 12_000_000 + n).collect()),
        (1 << 28, (1 << 27..(1 << 27) + 300).collect()),
    ];
    for (blocks, list) in volumes {
        let set = touched(list.iter().copied());
        let rows = Rows::new(&set, blocks, 640);
        for block in set.blocks() {
            let row =
                rows.rows[rows.of(block).unwrap_or_else(|| panic!("block {block} of {blocks} is left out"))];
            assert!(row.first <= block && block - row.first < row.blocks);
        }
        let left_out: u64 = rows.breaks.iter().map(|left_out| u64::from(left_out.blocks)).sum();
        let shown: u64 = rows.rows.iter().map(|row| u64::from(row.blocks)).sum();
        assert_eq!(left_out + shown, u64::from(blocks), "nothing is lost");
        let (mut y, mut edges) = (0, Vec::new());
        edges.extend(rows.rows.iter().map(|row| (row.y, row.height)));
        edges.extend(rows.breaks.iter().map(|left_out| (left_out.y, super::rows::BREAK_HEIGHT)));
        edges.sort_unstable();
        for (top, height) in edges {
            assert!(top == y && height >= 2, "{top} {height} after {y}");
            y += height;
        }
        assert!((625..=640).contains(&y), "the map is full: {y}");
    }
}

#[test]
fn long_unchanged_stretches_are_left_out() {
    // 16 TiB, of which 300 blocks are touched: they get the picture.
    let rows = Rows::new(&touched(1 << 27..(1 << 27) + 300), 1 << 28, 640);
    assert_eq!((rows.breaks.len(), rows.segments.len()), (2, 1));
    assert_eq!((rows.segments[0].first, rows.segments[0].blocks), ((1 << 27) - 8, 316));
    assert!(rows.rows.iter().all(|row| row.blocks <= 2));
    let drawing = drawn(Past::of(vec![vector(1, &[(1 << 27, Added)])], 1 << 28), 1 << 28, None);
    assert!(says(&drawing, "8.0 TiB left out: nothing changed"), "{:?}", drawing.texts);
}

#[test]
fn offsets_are_round_and_short() {
    let words = |first, blocks, height| -> Vec<String> {
        let segment = super::rows::Segment { first, blocks, y: 0, height };
        scale::offsets(&segment).into_iter().map(|tick| tick.words).collect()
    };
    assert_eq!(words(0, 16_384, 200), ["0", "0.25 GiB", "0.5 GiB", "0.75 GiB"]);
    assert_eq!(words(0, 1 << 28, 200), ["0", "4 TiB", "8 TiB", "12 TiB"]);
    assert_eq!(words((1 << 27) - 8, 316, 200), ["8 TiB", "+4 MiB", "+8 MiB", "+12 MiB", "+16 MiB"]);
    assert_eq!(words(7, 1, 100), ["448 KiB"]);
    assert_eq!(scale::about(3 << 39), "1.5 TiB");
}

#[test]
fn the_newest_epoch_has_a_label_and_dates_come_once() {
    let mut cells = Cells::new(Rows::new(&touched([]), 1_024, 640));
    for epoch in 1..=10 {
        let sealed_us = BEGIN_US + u64::from(epoch) * 240 * MINUTE_US;
        cells.add(Moment { epoch, opened_us: 0, sealed_us }, &[]);
    }
    let moments = scale::epochs(&cells.columns, 3);
    let epochs: Vec<&str> = moments.iter().map(|moment| moment.epoch.as_str()).collect();
    assert_eq!(epochs, ["1", "4", "7", "10"]);
    let dates: Vec<Option<&str>> = moments.iter().map(|moment| moment.date.as_deref()).collect();
    assert_eq!(dates, [Some("2026-11-23"), Some("2026-11-24"), None, Some("2026-11-25")]);
    assert_eq!(moments[0].time, "13:45:00");
}

/// Awkward inputs, each a past, a volume's blocks and a table.
fn awkward() -> Vec<(&'static str, Past, u64, Option<Table>)> {
    let many = |count: u32, stride: u32| -> Vec<(u32, ChangeKind)> {
        (0..count).map(|n| (n * stride, [Added, Modified, Deleted][n as usize % 3])).collect()
    };
    let some = || table(vec![predicted(3, Added, 0.9), predicted(1_000, Deleted, 0.05)]);
    let mut hostile = some();
    hostile.info.model = "<\u{1}&\">]]>\u{fffe}\u{e9}".into();
    hostile.info.published_us = u64::MAX;
    let mut ancient = vector(u32::MAX, &[(0, Added)]);
    (ancient.opened_us, ancient.sealed_us) = (u64::MAX, 0);
    vec![
        ("nothing at all", Past::of(vec![], 1_024), 1_024, None),
        ("not running", Past::missing("the volume is not running"), 1_024, Some(some())),
        ("one epoch", Past::of(vec![vector(1, &[(0, Added)])], 1_024), 1_024, None),
        ("an empty epoch", Past::of(vec![vector(1, &[])], 1_024), 1_024, Some(table(vec![]))),
        ("16 TiB", Past::of(vec![vector(1, &many(1_000, 250_000))], 1 << 28), 1 << 28, Some(some())),
        ("64 TiB", Past::of(vec![vector(1, &[((1 << 30) - 1, Added)])], 1 << 30), 1 << 30, None),
        ("100,000 changes", Past::of(vec![vector(1, &many(100_000, 7))], 1 << 20), 1 << 20, Some(some())),
        (
            "400 epochs",
            Past::of((1..=400).map(|n| vector(n, &many(n, 2))).collect(), 1_024),
            1_024,
            Some(some()),
        ),
        ("strange clocks", Past::of(vec![ancient], 1_024), 1_024, Some(hostile)),
    ]
}

#[test]
fn any_input_gives_a_picture() {
    for (name, past, blocks, table) in awkward() {
        let drawing = drawn(past, blocks, table.as_ref());
        for r in &drawing.rectangles {
            assert!(
                r.x + r.width <= drawing.width && r.y + r.height <= drawing.height,
                "{name}: {r:?} is outside"
            );
        }
        let svg = svg::encode(&drawing);
        well_formed(&svg).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(svg.len() < 4 << 20, "{name}: {} bytes", svg.len());
        let bytes = png::encode(&drawing).expect("encoded");
        let (info, pixels) = decoded(&bytes);
        assert_eq!((info.width, info.height), (drawing.width * 2, drawing.height * 2), "{name}");
        assert!(pixels.iter().any(|pixel| *pixel != 0));
    }
}

#[test]
fn what_is_missing_is_said() {
    let drawing = drawn(Past::missing("the volume is not running"), 1_024, None);
    assert!(says(&drawing, "no past epochs: the volume is not running"));
    assert!(says(&drawing, "no predictions yet"));
    let drawing = drawn(Past::of(vec![], 1_024), 1_024, None);
    assert!(says(&drawing, "no past epochs: none has ended yet"));
}

/// Both formats have the same colours at the same places.
#[test]
fn both_formats_show_the_drawing() {
    let changes: Vec<(u32, ChangeKind)> = (0..512).map(|block| (block, Added)).collect();
    let table = table((512..1_024).map(|block| predicted(block, Deleted, 0.8)).collect());
    let drawing = drawn(Past::of(vec![vector(1, &changes)], 1_024), 1_024, Some(&table));
    let (added, deleted) = (Ink(Ink::KINDS[0].0 + 3), Ink(Ink::KINDS[2].0 + 3));
    let cells: Vec<_> = drawing.rectangles.iter().filter(|r| [added, deleted].contains(&r.ink)).collect();
    // The epoch's upper half; the lower half of both columns of predictions; the legend's, two each.
    let heights: Vec<u32> = cells.iter().map(|cell| cell.height).filter(|height| *height > 14).collect();
    assert_eq!(heights, [320; 3]);
    let (info, pixels) = decoded(&png::encode(&drawing).expect("encoded"));
    let svg = svg::encode(&drawing);
    for cell in cells {
        let at = (cell.y * 2 + cell.height) * info.width + cell.x * 2 + cell.width;
        assert_eq!(pixels[at as usize], cell.ink.0);
        let [red, green, blue] = PALETTE[usize::from(cell.ink.0)];
        assert!(svg.contains(&format!("<path fill=\"#{red:02x}{green:02x}{blue:02x}\"")));
        assert!(
            svg.contains(&format!("M{} {}h{}v{}h-{}z", cell.x, cell.y, cell.width, cell.height, cell.width))
        );
    }
}

#[test]
fn letters_have_dots_of_their_own() {
    let letters: Vec<char> = (' '..='~').collect();
    let glyphs: std::collections::BTreeSet<_> = letters.iter().map(|letter| font::glyph(*letter)).collect();
    assert_eq!(glyphs.len(), letters.len());
    assert!(glyphs.iter().flatten().all(|row| *row < 1 << font::COLUMNS));
    assert_eq!(font::glyph('\u{e9}'), font::glyph('\n'));
}

fn decoded(bytes: &[u8]) -> (::png::Info<'static>, Vec<u8>) {
    let mut reader = ::png::Decoder::new(Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("an image");
    assert_eq!(reader.info().palette.as_deref(), Some(&PALETTE.concat()[..]));
    (reader.info().clone(), pixels)
}

/// As much of XML as our pictures have: elements that close in order, quoted attributes, the five entities, allowed letters.
fn well_formed(xml: &str) -> Result<(), String> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if let Some(letter) = xml.chars().find(|c| !allowed(*c)) {
        return Err(format!("{letter:?} is not allowed"));
    }
    let text_is_good = |text: &str| {
        let entity =
            |part: &str| ["amp;", "lt;", "gt;", "quot;", "apos;"].iter().any(|name| part.starts_with(name));
        !text.contains(['<', '>']) && text.split('&').skip(1).all(entity)
    };
    let mut rest =
        xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").ok_or("no declaration")?;
    let mut open: Vec<&str> = Vec::new();
    while let Some((text, tag)) = rest.split_once('<') {
        if !text_is_good(text) || (open.is_empty() && !text.is_empty()) {
            return Err(format!("text {text:?}"));
        }
        let (tag, after) = tag.split_once('>').ok_or("a tag does not end")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes another"));
            }
            continue;
        }
        let is_empty = tag.ends_with('/');
        let (name, mut attributes) =
            tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let mut seen = std::collections::BTreeSet::new();
        while !attributes.is_empty() {
            let (key, value) =
                attributes.split_once("=\"").ok_or_else(|| format!("attribute {attributes:?}"))?;
            let (value, after) = value.split_once('"').ok_or_else(|| format!("value {value:?}"))?;
            if !seen.insert(key) || !text_is_good(value) || key.contains(' ') {
                return Err(format!("attribute {key}"));
            }
            attributes = after.trim_start();
        }
        if !is_empty {
            open.push(name);
        }
    }
    if open.is_empty() && rest.trim().is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
}
