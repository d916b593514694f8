//! A deterministic simulation: the whole engine, both tiers' code and all background work in one thread, over a disk and an
//! object store that lose, tear, delay, fail and lie, on a clock that jumps to the next thing that happens. One seed gives one run.
//!
//! | file | what it is |
//! |---|---|
//! | `history` | what happens, made from a seed |
//! | `machine` | disk, store and power; opening the volume on them, as `engine` does |
//! | `truth` | a plain array: what each sector may hold, now, at each epoch's end, after a crash |
//! | `run` | lives one after the other, and what has to be true after each |
//! | `requests` | requests beside each other, compared with the truth |
//! | `predictions` | prediction tables, right, random and hostile |
//! | `snapshots` | names that must be there, and what snapshots have to hold |
//! | `shrink` | the shortest history that still fails |
//! | `upkeep` | upkeep that takes long |
//! | `same_contents` | the same requests with each kind of prediction |
//!
//! The simulated disk is in `fast_tier::sim`, the store in `capacity_tier::memory_store`. `docs/reliability.md` says what this finds.

mod history;
mod machine;
mod predictions;
mod requests;
mod run;
mod same_contents;
mod shrink;
mod snapshots;
mod tests;
pub mod truth;
mod upkeep;
