//! Histories that once went wrong, and what random ones cannot reach.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use forerun::geometry::{Geometry, MIN_VOLUME_BYTES};

use super::log::MemoryLog;
use super::world::{Act, Ask, Crash, World};
use super::{BLOCK_SECTORS, SECTORS};
use crate::fast_tier::delta::Delta;
use crate::fast_tier::log::{DeltaLog, LogPosition};
use crate::request::Operation;
use crate::volume::{NotYet, Span, Volume, lock};

const WRITE: Operation = Operation::Write { fua: false };

fn ask(operation: Operation, sector: usize, sectors: usize) -> Ask {
    Ask { operation, sector, sectors, start: 0, turns: 1, fails: false }
}

fn flush(world: &mut World) {
    world.batch(&[ask(Operation::Flush, 0, 0)], &[], None);
}

/// Two writes to one sub-block, and a seal between them while the first is under way: the second completes its
/// sub-block from the first one's slot, and must not do so before the first has landed.
#[test]
fn a_write_is_not_lost_that_is_under_way_over_a_seal() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, 8)], &[], None);
    let slow = Ask { turns: 3, ..ask(WRITE, 0, 1) };
    let second = Ask { start: 1, ..ask(WRITE, 1, 1) };
    world.batch(&[slow, second], &[(1, Act::Seal)], None);
    world.check_all();
}

/// A block is zeroed; then written in part, which fails; then in part in the next epoch. The failed write is in no log, and
/// still a crash must not bring back what was zeroed.
#[test]
fn zeroes_survive_a_failed_write_and_a_crash() {
    for crash in [Crash::Kill, Crash::Cut { bits: 0, more: 0 }] {
        let mut world = World::new();
        world.batch(&[ask(WRITE, 0, BLOCK_SECTORS)], &[], None);
        world.batch(&[], &[(0, Act::Seal), (1, Act::WriteBack)], None);
        let zero = Operation::WriteZeroes { no_unmap: false, fua: false };
        world.batch(&[ask(zero, 0, BLOCK_SECTORS)], &[], None);
        world.batch(&[Ask { fails: true, ..ask(WRITE, 0, 8) }], &[], None);
        world.batch(&[ask(WRITE, 8, 8)], &[(0, Act::Seal)], None);
        flush(&mut world);
        world.crash(&crash);
    }
}

/// A clean slot that a live deletion hides, brought back by a crash, must not be told as current by a later checkpoint.
#[test]
fn what_was_deleted_does_not_come_back_as_clean() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, 1)], &[], None);
    // The deletion is durable, the end of the old slot is not.
    world.batch(&[], &[(0, Act::Seal)], None);
    let discard = Ask { start: 1, ..ask(Operation::Discard, 0, BLOCK_SECTORS) };
    world.batch(&[discard], &[(0, Act::WriteBack), (3, Act::Commit)], None);
    world.crash(&Crash::Cut { bits: 0, more: 0 });
    world.batch(&[ask(WRITE, 77, 8)], &[], None);
    world.batch(&[], &[(0, Act::Seal), (1, Act::WriteBack)], None);
    world.batch(&[], &[(0, Act::Checkpoint)], None);
    world.batch(&[], &[(0, Act::Evict(7)), (1, Act::Evict(7)), (2, Act::Commit)], None);
    world.crash(&Crash::Kill);
}

/// Half of a block is overwritten in each epoch, the rest was on the fast tier: it stays there over the write-back.
#[test]
fn the_rest_of_a_block_stays_on_the_fast_tier() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, BLOCK_SECTORS)], &[], None);
    for _ in 0..3 {
        world.batch(&[], &[(0, Act::Seal), (1, Act::WriteBack)], None);
        world.batch(&[ask(WRITE, 8, 16)], &[], None);
    }
    world.batch(&[], &[(0, Act::Seal), (1, Act::WriteBack)], None);
    let before = world.volume.stats().read_misses.get();
    assert_eq!(world.read(0, SECTORS).len(), SECTORS);
    assert_eq!(world.volume.stats().read_misses.get(), before, "the block had to be fetched");
    world.check_all();
}

