//! The journal in memory: every delta since the start, how many of them are durable, and the last checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use forerun::geometry::Epoch;

use crate::fast_tier::delta::Delta;
use crate::fast_tier::log::{DeltaLog, LogPosition};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::volume::{Recovered, RecoveredLayer, lock};

/// See the module.
#[derive(Default)]
pub struct MemoryLog {
    deltas: Mutex<Vec<Delta>>,
    durable: AtomicU64,
    /// What a checkpoint says, and the position from which on the log is replayed over it.
    checkpoint: Mutex<(Vec<Delta>, usize)>,
    /// It takes nothing until it has caught up.
    pub full: AtomicBool,
    /// It takes nothing any more.
    pub failed: AtomicBool,
}

impl MemoryLog {
    /// A log that begins with these facts, all durable.
    pub fn beginning_with(facts: Vec<Delta>) -> Self {
        let durable = AtomicU64::new(facts.len() as u64);
        Self { deltas: Mutex::new(facts), durable, ..Self::default() }
    }

    /// All that was appended is durable.
    pub fn make_durable(&self) {
        self.durable.store(self.appended().0, Ordering::SeqCst);
    }

    /// Takes a checkpoint: `walk` gives the facts; what it saw is durable before it counts.
    pub fn take_checkpoint(&self, walk: impl Iterator<Item = Delta>) {
        let start = lock(&self.deltas).len();
        let mut facts: Vec<Delta> = walk.collect();
        let newest = lock(&self.deltas).iter().rfind(|delta| matches!(delta, Delta::Sealed(_))).cloned();
        facts.extend(newest);
        self.make_durable();
        *lock(&self.checkpoint) = (facts, start);
    }

    /// What a crash leaves if the first `kept` deltas are durable.
    pub fn left_by_crash(&self, kept: usize) -> Vec<Delta> {
        let (facts, start) = &*lock(&self.checkpoint);
        let deltas = lock(&self.deltas);
        assert!(kept >= *start, "what a checkpoint saw is durable");
        facts.iter().chain(&deltas[*start..kept]).cloned().collect()
    }
}

impl DeltaLog for MemoryLog {
    fn append(&self, delta: &Delta) -> LogPosition {
        let mut deltas = lock(&self.deltas);
        // What the journal would read back.
        let mut bytes = Vec::new();
        delta.encode(&mut bytes);
        assert_eq!(Delta::decode(&mut bytes.as_slice()).as_ref(), Some(delta));
        deltas.push(delta.clone());
        LogPosition(deltas.len() as u64)
    }

    fn appended(&self) -> LogPosition {
        LogPosition(lock(&self.deltas).len() as u64)
    }

    fn durable(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::SeqCst))
    }

    fn has_room(&self, _: u32) -> bool {
        !self.full.load(Ordering::SeqCst) && !self.has_failed()
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}

/// What replaying deltas gives.
pub fn replay(deltas: &[Delta]) -> Recovered {
    let (mut holds, mut deleted) = (BTreeMap::new(), BTreeSet::new());
    let (mut sealed, mut names) = (BTreeMap::new(), HashMap::new());
    for delta in deltas {
        match delta {
            Delta::Holds(fact) => drop(holds.insert(fact.slot, *fact)),
            Delta::Free(slot) => drop(holds.remove(slot)),
            Delta::Deleted { block, epoch } => drop(deleted.insert((*block, *epoch))),
            Delta::Sealed(fact) => drop(sealed.insert(fact.epoch, *fact)),
            Delta::Named { epoch, name } => drop(names.insert(*epoch, name.clone())),
            Delta::Unnamed { epoch } => drop(names.remove(epoch)),
        }
    }
    let layer = |(epoch, sealed): (Epoch, _)| RecoveredLayer { sealed, snapshot: names.get(&epoch).cloned() };
    Recovered {
        holds: holds.into_values().collect(),
        deleted: deleted.into_iter().collect(),
        sealed: sealed.into_iter().map(layer).collect(),
    }
}
