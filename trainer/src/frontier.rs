//! Growth frontiers: places where runs of changes end, and which move on from epoch to epoch.
//!
//! A log, a table that is appended to or a file being copied leaves a run of new blocks each epoch,
//! where the last one ended. A frontier remembers where that is, how far it moves and how often it did.

use crate::epochs::Run;

/// Frontiers remembered; those that never moved and are oldest go first.
const MAX_FRONTIERS: usize = 16_384;
/// The continuation that is looked at, as a multiple of the mean extension, and its bounds in blocks.
const CONTINUATION: f32 = 3.0;
const MIN_CONTINUATION_BLOCKS: u32 = 32;
const MAX_CONTINUATION_BLOCKS: u32 = 4096;
/// Blocks before the end that are candidates too.
const BEFORE_BLOCKS: u32 = 2;
/// Epochs without a move after which a frontier is forgotten.
const MAX_IDLE_EPOCHS: u32 = 16;

/// A place where growth may go on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Frontier {
    /// The block after the last one written.
    pub end: u32,
    /// Mean blocks it moves by.
    pub extension: f32,
    /// How often it moved.
    pub moves: u32,
    /// The step of its last move.
    pub last: u32,
}

impl Frontier {
    /// How far ahead of the end candidates are taken, in blocks.
    #[must_use]
    pub fn reach(&self) -> u32 {
        ((self.extension * CONTINUATION) as u32).clamp(MIN_CONTINUATION_BLOCKS, MAX_CONTINUATION_BLOCKS)
    }
}

/// All frontiers, ascending by end.
#[derive(Clone, Debug, Default)]
pub struct Frontiers {
    list: Vec<Frontier>,
}

impl Frontiers {
    /// Takes the runs of the epoch with number `step`.
    pub fn push(&mut self, runs: &[Run], step: u32) {
        let mut next: Vec<Frontier> = Vec::with_capacity(self.list.len() + runs.len());
        let mut moved = vec![false; self.list.len()];
        for run in runs {
            // The last frontier that the run covers or begins close behind.
            let upto = self.list.partition_point(|frontier| frontier.end <= run.end);
            let from = upto.checked_sub(1).and_then(|at| {
                let frontier = self.list.get(at)?;
                let close = frontier.end.saturating_add(frontier.reach()) >= run.start;
                close.then_some((at, *frontier))
            });
            let len = (run.end - run.start) as f32;
            next.push(match from {
                Some((at, old)) if old.end < run.end && run.start + BEFORE_BLOCKS >= old.end => {
                    if let Some(flag) = moved.get_mut(at) {
                        *flag = true;
                    }
                    let step_blocks = (run.end - old.end) as f32;
                    let weight = 1.0 / (old.moves + 1).min(4) as f32;
                    Frontier {
                        end: run.end,
                        extension: old.extension + weight * (step_blocks - old.extension),
                        moves: old.moves.saturating_add(1),
                        last: step,
                    }
                }
                _ => Frontier { end: run.end, extension: len, moves: 0, last: step },
            });
        }
        let kept = self.list.iter().zip(&moved);
        next.extend(
            kept.filter(|(old, moved)| !**moved && step - old.last <= MAX_IDLE_EPOCHS).map(|(old, _)| *old),
        );
        // Of two at one place, the one that moved more often says more.
        next.sort_unstable_by_key(|frontier| (frontier.end, std::cmp::Reverse(frontier.moves)));
        next.dedup_by(|later, kept| {
            let same = later.end == kept.end;
            if same {
                kept.last = kept.last.max(later.last);
            }
            same
        });
        if next.len() > MAX_FRONTIERS {
            next.sort_unstable_by_key(|frontier| std::cmp::Reverse((frontier.moves.min(3), frontier.last)));
            next.truncate(MAX_FRONTIERS);
            next.sort_unstable_by_key(|frontier| frontier.end);
        }
        self.list = next;
    }

    /// All frontiers, ascending by end.
    #[must_use]
    pub fn list(&self) -> &[Frontier] {
        &self.list
    }

    /// Up to `limit` blocks in which growth may come next, the likeliest frontiers' first; below `blocks`.
    #[must_use]
    pub fn continuations(&self, limit: usize, blocks: u32) -> Vec<u32> {
        let mut order: Vec<&Frontier> = self.list.iter().collect();
        order.sort_unstable_by_key(|frontier| {
            (std::cmp::Reverse(frontier.last), std::cmp::Reverse(frontier.moves), frontier.end)
        });
        let mut candidates = Vec::new();
        for frontier in order {
            if candidates.len() >= limit {
                break;
            }
            let from = frontier.end.saturating_sub(BEFORE_BLOCKS);
            candidates.extend(from..frontier.end.saturating_add(frontier.reach()).min(blocks));
        }
        candidates.truncate(limit);
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn run(start: u32, end: u32) -> Run {
        Run { start, end, continues: false }
    }

    #[test]
    fn a_growing_log_is_one_frontier_that_moves() {
        let mut frontiers = Frontiers::default();
        for step in 1..=10 {
            frontiers.push(&[run(step * 10 - 1, step * 10 + 10), run(5000, 5001)], step);
        }
        let log = frontiers.list()[0];
        assert_eq!((log.end, log.moves, log.last), (110, 9, 10));
        assert!((9.0..12.0).contains(&log.extension), "{log:?}");
        assert_eq!(frontiers.list().len(), 2);
        let ahead = frontiers.continuations(1000, 130);
        assert!(ahead.contains(&110) && ahead.contains(&129) && !ahead.contains(&130));
    }

    #[test]
    fn frontiers_are_bounded_and_forgotten() {
        let mut frontiers = Frontiers::default();
        let runs: Vec<Run> = (0..40_000).map(|at| run(at * 100, at * 100 + 1)).collect();
        frontiers.push(&runs, 1);
        assert_eq!(frontiers.list().len(), MAX_FRONTIERS);
        frontiers.push(&[], 2 + MAX_IDLE_EPOCHS);
        assert!(frontiers.list().is_empty());
    }
}
