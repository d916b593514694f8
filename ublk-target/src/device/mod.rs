//! The ublk device: the only module that knows libublk.
