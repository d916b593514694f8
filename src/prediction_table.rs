//! The prediction table in shared memory.