/// The end of an epoch is in the log before a write can belong to the next one: no crash between the two may leave
/// records of an epoch that the log does not know.
#[test]
fn no_write_belongs_to_an_epoch_that_the_log_does_not_know() {
    /// Plans a write whenever an epoch's end is appended, as another thread might.
    #[derive(Default)]
    struct Watching {
        log: MemoryLog,
        volume: Mutex<Weak<Volume>>,
        seen: Mutex<Vec<(u32, u32)>>,
    }
    impl DeltaLog for Watching {
        fn append(&self, delta: &Delta) -> LogPosition {
            if let (Delta::Sealed(sealed), Some(volume)) = (delta, lock(&self.volume).upgrade()) {
                lock(&self.seen).push((sealed.epoch.0, volume.layers().open_epoch().0));
            }
            self.log.append(delta)
        }
        fn appended(&self) -> LogPosition {
            self.log.appended()
        }
        fn durable(&self) -> LogPosition {
            self.log.durable()
        }
        fn has_room(&self, _: u32) -> bool {
            true
        }
        fn has_failed(&self) -> bool {
            false
        }
    }
    let geometry = Geometry::new(MIN_VOLUME_BYTES, 512).expect("a sound geometry");
    let log = Arc::new(Watching::default());
    let volume = Arc::new(Volume::new(geometry, 8, log.clone(), 1));
    *lock(&log.volume) = Arc::downgrade(&volume);
    for _ in 0..3 {
        volume.seal(1, Some("name")).expect("sealed");
    }
    assert_eq!(
        *lock(&log.seen),
        [(1, 1), (2, 2), (3, 3)],
        "the next epoch began before the end of the last was logged"
    );
}

/// A log that has failed: nothing waits for it, and nothing is acknowledged that needs it.
#[test]
fn a_failed_log_fails_requests_and_holds_nothing_up() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, 8)], &[], None);
    world.log().failed.store(true, Ordering::SeqCst);
    for operation in [Operation::Flush, WRITE, Operation::Discard] {
        let (sector, sectors) = if operation == Operation::Flush { (0, 0) } else { (128, BLOCK_SECTORS) };
        let ended = world.poll_once_each(&ask(operation, sector, sectors), 5);
        assert!(matches!(ended, Poll::Ready(Err(_))), "{operation:?} is not failed: {ended:?}");
    }
    let span = Span { block: forerun::geometry::BlockIndex(3), start: 0, len: 4096 };
    assert_eq!(world.volume.plan_write(0, span).err(), Some(NotYet::LogFailed));
    // What is there can be read, and layers are not stuck.
    world.check_all();
    world.seal();
    world.write_back_all();
    assert_eq!(world.volume.layers().live_count(), 1);
}

/// A flush that the device fails is the end: the next one may not succeed, since the device tells of lost writes once.
#[test]
fn a_failed_flush_is_not_forgotten() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, 8)], &[], None);
    flush(&mut world);
    let failing = Ask { fails: true, ..ask(Operation::Flush, 0, 0) };
    assert!(matches!(world.poll_once_each(&failing, 5), Poll::Ready(Err(_))));
    assert!(matches!(world.poll_once_each(&ask(Operation::Flush, 0, 0), 5), Poll::Ready(Err(_))));
}

/// The name of a layer that the capacity tier is about to get cannot be taken off any more: it would come back.
#[test]
fn a_name_that_is_leaving_stays() {
    let world = World::new();
    world.seal();
    let (layer, epoch) =
        (world.volume.layers().live()[0], world.volume.layers().epoch(world.volume.layers().live()[0]));
    assert_eq!(world.volume.begin_leaving(layer).as_deref(), Some("s"));
    assert!(!world.volume.unname(epoch, "s"), "HEAD may have the name already");
    world.volume.stay(layer);
    assert!(!world.volume.unname(epoch, "other"));
    assert!(world.volume.unname(epoch, "s"), "the capacity tier did not take it");
    assert_eq!(world.volume.begin_leaving(layer), None);
}

impl World {
    /// Polls a request so often, with no help from the background.
    fn poll_once_each(&self, ask: &Ask, times: u32) -> Poll<std::io::Result<()>> {
        let (handler, io) = (self.handler(), self.data_of(ask));
        let mut future = pin!(handler.handle(super::world::request(ask), &io));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..times {
            if let Poll::Ready(ended) = future.as_mut().poll(&mut context) {
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    }
}

/// What was read is told once, and what was only written is not.
#[test]
fn reads_are_noted_and_taken_once() {
    let mut world = World::new();
    world.batch(&[ask(WRITE, 0, 8), ask(WRITE, 5 * BLOCK_SECTORS, 8)], &[], None);
    assert_eq!(world.volume.take_reads(), []);
    world.batch(&[ask(Operation::Read, 5 * BLOCK_SECTORS, 8)], &[], None);
    world.batch(&[ask(Operation::Read, 5 * BLOCK_SECTORS + 40, 8)], &[], None);
    assert_eq!(world.volume.take_reads(), [forerun::geometry::BlockIndex(5)]);
    assert_eq!(world.volume.take_reads(), []);
}
