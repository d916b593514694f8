//! What the engine would keep in memory, as a plain model, and an engine that makes random changes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use forerun::geometry::{BlockIndex, Epoch, SlotId, SubBlockMask};

use super::super::delta::{Delta, Holds, Sealed};
use super::super::device::FastDevice;
use super::super::log::{DeltaLog, LogPosition};
use super::super::sim::{Random, SimDisk};
use super::super::{Committer, FastTier};
use crate::volume::{Recovered, RecoveredLayer};

/// A state, as deltas make it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    pub slots: BTreeMap<u32, Holds>,
    deleted: BTreeSet<(BlockIndex, Epoch)>,
    sealed: BTreeMap<Epoch, Sealed>,
    names: BTreeMap<Epoch, String>,
}

impl Model {
    pub fn apply(&mut self, delta: &Delta) {
        match delta.clone() {
            Delta::Holds(holds) => {
                self.slots.insert(holds.slot.0, holds);
            }
            Delta::Free(slot) => {
                self.slots.remove(&slot.0);
            }
            Delta::Deleted { block, epoch } => {
                self.deleted.insert((block, epoch));
            }
            Delta::Sealed(sealed) => {
                self.sealed.insert(sealed.epoch, sealed);
            }
            Delta::Named { epoch, name } => {
                self.names.insert(epoch, name);
            }
            Delta::Unnamed { epoch } => {
                self.names.remove(&epoch);
            }
        }
    }

    /// What a recovery of this state hands to the engine.
    pub fn recovered(&self) -> Recovered {
        let layer = |(epoch, sealed): (&Epoch, &Sealed)| RecoveredLayer {
            sealed: *sealed,
            snapshot: self.names.get(epoch).cloned(),
        };
        Recovered {
            holds: self.slots.values().copied().collect(),
            deleted: self.deleted.iter().copied().collect(),
            sealed: self.sealed.iter().map(layer).collect(),
        }
    }

    /// Without names of epochs that are not sealed, as a recovery leaves it.
    fn settled(&self) -> Self {
        let mut settled = self.clone();
        settled.names.retain(|epoch, _| self.sealed.contains_key(epoch));
        settled
    }

    fn facts(&self, slots: std::ops::Range<u32>) -> Vec<Delta> {
        self.slots.range(slots).map(|(_, holds)| Delta::Holds(*holds)).collect()
    }

    fn layer_facts(&self) -> Vec<Delta> {
        let deleted =
            self.deleted.iter().map(|(block, epoch)| Delta::Deleted { block: *block, epoch: *epoch });
        let named = self.names.iter().map(|(epoch, name)| Delta::Named { epoch: *epoch, name: name.clone() });
        let sealed = self.sealed.values().map(|sealed| Delta::Sealed(*sealed));
        deleted.chain(named).chain(sealed).collect()
    }
}

/// Makes random changes, and remembers every state that was.
pub struct Engine {
    pub random: Random,
    log: Arc<Committer>,
    disk: Arc<SimDisk>,
    slots_offset: u64,
    slot_count: u32,
    /// The state after each delta of this life; the first is what it began with.
    history: Vec<Model>,
    /// So many of the deltas are known to be durable.
    acknowledged: usize,
    /// Free slots, each with the position from which on it may be used again.
    free: Vec<(LogPosition, u32)>,
    /// What was written to each page of each slot, with the number of deltas before the one that says so.
    written: BTreeMap<(u32, u32), (usize, u64)>,
    tag: u64,
}

/// What is known of an engine that is no more.
pub struct Past {
    history: Vec<Model>,
    acknowledged: usize,
    written: BTreeMap<(u32, u32), (usize, u64)>,
    tag: u64,
}

impl Past {
    /// Before the first life.
    pub fn none() -> Self {
        Self { history: vec![Model::default()], acknowledged: 0, written: BTreeMap::new(), tag: 0 }
    }

    /// Finds which of its states was recovered: at least what was acknowledged, or, with `all`, the last one.
    pub fn find(&self, recovered: &Recovered, all: bool) -> usize {
        let from = if all { self.history.len() - 1 } else { self.acknowledged };
        let found = (from..self.history.len()).find(|n| self.history[*n].recovered() == *recovered);
        found.unwrap_or_else(|| {
            let earlier = self.history.iter().position(|state| state.recovered() == *recovered);
            panic!(
                "the recovered state is none of {from}..{} (but state {earlier:?}): {recovered:?}\nexpected e.g. {:?}",
                self.history.len(),
                self.history[from].recovered()
            )
        })
    }

    /// Sees that the data of state `n` is there.
    pub fn check_data(&self, tier: &FastTier<SimDisk>, n: usize) {
        for holds in self.history[n].slots.values() {
            for sub_block in (0..16).filter(|bit| holds.valid.0 >> bit & 1 == 1) {
                let Some((since, tag)) = self.written.get(&(holds.slot.0, sub_block)) else {
                    panic!("{holds:?} was never written")
                };
                if *since > n {
                    continue;
                }
                let mut page = [0; 4096];
                let at = tier.slots_offset() + holds.slot.offset_bytes() + u64::from(sub_block) * 4096;
                tier.device().read_at(at, &mut page).expect("read");
                assert_eq!(page, content(*tag), "data of {holds:?}, sub-block {sub_block}");
            }
        }
    }
}

fn content(tag: u64) -> [u8; 4096] {
    let mut page = [0; 4096];
    page.chunks_mut(8).for_each(|word| word.copy_from_slice(&tag.to_le_bytes()));
    page
}

