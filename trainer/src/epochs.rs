//! The latest epochs in the form that features are made from: sorted blocks, runs, regions, time.
//!
//! An [`EpochView`] is made once from a change vector. Everything read from it for a candidate is found by
//! cursors that only move forward, because candidates come in ascending order.

use std::collections::VecDeque;

use forerun::change_vector::{ChangeKind, ChangeVector};

/// Epochs that the network looks back on.
pub const SEQUENCE_EPOCHS: usize = 16;
/// Epochs that similar ones are looked for among.
pub const SIMILAR_WINDOW_EPOCHS: usize = 128;
/// Changes held in all views together; the oldest views go before it is exceeded.
const MAX_HELD_CHANGES: usize = 4 << 20;
/// Blocks in a region of 32 MiB.
pub const REGION_BLOCKS: u32 = 512;
const US_PER_DAY: u64 = 86_400_000_000;

/// A maximal row of changed blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its first block.
    pub start: u32,
    /// The block after its last.
    pub end: u32,
    /// Whether it begins where a run of the epoch before ended.
    pub continues: bool,
}

/// One epoch's changes, ready to be asked.
#[derive(Clone, Debug)]
pub struct EpochView {
    /// The changed blocks, ascending.
    pub blocks: Vec<u32>,
    /// Sub-blocks written of each, 1 to 16.
    pub sub_blocks: Vec<u8>,
    /// What happened to each.
    pub kinds: Vec<ChangeKind>,
    /// The runs, ascending; none once the network no longer looks back on it.
    pub runs: Vec<Run>,
    /// Changed blocks by region of 32 MiB, ascending; as the runs.
    pub regions: Vec<(u32, u32)>,
    /// Logarithm of the number of changes over its mean so far, -3 to 3.
    pub volume_ratio: f32,
    /// Time of day (UTC) of the sealing on a circle: sine and cosine.
    pub hour: (f32, f32),
    /// The chain that it joined, if any.
    pub chain: Option<u32>,
}

/// What one epoch says about one block.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Sub-blocks written, 0 where the block did not change.
    pub sub_blocks: u8,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Changed blocks among the two next to it.
    pub near_1: u32,
    /// Changed blocks among the sixteen up to 8 away.
    pub near_8: u32,
    /// Blocks from the end of the last run that begins at or before it; 0 inside; `None`: no such run.
    pub after_run: Option<u32>,
    /// That run.
    pub run: Run,
    /// Blocks to the start of the next run; `None`: there is none.
    pub before_run: Option<u32>,
    /// Changed blocks in its region.
    pub region: u32,
}

impl EpochView {
    /// Makes a view; `before` is the epoch before it, `mean_changes` the mean number of changes so far.
    #[must_use]
    pub fn new(vector: &ChangeVector, before: Option<&Self>, mean_changes: f32) -> Self {
        let blocks: Vec<u32> = vector.changes().iter().map(|change| change.block.0).collect();
        let mut runs: Vec<Run> = Vec::new();
        let mut regions: Vec<(u32, u32)> = Vec::new();
        for &block in &blocks {
            match runs.last_mut() {
                Some(run) if run.end == block => run.end = block + 1,
                _ => runs.push(Run { start: block, end: block + 1, continues: false }),
            }
            match regions.last_mut() {
                Some((region, count)) if *region == block / REGION_BLOCKS => *count += 1,
                _ => regions.push((block / REGION_BLOCKS, 1)),
            }
        }
        if let Some(before) = before {
            for run in &mut runs {
                // A run goes on where one ended: at its end, or in its last, partly written block.
                let next = before.runs.partition_point(|old| old.end < run.start);
                run.continues =
                    before.runs.get(next).is_some_and(|old| old.end <= run.start + 1 && old.end < run.end);
            }
        }
        runs.shrink_to_fit();
        regions.shrink_to_fit();
        let ratio = ((blocks.len() as f32 + 1.0) / (mean_changes + 1.0)).ln().clamp(-3.0, 3.0);
        let angle = (vector.sealed_us % US_PER_DAY) as f32 / US_PER_DAY as f32 * std::f32::consts::TAU;
        Self {
            sub_blocks: vector.changes().iter().map(|change| change.sub_blocks).collect(),
            kinds: vector.changes().iter().map(|change| change.kind).collect(),
            blocks,
            runs,
            regions,
            volume_ratio: ratio,
            hour: angle.sin_cos(),
            chain: None,
        }
    }

