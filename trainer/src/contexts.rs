//! Online context tables: how often a block in a situation like this one changed next.
//!
//! Each table cuts the facts into cells in another way and counts, with decay, candidates and those of
//! them that changed. A cell's share, drawn towards the overall share while it is small, becomes a
//! logit. The sum over the tables is a predictor by itself, and each logit is an input to the others.
//! (Decayed counts per context as in context-mixing compressors, e.g. Mahoney's PAQ, 2002.)

use crate::facts::Facts;

/// How many tables there are.
pub const TABLES: usize = 8;
/// Cells a table can have.
const CELLS: usize = 2048;
/// What the counts keep from one epoch to the next.
const KEPT: f32 = 0.94;
/// Candidates' worth of weight that the overall share has in each cell.
const PRIOR: f32 = 3.0;
/// Logits are bounded, so that an empty or full cell does not decide alone.
const MAX_LOGIT: f32 = 7.0;

/// The cells a candidate falls into, one a table.
pub type Cells = [u16; TABLES];

/// The tables' counts.
#[derive(Clone, Debug)]
pub struct ContextTables {
    /// (changed, all) by table and cell.
    counts: Vec<[(f32, f32); CELLS]>,
    overall: (f32, f32),
}

impl Default for ContextTables {
    fn default() -> Self {
        Self { counts: vec![[(0.0, 0.0); CELLS]; TABLES], overall: (0.02, 1.0) }
    }
}

impl ContextTables {
    /// Lets all counts fade by one epoch.
    pub fn fade(&mut self) {
        for (changed, all) in self.counts.iter_mut().flatten().chain(std::iter::once(&mut self.overall)) {
            *changed *= KEPT;
            *all *= KEPT;
        }
    }

    /// Counts a candidate that was in `cells` and then did or did not change.
    pub fn learn(&mut self, cells: &Cells, changed: bool) {
        let changed = f32::from(u8::from(changed));
        for (table, cell) in self.counts.iter_mut().zip(cells) {
            if let Some(count) = table.get_mut(usize::from(*cell)) {
                count.0 += changed;
                count.1 += 1.0;
            }
        }
        self.overall.0 += changed;
        self.overall.1 += 1.0;
    }

    /// The logit of each table for a candidate in `cells`.
    #[must_use]
    pub fn logits(&self, cells: &Cells) -> [f32; TABLES] {
        let overall = (self.overall.0 / self.overall.1.max(1e-6)).clamp(1e-5, 0.9);
        let mut logits = [0.0; TABLES];
        for ((logit, table), cell) in logits.iter_mut().zip(&self.counts).zip(cells) {
            let (changed, all) = table.get(usize::from(*cell)).copied().unwrap_or((0.0, 0.0));
            *logit = to_logit((changed + PRIOR * overall) / (all + PRIOR));
        }
        logits
    }

    /// The tables' common opinion as a probability: the mean of the two most informed views of it.
    #[must_use]
    pub fn probability(&self, logits: &[f32; TABLES]) -> f32 {
        let base = to_logit((self.overall.0 / self.overall.1.max(1e-6)).clamp(1e-5, 0.9));
        // The tables overlap: their evidence is not independent, so that only a part of the sum counts.
        let evidence: f32 = logits.iter().map(|logit| logit - base).sum();
        from_logit(base + evidence * 0.4)
    }
}

/// The logit of a probability, bounded.
#[must_use]
pub fn to_logit(probability: f32) -> f32 {
    let p = probability.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln().clamp(-MAX_LOGIT, MAX_LOGIT)
}

/// The probability of a logit.
#[must_use]
pub fn from_logit(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Which bucket of powers of two a count is in: 0, 1, 2-3, 4-7, ... up to `most`.
fn log2_bucket(value: u32, most: u32) -> u32 {
    (u32::BITS - value.leading_zeros()).min(most)
}

/// The cells of a candidate.
#[must_use]
pub fn cells(facts: &Facts) -> Cells {
    let changed = u32::from(facts.history & 1 == 1);
    let history = (facts.history & 0xff) as u32;
    let rate = |at: usize, buckets: f32| (facts.rates.get(at).copied().unwrap_or(0.0) * buckets) as u32;
    let ahead = facts.past_frontier;
    let extension = facts.frontier.extension.max(1.0);
    // Distance in units of the usual extension where it is ahead, in blocks where it is just before.
    let position = match ahead {
        ..-2 => 0,
        -2..=-1 => (ahead + 3) as u32,
        _ => 3 + ((ahead as f32 / extension * 4.0) as u32).min(12),
    };
    let moves = facts.frontier.moves.min(3);
    let idle = log2_bucket(facts.step - facts.frontier.last.min(facts.step), 3);
    let after_run = facts.now.after_run.unwrap_or(u32::MAX);
    let run_len = facts.now.run.end - facts.now.run.start;
    let sub_blocks = [0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5];
    let written = sub_blocks.get(usize::from(facts.now.sub_blocks)).copied().unwrap_or(0);
    let known = facts.count.min(1);
    [
        history * 8 + log2_bucket(facts.count, 7),
        (position * 16 + moves * 4 + idle) * 4 + log2_bucket(extension as u32, 6) / 2,
        log2_bucket(facts.since, 9) * 64
            + ((facts.mean_gap * 2.0) as u32).min(15) * 4
            + facts.last_gap.abs_diff(facts.since).min(3),
        (facts.now.near_1 * 5 + log2_bucket(facts.now.near_8, 4)) * 48
            + log2_bucket(facts.near_64, 5) * 8
            + changed * 4
            + known * 2
            + u32::from(facts.history & 2 == 2),
        log2_bucket((facts.groups[2] * 16.0) as u32, 9) * 128
            + log2_bucket(facts.age, 7) * 16
            + rate(1, 15.0),
        rate(0, 7.9) * 128 + rate(2, 15.9) * 8 + ((facts.similar * 6.0).ceil() as u32).min(7),
        log2_bucket(after_run, 11) * 128
            + log2_bucket(run_len, 7) * 16
            + u32::from(facts.now.run.continues) * 8
            + written,
        ((facts.association * 8.0).ceil() as u32).min(7) * 160
            + facts.leaders.min(4) * 32
            + log2_bucket(facts.count, 7) * 4
            + (facts.history & 3) as u32,
    ]
    .map(|cell| cell.min(CELLS as u32 - 1) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_learn_shares_and_forget() {
        let mut tables = ContextTables::default();
        let (often, never) = ([1; TABLES], [2; TABLES]);
        for _ in 0..50 {
            for round in 0..10 {
                tables.learn(&often, round < 8);
                tables.learn(&never, false);
            }
            tables.fade();
        }
        let share = from_logit(tables.logits(&often)[0]);
        assert!((0.76..0.84).contains(&share), "{share}");
        assert!(tables.probability(&tables.logits(&often)) > 0.8);
        assert!(tables.probability(&tables.logits(&never)) < 0.05);
        for _ in 0..200 {
            tables.learn(&often, false);
            tables.fade();
        }
        assert!(from_logit(tables.logits(&often)[0]) < 0.2);
    }
}
