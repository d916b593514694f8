//! The API server of one volume: gRPC `forerun.v1` on a unix socket, on a thread of its own.
//!
//! It stands on top of the engine and knows it only as a [`ControlPlane`]. All checks of what a
//! client says are here: an answer of INVALID_ARGUMENT names the allowed range, and nothing that is
//! out of its range reaches the engine. Only root and the daemon's own user may connect.
//!
//! Always true: no call waits on the data path's threads; no client, slow or dead or hostile, holds
//! more than a bounded amount of memory or one of a bounded number of threads.
//!
//! A crash leaves the socket's file; the next start finds that nobody answers on it and replaces it.

mod check;
mod convert;
mod follow;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod peers;
pub mod plane;
mod report;
mod server;
mod service;
mod socket;
pub mod status;
#[cfg(test)]
mod tests;

pub use plane::{
    CloneInfo, ControlError, ControlPlane, CreatedSnapshot, Deletion, ErrorKind, FastGrown, FastGrowth,
    Grown, SealedEpoch, Snapshot, WriteBack,
};
pub use server::{ControlServer, Limits, StartError};
