//! The journal: group commit, its order, the two halves of the pending log with appenders that wait for one, and
//! checkpoints beside it. Power cuts in the middle show what is durable.

use std::sync::Arc;

use forerun::geometry::{BlockIndex, Epoch};
use forerun_interleavings::fast_tier::delta::{DELTA_BYTES_MAX, Delta};
use forerun_interleavings::fast_tier::log::{DeltaLog, LogPosition};
use forerun_interleavings::fast_tier::simulated::{Disk, Machine, formatted};
use forerun_interleavings::fast_tier::{Committer, Facts, FastTier};
use forerun_interleavings::sync::Mutex;
use shuttle::future::block_on;
use shuttle::rand::Rng;

use crate::explore::{Work, explore, together, work};

/// What an engine would know: its deltas, in the order of the log.
#[derive(Default)]
struct Engine(Mutex<Vec<Delta>>);

impl Facts for Engine {
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_> {
        Box::new(self.0.lock().expect("no panic").clone().into_iter())
    }
}

struct World {
    tier: FastTier<Disk>,
    log: Arc<Committer>,
    engine: Arc<Engine>,
    power: u64,
    /// Deltas that were there before, and say nothing.
    filled: u64,
}

impl World {
    /// Appends a delta, under the lock that facts are read under.
    fn append(&self) -> LogPosition {
        let mut engine = self.engine.0.lock().expect("no panic");
        let delta = Delta::Deleted { block: BlockIndex(engine.len() as u32), epoch: Epoch(1) };
        engine.push(delta.clone());
        let position = self.log.append(&delta);
        assert_eq!(position.0, self.filled + engine.len() as u64, "positions follow each other");
        position
    }

    /// Commits; then, once in four times, cuts the power of a copy of the disk, and sees what is there.
    fn commit(&self) {
        let before = self.log.appended();
        match block_on(self.log.commit()) {
            Ok(()) => {
                let durable = self.log.durable();
                assert!(durable >= before, "a commit that came after {before:?} ends at {durable:?}");
                // Another tier is opened for it, which takes longer than all the rest.
                if shuttle::rand::thread_rng().gen_range(0..4) == 0 {
                    self.check_after_power_cut(durable);
                }
            }
            Err(error) => assert!(error.to_string().contains("fault") || self.log.has_failed(), "{error}"),
        }
    }

    /// What a power cut leaves is the log's beginning, at least up to `durable`.
    fn check_after_power_cut(&self, durable: LogPosition) {
        let disk = self.tier.device().disk.after_power_cut(self.power);
        let (tier, recovered, _) = Machine::new().expect("a machine").open(disk, 2).expect("it opens");
        let mut blocks: Vec<u32> = recovered.deleted.iter().map(|(block, _)| block.0).collect();
        blocks.sort_unstable();
        assert!(blocks.iter().copied().eq(0..blocks.len() as u32), "a hole in the log: {blocks:?}");
        let left = self.filled + blocks.len() as u64;
        assert!(left >= durable.0, "{left} deltas left, {durable:?} were durable");
        drop(tier);
    }
}

/// Opens a tier, with half of the pending log `full` but for a few deltas, runs the works beside its tasks, and checks the end.
fn run(full: bool, faults: bool, works: Vec<Work<World>>) {
    // The journal's task reads the clock; nobody lets it go on.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let power = shuttle::rand::thread_rng().gen_range(0..u64::MAX);
    let machine = Machine::new().expect("a machine");
    let (tier, _, tasks) = machine.open(formatted(power).expect("formatted"), 1).expect("it opens");
    let (log, engine) = (tier.committer(), Arc::new(Engine::default()));
    let filler = Delta::Named { epoch: Epoch(1), name: "n".repeat(63) };
    let mut filled = 0;
    while full && log.status().pending_bytes + 2 * DELTA_BYTES_MAX as u64 <= tier.layout().batch_bytes() {
        log.append(&filler);
        filled += 1;
    }
    let world = Arc::new(World { tier, log, engine, power, filled });
    world.log.checkpoints(world.engine.clone());
    let running = tasks.map(|task| shuttle::thread::spawn(move || block_on(task)));
    if faults {
        world.tier.device().disk.fail_at(shuttle::rand::thread_rng().gen_range(1..8));
    }
    together(&world, works);
    let appended = world.log.appended();
    let world = Arc::into_inner(world).expect("all threads have ended");
    if block_on(world.log.commit()).is_ok() {
        world.check_after_power_cut(appended);
    } else {
        assert!(faults, "nothing fails here");
    }
    drop(world);
    running.into_iter().for_each(|task| task.join().expect("no panic"));
}

fn change_and_commit(changes: usize) -> Work<World> {
    work(move |world: &World| {
        (0..changes).for_each(|_| _ = world.append());
        world.commit();
        world.append();
    })
}

#[test]
fn a_commit_covers_what_came_before() {
    explore("a_commit_covers_what_came_before", || {
        run(false, false, vec![change_and_commit(2), change_and_commit(1), work(World::commit)]);
    });
}

/// Seven deltas, or a few more, still fit.
#[test]
fn appenders_wait_for_a_half() {
    explore("appenders_wait_for_a_half", || {
        run(
            true,
            false,
            vec![change_and_commit(12), change_and_commit(3), work(|world: &World| _ = world.append())],
        );
    });
}

#[test]
fn commits_beside_a_checkpoint() {
    explore("commits_beside_a_checkpoint", || {
        let checkpoint = work(|world: &World| {
            block_on(world.log.checkpoint(&*world.engine)).expect("a checkpoint");
            world.check_after_power_cut(LogPosition(0));
        });
        run(false, false, vec![change_and_commit(1), change_and_commit(2), checkpoint]);
    });
}

#[test]
fn what_fails_is_not_acknowledged() {
    explore("what_fails_is_not_acknowledged", || {
        run(false, true, vec![change_and_commit(2), change_and_commit(1)]);
    });
}
