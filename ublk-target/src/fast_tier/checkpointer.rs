//! Taking checkpoints while commits go on.
//!
//! The order, and what a crash at each point leaves, are in [`super::checkpoint`]. The journal's pages
//! before the checkpoint's start are given free only when its header is durable.

use std::io;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::checkpoint::{CheckpointWriter, Place};
use super::commit::outcome;
use super::committer::{Health, Shared, StateWalk};
use crate::volume::lock;

/// The checkpoint thread: takes one whenever it is wanted.
pub(super) fn run(shared: &Shared) {
    loop {
        let state = {
            let mut inner = shared.lock();
            loop {
                if inner.stop {
                    return;
                }
                if let Some(source) = inner.checkpoint.source.clone().filter(|_| inner.checkpoint.wanted) {
                    break source;
                }
                inner = shared.wait_changed(inner);
            }
        };
        let result = take(shared, &*state);
        if let Err(error) = &result {
            warn!(%error, "a checkpoint of the fast tier failed; it will be tried again");
        }
    }
}

/// Takes a checkpoint of `state` and gives the journal before it free.
pub(super) fn take(shared: &Shared, state: &StateWalk<'_>) -> io::Result<()> {
    let _turn = lock(&shared.checkpoint_turn);
    {
        let mut inner = shared.lock();
        inner.checkpoint.wanted = false;
        inner.checkpoint.running = true;
    }
    let result = shared.check_health().and_then(|()| write(shared, state));
    let mut inner = shared.lock();
    inner.draining = None;
    let checkpoint = &mut inner.checkpoint;
    checkpoint.running = false;
    match &result {
        Ok(()) => {
            checkpoint.failed = None;
            checkpoint.taken += 1;
        }
        Err(error) => {
            checkpoint.failed = Some(outcome(&result));
            if inner.health == Health::Good {
                inner.health = Health::Degraded(format!("a checkpoint failed: {error}"));
            }
        }
    }
    shared.changed.notify_all();
    result
}

fn write(shared: &Shared, state: &StateWalk<'_>) -> io::Result<()> {
    let (start, place) = {
        let mut inner = shared.lock();
        inner.checkpoint.attempted += 1;
        let area = inner.checkpoint.place.next().area;
        // Commits up to here are in the state already, so the journal is needed only from here on.
        (inner.ring.next(), Place { area, number: inner.checkpoint.attempted })
    };
    let device = &*shared.device;
    let mut writer = CheckpointWriter::new(device, &shared.layout, shared.volume, shared.generation, place);
    state(&mut |delta| writer.push(delta));
    // Which epoch is open follows from the newest sealed one, so that one is always there.
    let newest_sealed = shared.lock().newest_sealed.clone();
    if let Some(sealed) = newest_sealed {
        writer.push(&sealed);
    }
    writer.finish_content()?;

    // The walk may have seen what is not durable yet.
    let seen = shared.appended.load(Ordering::SeqCst);
    if shared.durable.load(Ordering::SeqCst) < seen {
        wait_durable(shared, seen)?;
    }
    shared.sync()?;
    let (offset, header) = writer.header(start);
    device.write_at(offset, &header)?;
    shared.sync()?;

    let mut inner = shared.lock();
    inner.ring.free_to(start);
    inner.checkpoint.place = place;
    Ok(())
}

/// Waits until the log is durable up to `seen`. Not for the round that was asked for: that one may bring
/// newer deltas along, for which the ring has room only after this checkpoint.
fn wait_durable(shared: &Shared, seen: u64) -> io::Result<()> {
    shared.lock().draining = Some(seen);
    shared.changed.notify_all();
    let commit = shared.commit();
    let mut inner = shared.lock();
    while shared.durable.load(Ordering::SeqCst) < seen {
        if let Some(outcome) = commit.outcome() {
            return outcome;
        }
        inner = shared.wait_changed(inner);
    }
    Ok(())
}