    /// Whether a block changed.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        self.blocks.binary_search(&block).is_ok()
    }

    /// Changed blocks in `from..=to`.
    #[must_use]
    pub fn count_between(&self, from: u32, to: u32) -> u32 {
        let first = self.blocks.partition_point(|&block| block < from);
        let end = self.blocks.partition_point(|&block| block <= to);
        (end - first) as u32
    }
}

/// Asks a view about blocks in ascending order.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    view: &'a EpochView,
    at: usize,
    low: usize,
    high: usize,
    run: usize,
    region: usize,
}

impl<'a> Cursor<'a> {
    /// Begins before the first block.
    #[must_use]
    pub const fn new(view: &'a EpochView) -> Self {
        Self { view, at: 0, low: 0, high: 0, run: 0, region: 0 }
    }

    /// What the epoch says about `block`, which is not below any block asked for before.
    pub fn point(&mut self, block: u32) -> Point {
        let blocks = &self.view.blocks;
        let is = |at: usize, wanted: u32| blocks.get(at) == Some(&wanted);
        self.at = advance(blocks, self.at, |&other| other < block);
        self.low = advance(blocks, self.low, |&other| other < block.saturating_sub(8));
        self.high = advance(blocks, self.high, |&other| other <= block.saturating_add(8));
        let here = is(self.at, block);
        let below = self.at > 0 && block > 0 && is(self.at - 1, block - 1);
        let above = is(self.at + usize::from(here), block.saturating_add(1));

        self.run = advance(&self.view.runs, self.run, |run| run.start <= block);
        let run = self.run.checked_sub(1).and_then(|last| self.view.runs.get(last));
        self.region = advance(&self.view.regions, self.region, |(region, _)| *region < block / REGION_BLOCKS);
        let region =
            self.view.regions.get(self.region).filter(|(region, _)| *region == block / REGION_BLOCKS);
        let mine = here.then_some(self.at);
        Point {
            sub_blocks: mine.and_then(|at| self.view.sub_blocks.get(at)).copied().unwrap_or(0),
            deleted: mine.and_then(|at| self.view.kinds.get(at)) == Some(&ChangeKind::Deleted),
            near_1: u32::from(below) + u32::from(above),
            near_8: ((self.high - self.low) as u32).saturating_sub(u32::from(here)),
            after_run: run.map(|run| (block + 1).saturating_sub(run.end)),
            run: run.copied().unwrap_or(Run { start: 0, end: 0, continues: false }),
            before_run: self.view.runs.get(self.run).map(|run| run.start - block),
            region: region.map_or(0, |(_, count)| *count),
        }
    }
}

/// The first index from `at` on for which `before` no longer holds.
fn advance<T>(items: &[T], mut at: usize, before: impl Fn(&T) -> bool) -> usize {
    // Galloping: candidates are often far apart, changes often dense, or the other way round.
    let mut step = 1;
    while items.get(at + step - 1).is_some_and(&before) {
        at += step;
        step *= 2;
    }
    let end = (at + step - 1).min(items.len());
    at + items.get(at..end).map_or(0, |rest| rest.partition_point(before))
}

/// The latest views, newest last.
#[derive(Clone, Debug, Default)]
pub struct RecentEpochs {
    views: VecDeque<EpochView>,
    held: usize,
    seen: u32,
    mean_changes: f32,
}

