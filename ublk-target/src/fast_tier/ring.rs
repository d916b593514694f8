//! The journal ring's arithmetic: which of its pages are needed, and where the next record goes.
//!
//! Pure numbers, no I/O. Always true: the pages from `start` to `next` hold the commits after
//! `start.lsn`, and nothing is written over them.

use forerun::geometry::Lsn;

/// A point in the journal: after the commit `lsn`, whose next one begins at page `page` of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalPoint {
    /// The commit before it.
    pub lsn: Lsn,
    /// The ring page after that commit.
    pub page: u64,
}

/// The pages in use of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    pages: u64,
    start: JournalPoint,
    next: JournalPoint,
    used: u64,
}

impl Ring {
    /// An empty ring of `pages` pages whose first commit comes after `start`.
    #[must_use]
    pub fn new(pages: u64, start: JournalPoint) -> Self {
        debug_assert!(start.page < pages);
        Self { pages, start, next: start, used: 0 }
    }

    /// After the newest commit.
    #[must_use]
    pub const fn next(&self) -> JournalPoint {
        self.next
    }

    /// After the newest checkpoint.
    #[must_use]
    pub const fn start(&self) -> JournalPoint {
        self.start
    }

    /// Pages in the ring.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages in use.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Pages that may be written.
    #[must_use]
    pub const fn free(&self) -> u64 {
        self.pages.saturating_sub(self.used)
    }

    /// Whether a checkpoint should be taken.
    #[must_use]
    pub const fn is_half_full(&self) -> bool {
        self.used * 2 > self.pages
    }

    /// Goes past the next commit, of `pages` pages.
    pub fn advance(&mut self, pages: u64) {
        debug_assert!(pages <= self.free(), "needed pages are never overwritten");
        self.used += pages;
        self.next =
            JournalPoint { lsn: Lsn(self.next.lsn.0 + 1), page: (self.next.page + pages) % self.pages };
    }

    /// Frees the pages before `start`, once a checkpoint that begins there is durable.
    pub fn free_to(&mut self, start: JournalPoint) {
        debug_assert!(start.lsn >= self.start.lsn && start.lsn <= self.next.lsn);
        if start.lsn == self.next.lsn {
            self.used = 0;
        } else if start.lsn > self.start.lsn {
            // Not a full turn: commits are between `start` and `next`, and they take at most the ring.
            let used = (self.next.page + self.pages - start.page) % self.pages;
            self.used = if used == 0 { self.pages } else { used };
        }
        self.start = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_across_the_end() {
        let point = |lsn, page| JournalPoint { lsn: Lsn(lsn), page };
        let mut ring = Ring::new(10, point(0, 7));
        ring.advance(2);
        let checkpoint = ring.next();
        assert_eq!(checkpoint, point(1, 9));
        ring.advance(3);
        assert!(!ring.is_half_full());
        ring.advance(5);
        assert_eq!((ring.next(), ring.free()), (point(3, 7), 0));
        ring.free_to(checkpoint);
        assert_eq!((ring.used(), ring.free()), (8, 2));
        ring.advance(2);
        ring.free_to(checkpoint);
        assert_eq!(ring.used(), 10);
        ring.free_to(ring.next());
        assert_eq!((ring.used(), ring.start()), (0, point(4, 9)));
    }
}
