//! The API server of one volume.
