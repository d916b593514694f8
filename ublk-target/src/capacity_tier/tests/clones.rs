//! Clones, and clones of clones, over stores that fail and crash: every volume always reads what it should, nobody deletes
//! what another one uses, and nothing is left behind when all clones are gone or stand alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use forerun::geometry::Epoch;
use nix::errno::Errno;
use proptest::prelude::*;

use super::super::memory_store::{Addresses, MemoryStore, Trouble};
use super::super::*;
use super::model::*;
use crate::fast_tier::sim::Power;

#[derive(Clone, Debug)]
enum Step {
    WriteBack { volume: usize, changes: BTreeMap<u32, bool>, snapshot: bool },
    DeleteSnapshot { volume: usize, which: usize },
    Clone { volume: usize, which: usize },
    Promote(usize),
    Drop(usize),
    Maintain { volume: usize, urgency: Urgency },
    Pass(u64),
    Reopen(usize),
    Trouble { volume: usize, later: u64, trouble: Trouble },
    Heal,
    Compare,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let volume = || 0usize..4;
    let changes = prop::collection::btree_map(0u32..24, prop::bool::weighted(0.75), 0..14);
    let urgency = prop_oneof![Just(Urgency::Relaxed), Just(Urgency::SpaceShort)];
    let trouble = prop_oneof![
        2 => Just(Trouble::Crash),
        1 => Just(Trouble::Full),
        1 => Just(Trouble::Fail(Errno::EIO)),
    ];
    let step = prop_oneof![
        50 => (volume(), changes, prop::bool::weighted(0.4))
            .prop_map(|(volume, changes, snapshot)| Step::WriteBack { volume, changes, snapshot }),
        10 => (volume(), 0usize..6).prop_map(|(volume, which)| Step::DeleteSnapshot { volume, which }),
        16 => (volume(), 0usize..6).prop_map(|(volume, which)| Step::Clone { volume, which }),
        6 => volume().prop_map(Step::Promote),
        3 => volume().prop_map(Step::Drop),
        60 => (volume(), urgency).prop_map(|(volume, urgency)| Step::Maintain { volume, urgency }),
        12 => (0u64..40).prop_map(Step::Pass),
        4 => volume().prop_map(Step::Reopen),
        8 => (volume(), 0u64..60, trouble)
            .prop_map(|(volume, later, trouble)| Step::Trouble { volume, later, trouble }),
        6 => Just(Step::Heal),
        8 => Just(Step::Compare),
    ];
    prop::collection::vec(step, 1..70)
}

/// A volume on its store.
struct Volume {
    uuid: VolumeUuid,
    store: MemoryStore,
    tier: Tier,
    model: Model,
    /// What the state may turn out to be at the next opening: steps that failed in doubt.
    maybe: Vec<Model>,
}

impl Volume {
    /// What came of a step that replaces HEAD, and would lead from the model to `after`.
    fn replaced<T>(&mut self, result: Result<T>, after: Model) {
        let sure = result.is_ok();
        self.ended(result, after);
        if sure {
            self.maybe.clear();
        }
    }

    /// What came of a step that would lead from the model to `after`.
    fn ended<T>(&mut self, result: Result<T>, after: Model) {
        match result {
            Ok(_) => self.model = after,
            Err(error) => {
                assert!(matches!(error, CapacityError::Io { .. }), "{error}");
                self.maybe.push(after);
            }
        }
    }

    async fn reopen(&mut self, clock: &Clock) {
        self.tier = open_volume(&self.store, clock, self.uuid).await.unwrap();
        let head = self.tier.head();
        let there: BTreeMap<String, u32> =
            head.snapshots().map(|(name, layer)| (name.as_str().to_owned(), layer.last_epoch.0)).collect();
        let is = |model: &Model| head.written_back_epoch().0 == model.newest() && there == model.snapshots;
        self.maybe.push(self.model.clone());
        let found = self.maybe.iter().find(|model| is(model)).cloned();
        self.model = found.unwrap_or_else(|| panic!("neither before nor after: {there:?}"));
        self.maybe.clear();
    }
}

