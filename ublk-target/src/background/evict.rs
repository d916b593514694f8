//! Keeping slots free: clean slots are given up before somebody needs theirs, and when there are none the
//! open epoch is sealed and written back at once. Long before that it is sealed in ever smaller steps: a layer's slots
//! come free all at once, when HEAD names it, so the last layers before the tier is full have to be small.
//!
//! Order, as slots run short: clean slots, then reservations, then waiting for write-back. Nothing dirty is
//! ever given up.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Shared, TICK, Tasks, World};
use crate::volume::{Effort, Evicted};

/// Slots that are kept free or on their way there: a sixteenth, at least two, at most 4,096 (256 MiB).
pub(super) fn reserve(slots: u32) -> u32 {
    (slots / 16).clamp(2, 4096)
}

/// An epoch is not sealed for want of room before it is this old, unless somebody waits.
const EARLY_SEAL_AGE: Duration = Duration::from_millis(200);
/// An epoch is sealed early when it has a third of the slots that were available when it began, but not below this share
/// of all slots, as a divisor. So a set of blocks of a third of the tier can be overwritten in place for the whole of the
/// sync interval.
const STEP_SHARE: u32 = 16;
/// After a commit that failed, the next one that nobody but us asks for waits this long.
const COMMIT_RETRY: Duration = Duration::from_millis(500);
/// After all that could be given up for predictions was, this long until it is looked for again.
const AHEAD_RETRY: Duration = Duration::from_secs(1);
/// Without a wait for so long, writes count as not throttled any more.
const THROTTLE_OVER: Duration = Duration::from_secs(5);

/// Keeps the reserve, for ever.
pub(super) async fn keep_room(tasks: Rc<Tasks<impl World>>) {
    let mut failed_at = None;
    let mut ahead_after = Instant::now();
    let mut throttled = Throttled::default();
    while !tasks.shared.stopping() {
        let woken = tasks.shared.wake_keeper.notified();
        let _ = tokio::time::timeout(TICK, woken).await;
        make_room(&tasks.shared, &mut failed_at).await;
        if Instant::now() >= ahead_after && !make_room_ahead(&tasks.shared, &mut failed_at).await {
            ahead_after = Instant::now() + AHEAD_RETRY;
        }
        throttled.look(&tasks.shared);
    }
}

/// Tells of the time in which writes waited for slots: when it begins, and when it has been over for a while.
#[derive(Default)]
struct Throttled {
    waits: u64,
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Throttled {
    fn look(&mut self, shared: &Shared) {
        let waits = shared.volume.stats().waits_for_room.get();
        if waits != self.waits || shared.volume.room().has_waiters() {
            (self.waits, self.last) = (waits, Some(Instant::now()));
            if self.since.is_none() {
                self.since = self.last;
                tracing::warn!("no slot of the fast tier is free: writes wait for write-back");
            }
        } else if let (Some(since), Some(last)) = (self.since, self.last)
            && last.elapsed() >= THROTTLE_OVER
        {
            let seconds = last.duration_since(since).as_secs();
            tracing::info!("writes do not wait for free slots any more, after {seconds} s");
            self.since = None;
        }
    }
}

async fn make_room(shared: &Shared, failed_at: &mut Option<Instant>) {
    let volume = &shared.volume;
    let wanted = reserve(volume.slot_count());
    let waited_for = volume.room().has_waiters();
    let coming = evict_down_to(shared, wanted, Effort::default()).await;
    if coming < wanted / 2 || (waited_for && volume.free_slots() == 0) {
        super::predict::give_back_some(shared);
    }
    // What is in limbo becomes free with a commit; nobody should have to wait for one.
    let low = volume.free_slots() < wanted / 2 || waited_for;
    if (low && volume.limbo_slots() > 0) || !volume.log_has_room() {
        commit(shared, failed_at).await;
    }
    let many_deletions = volume.live_deletions() >= u64::from(volume.slot_count() / 2);
    let short = volume.free_slots() + volume.limbo_slots() < wanted / 2 || many_deletions;
    shared.urgent.store(short || waited_for || !volume.may_take_slot(), Ordering::Relaxed);
    let old_enough = waited_for || shared.sealer.open_for() >= EARLY_SEAL_AGE;
    let all_open = volume.layers().live_count() == 1;
    if (short && all_open || step_is_full(shared))
        && old_enough
        && volume.open_epoch_changed()
        && let Err(error) = shared.sealer.seal(shared, None)
    {
        tracing::warn!(%error, "slots run short and the epoch cannot be sealed");
    }
    if waited_for && volume.may_take_slot() && !many_deletions {
        volume.room().wake_all();
    }
}

/// Whether the open epoch has become large, measured by the slots that are left, and write-back gets on.
fn step_is_full(shared: &Shared) -> bool {
    let volume = &shared.volume;
    let open = shared.sealer.blocks(shared);
    let least = u64::from(volume.slot_count() / STEP_SHARE).max(1);
    open >= least
        && open >= u64::from(volume.available_slots() / 2)
        && volume.layers().live_count() < super::seal::PERIODIC_LAYERS_MAX
        // While the capacity tier takes nothing, what can be overwritten in place should stay so.
        && shared.write_back().borrow().error.is_empty()
}

/// Gives up clean slots until `wanted` are free or on their way there; returns how many are.
async fn evict_down_to(shared: &Shared, wanted: u32, mut effort: Effort) -> u32 {
    let volume = &shared.volume;
    volume.reclaim();
    let mut coming = volume.free_slots() + volume.limbo_slots();
    let predicted = shared.prediction.kept();
    while coming < wanted && !shared.stopping() {
        match volume.evict(&|block| predicted.contains(&block), &mut effort) {
            Evicted::One(leaver) => {
                coming += 1;
                if let Some(leaver) = leaver.filter(|_| shared.settings.prediction) {
                    shared.prediction.evicted(leaver);
                }
            }
            Evicted::NotYet => tokio::task::yield_now().await,
            Evicted::Nothing => break,
        }
    }
    coming
}

/// Gives up clean slots for predicted blocks and for growth, but none of a predicted block. Returns whether there were any
/// to give up, or none needed.
async fn make_room_ahead(shared: &Shared, failed_at: &mut Option<Instant>) -> bool {
    let volume = &shared.volume;
    let demand = shared.prediction.demand();
    let ahead = shared.prediction.growth_slots(shared) + demand;
    if ahead == 0 {
        return true;
    }
    let wanted = reserve(volume.slot_count()) + ahead;
    let found = evict_down_to(shared, wanted, Effort::sparing()).await >= wanted;
    if demand > 0 && volume.free_slots() < wanted && volume.limbo_slots() > 0 {
        commit(shared, failed_at).await;
    }
    found
}

/// Commits, so that what is in limbo becomes free and the log has room again; less often while that fails.
async fn commit(shared: &Shared, failed_at: &mut Option<Instant>) {
    if failed_at.is_some_and(|failed| failed.elapsed() < COMMIT_RETRY) {
        return;
    }
    // Why it fails is in the status, and the journal has logged it.
    *failed_at = shared.committer.commit().await.is_err().then(Instant::now);
    shared.volume.reclaim();
}
