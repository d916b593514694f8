//! A drawing as SVG 1.1. All rectangles of a run of one colour are one path, which keeps the file small.

use std::fmt::Write;

use super::drawing::{Anchor, Drawing, Ink, LETTER_WIDTH, PALETTE, Rectangle};

/// With this size a letter of a common fixed-width font is 0.6 of it wide, as [`LETTER_WIDTH`] says.
const FONT_SIZE: u32 = LETTER_WIDTH * 10 / 6;

/// The drawing as the text of a file.
pub fn encode(drawing: &Drawing) -> String {
    let Drawing { width, height, title, .. } = drawing;
    let title = escape(title);
    let mut svg = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n<g shape-rendering=\"crispEdges\">\n",
        colour(Ink::PAPER)
    );
    // Writing to a string cannot fail.
    for run in drawing.rectangles.chunk_by(|a, b| a.ink == b.ink) {
        let Some(first) = run.first() else { continue };
        let _ = write!(svg, "<path fill=\"{}\" d=\"", colour(first.ink));
        for Rectangle { x, y, width, height, .. } in run {
            let _ = write!(svg, "M{x} {y}h{width}v{height}h-{width}z");
        }
        svg.push_str("\"/>\n");
    }
    let _ = write!(
        svg,
        "</g>\n<g font-family=\"'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,monospace\" \
         font-size=\"{FONT_SIZE}\">\n"
    );
    for text in &drawing.texts {
        let anchor = match text.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (fill, words) = (colour(text.ink), escape(&text.words));
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{words}</text>",
            text.x, text.y
        );
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn colour(ink: Ink) -> String {
    let [red, green, blue] = PALETTE.get(usize::from(ink.0)).copied().unwrap_or_default();
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text as XML has it. What XML 1.0 forbids even escaped is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
