//! Upkeep of a capacity tier that is slow at it.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::history::{BLOCK_SECTORS, Shape};
use super::machine::{Life, Machine};
use super::requests::Requests;
use super::snapshots::{Called, Names};
use crate::capacity_tier::memory_store::Faults;
use crate::request::Operation;
use crate::volume::lock;

/// Waits until a snapshot is on the capacity tier, for so long at most; how long it took.
async fn written_back(life: &Life, name: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    while !lock(&life.shared().kept).iter().any(|kept| kept.name.as_str() == name) {
        assert!(begun.elapsed() < limit, "snapshot {name} is not written back within {limit:?}");
        sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

#[test]
fn neither_a_snapshot_nor_a_stop_waits_for_upkeep_that_takes_minutes() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let shape = Shape {
            blocks: 9,
            slots: 40,
            journal_bytes: 1 << 20,
            logical: 1,
            sync_interval_seconds: 3600,
            prediction: false,
        };
        let machine = Machine::new(1, &shape).await;
        let life = Rc::new(machine.open(false).await.expect("open"));
        let requests = Requests {
            life: life.clone(),
            disk: machine.disk.clone(),
            power: machine.power.clone(),
            truth: machine.truth.clone(),
            faulty: false,
        };
        let mut names = Names::default();
        let write = Operation::Write { fua: false };
        // Layers whose data is overwritten and whose names go: they are merged, and what they had is to be deleted.
        for _ in 0..6 {
            assert!(requests.run(write, 0, 4 * BLOCK_SECTORS).await);
            assert_eq!(names.create(&life).await, Called::Done);
            let (name, _) = names.nth(0).expect("a snapshot");
            written_back(&life, &name, Duration::from_secs(20)).await;
            machine.store.set_faults(Faults { slow_delete: Duration::from_secs(100), ..Faults::default() });
            assert_eq!(names.delete(&life, &name).await, Called::Done);
        }
        let begun = Instant::now();
        while machine.store.deleting() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is deleted");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(requests.run(write, 0, BLOCK_SECTORS).await);
        assert_eq!(names.create(&life).await, Called::Done);
        let (name, _) = names.nth(0).expect("a snapshot");
        let took = written_back(&life, &name, Duration::from_secs(20)).await;
        assert!(machine.store.deleting() > 0, "nothing was deleted meanwhile");
        assert!(took < Duration::from_secs(5), "{took:?}");
        // Nor does a stop wait for it.
        let begun = Instant::now();
        life.close().await.expect("closed");
        assert!(machine.store.deleting() > 0, "nothing was deleted meanwhile");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    });
}
