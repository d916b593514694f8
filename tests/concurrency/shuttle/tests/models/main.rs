//! The volume engine under shuttle: its threads' steps in many orders. See `docs/concurrency.md`.

mod engine;
mod explore;
mod io;
mod truth;
mod world;
