//! Locks, atomics and condition variables of all that threads share: those of `std`.
//!
//! `volume` and the fast tier's journal take them from here, not from `std`, so that the model checkers of
//! `tests/concurrency` can put theirs in this module's place and run the very same sources (`docs/concurrency.md`).

pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic};
