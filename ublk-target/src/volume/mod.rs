//! The volume engine: map, slots, layers, plan and commit.
