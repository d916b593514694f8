//! Tests of the whole capacity tier: in a real directory, and over a store in memory that fails and crashes.

mod clones;
mod crash;
mod damage;
mod directory;
mod golden;
mod hostile;
pub(crate) mod model;
mod opening;
mod random;
mod writers;
