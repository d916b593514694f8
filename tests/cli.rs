//! The command `forerun` as its users run it: help, bad input, exit codes, text and JSON, in front of
//! a volume and a target that are not real.
//!
//! The texts in `tests/cli/golden` are compared as they are; `FORERUN_BLESS=1 cargo test --test cli`
//! writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/clones.rs"]
mod clones;
#[path = "cli/fake_server.rs"]
mod fake_server;
#[path = "cli/fake_target.rs"]
mod fake_target;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/lifecycle.rs"]
mod lifecycle;
#[path = "cli/predict.rs"]
mod predict;
#[path = "cli/rig.rs"]
mod rig;
#[path = "cli/talking.rs"]
mod talking;
#[path = "cli/units.rs"]
mod units;
