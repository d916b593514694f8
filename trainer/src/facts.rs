//! What is known of one candidate at the end of an epoch; everything a predictor sees comes from here.
//!
//! Facts are made from what has been learned up to now and from nothing else, so that no
//! predictor can look ahead. They come from one pass over the candidates, ascending.

use forerun::change_vector::ChangeKind;

use crate::activity::{Activity, Decays};
use crate::block_map::seek;
use crate::epochs::{Cursor, EpochView, Point, RecentEpochs};
use crate::frontier::Frontier;
use crate::similar::Weights;
use crate::state::VolumeState;

/// A distance that means 'nowhere near'.
pub const FAR_BLOCKS: i64 = 1 << 20;

/// What is known of one candidate.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The block.
    pub block: u32,
    /// Bit `i`: it changed `i` epochs ago, 0 being the last epoch.
    pub history: u64,
    /// Whether it holds no data, as far as is known: only then can it be added.
    pub empty: bool,
    /// Changes remembered; 0: it never changed.
    pub count: u32,
    /// Epochs since its first and last change remembered.
    pub age: u32,
    /// Epochs since its last change.
    pub since: u32,
    /// Mean gap between its changes, and the last one, in epochs; 0 before there were two changes.
    pub mean_gap: f32,
    /// The last gap, in epochs.
    pub last_gap: u32,
    /// Decayed shares of epochs with a change, by half-life.
    pub rates: [f32; 4],
    /// Decayed changes an epoch around it, in groups of 8, 64 and 512 blocks.
    pub groups: [f32; 3],
    /// What the last epoch says of it.
    pub now: Point,
    /// Changed in the last epoch within 64 blocks.
    pub near_64: u32,
    /// Blocks past the end of the nearest frontier (negative: before it).
    pub past_frontier: i64,
    /// That frontier.
    pub frontier: Frontier,
    /// Weight of the epochs like the last one after which it changed, 0 to 1.
    pub similar: f32,
    /// The same for the rest of the horizon, the next epoch left out.
    pub similar_later: f32,
    /// How much the chains that usually follow the last epoch's speak for it, 0 to 1.
    pub chained: f32,
    /// How much the blocks that have just begun to change speak for it, 0 to 1.
    pub association: f32,
    /// How many of them do.
    pub leaders: u32,
    /// The last epoch's volume ratio and time of day.
    pub volume_ratio: f32,
    /// Time of day on a circle.
    pub hour: (f32, f32),
    /// The step of the last epoch.
    pub step: u32,
}

/// Reads weights by block, in ascending order of blocks.
struct Reader<'a>(std::iter::Peekable<std::slice::Iter<'a, (u32, f32)>>);

impl<'a> Reader<'a> {
    fn new(weights: &'a Weights) -> Self {
        Self(weights.iter().peekable())
    }

    fn weight(&mut self, block: u32) -> f32 {
        while self.0.next_if(|(own, _)| *own < block).is_some() {}
        self.0.peek().filter(|(own, _)| *own == block).map_or(0.0, |(_, weight)| *weight)
    }
}

/// Makes facts, in ascending order of blocks.
pub struct FactSource<'a> {
    activity: &'a Activity,
    activity_at: usize,
    decays: Decays,
    similar: Reader<'a>,
    similar_later: Reader<'a>,
    chained: Reader<'a>,
    last: Option<(&'a EpochView, Cursor<'a>)>,
    frontiers: &'a [Frontier],
    frontier_at: usize,
}

impl<'a> FactSource<'a> {
    /// Begins before the first block.
    #[must_use]
    pub fn new(state: &'a VolumeState) -> Self {
        let recent: &RecentEpochs = &state.recent;
        Self {
            activity: &state.activity,
            activity_at: 0,
            decays: state.activity.decays(),
            similar: Reader::new(&state.similar.next),
            similar_later: Reader::new(&state.similar.later),
            chained: Reader::new(&state.chained),
            last: recent.last().map(|view| (view, Cursor::new(view))),
            frontiers: state.frontiers.list(),
            frontier_at: 0,
        }
    }

    /// What is known of `block`, which is above every block asked for before.
    pub fn facts(&mut self, block: u32) -> Option<Facts> {
        let step = self.activity.step();
        let (view, cursor) = self.last.as_mut()?;
        let now = cursor.point(block);
        let near_64 = view.count_between(block.saturating_sub(64), block.saturating_add(64));
        while self.frontiers.get(self.frontier_at).is_some_and(|frontier| frontier.end <= block + 2) {
            self.frontier_at += 1;
        }
        let none = Frontier { end: 0, extension: 0.0, moves: 0, last: 0 };
        let frontier = self.frontier_at.checked_sub(1).and_then(|at| self.frontiers.get(at));
        let past_frontier = frontier
            .map_or(FAR_BLOCKS, |frontier| (i64::from(block) - i64::from(frontier.end)).min(FAR_BLOCKS));
        self.activity_at = seek(self.activity.blocks(), self.activity_at, block);
        let known = self.activity.blocks().get(self.activity_at) == Some(&block);
        let past = self.activity.pasts().get(self.activity_at).filter(|_| known);
        let (association, leaders) = past.map_or((0.0, 0), |past| self.activity.association(past));
        Some(Facts {
            block,
            history: past.map_or(0, |past| past.history_at(step)),
            empty: past.is_none_or(|past| past.kind == ChangeKind::Deleted),
            count: past.map_or(0, |past| past.count),
            age: past.map_or(0, |past| step - past.first),
            since: past.map_or(step, |past| step - past.last),
            mean_gap: past.map_or(0.0, |past| past.mean_gap),
            last_gap: past.map_or(0, |past| past.last_gap),
            rates: past.map_or([0.0; 4], |past| past.rates_at(step, &self.decays)),
            groups: self.activity.group_rates(block),
            now,
            near_64: near_64.saturating_sub(u32::from(now.sub_blocks > 0)),
            past_frontier,
            frontier: frontier.copied().unwrap_or(none),
            similar: self.similar.weight(block),
            similar_later: self.similar_later.weight(block),
            chained: self.chained.weight(block),
            association,
            leaders,
            volume_ratio: view.volume_ratio,
            hour: view.hour,
            step,
        })
    }
}
