//! Who said which of the asked blocks are theirs. The first to say so has them, so that there are never more claims than
//! blocks asked for, whatever a damaged file system says.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::Ranges;
use super::{Metadata, Part};

/// Whose a run of blocks is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    Metadata(Metadata),
    /// Of a file; `at` is the first block's place in the file, in blocks.
    Inode {
        inode: u64,
        part: Part,
        at: u64,
    },
    Free,
}

impl Holder {
    /// The holder of the block that comes `blocks` later.
    pub fn advanced(self, blocks: u64) -> Self {
        match self {
            Self::Inode { inode, part: part @ (Part::Data | Part::End), at } => {
                Self::Inode { inode, part, at: at.saturating_add(blocks) }
            }
            other => other,
        }
    }
}

/// The asked blocks and their holders.
pub struct Claims<'a> {
    asked: &'a Ranges,
    /// By first block: where the run ends, and whose it is.
    runs: BTreeMap<u64, (u64, Holder)>,
    limit: usize,
}

impl<'a> Claims<'a> {
    /// No claims yet; at most `limit` runs are noted, and what comes later is not.
    pub fn new(asked: &'a Ranges, limit: usize) -> Self {
        Self { asked, runs: BTreeMap::new(), limit }
    }

    /// Gives the holder what of the run is asked for and has none. Whether that was anything.
    pub fn claim(&mut self, run: Range<u64>, holder: Holder) -> bool {
        let mut any = false;
        for part in self.asked.parts_of(run.clone()) {
            for gap in self.gaps(part) {
                if self.runs.len() >= self.limit {
                    return any;
                }
                self.insert(gap.clone(), holder.advanced(gap.start - run.start));
                any = true;
            }
        }
        any
    }

    /// The parts of a run that nobody has.
    pub fn gaps(&self, run: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = run.start;
        if let Some((_, (end, _))) = self.runs.range(..=run.start).next_back() {
            from = from.max(*end);
        }
        for (start, (end, _)) in self.runs.range(run.start..run.end) {
            if from < *start {
                gaps.push(from..*start);
            }
            from = from.max(*end);
        }
        if from < run.end {
            gaps.push(from..run.end);
        }
        gaps
    }

    fn insert(&mut self, run: Range<u64>, holder: Holder) {
        // A run that goes on where the one before ends is the same run: files are mostly told block by block.
        if let Some((start, (end, before))) = self.runs.range_mut(..run.start).next_back()
            && *end == run.start
            && before.advanced(run.start - start) == holder
        {
            *end = run.end;
            return;
        }
        self.runs.insert(run.start, (run.end, holder));
    }

    /// All claims, by block.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, Holder)> {
        self.runs.iter().map(|(start, (end, holder))| (*start..*end, *holder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(inode: u64, at: u64) -> Holder {
        Holder::Inode { inode, part: Part::Data, at }
    }

    #[test]
    fn the_first_has_it_and_what_goes_on_is_one_run() {
        let asked = Ranges::new(vec![10..20, 30..40]);
        let mut claims = Claims::new(&asked, 100);
        assert!(claims.claim(5..12, data(1, 100)));
        assert!(claims.claim(12..14, data(1, 107)));
        assert!(claims.claim(13..35, data(2, 0)));
        assert!(!claims.claim(0..35, Holder::Free), "all of it is taken");
        assert!(claims.claim(0..50, Holder::Free));
        let all: Vec<_> = claims.iter().collect();
        let expected =
            [(10..14, data(1, 105)), (14..20, data(2, 1)), (30..35, data(2, 17)), (35..40, Holder::Free)];
        assert_eq!(all, expected);
    }

    #[test]
    fn there_are_no_more_than_the_limit() {
        let asked = Ranges::new(vec![0..50, 50..100]);
        let mut claims = Claims::new(&asked, 3);
        for block in 0..100 {
            claims.claim(block..block + 1, data(block + 1, 0));
        }
        assert_eq!(claims.iter().count(), 3);
    }
}
