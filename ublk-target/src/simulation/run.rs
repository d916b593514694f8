//! Lives one after the other, and what has to be true after each.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use forerun::geometry::Epoch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::history::{BLOCK_SECTORS, End, History, Prediction, Step, When};
use super::machine::{Life, Machine, VOLUME};
use super::predictions;
use super::requests::{Requests, changed};
use super::snapshots::{self, Called, Names};
use crate::capacity_tier::memory_store::{Faults as StoreFaults, Trouble};
use crate::capacity_tier::{VolumeUuid, check_store};
use crate::fast_tier::check::{Severity, check_device};
use crate::fast_tier::sim::Faults;
use crate::volume::lock;

/// How long faults may hold things up before they are healed, in simulated time.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long anything may take without a fault, in simulated time: retries wait up to half a minute.
const HANG: Duration = Duration::from_secs(240);
/// Requests beside each other.
const AT_ONCE: usize = 10;

/// What a run did, by name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| self.add(what, *count));
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

/// What has to be there at the next opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// Everything that was acknowledged.
    All,
    /// What was durable.
    Durable,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    AtTheEnd,
    Stopped {
        cut: bool,
    },
    /// The fast tier could not make writes durable.
    Failed,
    Crashed,
}

/// Runs a history to its end; panics where something is not as it has to be.
pub fn run(history: &History) -> Counts {
    run_and_tell(history).0
}

/// Runs a history, and tells what was read in it: sectors and their stamps, one after the other.
pub fn run_and_tell(history: &History) -> (Counts, Vec<(usize, u64)>) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let machine = runtime().block_on(Machine::new(history.seed, &history.shape));
    let mut run = Run {
        history,
        machine,
        names: Names::default(),
        next: 0,
        cut_openings: Vec::new(),
        how: End::Kill,
        expect: Expect::All,
        counts: Counts::default(),
    };
    run.set_faults(Faults::default(), StoreFaults::default());
    loop {
        // A new runtime for each life: with the old one all that the process was doing is gone.
        let (runtime, local) = (runtime(), LocalSet::new());
        let ended = local.block_on(&runtime, run.live());
        drop(local);
        drop(runtime);
        run.counts.add("writes and syncs of the fast tier", run.machine.disk.steps());
        match ended {
            Ended::AtTheEnd => {
                let read = std::mem::take(&mut lock(&run.machine.truth).read);
                return (run.counts, read);
            }
            Ended::Stopped { cut } => {
                run.counts.add("clean stops", 1);
                run.end(if cut { End::Cut } else { End::Kill });
            }
            Ended::Failed => {
                run.counts.add("failed syncs", 1);
                run.expect = Expect::Durable;
                run.end(End::Kill);
            }
            Ended::Crashed => {
                run.counts.add(if run.how == End::Cut { "power cuts" } else { "kills" }, 1);
                run.end(run.how);
            }
        }
    }
}

struct Run<'a> {
    history: &'a History,
    machine: Machine,
    names: Names,
    /// The next step.
    next: usize,
    /// At which of its steps the next openings are cut off.
    cut_openings: Vec<u64>,
    /// How this life ends, if something ends it.
    how: End,
    expect: Expect,
    counts: Counts,
}