/// One machine with all the stores.
struct Run {
    addresses: Addresses,
    power: Arc<Power>,
    clock: Clock,
    volumes: Vec<Volume>,
    next_id: u64,
    next_uuid: u8,
    seed: u64,
}

/// When no clone is in the making any more, in microseconds since 1970.
const LATER: u64 = 3_600_000_000;
/// The most volumes at a time.
const VOLUMES: usize = 4;

impl Run {
    async fn begin(seed: u64) -> Self {
        let (addresses, power, clock) = (Addresses::default(), Arc::new(Power::default()), Clock::new());
        let store = MemoryStore::new(seed).at("v1", &addresses).of(&power);
        let uuid = VolumeUuid([1; 16]);
        CapacityTier::create_in(&store, uuid, geometry()).await.unwrap();
        let tier = open_volume(&store, &clock, uuid).await.unwrap();
        let volume = Volume { uuid, store, tier, model: Model::default(), maybe: Vec::new() };
        Self { addresses, power, clock, volumes: vec![volume], next_id: 1, next_uuid: 2, seed }
    }

    fn heal(&self) {
        self.volumes.iter().for_each(|volume| volume.store.heal());
    }

    /// The machine loses its power, whatever was under way, and comes back.
    async fn recover(&mut self) {
        self.power = Arc::new(Power::default());
        for volume in &mut self.volumes {
            volume.store = volume.store.after_crash().of(&self.power);
        }
        for volume in &mut self.volumes {
            volume.reopen(&self.clock).await;
        }
        self.compare().await;
    }

