//! The volume engine under shuttle: its threads' steps in many orders. See `docs/concurrency.md`.

#![allow(clippy::expect_used, reason = "in a test it is the test that fails")]

mod engine;
mod epoch;
mod explore;
mod hit;
mod io;
mod journal;
mod reserve;
mod room;
mod truth;
mod world;
mod write_back;
