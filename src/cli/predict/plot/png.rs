//! A drawing as PNG: an indexed image of twice the drawing's pixels, so that it is sharp on any screen.

use png::{BitDepth, ColorType, Encoder, EncodingError};

use super::drawing::{Anchor, Drawing, LETTER_WIDTH, PALETTE, Text};
use super::font;

/// Image pixels for a pixel of the drawing.
const ZOOM: u32 = 2;
/// Image pixels for a dot of a letter: with a column of space a letter is [`LETTER_WIDTH`] wide.
const DOT: u32 = LETTER_WIDTH * ZOOM / (font::COLUMNS + 1);

/// The drawing as the bytes of a file.
///
/// # Errors
/// None is known; the encoder's.
pub fn encode(drawing: &Drawing) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = (drawing.width * ZOOM, drawing.height * ZOOM);
    let mut image = Image { width, height, pixels: vec![0; width as usize * height as usize] };
    for r in &drawing.rectangles {
        image.fill(r.x * ZOOM, r.y * ZOOM, r.width * ZOOM, r.height * ZOOM, r.ink.0);
    }
    drawing.texts.iter().for_each(|text| image.write(text));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(PALETTE.concat());
    encoder.add_itxt_chunk("Title".into(), drawing.title.clone())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    writer.finish()?;
    Ok(bytes)
}

struct Image {
    width: u32,
    height: u32,
    /// A colour of the palette each, row by row.
    pixels: Vec<u8>,
}

impl Image {
    /// Fills a rectangle, or as much of it as is on the image.
    fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, ink: u8) {
        let (from, to) = (x.min(self.width), x.saturating_add(width).min(self.width));
        for row in y.min(self.height)..y.saturating_add(height).min(self.height) {
            let start = row as usize * self.width as usize;
            if let Some(run) = self.pixels.get_mut(start + from as usize..start + to as usize) {
                run.fill(ink);
            }
        }
    }

    fn write(&mut self, text: &Text) {
        let letter_width = LETTER_WIDTH * ZOOM;
        let length = text.words.chars().count() as u32 * letter_width;
        let x = text.x * ZOOM;
        let mut x = match text.anchor {
            Anchor::Start => x,
            Anchor::Middle => x.saturating_sub(length / 2),
            Anchor::End => x.saturating_sub(length),
        };
        let top = (text.y * ZOOM).saturating_sub(font::ROWS_ABOVE * DOT);
        for letter in text.words.chars() {
            for (row, dots) in font::glyph(letter).into_iter().enumerate() {
                for column in
                    (0..font::COLUMNS).filter(|column| dots >> (font::COLUMNS - 1 - column) & 1 == 1)
                {
                    self.fill(x + column * DOT, top + row as u32 * DOT, DOT, DOT, text.ink.0);
                }
            }
            x = x.saturating_add(letter_width);
        }
    }
}
