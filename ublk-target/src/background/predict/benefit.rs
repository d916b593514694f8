//! What acting on predictions is worth, measured: a small random share of the predicted blocks is left alone (the control
//! group), and how often their requests wait for the capacity tier is set against how often those do that were acted on.
//!
//! Acting is stopped where it does not pay, and tried again later, after ever longer pauses; while it is stopped, what
//! would have been done is scored all the same.

use std::collections::HashSet;

use forerun::geometry::{BlockIndex, Epoch};

use super::plan::Plan;
use super::score::{SCORE_WINDOW_EPOCHS, Scores};

/// What fetching a block is said to cost, as a share of the wait that it may spare: fetches give way to requests, but not
/// at once, and their bytes wear the devices.
pub(super) const FETCH_PRICE: f64 = 0.125;
/// What the counts keep from one epoch to the next: most of them comes from the last fifty.
const KEPT: f64 = 0.98;
/// Blocks of the control group that must have been seen before anything is concluded.
const CONTROL_BLOCKS_MIN: f64 = 64.0;
/// Standard errors that the doubt gets: stopping takes a clear case.
const ERRORS: f64 = 2.0;
/// Tables that must have been scored, and predictions in them, before precision counts.
const SCORED_MIN: u32 = 8;
const PREDICTED_MIN: u64 = 256;
/// Acting is stopped where precision is below this share of what was promised, and not begun again below the other.
const PRECISION_OFF: f64 = 0.5;
const PRECISION_ON: f64 = 0.75;
/// Epochs until it is tried again: at first, and at most.
const PAUSE_FIRST: u32 = 16;
const PAUSE_LAST: u32 = 256;

/// Predicted blocks, and those of them for which a request waited for the capacity tier: sums over epochs, decayed.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Group {
    /// Blocks.
    pub blocks: f64,
    /// Of those, waited for.
    pub missed: f64,
}

impl Group {
    /// The share that was waited for, 0 to 1.
    pub fn rate(self) -> f64 {
        if self.blocks > 0.0 { (self.missed / self.blocks).min(1.0) } else { 0.0 }
    }

    fn take(&mut self, blocks: usize, missed: usize) {
        self.blocks = self.blocks * KEPT + blocks as f64;
        self.missed = self.missed * KEPT + missed as f64;
    }

    /// The variance of the rate; with two more blocks, one of them waited for, so that none at all is not certainty
    /// (Agresti, Caffo, 2000).
    fn variance(self) -> f64 {
        let blocks = self.blocks + 2.0;
        let rate = (self.missed + 1.0) / blocks;
        rate * (1.0 - rate) / blocks
    }
}

/// Not acting, and why.
#[derive(Clone, PartialEq, Debug)]
struct Off {
    reason: String,
    until: Epoch,
}

/// What was measured, and whether to act.
#[derive(Default, Debug)]
pub(super) struct Benefit {
    acted_missed: HashSet<BlockIndex>,
    control_missed: HashSet<BlockIndex>,
    acted: Group,
    control: Group,
    /// Blocks fetched ahead: in this epoch, and a sum over epochs, decayed.
    fetched_now: usize,
    fetched: f64,
    off: Option<Off>,
    /// The last pause, in epochs; 0 before the first.
    pause: u32,
    /// Acting since.
    since: Option<Epoch>,
    /// It is clear that acting pays: a smaller control group will do.
    proven: bool,
}

impl Benefit {
    /// A request waits for a block.
    pub fn missed(&mut self, plan: &Plan, block: BlockIndex) {
        if plan.acted_on.contains(&block) {
            self.acted_missed.insert(block);
        } else if plan.control.contains(&block) {
            self.control_missed.insert(block);
        }
    }

    /// A block was fetched ahead.
    pub const fn fetched(&mut self) {
        self.fetched_now += 1;
    }

    /// Those acted on, and the control group.
    pub const fn groups(&self) -> (Group, Group) {
        (self.acted, self.control)
    }

    /// Requests spared a wait, as a share of the blocks acted on; negative where it made things worse.
    pub fn spared(&self) -> f64 {
        if self.acted.blocks > 0.0 && self.control.blocks > 0.0 {
            self.control.rate() - self.acted.rate()
        } else {
            0.0
        }
    }

    /// Whether it is clear that acting pays.
    pub const fn proven(&self) -> bool {
        self.proven
    }

    /// Why nothing is acted on; `None` while it is.
    pub fn off(&self) -> Option<&str> {
        self.off.as_ref().map(|off| off.reason.as_str())
    }

