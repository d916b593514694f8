//! The fast tier: superblocks, journal, checkpoint and slots.