impl RecentEpochs {
    /// Takes the next epoch, and which chain it joined.
    pub fn push(&mut self, vector: &ChangeVector, chain: Option<u32>) {
        let mut view = EpochView::new(vector, self.views.back(), self.mean_changes);
        view.chain = chain;
        self.seen = self.seen.saturating_add(1);
        let weight = 1.0 / self.seen.min(64) as f32;
        self.mean_changes += weight * (view.blocks.len() as f32 - self.mean_changes);
        self.held += view.blocks.len();
        self.views.push_back(view);
        // What is older is only compared as a whole; runs and regions would be up to three quarters of it.
        let looked_back_on = self.views.len().checked_sub(SEQUENCE_EPOCHS + 1);
        if let Some(old) = looked_back_on.and_then(|at| self.views.get_mut(at)) {
            (old.runs, old.regions) = (Vec::new(), Vec::new());
        }
        while self.views.len() > SIMILAR_WINDOW_EPOCHS
            || (self.held > MAX_HELD_CHANGES && self.views.len() > SEQUENCE_EPOCHS)
        {
            self.held -= self.views.pop_front().map_or(0, |view| view.blocks.len());
        }
    }

    /// The newest epoch.
    #[must_use]
    pub fn last(&self) -> Option<&EpochView> {
        self.views.back()
    }

    /// All views, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &EpochView> + ExactSizeIterator {
        self.views.iter()
    }

    /// Epochs taken so far.
    #[must_use]
    pub const fn seen(&self) -> u32 {
        self.seen
    }

    /// The mean number of changes, lately.
    #[must_use]
    pub const fn mean_changes(&self) -> f32 {
        self.mean_changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    #[test]
    fn runs_know_what_they_continue() {
        let first = EpochView::new(&vector_of(1, &[1, 2, 3, 10]), None, 4.0);
        assert_eq!(first.runs.len(), 2);
        let next = EpochView::new(&vector_of(2, &[3, 4, 5, 11, 20]), Some(&first), 4.0);
        let continues: Vec<_> = next.runs.iter().map(|run| (run.start, run.continues)).collect();
        assert_eq!(continues, [(3, true), (11, true), (20, false)]);
    }

    #[test]
    fn only_what_the_network_looks_back_on_keeps_its_runs() {
        let mut recent = RecentEpochs::default();
        for epoch in 1..=SEQUENCE_EPOCHS as u32 + 5 {
            recent.push(&vector_of(epoch, &[1, 2, 9]), None);
        }
        let kept: Vec<_> = recent.iter().map(|view| (view.runs.len(), view.regions.len())).collect();
        assert_eq!(kept[..5], [(0, 0); 5]);
        assert_eq!(kept[5..], [(2, 1); SEQUENCE_EPOCHS]);
        assert!(recent.iter().all(|view| view.blocks == [1, 2, 9]));
    }

    #[test]
    fn a_cursor_says_what_a_search_says() {
        let blocks: Vec<u32> = (0..400).filter(|block| block % 7 < 3 || block % 50 == 49).collect();
        let view = EpochView::new(&vector_of(1, &blocks), None, 1.0);
        let mut cursor = Cursor::new(&view);
        for block in (0..500).step_by(3) {
            let point = cursor.point(block);
            assert_eq!(point.sub_blocks > 0, view.contains(block));
            let around = view.count_between(block.saturating_sub(8), block + 8);
            assert_eq!(point.near_8 + u32::from(point.sub_blocks > 0), around, "block {block}");
            let beside =
                u32::from(view.contains(block + 1)) + u32::from(block > 0 && view.contains(block - 1));
            assert_eq!(point.near_1, beside, "block {block}");
            let last_run = view.runs.iter().rfind(|run| run.start <= block);
            assert_eq!(point.after_run, last_run.map(|run| (block + 1).saturating_sub(run.end)));
        }
    }
}
