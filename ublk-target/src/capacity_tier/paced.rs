//! Upkeep at the pace that whoever opened the tier allows, asked in pieces.

use super::options::Pace;

/// Bytes moved between two questions (256 KiB).
const PIECE_BYTES: u64 = 256 << 10;

/// Counts what a step of upkeep moves.
pub(super) struct Paced {
    pace: Pace,
    moved: u64,
}

impl Paced {
    pub fn new(pace: &Pace) -> Self {
        Self { pace: pace.clone(), moved: 0 }
    }

    /// Counts `bytes` read or written; waits where enough has come together.
    pub async fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        if self.moved >= PIECE_BYTES {
            (self.pace)(std::mem::take(&mut self.moved)).await;
        }
    }
}
