//! Random steps, with failures and crashes anywhere among them, against the model.

use std::collections::BTreeMap;

use forerun::geometry::{BlockIndex, Epoch};
use nix::errno::Errno;
use proptest::prelude::*;

use super::super::memory_store::{MemoryStore, Trouble};
use super::super::object_store::simulated::ObjectBench;
use super::super::*;
use super::model::*;

#[derive(Clone, Debug)]
enum Step {
    WriteBack { changes: BTreeMap<u32, bool>, skip: u32, snapshot: bool },
    NameNewest,
    DeleteSnapshot(usize),
    Maintain(Urgency),
    Pass(u64),
    Reopen,
    Trouble(u64, Trouble),
    Heal,
    Compare,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes = prop::collection::btree_map(0u32..24, prop::bool::weighted(0.75), 0..14);
    let wide = prop::collection::btree_map(0u32..600, prop::bool::weighted(0.9), 150..300);
    let urgency = prop_oneof![Just(Urgency::Relaxed), Just(Urgency::SpaceShort)];
    let trouble = prop_oneof![
        Just(Trouble::Crash),
        Just(Trouble::Full),
        Just(Trouble::Fail(Errno::EIO)),
        Just(Trouble::Fail(Errno::ENOSPC)),
    ];
    let step = prop_oneof![
        60 => (changes, 0u32..3, prop::bool::weighted(0.3))
            .prop_map(|(changes, skip, snapshot)| Step::WriteBack { changes, skip, snapshot }),
        1 => wide.prop_map(|changes| Step::WriteBack { changes, skip: 0, snapshot: false }),
        4 => Just(Step::NameNewest),
        14 => (0usize..8).prop_map(Step::DeleteSnapshot),
        50 => urgency.prop_map(Step::Maintain),
        10 => (0u64..40).prop_map(Step::Pass),
        4 => Just(Step::Reopen),
        8 => ((0u64..60), trouble).prop_map(|(later, trouble)| Step::Trouble(later, trouble)),
        8 => Just(Step::Heal),
        8 => Just(Step::Compare),
    ];
    prop::collection::vec(step, 1..50)
}

/// The engine's map, which follows commits and relocations.
type Map = BTreeMap<BlockIndex, Place>;

struct Run<B: Bench> {
    store: B,
    clock: Clock,
    /// None only while it is opened anew.
    tier: Option<CapacityTier<B::Store>>,
    model: Model,
    /// What the state may turn out to be at the next opening: steps that failed in doubt.
    maybe: Vec<Model>,
    map: Map,
    next_id: u64,
}

impl<B: Bench> Run<B> {
    async fn begin(seed: u64) -> Self {
        let (store, clock) = (B::new(seed), Clock::new());
        CapacityTier::create_in(&store.store(), VOLUME, geometry()).await.unwrap();
        let tier = Some(open_on(&store, &clock).await.unwrap());
        Self { store, clock, tier, model: Model::default(), maybe: Vec::new(), map: Map::new(), next_id: 1 }
    }

    fn tier(&self) -> &CapacityTier<B::Store> {
        self.tier.as_ref().unwrap()
    }

    async fn reload_map(&mut self) {
        self.map.clear();
        let map = &mut self.map;
        let load = |block, _, place: Option<Place>| {
            match place {
                Some(place) => map.insert(block, place),
                None => map.remove(&block),
            };
        };
        let mut load = load;
        self.tier.as_ref().unwrap().load_places(None, &mut load).await.unwrap();
    }

    /// After a crash: the state is that before the last step or after it.
    async fn recover(&mut self) {
        self.store = self.store.after_crash();
        self.reopen().await;
        compare(self.tier(), &self.model).await;
    }

    async fn reopen(&mut self) {
        if let Some(tier) = self.tier.take() {
            tier.close().await;
        }
        self.tier = Some(open_on(&self.store, &self.clock).await.unwrap());
        let head = self.tier().head();
        let there: BTreeMap<String, u32> =
            head.snapshots().map(|(name, layer)| (name.as_str().to_owned(), layer.last_epoch.0)).collect();
        let is = |model: &Model| head.written_back_epoch().0 == model.newest() && there == model.snapshots;
        self.maybe.push(self.model.clone());
        let found = self.maybe.iter().find(|model| is(model)).cloned();
        self.model = found.unwrap_or_else(|| panic!("neither before nor after: {there:?}"));
        self.maybe.clear();
        self.reload_map().await;
    }

    /// What came of a step that would lead from the model to `after`.
    async fn ended<T>(&mut self, result: Result<T>, after: Model) -> Option<T> {
        match result {
            Ok(value) => {
                self.model = after;
                Some(value)
            }
            Err(error) => {
                assert!(matches!(error, CapacityError::Io { .. }), "{error}");
                self.maybe.push(after);
                if self.store.crashed() {
                    self.recover().await;
                }
                None
            }
        }
    }

