//! The API server of one volume.

pub mod plane;
pub mod status;
