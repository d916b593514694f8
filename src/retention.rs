//! Which snapshots are kept: a volume's policy, and what follows from it for the snapshots that are there.
//!
//! Only looks and says; deleting is for whoever asked.

mod plan;
mod policy;

pub use plan::{Chain, Plan, Point, Stability, Verdict, What, plan};
pub use policy::{Policy, PolicyError};
