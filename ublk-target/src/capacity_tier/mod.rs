//! The capacity tier: segments, layers and HEAD in a directory.