    /// An epoch ended and `open` began; `plan` was in force, made from probabilities of `from` and more. `scores` are those of
    /// changes and of reads.
    pub fn epoch_over(&mut self, plan: Option<&Plan>, open: Epoch, from: f64, scores: [&Scores; 2]) {
        let acted_missed = std::mem::take(&mut self.acted_missed).len();
        let control_missed = std::mem::take(&mut self.control_missed).len();
        let fetched = std::mem::take(&mut self.fetched_now);
        let [changes, reads] = scores.map(Scores::kept);
        let (predicted, happened, scored) =
            (changes.0 + reads.0, changes.1 + reads.1, changes.2.max(reads.2));
        let known = scored >= SCORED_MIN && predicted >= PREDICTED_MIN;
        let precision = happened as f64 / predicted.max(1) as f64;
        if let Some(off) = &self.off {
            if off.until <= open && (!known || precision >= PRECISION_ON * from) {
                // A new trial: what was measured before is of another time.
                tracing::info!("predictions are acted on again, on trial");
                (self.off, self.acted, self.control, self.fetched) =
                    (None, Group::default(), Group::default(), 0.0);
                self.since = Some(open);
                self.proven = false;
            }
            return;
        }
        let Some(plan) = plan.filter(|plan| plan.key.acting) else { return };
        let since = self.since.get_or_insert(open).0;
        if open.0.saturating_sub(since) > SCORE_WINDOW_EPOCHS as u32 {
            self.pause = 0;
        }
        self.acted.take(plan.acted_on.len(), acted_missed);
        self.control.take(plan.control.len(), control_missed);
        self.fetched = self.fetched * KEPT + fetched as f64;
        self.proven = self.control.blocks >= CONTROL_BLOCKS_MIN
            && self.spared() > self.price() + self.doubt()
            || self.proven && self.spared() > self.price();
        let reason = self.spares_too_little().or_else(|| {
            (known && precision < PRECISION_OFF * from).then(|| {
                format!(
                    "of what was predicted {:.0} % happened in the last {scored} tables, {:.0} % and more was promised",
                    100.0 * precision,
                    100.0 * from
                )
            })
        });
        if let Some(reason) = reason {
            self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_LAST);
            let until = Epoch(open.0.saturating_add(self.pause));
            let reason = format!("{reason}; tried again from epoch {until} on");
            tracing::info!("predictions are not acted on: {reason}");
            self.off = Some(Off { reason, until });
        }
    }

    /// What the fetches cost, as a share of the blocks acted on.
    fn price(&self) -> f64 {
        FETCH_PRICE * self.fetched / self.acted.blocks.max(1.0)
    }

    /// By how much what was spared may be off.
    fn doubt(&self) -> f64 {
        ERRORS * (self.acted.variance() + self.control.variance()).sqrt()
    }

    /// The reason, where even with the benefit of the doubt fewer waits are spared than the fetches cost.
    fn spares_too_little(&self) -> Option<String> {
        let Self { acted, control, fetched, .. } = self;
        if control.blocks < CONTROL_BLOCKS_MIN || *fetched < 1.0 {
            return None;
        }
        (self.spared() + self.doubt() < self.price()).then(|| {
            format!(
                "requests waited for {:.1} % of the predicted blocks that were left alone and for {:.1} % of those acted on, with {:.2} fetches a block: too little for their price",
                100.0 * control.rate(),
                100.0 * acted.rate(),
                fetched / acted.blocks.max(1.0)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forerun::prediction::Horizon;

    use super::super::plan::tests::plan_of;
    use super::*;

    /// One epoch: of the control group and of those acted on these shares are waited for.
    fn epoch(benefit: &mut Benefit, open: u32, control: f64, acted: f64, scores: &Scores) {
        let plan = plan_of(4000, open, true);
        let some = |blocks: &HashSet<BlockIndex>, share: f64| {
            let mut blocks: Vec<_> = blocks.iter().copied().collect();
            blocks.sort_unstable();
            blocks.truncate((blocks.len() as f64 * share) as usize);
            blocks
        };
        for block in some(&plan.control, control).into_iter().chain(some(&plan.acted_on, acted)) {
            benefit.missed(&plan, block);
            benefit.missed(&plan, block);
        }
        for _ in 0..plan.acted_on.len() / 2 {
            benefit.fetched();
        }
        benefit.epoch_over(Some(&plan), Epoch(open + 1), 0.5, [scores, &Scores::default()]);
    }

    #[test]
    fn where_it_spares_waits_it_goes_on_and_where_not_it_stops_and_is_tried_again() {
        let (mut benefit, scores) = (Benefit::default(), Scores::default());
        (1..60).for_each(|open| epoch(&mut benefit, open, 0.8, 0.1, &scores));
        assert_eq!(benefit.off(), None);
        assert!(benefit.proven() && (0.6..0.8).contains(&benefit.spared()), "{}", benefit.spared());
        // From now on it makes no difference.
        let stopped = (60..200).find(|open| {
            epoch(&mut benefit, *open, 0.1, 0.1, &scores);
            benefit.off().is_some()
        });
        let stopped = stopped.expect("it stops");
        let reason = benefit.off().unwrap_or_default().to_owned();
        assert!(reason.contains("too little") && reason.contains("left alone"), "{reason}");
        assert!(reason.contains(&format!("from epoch {} on", stopped + 1 + PAUSE_FIRST)), "{reason}");
        (stopped + 1..stopped + PAUSE_FIRST).for_each(|open| epoch(&mut benefit, open, 0.9, 0.9, &scores));
        assert!(benefit.off().is_some(), "the pause goes on");
        (stopped + PAUSE_FIRST..stopped + PAUSE_FIRST + 2)
            .for_each(|open| epoch(&mut benefit, open, 0.8, 0.1, &scores));
        assert_eq!(benefit.off(), None, "tried again");
        // It fails again: the next pause is longer.
        let again = (stopped + PAUSE_FIRST + 2..).find(|open| {
            epoch(&mut benefit, *open, 0.1, 0.1, &scores);
            benefit.off().is_some()
        });
        let again = again.expect("it stops again");
        let reason = benefit.off().unwrap_or_default();
        assert!(reason.contains(&format!("from epoch {} on", again + 1 + 2 * PAUSE_FIRST)), "{reason}");
    }

    #[test]
    fn noise_and_fetches_that_cost_nothing_do_not_stop_it() {
        let (mut benefit, scores) = (Benefit::default(), Scores::default());
        // Few blocks in the control group: nothing is concluded.
        let plan = plan_of(40, 1, true);
        for open in 1..4 {
            plan.acted_on.iter().for_each(|block| benefit.missed(&plan, *block));
            benefit.fetched();
            benefit.epoch_over(Some(&plan), Epoch(open), 0.5, [&scores, &Scores::default()]);
        }
        assert_eq!(benefit.off(), None);
        // Nothing is ever waited for, nothing is fetched.
        let mut benefit = Benefit::default();
        let plan = plan_of(4000, 1, true);
        (1..100).for_each(|open| {
            benefit.epoch_over(Some(&plan), Epoch(open), 0.5, [&scores, &Scores::default()])
        });
        assert_eq!((benefit.off(), benefit.spared()), (None, 0.0));
    }

    #[test]
    fn promises_that_are_not_kept_stop_it_until_they_are() {
        let (mut benefit, mut scores) = (Benefit::default(), Scores::default());
        let plan = plan_of(100, 1, true);
        // Few changes that are expected and do not come say nothing beside many reads that do: both count together.
        let mut reads = Scores::default();
        let few = Arc::new((0..40).map(BlockIndex).collect());
        let many = Arc::new((100..400).map(BlockIndex).collect());
        let mut changes = Scores::default();
        for open in 1..20 {
            changes.expect(Epoch(open - 1), Horizon::DEFAULT, &few);
            reads.expect(Epoch(open - 1), Horizon::DEFAULT, &many);
            changes.happened(Epoch(open), std::iter::empty());
            reads.happened(Epoch(open), (100..390).map(BlockIndex));
            benefit.epoch_over(Some(&plan), Epoch(open + 1), 0.5, [&changes, &reads]);
        }
        assert_eq!(benefit.off(), None);
        let mut benefit = Benefit::default();
        let mut run = |benefit: &mut Benefit, open: u32, happen: u32| {
            let blocks = Arc::new((0..100).map(BlockIndex).collect());
            scores.expect(Epoch(open - 1), Horizon::DEFAULT, &blocks);
            scores.happened(Epoch(open), (0..happen).map(BlockIndex));
            benefit.epoch_over(Some(&plan), Epoch(open + 1), 0.5, [&scores, &Scores::default()]);
        };
        (1..SCORED_MIN).for_each(|open| run(&mut benefit, open, 10));
        assert_eq!(benefit.off(), None, "too early to say");
        run(&mut benefit, SCORED_MIN, 10);
        assert!(
            benefit.off().is_some_and(|reason| reason.starts_with("of what was predicted 10 % happened"))
        );
        (SCORED_MIN + 1..80).for_each(|open| run(&mut benefit, open, 10));
        assert!(benefit.off().is_some(), "the pause is over, the promises are still not kept");
        (80..140).for_each(|open| run(&mut benefit, open, 90));
        assert_eq!(benefit.off(), None);
    }
}
