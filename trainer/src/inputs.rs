//! The network's inputs: facts as numbers around -1 to 1.
//!
//! Shapes: wide inputs `[WIDE]` a candidate, sequence inputs `[SEQUENCE_EPOCHS, PER_EPOCH]` a candidate,
//! oldest epoch first, zeros for epochs before the first. A change of order or meaning is a new
//! [`LAYOUT_VERSION`], because stored weights then mean something else.

use crate::contexts::{TABLES, to_logit};
use crate::epochs::{Cursor, SEQUENCE_EPOCHS};
use crate::facts::Facts;
use crate::state::VolumeState;

/// The version of what the inputs mean.
pub const LAYOUT_VERSION: u32 = 3;
/// Numbers an epoch in the sequence.
pub const PER_EPOCH: usize = 12;
/// Wide inputs that are facts; the others are the context tables' logits.
const OWN: usize = 41;
/// Wide inputs of a candidate.
pub const WIDE: usize = OWN + TABLES;

/// The wide inputs of a candidate, from its facts and the context tables' logits.
#[must_use]
pub fn wide(facts: &Facts, contexts: &[f32; TABLES]) -> [f32; WIDE] {
    let log = |value: f32| value.max(0.0).ln_1p();
    let flag = |set: bool| f32::from(u8::from(set));
    let changed = |epochs_ago: u32| flag(facts.history >> epochs_ago & 1 == 1);
    let seen = facts.count > 0;
    let extension = facts.frontier.extension.max(1.0);
    let ahead = facts.past_frontier as f32;
    let near = |scale: f32| if ahead >= -2.0 { (-ahead.max(0.0) / scale).exp() } else { 0.0 };
    let gap_ratio = if facts.mean_gap > 0.0 { facts.since as f32 / facts.mean_gap } else { 0.0 };
    let idle = facts.step - facts.frontier.last.min(facts.step);
    let [rate_1, rate_3, rate_12, rate_48] = facts.rates;
    let run_len = (facts.now.run.end - facts.now.run.start) as f32;
    let after_run = facts.now.after_run.map_or(1e6, |distance| distance as f32);
    let before_run = facts.now.before_run.map_or(1e6, |distance| distance as f32);
    let own: [f32; OWN] = [
        rate_1,
        rate_3,
        rate_12,
        rate_48,
        to_logit(rate_1 * 0.98 + 0.001) / 4.0,
        to_logit(rate_3 * 0.98 + 0.001) / 4.0,
        to_logit(rate_12 * 0.98 + 0.001) / 4.0,
        to_logit(rate_48 * 0.98 + 0.001) / 4.0,
        changed(0),
        changed(1),
        changed(2),
        changed(3),
        flag(seen),
        log(facts.count as f32) / 3.0,
        log(facts.age as f32) / 4.0,
        if seen { log(facts.since as f32) / 3.0 } else { 2.0 },
        log(facts.mean_gap) / 3.0,
        gap_ratio.min(4.0) / 2.0,
        flag(facts.last_gap > 0 && facts.since + 1 == facts.last_gap),
        f32::from(facts.now.sub_blocks) / 16.0,
        facts.now.near_1 as f32 / 2.0,
        facts.now.near_8 as f32 / 16.0,
        log(facts.near_64 as f32) / 3.0,
        log(facts.now.region as f32) / 4.0,
        log(facts.groups[0]),
        log(facts.groups[1]) / 2.0,
        log(facts.groups[2]) / 3.0,
        near(8.0),
        near(extension),
        near(extension) * flag(facts.frontier.moves > 0),
        log(idle as f32) / 3.0 * near(32.0),
        log(extension) / 4.0 * near(32.0),
        (-after_run / run_len.max(1.0)).exp(),
        log(after_run) / 8.0,
        log(before_run) / 8.0,
        facts.similar,
        facts.volume_ratio,
        flag(facts.now.run.continues) * (-after_run / 16.0).exp(),
        facts.association,
        log(facts.leaders as f32),
        facts.chained,
    ];
    let mut wide = [0.0; WIDE];
    let logits = contexts.iter().map(|logit| logit / 4.0);
    for (to, from) in wide.iter_mut().zip(own.into_iter().chain(logits)) {
        *to = from;
    }
    wide
}

/// Makes sequence inputs, in ascending order of blocks.
pub struct SequenceSource<'a> {
    cursors: Vec<(Cursor<'a>, f32, (f32, f32))>,
}

impl<'a> SequenceSource<'a> {
    /// Begins before the first block.
    #[must_use]
    pub fn new(state: &'a VolumeState) -> Self {
        let views = state.recent.iter();
        let skip = views.len().saturating_sub(SEQUENCE_EPOCHS);
        let cursors = state.recent.iter().skip(skip);
        Self { cursors: cursors.map(|view| (Cursor::new(view), view.volume_ratio, view.hour)).collect() }
    }

    /// Appends the `SEQUENCE_EPOCHS * PER_EPOCH` numbers of a block above every one asked for before.
    pub fn append(&mut self, block: u32, to: &mut Vec<f32>) {
        let missing = SEQUENCE_EPOCHS - self.cursors.len().min(SEQUENCE_EPOCHS);
        to.resize(to.len() + missing * PER_EPOCH, 0.0);
        for (cursor, volume_ratio, hour) in &mut self.cursors {
            let point = cursor.point(block);
            let after = point.after_run.map_or(1e6, |distance| distance as f32);
            let run_len = (point.run.end - point.run.start).max(1) as f32;
            let numbers: [f32; PER_EPOCH] = [
                f32::from(u8::from(point.sub_blocks > 0)),
                f32::from(point.sub_blocks) / 16.0,
                f32::from(u8::from(point.deleted)),
                point.near_1 as f32 / 2.0,
                point.near_8 as f32 / 16.0,
                (-after / 8.0).exp(),
                (-after / run_len).exp(),
                f32::from(u8::from(point.run.continues)) * (-after / 32.0).exp(),
                (point.region as f32).ln_1p() / 6.0,
                *volume_ratio / 2.0,
                hour.0,
                hour.1,
            ];
            to.extend_from_slice(&numbers);
        }
    }
}