    async fn step(&mut self, step: &Step) {
        let mut after = self.model.clone();
        match step {
            Step::WriteBack { changes, skip, snapshot } => {
                let epoch = self.model.newest() + 1 + skip;
                let next_id = &mut self.next_id;
                let mut id = || {
                    *next_id += 1;
                    *next_id
                };
                let changes: Changes =
                    changes.iter().map(|(block, keep)| (*block, keep.then(&mut id))).collect();
                let text = format!("s{epoch}");
                let snapshot = snapshot.then_some(text.as_str());
                after.commit(epoch, &changes, snapshot);
                let result = write_back(self.tier(), &self.model, epoch, &changes, snapshot).await;
                if result.is_ok() {
                    self.maybe.clear();
                }
                for (block, place) in self.ended(result, after).await.unwrap_or_default() {
                    match place {
                        Some(place) => self.map.insert(block, place),
                        None => self.map.remove(&block),
                    };
                }
            }
            Step::NameNewest => {
                let newest = self.model.newest();
                let text = format!("n{newest}");
                if newest == 0 || after.snapshots.values().any(|epoch| *epoch == newest) {
                    return;
                }
                after.snapshots.insert(text.clone(), newest);
                let result = self.tier().name_snapshot(Epoch(newest), &name(&text)).await;
                if result.is_ok() {
                    self.maybe.clear();
                }
                self.ended(result, after).await;
            }
            Step::DeleteSnapshot(which) => {
                let Some(text) = after.snapshots.keys().nth(*which).cloned() else { return };
                after.snapshots.remove(&text);
                let result = self.tier().delete_snapshot(&name(&text)).await;
                if result.is_ok() {
                    self.maybe.clear();
                }
                self.ended(result, after).await;
            }
            Step::Maintain(urgency) => {
                let result = self.tier().maintain(*urgency).await;
                if let Some(done) = self.ended(result, after).await {
                    for moved in done.relocations {
                        if let Some(place) =
                            self.map.get_mut(&moved.block).filter(|place| **place == moved.old)
                        {
                            *place = moved.new;
                        }
                    }
                }
            }
            Step::Pass(seconds) => self.clock.pass(*seconds),
            Step::Reopen => {
                self.store.heal();
                self.reopen().await;
            }
            Step::Trouble(later, trouble) => self.store.trouble(*later, *trouble),
            Step::Heal => self.store.heal(),
            Step::Compare => self.compare().await,
        }
    }

    async fn compare(&mut self) {
        self.store.heal();
        compare(self.tier(), &self.model).await;
        let expected = self.model.content(self.model.newest());
        assert_eq!(self.map.len(), expected.len());
        for (block, place) in &self.map {
            let mut out = vec![0; BLOCK];
            self.tier().read_block(*place, *block, &mut out).await.unwrap();
            assert!(out == content(expected[&block.0]), "block {block} by the engine's map");
        }
    }

    /// Nothing but what HEAD needs is left when all has been merged, compacted and deleted.
    async fn settle(&mut self) {
        self.store.heal();
        for round in 0.. {
            let done = self.tier().maintain(Urgency::SpaceShort).await.unwrap();
            self.clock.pass(31);
            if !done.more
                && done.deleted.objects == 0
                && self.tier().space().await.unwrap().deleting_bytes == 0
            {
                break;
            }
            assert!(round < 500, "maintenance comes to no end");
        }
        // Again, for what was queued without its size, and once more for an upload that was still under way when its layer
        // had failed already: it is queued when it ends.
        for _ in 0..3 {
            self.tier().maintain(Urgency::SpaceShort).await.unwrap();
            self.clock.pass(31);
        }
        compare(self.tier(), &self.model).await;
        let head = self.tier().head();
        let layers = head.layers().len();
        assert!(layers <= self.model.snapshots.len() + 1, "{layers} layers are left");
        let report = check_store(self.store.store(), None, &mut |_| ()).await.unwrap();
        assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn any_steps_with_any_trouble_on_an_object_store_leave_what_the_model_says(steps in steps(), seed: u64) {
        run(follow::<ObjectBench>(&steps, seed));
    }

    #[test]
    fn any_steps_with_any_trouble_leave_what_the_model_says(steps in steps(), seed: u64) {
        run(follow::<MemoryStore>(&steps, seed));
    }
}

async fn follow<B: Bench>(steps: &[Step], seed: u64) {
    let mut run = Run::<B>::begin(seed).await;
    for step in steps {
        run.step(step).await;
        if run.store.crashed() {
            run.recover().await;
        }
    }
    run.compare().await;
    run.settle().await;
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}
