//! A picture as rectangles and text in a few colours, whatever format it is written in.
//!
//! Units are pixels of a screen of ordinary density; y goes down.

/// A colour, by its place in [`PALETTE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ink(pub u8);

impl Ink {
    pub const PAPER: Self = Self(0);
    pub const TEXT: Self = Self(1);
    pub const FAINT: Self = Self(2);
    pub const LINE: Self = Self(3);
    pub const BREAK: Self = Self(4);
    /// The first of four shades of each kind, the palest first.
    pub const KINDS: [Self; 3] = [Self(5), Self(9), Self(13)];
}

/// Shades of a kind.
pub const SHADES: u8 = 4;

/// Red, green, blue. The kinds are blue, orange and black: of all hues, blue and orange stay apart for the most people
/// who are colour-blind (Okabe and Ito, "Color Universal Design", 2008), and black has none.
pub const PALETTE: [[u8; 3]; 17] = [
    [255, 255, 255],
    [30, 30, 30],
    [105, 105, 105],
    [150, 150, 150],
    [238, 236, 230],
    [174, 208, 242],
    [104, 165, 225],
    [34, 113, 196],
    [8, 56, 122],
    [255, 208, 138],
    [252, 164, 56],
    [220, 108, 0],
    [146, 60, 0],
    [196, 196, 196],
    [142, 142, 142],
    [86, 86, 86],
    [12, 12, 12],
];

/// A letter's width with the space after it: all letters have the same.
pub const LETTER_WIDTH: u32 = 9;

/// On which side of its place a text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A filled rectangle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
    pub ink: Ink,
}

/// A line of text, whose letters stand on y.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    pub x: u32,
    pub y: u32,
    pub anchor: Anchor,
    pub ink: Ink,
    pub words: String,
}

/// The picture; text lies above all rectangles, and a later rectangle above an earlier one.
pub struct Drawing {
    pub width: u32,
    pub height: u32,
    /// What it shows, in a line.
    pub title: String,
    pub rectangles: Vec<Rectangle>,
    pub texts: Vec<Text>,
}

impl Drawing {
    /// Fills a rectangle.
    pub fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, ink: Ink) {
        if width > 0 && height > 0 {
            self.rectangles.push(Rectangle { x, y, width, height, ink });
        }
    }

    /// Draws a rectangle's edge, a pixel wide, just outside of it.
    pub fn frame(&mut self, x: u32, y: u32, width: u32, height: u32) {
        let (left, top) = (x.saturating_sub(1), y.saturating_sub(1));
        for (x, y, width, height) in [
            (left, top, width + 2, 1),
            (left, y + height, width + 2, 1),
            (left, top, 1, height + 2),
            (x + width, top, 1, height + 2),
        ] {
            self.fill(x, y, width, height, Ink::LINE);
        }
    }

    /// Writes a line.
    pub fn text(&mut self, x: u32, y: u32, anchor: Anchor, ink: Ink, words: impl Into<String>) {
        self.texts.push(Text { x, y, anchor, ink, words: words.into() });
    }
}