    fn volume(&mut self, at: usize) -> &mut Volume {
        let at = at % self.volumes.len();
        &mut self.volumes[at]
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::WriteBack { volume, changes, snapshot } => {
                let first = self.next_id;
                self.next_id += changes.len() as u64;
                let volume = self.volume(*volume);
                let epoch = volume.model.newest() + 1;
                let numbered = (first..).zip(changes);
                let changes: Changes =
                    numbered.map(|(id, (block, keep))| (*block, keep.then_some(id))).collect();
                let text = format!("s{epoch}");
                let snapshot = snapshot.then_some(text.as_str());
                let mut after = volume.model.clone();
                after.commit(epoch, &changes, snapshot);
                let result = write_back(&volume.tier, &volume.model, epoch, &changes, snapshot).await;
                volume.replaced(result, after);
            }
            Step::DeleteSnapshot { volume, which } => {
                let volume = self.volume(*volume);
                let mut after = volume.model.clone();
                let Some(text) = after.snapshots.keys().nth(*which).cloned() else { return };
                after.snapshots.remove(&text);
                let result = volume.tier.delete_snapshot(&name(&text)).await;
                volume.replaced(result, after);
            }
            Step::Clone { volume, which } => self.clone_of(*volume, *which).await,
            Step::Promote(volume) => {
                let volume = self.volume(*volume);
                let after = volume.model.clone();
                let result = volume.tier.promote().await;
                volume.ended(result, after);
            }
            Step::Drop(volume) => self.drop_clone(*volume).await,
            Step::Maintain { volume, urgency } => {
                let volume = self.volume(*volume);
                let after = volume.model.clone();
                let result = volume.tier.maintain(*urgency).await;
                volume.ended(result, after);
            }
            Step::Pass(seconds) => self.clock.pass(*seconds),
            Step::Reopen(volume) => {
                self.heal();
                let at = *volume % self.volumes.len();
                self.volumes[at].reopen(&self.clock).await;
            }
            Step::Trouble { volume, later, trouble } => self.volume(*volume).store.trouble(*later, *trouble),
            Step::Heal => self.heal(),
            Step::Compare => self.compare().await,
        }
    }

    async fn clone_of(&mut self, at: usize, which: usize) {
        if self.volumes.len() >= VOLUMES {
            return;
        }
        let origin = self.volume(at);
        let Some((text, epoch)) = origin.model.snapshots.iter().nth(which) else { return };
        let (text, epoch, origin_store) = (text.clone(), *epoch, origin.store.clone());
        let mut model = origin.model.clone();
        model.snapshots.clear();
        model.epochs.retain(|of, _| *of <= epoch);
        let uuid = VolumeUuid([self.next_uuid; 16]);
        self.next_uuid += 1;
        self.seed = self.seed.wrapping_add(1);
        let address = format!("v{}", uuid.0[0]);
        let mut store = MemoryStore::new(self.seed).at(&address, &self.addresses).of(&self.power);
        let order = CloneOrder { snapshot: name(&text), clone: uuid, name: address, now_us: 1 };
        let mut result = clone_snapshot(&origin_store, &store, &order).await;
        if result.is_err() {
            // Once more, after a crash or without.
            let origin_address = origin_store.place();
            if self.power.is_off() {
                self.recover().await;
                store = store.after_crash().of(&self.power);
            }
            self.heal();
            store.heal();
            let origin_store = self.addresses.borrow()[&origin_address].clone();
            result = clone_snapshot(&origin_store, &store, &order).await;
        }
        match result {
            Ok(_) => {
                let tier = open_volume(&store, &self.clock, uuid).await;
                if tier.is_err() && !self.power.is_off() {
                    self.heal();
                    store.heal();
                }
                let Ok(tier) = tier else {
                    // As if it had been made in vain.
                    if self.power.is_off() {
                        self.recover().await;
                    }
                    self.addresses.borrow_mut().remove(&store.place());
                    return self.forget(uuid).await;
                };
                self.volumes.push(Volume { uuid, store, tier, model, maybe: Vec::new() });
            }
            Err(error) => {
                // A deletion that failed may have been done.
                let known = matches!(error, CapacityError::NoSuchSnapshot { .. } | CapacityError::Io { .. });
                assert!(known, "{error}");
                self.addresses.borrow_mut().remove(&store.place());
                self.forget(uuid).await;
            }
        }
    }

    /// Lets go of all that is kept for a clone that is not there.
    async fn forget(&mut self, clone: VolumeUuid) {
        self.heal();
        for volume in &self.volumes {
            if volume.store.pinned().contains(&clone) {
                forget_clone(&volume.store, volume.uuid, clone, LATER, false).await.unwrap();
            }
        }
    }

    async fn drop_clone(&mut self, at: usize) {
        let at = at % self.volumes.len();
        if at == 0 || !self.volumes[at].store.pinned().is_empty() {
            return;
        }
        self.heal();
        let (uuid, head) = (self.volumes[at].uuid, self.volumes[at].tier.head());
        let sure = self.volumes[at].maybe.is_empty() && !self.volumes[at].tier.is_head_in_doubt();
        for volume in self.volumes.iter().filter(|volume| volume.store.pinned().contains(&uuid)) {
            let shares = head.origins.iter().any(|origin| origin.volume == volume.uuid && !origin.left);
            if sure && shares {
                let refused = forget_clone(&volume.store, volume.uuid, uuid, LATER, false).await;
                assert!(matches!(refused, Err(CapacityError::CloneInUse { .. })), "{refused:?}");
            }
        }
        let gone = self.volumes.remove(at);
        self.addresses.borrow_mut().remove(&gone.store.place());
        self.forget(gone.uuid).await;
    }

    async fn compare(&mut self) {
        self.heal();
        for volume in &self.volumes {
            compare(&volume.tier, &volume.model).await;
        }
    }

    /// All clones are promoted or dropped: nothing but what the volumes need is left.
    async fn settle(&mut self, drop: bool) {
        self.heal();
        for volume in &self.volumes {
            let report = check_store(volume.store.clone(), None, &mut |_| ()).await.unwrap();
            assert!(report.is_clean(), "{:?}", report.findings);
        }
        for at in (1..self.volumes.len()).rev() {
            if drop {
                self.drop_clone(at).await;
            }
        }
        for volume in &self.volumes {
            volume.tier.promote().await.unwrap();
        }
        let mut quiet = 0;
        for round in 0.. {
            let mut idle = true;
            for volume in &self.volumes {
                let done = volume.tier.maintain(Urgency::SpaceShort).await.unwrap();
                let space = volume.tier.space().await.unwrap();
                let waits = space.deleting_bytes > 0 || space.pinned_bytes > 0;
                idle &= !done.more
                    && done.deleted.objects == 0
                    && !waits
                    && volume.tier.head().origins.is_empty();
            }
            self.clock.pass(31);
            // Again, for what was queued without its size, and for uploads that end after their layer has failed.
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet == 4 {
                break;
            }
            assert!(round < 500, "maintenance comes to no end");
        }
        for volume in &self.volumes {
            compare(&volume.tier, &volume.model).await;
            assert_eq!(volume.store.pinned(), []);
            let report = check_store(volume.store.clone(), None, &mut |_| ()).await.unwrap();
            assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn any_steps_with_any_trouble_leave_what_the_models_say(steps in steps(), seed: u64, drop: bool) {
        run(async {
            let mut run = Run::begin(seed).await;
            for step in &steps {
                run.step(step).await;
                if run.power.is_off() {
                    run.recover().await;
                }
            }
            run.compare().await;
            run.settle(drop).await;
        });
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

async fn volume_with_snapshot(addresses: &Addresses, clock: &Clock) -> (MemoryStore, Tier, Model) {
    let store = MemoryStore::new(1).at("origin", addresses);
    CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
    let tier = open(&store, clock).await.unwrap();
    let mut model = Model::default();
    let first: Changes = (0..40).map(|block| (block, Some(u64::from(block) + 100))).collect();
    for (epoch, set, snapshot) in
        [(1, first.clone(), Some("old")), (2, [(1, Some(1)), (2, None)].into(), None)]
    {
        write_back(&tier, &model, epoch, &set, snapshot).await.unwrap();
        model.commit(epoch, &set, snapshot);
    }
    (store, tier, model)
}

fn order(clone: u8) -> CloneOrder {
    CloneOrder { snapshot: name("old"), clone: VolumeUuid([clone; 16]), name: "copy".to_owned(), now_us: 1 }
}

async fn settle(tier: &Tier, clock: &Clock) {
    for _ in 0..12 {
        clock.pass(31);
        tier.maintain(Urgency::SpaceShort).await.unwrap();
    }
}

#[test]
fn a_clone_shares_and_outlives_the_snapshot() {
    run(async {
        let (addresses, clock) = (Addresses::default(), Clock::new());
        let (store, tier, model) = volume_with_snapshot(&addresses, &clock).await;
        let new = MemoryStore::new(2).at("clone", &addresses);
        let before = store.names();
        clone_snapshot(&store, &new, &order(7)).await.unwrap();
        assert_eq!(new.names(), [], "nothing is copied");
        assert_eq!(store.names(), before);
        // The origin goes on, and gives its snapshot up.
        tier.delete_snapshot(&name("old")).await.unwrap();
        let all: Changes = (0..40).map(|block| (block, Some(u64::from(block) + 500))).collect();
        write_back(&tier, &model, 3, &all, None).await.unwrap();
        settle(&tier, &clock).await;
        let space = tier.space().await.unwrap();
        assert!(space.pinned_bytes > 0 && space.deleting_bytes == 0, "{space:?}");
        let copy = open_volume(&new, &clock, VolumeUuid([7; 16])).await.unwrap();
        let mut copied = Model::default();
        copied.commit(1, &model.epochs[&1].0, None);
        compare(&copy, &copied).await;
        // The pins survive both writers' opening.
        drop((tier, copy));
        let tier = open(&store, &clock).await.unwrap();
        settle(&tier, &clock).await;
        let copy = open_volume(&new, &clock, VolumeUuid([7; 16])).await.unwrap();
        compare(&copy, &copied).await;
        let shared = copy.shared();
        assert!(shared[0].bytes > 0 && !shared[0].promoting, "{shared:?}");
        assert_eq!(copy.space().await.unwrap().live_bytes, 0, "all of it is the origin's");
        let told = check_store(store.clone(), None, &mut |_| ()).await.unwrap();
        let told: Vec<_> = told.findings.iter().map(|finding| finding.what.clone()).collect();
        assert!(
            told.len() == 1 && told[0].contains("shares what this volume held up to epoch 1"),
            "{told:?}"
        );
        // Standing alone.
        copy.promote().await.unwrap();
        settle(&copy, &clock).await;
        assert_eq!(copy.shared(), []);
        assert_eq!(store.pinned(), []);
        compare(&copy, &copied).await;
        settle(&tier, &clock).await;
        assert_eq!(tier.space().await.unwrap().pinned_bytes, 0);
        let alone = MemoryStore::new(3).at("origin", &addresses);
        assert_eq!(alone.names(), [], "the origin may be gone now");
        drop(copy);
        let copy = open_volume(&new, &clock, VolumeUuid([7; 16])).await.unwrap();
        compare(&copy, &copied).await;
    });
}

#[test]
fn a_reader_keeps_the_pin_until_it_is_gone() {
    run(async {
        let (addresses, clock) = (Addresses::default(), Clock::new());
        let (store, _tier, _) = volume_with_snapshot(&addresses, &clock).await;
        let new = MemoryStore::new(2).at("clone", &addresses);
        clone_snapshot(&store, &new, &order(7)).await.unwrap();
        let copy = open_volume(&new, &clock, VolumeUuid([7; 16])).await.unwrap();
        copy.name_snapshot(Epoch(1), &name("first")).await.unwrap();
        let (reader, epoch) =
            CapacityTier::open_snapshot_in(|| Ok(new.clone()), None, &name("first")).await.unwrap();
        copy.promote().await.unwrap();
        settle(&copy, &clock).await;
        assert!(copy.shared().iter().all(|shared| shared.left) && !store.pinned().is_empty());
        assert_eq!(read_all(&reader, Some(epoch)).await.unwrap().len(), 40);
        drop(reader);
        settle(&copy, &clock).await;
        assert_eq!((copy.shared(), store.pinned()), (Vec::new(), Vec::new()));
    });
}

#[test]
fn what_is_kept_for_nobody_is_told_and_let_go() {
    run(async {
        let (addresses, clock) = (Addresses::default(), Clock::new());
        let (store, tier, _) = volume_with_snapshot(&addresses, &clock).await;
        let new = MemoryStore::new(2).at("clone", &addresses);
        let clone = VolumeUuid([7; 16]);
        clone_snapshot(&store, &new, &order(7)).await.unwrap();
        let refused = forget_clone(&store, VOLUME, clone, LATER, false).await.unwrap_err();
        assert!(refused.to_string().contains("it shares this volume's data"), "{refused}");
        addresses.borrow_mut().remove("clone");
        let report = check_store(store.clone(), None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean() && report.findings[0].what.contains("which is not there"), "{report:?}");
        let refused = forget_clone(&store, VOLUME, clone, 5, false).await.unwrap_err();
        assert!(refused.to_string().contains("its making began only just now"), "{refused}");
        forget_clone(&store, VOLUME, clone, LATER, false).await.unwrap();
        assert!(matches!(
            forget_clone(&store, VOLUME, clone, LATER, false).await,
            Err(CapacityError::NoSuchClone { .. })
        ));
        tier.delete_snapshot(&name("old")).await.unwrap();
        settle(&tier, &clock).await;
        assert_eq!(tier.space().await.unwrap().pinned_bytes, 0);
        let report = check_store(store.clone(), None, &mut |_| ()).await.unwrap();
        assert_eq!(report.findings, []);
    });
}

#[test]
fn a_pin_that_cannot_be_read_keeps_everything() {
    run(async {
        let (addresses, clock) = (Addresses::default(), Clock::new());
        let (store, tier, _) = volume_with_snapshot(&addresses, &clock).await;
        store.put_pin(VolumeUuid([7; 16]), b"rubbish".to_vec()).await.unwrap();
        tier.delete_snapshot(&name("old")).await.unwrap();
        let before = store.names().len();
        settle(&tier, &clock).await;
        assert!(store.names().len() >= before && tier.space().await.unwrap().pinned_bytes > 0);
        let report = check_store(store.clone(), None, &mut |_| ()).await.unwrap();
        assert!(!report.is_clean(), "{report:?}");
    });
}

/// The origin merges, compacts and deletes below the snapshot while the clone is made, begun after each of its operations.
#[test]
fn a_clone_that_is_made_while_the_origin_is_kept_up() {
    run(async {
        let mut replaced = 0;
        for later in 0..160 {
            let (addresses, clock) = (Addresses::default(), Clock::new());
            let store = MemoryStore::new(later).at("origin", &addresses);
            CapacityTier::create_in(&store, VOLUME, geometry()).await.unwrap();
            let tier = open(&store, &clock).await.unwrap();
            let mut model = Model::default();
            for epoch in 1..=4u32 {
                let set: Changes = (0..30)
                    .step_by(epoch as usize)
                    .map(|block| (block, Some(u64::from(block + epoch * 100))))
                    .collect();
                let snapshot = (epoch == 4).then_some("old");
                write_back(&tier, &model, epoch, &set, snapshot).await.unwrap();
                model.commit(epoch, &set, snapshot);
            }
            let before = tier.head().layers().to_vec();
            let new = MemoryStore::new(later).at("clone", &addresses);
            let upkeep = async {
                for _ in 0..8 {
                    clock.pass(31);
                    tier.maintain(Urgency::SpaceShort).await.unwrap();
                }
            };
            let making = async {
                for _ in 0..later {
                    tokio::task::yield_now().await;
                }
                clone_snapshot(&store, &new, &order(7)).await.unwrap()
            };
            let ((), head) = tokio::join!(upkeep, making);
            replaced += u32::from(head.layers() != before && head.layers().len() < before.len());
            settle(&tier, &clock).await;
            let copy = open_volume(&new, &clock, VolumeUuid([7; 16])).await.unwrap();
            let mut copied = model.clone();
            copied.snapshots.clear();
            compare(&copy, &copied).await;
            copy.promote().await.unwrap();
            settle(&copy, &clock).await;
            settle(&tier, &clock).await;
            compare(&copy, &copied).await;
            compare(&tier, &model).await;
            assert_eq!((store.pinned(), tier.space().await.unwrap().pinned_bytes), (Vec::new(), 0));
            let report = check_store(store.clone(), None, &mut |_| ()).await.unwrap();
            assert_eq!(report.findings, []);
        }
        assert!(replaced > 0, "none was made of merged layers");
    });
}

#[test]
fn without_its_pin_an_origin_is_not_read() {
    run(async {
        let (addresses, clock) = (Addresses::default(), Clock::new());
        let (store, _tier, model) = volume_with_snapshot(&addresses, &clock).await;
        let new = MemoryStore::new(2).at("clone", &addresses);
        let clone = VolumeUuid([7; 16]);
        clone_snapshot(&store, &new, &order(7)).await.unwrap();
        // One that cannot be read is written anew by the next writer.
        let good = store.pins().await.unwrap();
        store.put_pin(clone, b"rubbish".to_vec()).await.unwrap();
        CapacityTier::open_reader_in(new.clone(), None).await.unwrap();
        drop(open_volume(&new, &clock, clone).await.unwrap());
        let renewed = Pin::read(&store.pins().await.unwrap()[0].1, VOLUME, clone);
        assert_eq!((renewed.broken.as_deref(), renewed.epoch), (None, Epoch(1)));
        store.remove_pin(clone).await.unwrap();
        let refused = [
            CapacityTier::open_reader_in(new.clone(), None).await.err().unwrap(),
            open_volume(&new, &clock, clone).await.err().unwrap(),
        ];
        assert!(refused.iter().all(|error| matches!(error, CapacityError::NotPinned { .. })), "{refused:?}");
        let report = check_store(new.clone(), None, &mut |_| ()).await.unwrap();
        assert!(!report.is_clean() && report.damaged_records.is_empty(), "{report:?}");
        // What is left is copied into a volume that stands alone.
        let copied = MemoryStore::new(3);
        let (mut supply, mut progress) = (NoSupply, |_, _| ());
        let (old, target) = (Some(new), Some(copied.clone()));
        let rebuilt = rebuild(old, target, clone, geometry(), false, &mut supply, &mut progress).await;
        assert!(rebuilt.unwrap().losses.is_empty());
        let mut expected = Model::default();
        expected.commit(1, &model.epochs[&1].0, None);
        compare(&open_volume(&copied, &clock, clone).await.unwrap(), &expected).await;
        store.put_pin(clone, good[0].1.clone()).await.unwrap();
    });
}
