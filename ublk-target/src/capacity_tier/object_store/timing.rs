//! How long things take and may take on an object store, in one place.

use std::time::Duration;

/// What a request is for, which decides how long it may take altogether, retries included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// A request on the volume may wait for it.
    Read,
    /// Small and in the background: a HEAD, a claim, a page of a list, a delete.
    Small,
    /// A whole segment or a part of a table, 16 MiB at most.
    Upload,
}

/// The periods and limits; the default ones are right but for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A read that a request on the volume waits for ends after this, with an I/O error.
    pub read: Duration,
    /// A small request of the background ends after this.
    pub small: Duration,
    /// An upload ends after this.
    pub upload: Duration,
    /// A writer shows that it lives once in this time.
    pub claim_renewal: Duration,
    /// A claim that shows nothing for this long, by the watcher's own clock, is a dead writer's.
    pub claim_expiry: Duration,
    /// How long a writer looks on while somebody else's higher claim may be taken back.
    pub claim_patience: Duration,
    /// A reader renews its lease once in this time.
    pub lease_renewal: Duration,
    /// A lease that is not renewed for this long, by the writer's own clock, has ended.
    pub lease_expiry: Duration,
    /// Whoever stops waits so long for the store to take back a claim or a lease.
    pub farewell: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(30),
            small: Duration::from_secs(60),
            upload: Duration::from_secs(180),
            claim_renewal: Duration::from_secs(10),
            claim_expiry: Duration::from_secs(32),
            claim_patience: Duration::from_secs(5),
            lease_renewal: Duration::from_secs(30),
            lease_expiry: Duration::from_secs(150),
            farewell: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// The limit for a request.
    pub const fn limit(&self, patience: Patience) -> Duration {
        match patience {
            Patience::Read => self.read,
            Patience::Small => self.small,
            Patience::Upload => self.upload,
        }
    }
}
