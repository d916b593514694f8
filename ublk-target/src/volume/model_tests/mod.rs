//! The whole engine against a plain array: random requests, many at once, with epochs, write-back, eviction, predictions,
//! checkpoints and crashes between and in the middle of them; in one thread, on a simulated fast tier that loses what was
//! not flushed, tears what is under way and fails.
//!
//! | file | what it is |
//! |---|---|
//! | `log` | the journal: all deltas, how many are durable, the last checkpoint |
//! | `disk` | the fast tier's device, and a request's data over it |
//! | `tiers` | the capacity tier, and what requests ask of other threads |
//! | `world` | all of it together: running requests, background work, crashes |
//! | `history` | random histories |
//! | `cases` | histories that once went wrong |

mod cases;
mod disk;
mod history;
mod log;
mod tiers;
mod world;

use forerun::geometry::BLOCK_BYTES;

/// Bytes of a sector, the smallest write.
const SECTOR: usize = 512;
/// Blocks of the volume that are used.
const BLOCKS: u32 = 8;
/// Slots of the fast tier: fewer than blocks times layers.
const SLOTS: u32 = 18;
/// Sectors of a block.
const BLOCK_SECTORS: usize = BLOCK_BYTES as usize / SECTOR;
/// Sectors of the volume that are used.
const SECTORS: usize = BLOCKS as usize * BLOCK_SECTORS;
