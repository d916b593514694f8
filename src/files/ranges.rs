//! The blocks that are asked for: sorted runs that do not touch.

use std::ops::Range;

/// A set of blocks of a file system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// The union of these runs.
    pub fn new(mut runs: Vec<Range<u64>>) -> Self {
        runs.retain(|run| run.start < run.end);
        runs.sort_unstable_by_key(|run| run.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for run in runs {
            match merged.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => merged.push(run),
            }
        }
        Self(merged)
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// The parts of a run that are in the set, in order.
    pub fn parts_of(&self, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.0.partition_point(|own| own.end <= run.start);
        let rest = self.0.iter().skip(first).take_while(move |own| own.start < run.end);
        rest.map(move |own| own.start.max(run.start)..own.end.min(run.end))
            .filter(|part| part.start < part.end)
    }

    pub fn meets(&self, run: Range<u64>) -> bool {
        self.parts_of(run).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_and_cut() {
        let ranges = Ranges::new(vec![20..30, 3..3, 5..10, 8..12, 12..13]);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [5..13, 20..30]);
        assert_eq!(ranges.parts_of(0..100).count(), 2);
        assert_eq!(ranges.parts_of(10..21).collect::<Vec<_>>(), [10..13, 20..21]);
        assert!(!ranges.meets(13..20) && !ranges.meets(7..7) && ranges.meets(12..13));
    }
}
