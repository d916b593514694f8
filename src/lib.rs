//! The words that every process of forerun shares: geometry, change vectors, predictions, the
//! prediction table, volume configuration and the API.
//!
//! Nothing here knows of the data path (`ublk-target`), of the trainer or of the CLI.

pub mod api;
pub mod change_vector;
pub mod config;
pub mod files;
pub mod geometry;
pub mod prediction;
pub mod prediction_table;
pub mod retention;
pub mod stream;
mod told;
pub mod utc;

pub use told::told;