impl Run<'_> {
    fn end(&mut self, how: End) {
        // A kill may come after a failed sync that no step has looked for yet.
        if how == End::Cut || self.machine.disk.sync_failed() {
            self.expect = Expect::Durable;
        }
        self.machine.end(how);
    }

    fn set_faults(&self, disk: Faults, store: StoreFaults) {
        self.machine.disk.set_faults(Faults { latency: true, ..disk });
        self.machine.store.set_faults(StoreFaults { latency: true, ..store });
    }

    fn heal(&self) {
        self.machine.store.heal();
        self.set_faults(Faults::default(), StoreFaults::default());
    }

    /// Whether anything may fail now.
    fn is_faulty(&self) -> bool {
        let (disk, store) = (self.machine.disk.faults(), self.machine.store.faults());
        disk.read
            + disk.write
            + disk.metadata_write
            + disk.sync
            + store.fail
            + store.lost_reply
            + store.corrupt
            > 0
            || self.machine.store.is_full()
    }

    /// One life: opens, looks at everything, and goes on with the history.
    async fn live(&mut self) -> Ended {
        let faults = (self.machine.disk.faults(), self.machine.store.faults());
        self.heal();
        // As `forerun check` does: while nobody uses them.
        self.check_tiers().await;
        let cut_opening = self.cut_openings.pop();
        if let Some(step) = cut_opening {
            self.machine.disk.cut_at(step);
        }
        let power = self.machine.power.clone();
        let opened = tokio::select! {
            biased;
            opened = timeout(HANG, self.machine.open(false)) => opened.expect("opening hangs"),
            () = power.gone() => return self.crashed_while_opening(),
        };
        let life = match opened {
            Ok(life) => Rc::new(life),
            Err(error) => {
                assert!(power.is_off(), "the volume cannot be opened: {error:#}");
                return self.crashed_while_opening();
            }
        };
        // What was armed for the opening does not count afterwards.
        self.machine.disk.cut_at(u64::MAX);
        self.look_at_all(&life).await;
        self.set_faults(faults.0, faults.1);
        let ended = tokio::select! {
            biased;
            ended = self.go_on(&life) => ended,
            () = power.gone() => Ended::Crashed,
        };
        let stats = life.shared().volume.stats();
        let acted = life.shared().prediction.acted(life.shared());
        for (what, count) in [
            ("evictions", stats.evictions.get()),
            ("promotions", stats.promotions.get()),
            ("redirects", stats.redirects.get()),
            ("read misses", stats.read_misses.get()),
            ("blocks written back", stats.written_back_bytes.get() >> 16),
            ("reservations made", stats.reservations_made.get()),
            ("reservations used", stats.reservations_used.get()),
            ("reservations wasted", stats.reservations_wasted.get()),
            ("blocks prefetched", stats.prefetched_bytes.get() >> 16),
            ("tables taken", acted.tables_accepted),
            ("tables refused", acted.tables_refused),
            ("blocks followed to a new place", stats.followed.get()),
            ("waits for room", stats.waits_for_room.get()),
        ] {
            self.counts.add(what, count);
        }
        ended
    }

    fn crashed_while_opening(&mut self) -> Ended {
        self.counts.add("openings cut off", 1);
        self.how = if self.next.is_multiple_of(2) { End::Cut } else { End::Kill };
        Ended::Crashed
    }

    fn requests(&self, life: &Rc<Life>) -> Requests {
        Requests {
            life: life.clone(),
            disk: self.machine.disk.clone(),
            power: self.machine.power.clone(),
            truth: self.machine.truth.clone(),
            faulty: self.is_faulty(),
        }
    }

    /// After an opening, with nothing failing: all of the volume and all snapshots are as they have to be.
    async fn look_at_all(&mut self, life: &Rc<Life>) {
        let sectors = self.history.shape.blocks * BLOCK_SECTORS;
        let read = timeout(HANG, self.requests(life).read(0, sectors)).await.expect("reading hangs");
        let read = read.expect("nothing fails now");
        {
            let mut truth = lock(&self.machine.truth);
            for (sector, read) in read.into_iter().enumerate() {
                truth.read.push((sector, read));
                match self.expect {
                    Expect::All => truth.survived_kill(sector, read),
                    Expect::Durable => truth.survived_cut(sector, read),
                }
            }
        }
        self.expect = Expect::All;
        let head = snapshots::of_head(&self.machine.store).await.expect("HEAD can be read");
        self.names.settle(life, &head);
        // What was found is durable only with the next commit: a crash before it may find something else.
        life.shared().committer.commit().await.expect("nothing fails now");
        for (name, _) in head {
            self.read_snapshot(&name).await;
        }
    }

    /// Reads a snapshot while nothing fails, though upkeep may be under way.
    async fn read_snapshot(&mut self, name: &str) {
        let read = timeout(HANG, snapshots::read_all(&self.machine, name, false)).await.expect("it hangs");
        read.unwrap_or_else(|error| panic!("snapshot {name} cannot be read: {error}"));
        self.counts.add("snapshots read", 1);
    }

    async fn check_tiers(&self) {
        let fast =
            check_device(&*self.machine.disk, "the simulated disk", Some(VOLUME)).expect("it can be read");
        let fatal: Vec<_> = fast.findings.iter().filter(|found| found.severity == Severity::Fatal).collect();
        assert!(fatal.is_empty(), "the fast tier: {fatal:?}");
        let uuid = Some(VolumeUuid(*VOLUME.as_bytes()));
        let report =
            check_store(self.machine.store.clone(), uuid, &mut |_| ()).await.expect("it can be read");
        assert!(report.is_clean(), "the capacity tier: {:?}", report.findings);
    }

    async fn go_on(&mut self, life: &Rc<Life>) -> Ended {
        let mut running = JoinSet::new();
        while let Some(step) = self.history.steps.get(self.next) {
            self.next += 1;
            if let Some(ended) = self.step(life, step, &mut running).await {
                return ended;
            }
            if self.requests(life).has_lost() {
                return Ended::Failed;
            }
        }
        self.heal();
        self.machine.disk.cut_at(u64::MAX);
        self.settle(&mut running).await;
        if self.requests(life).has_lost() {
            return Ended::Failed;
        }
        self.last_look(life).await
    }

    /// Does one step of the history; tells how the life ended, if that ended it.
    async fn step(&mut self, life: &Rc<Life>, step: &Step, running: &mut JoinSet<bool>) -> Option<Ended> {
        match step {
            Step::Request { operation, sector, sectors } => {
                let (operation, sector, sectors) = (*operation, *sector, *sectors);
                let busy = lock(&self.machine.truth).is_busy(changed(operation, sector, sectors));
                if busy || running.len() >= AT_ONCE {
                    self.settle(running).await;
                }
                if lock(&self.machine.truth).is_busy(changed(operation, sector, sectors)) {
                    // Left by a request that failed with the tier.
                    return Some(Ended::Failed);
                }
                let requests = self.requests(life);
                self.counts.add("requests", 1);
                running.spawn_local(async move { requests.run(operation, sector, sectors).await });
                tokio::task::yield_now().await;
            }
            Step::Snapshot => {
                let called = timeout(HANG, self.names.create(life)).await.expect("a snapshot hangs");
                if called == Called::Done {
                    self.counts.add("snapshots", 1);
                }
            }
            Step::DeleteSnapshot(nth) => {
                if let Some((name, _)) = self.names.nth(*nth) {
                    timeout(HANG, self.names.delete(life, &name)).await.expect("a deletion hangs");
                }
            }
            Step::Attach(nth) => {
                if let Some((name, _)) = self.names.nth(*nth) {
                    // It may not be on the capacity tier yet, and while things fail it may not be readable.
                    let read = timeout(HANG, snapshots::read_all(&self.machine, &name, true)).await;
                    if let Err(error) = read.expect("an attached snapshot hangs") {
                        let not_there =
                            matches!(error, crate::capacity_tier::CapacityError::NoSuchSnapshot { .. });
                        let excused = self.is_faulty() || self.machine.power.is_off();
                        assert!(not_there || excused, "snapshot {name} cannot be read: {error}");
                    } else {
                        self.counts.add("snapshots read", 1);
                    }
                }
            }
            Step::Predict(prediction) => self.predict(life, *prediction),
            Step::Checkpoint => {
                let taken = life.shared().committer.checkpoint(&**life.shared()).await;
                let excused = self.is_faulty() || self.machine.power.is_off();
                assert!(taken.is_ok() || excused, "a checkpoint failed: {taken:?}");
            }
            Step::Pause(micros) => tokio::time::sleep(Duration::from_micros(*micros)).await,
            Step::Settle => self.settle(running).await,
            Step::DiskFaults { read, write, metadata_write, sync } => {
                let (read, write, metadata_write, sync) = (*read, *write, *metadata_write, *sync);
                let faults = Faults { latency: true, read, write, metadata_write, sync };
                self.settle(running).await;
                self.machine.disk.set_faults(faults);
            }
            Step::StoreFaults { fail, lost_reply, corrupt } => {
                let (fail, lost_reply, corrupt) = (*fail, *lost_reply, *corrupt);
                self.settle(running).await;
                let faults = StoreFaults { latency: true, fail, lost_reply, corrupt, ..Default::default() };
                self.machine.store.set_faults(faults);
            }
            Step::StoreFullAt(later) => {
                self.settle(running).await;
                self.machine.store.trouble(*later, Trouble::Full);
            }
            Step::Heal => self.heal(),
            Step::Crash { end, when } => {
                self.how = *end;
                match when {
                    When::Now => return Some(Ended::Crashed),
                    When::DiskStep(steps) => self.machine.disk.cut_at(*steps),
                    When::StoreOperation(later) => self.machine.store.trouble(*later, Trouble::Crash),
                }
            }
            Step::CrashWhileOpening(step) => {
                self.cut_openings = vec![*step, step / 2 + 1];
                self.how = if step % 3 == 0 { End::Kill } else { End::Cut };
                return Some(Ended::Crashed);
            }
            Step::Restart { cut } => return Some(self.restart(life, running, *cut).await),
        }
        None
    }

    /// A clean stop.
    async fn restart(&mut self, life: &Rc<Life>, running: &mut JoinSet<bool>, cut: bool) -> Ended {
        self.heal();
        self.settle(running).await;
        if self.requests(life).has_lost() {
            return Ended::Failed;
        }
        let closed = timeout(HANG, life.close()).await.expect("closing hangs");
        if let Err(error) = closed {
            assert!(self.machine.power.is_off(), "the volume cannot be closed: {error:#}");
            return Ended::Crashed;
        }
        lock(&self.machine.truth).all_is_durable();
        Ended::Stopped { cut }
    }

    /// Waits for all requests; heals what holds them up for too long.
    async fn settle(&mut self, running: &mut JoinSet<bool>) {
        let mut failed = 0;
        let mut all = async |running: &mut JoinSet<bool>| {
            while let Some(ended) = running.join_next().await {
                match ended {
                    Ok(succeeded) => failed += u64::from(!succeeded),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
        };
        if timeout(PATIENCE, all(running)).await.is_err() {
            self.heal();
            timeout(HANG, all(running)).await.expect("requests hang, with nothing failing");
        }
        self.counts.add("failed requests", failed);
    }

    fn predict(&self, life: &Rc<Life>, prediction: Prediction) {
        let last = Epoch(life.shared().volume.layers().open_epoch().0 - 1);
        let coming = self.history.steps.get(self.next..).unwrap_or_default();
        predictions::put(&self.machine, &self.history.shape, prediction, last, coming);
    }

    /// At the end: everything is written back, and all of it is as it was.
    async fn last_look(&mut self, life: &Rc<Life>) -> Ended {
        let volume = &life.shared().volume;
        let written_back = async {
            while volume.layers().live_count() > 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(HANG, written_back).await.expect("write-back hangs, with nothing failing");
        // Deleted objects go after their delay, and upkeep comes to its end.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let head = snapshots::of_head(&self.machine.store).await.expect("HEAD can be read");
        self.names.settle(life, &head);
        for (name, _) in &head {
            self.read_snapshot(name).await;
        }
        for epoch in 1..volume.layers().open_epoch().0 {
            snapshots::check_vector(life, &self.machine, Epoch(epoch));
        }
        self.counts.add("epochs", u64::from(volume.layers().open_epoch().0 - 1));
        let sectors = self.history.shape.blocks * BLOCK_SECTORS;
        let read = self.requests(life).read(0, sectors).await.expect("nothing fails now");
        for (sector, read) in read.into_iter().enumerate() {
            let mut truth = lock(&self.machine.truth);
            truth.read.push((sector, read));
            truth.check(sector, read);
        }
        timeout(HANG, life.close()).await.expect("closing hangs").expect("closed");
        self.check_tiers().await;
        Ended::AtTheEnd
    }
}