impl Engine {
    /// Goes on from state `n` of the past, which `tier` has recovered.
    pub fn resume(tier: &FastTier<SimDisk>, past: &Past, n: usize, seed: u64) -> Self {
        let start = past.history[n].settled();
        let free = (0..tier.slot_count())
            .filter(|slot| !start.slots.contains_key(slot))
            .map(|slot| (LogPosition(0), slot))
            .collect();
        let written = past.written.iter().map(|(at, (_, tag))| (*at, (0, *tag))).collect();
        Self {
            random: Random(seed),
            log: tier.committer(),
            disk: Arc::clone(tier.device()),
            slots_offset: tier.slots_offset(),
            slot_count: tier.slot_count(),
            history: vec![start],
            acknowledged: 0,
            free,
            written,
            tag: past.tag,
        }
    }

    pub fn end(self) -> Past {
        let Self { history, acknowledged, written, tag, .. } = self;
        Past { history, acknowledged, written, tag }
    }

    /// The tier has so many slots now.
    pub fn grow(&mut self, slots: u32) {
        assert!(slots > self.slot_count, "it has not grown");
        self.free.extend((self.slot_count..slots).map(|slot| (LogPosition(0), slot)));
        self.slot_count = slots;
    }

    pub fn now(&self) -> &Model {
        self.history.last().expect("never empty")
    }

    pub fn deltas(&self) -> usize {
        self.history.len() - 1
    }

    /// Notes that the first `deltas` deltas are durable.
    pub fn acknowledge(&mut self, deltas: usize) {
        self.acknowledged = self.acknowledged.max(deltas);
    }

    fn append(&mut self, delta: &Delta) -> LogPosition {
        let mut next = self.now().clone();
        next.apply(delta);
        self.history.push(next);
        self.log.append(delta)
    }

    /// Writes data to a slot, then says so, as a write request does.
    fn write(&mut self, holds: Holds) -> io::Result<()> {
        let missing: Vec<u32> = (0..16).filter(|bit| holds.valid.0 >> bit & 1 == 0).collect();
        let Some(sub_block) = missing.get(self.random.below(missing.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        self.tag += 1;
        let at = self.slots_offset + holds.slot.offset_bytes() + u64::from(*sub_block) * 4096;
        self.disk.write_at(at, &content(self.tag))?;
        self.written.insert((holds.slot.0, *sub_block), (self.history.len(), self.tag));
        let bit = SubBlockMask(1 << sub_block);
        let (valid, dirty) = (holds.valid.union(bit), holds.dirty.union(bit));
        self.append(&Delta::Holds(Holds { valid, dirty, ..holds }));
        Ok(())
    }

    fn any_held(&mut self) -> Option<Holds> {
        let slots = &self.history.last()?.slots;
        let nth = self.random.below(slots.len().max(1) as u64) as usize;
        slots.values().nth(nth).copied()
    }

    fn open_epoch(&self) -> Epoch {
        self.now().sealed.last_key_value().map_or(Epoch(1), |(epoch, _)| epoch.next())
    }

    /// One random change.
    pub fn change(&mut self) -> io::Result<()> {
        let epoch = self.open_epoch();
        match self.random.below(12) {
            0..=3 => {
                let durable = self.log.durable();
                let usable = self.free.iter().position(|(position, _)| *position <= durable);
                if let Some((_, slot)) = usable.map(|nth| self.free.swap_remove(nth)) {
                    let block = BlockIndex(self.random.below(1024) as u32);
                    let (valid, dirty) = (SubBlockMask::EMPTY, SubBlockMask::EMPTY);
                    let added = self.random.one_in(2);
                    self.write(Holds { slot: SlotId(slot), block, epoch, valid, dirty, added })?;
                }
            }
            4..=5 => {
                if let Some(holds) = self.any_held() {
                    self.write(holds)?;
                }
            }
            6..=7 => {
                if let Some(holds) = self.any_held() {
                    let position = self.append(&Delta::Free(holds.slot));
                    self.free.push((position, holds.slot.0));
                }
            }
            8 => {
                let block = BlockIndex(self.random.below(1024) as u32);
                self.append(&Delta::Deleted { block, epoch });
            }
            9 => {
                if self.random.one_in(2) {
                    self.append(&Delta::Named { epoch, name: format!("snapshot-{epoch}") });
                }
                let now = self.tag;
                self.append(&Delta::Sealed(Sealed {
                    epoch,
                    opened_us: now,
                    sealed_us: now + 1,
                    mapped_blocks: now as u32,
                }));
            }
            10 => {
                let named = self.now().names.keys().next().copied().filter(|named| *named < epoch);
                if let Some(epoch) = named {
                    self.append(&Delta::Unnamed { epoch });
                }
            }
            _ => {
                if let Some(holds) = self.any_held() {
                    self.append(&Delta::Holds(Holds { added: !holds.added, ..holds }));
                }
            }
        }
        Ok(())
    }

    /// Many small changes, so that a commit has several pages.
    pub fn many_changes(&mut self) {
        let Some(holds) = self.any_held() else { return };
        for n in 0..250 {
            self.append(&Delta::Holds(Holds { added: n % 2 == 0, ..holds }));
        }
    }

    /// The facts about the first, or the second half of the slots (and all else).
    pub fn facts(&self, second: bool) -> Vec<Delta> {
        let half = self.slot_count / 2;
        if second {
            let mut facts = self.now().facts(half..u32::MAX);
            facts.extend(self.now().layer_facts());
            facts
        } else {
            self.now().facts(0..half)
        }
    }
}
