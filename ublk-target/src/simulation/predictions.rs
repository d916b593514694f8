//! Prediction tables of a run: none, right, random, and from somebody who means no good.

use std::collections::BTreeSet;

use forerun::geometry::{BlockIndex, Epoch, MIN_VOLUME_BYTES};
use forerun::prediction::{Horizon, PredictedKind, Prediction as Predicted, Probability};
use forerun::prediction_table::TableWriter;

use super::history::{BLOCK_SECTORS, Prediction, Shape, Step};
use super::machine::{Machine, VOLUME};
use super::requests::changed;
use crate::fast_tier::sim::Random;
use crate::request::Operation;
use crate::volume::lock;

/// Blocks of a simulated volume.
const VOLUME_BLOCKS: u64 = MIN_VOLUME_BYTES >> 16;
/// The oracle tells of about so many blocks: with more, reservations leave no room to fetch anything.
const TOLD_AHEAD: usize = 4;
/// Steps that a right table looks ahead.
const AHEAD: usize = 20;

/// Puts a table in place, or takes it away. `last` is the last sealed epoch, `coming` the steps to come.
pub fn put(machine: &Machine, shape: &Shape, prediction: Prediction, last: Epoch, coming: &[Step]) {
    let kinds = [PredictedKind::Modified, PredictedKind::Added, PredictedKind::Deleted, PredictedKind::Read];
    let any_kind = |block: u32| (block, kinds[block as usize % 4], 0.9);
    let predictions: Vec<(u32, PredictedKind, f32)> = match prediction {
        Prediction::Absent => {
            let _ = std::fs::remove_file(machine.table());
            return;
        }
        Prediction::Hostile(seed) => return garble(machine, seed),
        Prediction::Right => {
            let first = |(_, sectors): (_, std::ops::Range<usize>)| (sectors.start / BLOCK_SECTORS) as u32;
            let blocks: BTreeSet<u32> = changes(coming.iter().take(AHEAD)).map(first).collect();
            blocks.into_iter().map(any_kind).collect()
        }
        Prediction::Random(seed) => {
            let mut random = Random(seed);
            let blocks: BTreeSet<u32> =
                (0..random.below(30)).map(|_| random.below(VOLUME_BLOCKS) as u32).collect();
            blocks.into_iter().map(any_kind).collect()
        }
        Prediction::Oracle => oracle(machine, coming),
        Prediction::Certain(seed) => certain(machine, shape, seed),
        Prediction::OutOfRange => {
            vec![(0, PredictedKind::Modified, 1.0), (VOLUME_BLOCKS as u32, PredictedKind::Added, 1.0)]
        }
    };
    let predictions: Vec<Predicted> = predictions
        .into_iter()
        .map(|(block, kind, probability)| {
            let probability = Probability::new(probability).expect("a probability");
            Predicted { block: BlockIndex(block), kind, probability }
        })
        .collect();
    let mut writer = TableWriter::create(&machine.table(), *VOLUME.as_bytes()).expect("created");
    let horizon =
        Horizon::new(if matches!(prediction, Prediction::Right | Prediction::Random(_)) { 4 } else { 64 });
    writer.publish("simulated", last, horizon.expect("a horizon"), &predictions).expect("published");
}

/// What changes in steps: how, and which sectors.
fn changes<'s>(
    steps: impl Iterator<Item = &'s Step>,
) -> impl Iterator<Item = (Operation, std::ops::Range<usize>)> {
    let change = |step: &Step| match step {
        Step::Request { operation, sector, sectors } => {
            Some((*operation, changed(*operation, *sector, *sectors)))
        }
        _ => None,
    };
    steps.filter_map(change).filter(|(_, sectors)| !sectors.is_empty())
}

/// The blocks that change next, up to the next table, with what happens to it first, the next one the most probable.
fn oracle(machine: &Machine, coming: &[Step]) -> Vec<(u32, PredictedKind, f32)> {
    let until_the_next = coming.iter().take_while(|step| !matches!(step, Step::Predict(_)));
    let mut told: Vec<(u32, PredictedKind, f32)> = Vec::new();
    for (operation, sectors) in changes(until_the_next) {
        if told.len() >= TOLD_AHEAD {
            break;
        }
        for block in sectors.start / BLOCK_SECTORS..sectors.end.div_ceil(BLOCK_SECTORS) {
            let kind = match operation {
                Operation::Discard => PredictedKind::Deleted,
                _ if holds_data(machine, block) => PredictedKind::Modified,
                _ => PredictedKind::Added,
            };
            if told.iter().all(|(other, ..)| *other != block as u32) {
                told.push((block as u32, kind, 1.0 - told.len() as f32 / 1000.0));
            }
        }
    }
    told
}

/// Most of the blocks, all of them certain, with the kind that cannot be or does the most harm: deleted where data is,
/// modified where there is none; and some that nobody ever uses.
fn certain(machine: &Machine, shape: &Shape, seed: u64) -> Vec<(u32, PredictedKind, f32)> {
    let mut random = Random(seed);
    if random.one_in(2) {
        // With everything in the table, its reservations leave no room to fetch anything.
        let blocks: BTreeSet<u32> = (0..3).map(|_| random.below(shape.blocks as u64) as u32).collect();
        return blocks.into_iter().map(|block| (block, PredictedKind::Modified, 1.0)).collect();
    }
    let mut told = Vec::new();
    for block in 0..VOLUME_BLOCKS as u32 {
        let is_used = (block as usize) < shape.blocks;
        if random.one_in(if is_used { 4 } else { 40 }) == is_used {
            continue;
        }
        let kind = match is_used && holds_data(machine, block as usize) {
            // Those that are said to be modified are fetched, whether or not they are about to be.
            true if random.one_in(3) => PredictedKind::Modified,
            true => PredictedKind::Deleted,
            false => PredictedKind::Modified,
        };
        told.push((block, kind, 1.0));
    }
    told
}

fn holds_data(machine: &Machine, block: usize) -> bool {
    let truth = lock(&machine.truth);
    truth.now.iter().skip(block * BLOCK_SECTORS).take(BLOCK_SECTORS).any(|stamp| *stamp != 0)
}

/// Overwrites some bytes of what is there.
fn garble(machine: &Machine, seed: u64) {
    let mut random = Random(seed);
    let mut bytes = std::fs::read(machine.table()).unwrap_or_default();
    bytes.resize(bytes.len().clamp(64, 1 << 16), 0);
    for _ in 0..1 + random.below(200) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
    }
    std::fs::write(machine.table(), bytes).expect("written");
}
