//! Taking checkpoints while commits go on.
//!
//! The order, and what a crash at each point leaves, are in [`super::checkpoint`]. The journal's pages
//! before the checkpoint's start are given free only when its header is durable.

use std::io;
use std::pin::Pin;

use tracing::warn;

use super::checkpoint::{CheckpointWriter, Place};
use super::commit::outcome;
use super::committer::{Facts, Health, Shared};
use super::layout::Layout;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::volume::lock;

/// Facts written before others get their turn.
const FACTS_A_TURN: usize = 16;

/// The checkpoint task: takes one whenever it is wanted.
pub(super) async fn run(shared: Arc<Shared>) {
    while let Some(state) = wanted(&shared).await {
        if let Err(error) = take(&shared, &*state).await {
            warn!(%error, "a checkpoint of the fast tier failed; it will be tried again");
        }
    }
}

/// Waits until a checkpoint is wanted; `None` at the end.
async fn wanted(shared: &Shared) -> Option<Arc<dyn Facts>> {
    loop {
        let seen = shared.changed.now();
        {
            let inner = shared.lock();
            if inner.stop {
                return None;
            }
            if let Some(source) = inner.checkpoint.source.clone().filter(|_| inner.checkpoint.wanted) {
                return Some(source);
            }
        }
        shared.changed.after(seen).await;
    }
}

/// Takes a checkpoint of `state` and gives the journal before it free.
pub(super) async fn take(shared: &Shared, state: &dyn Facts) -> io::Result<()> {
    in_turn(shared, state, None).await
}

/// Changes over to the larger areas of a tier that grows: a checkpoint of `state` in the first of them, then `switch`, which
/// makes the superblocks lead there. The old areas and the journal stay as they are until it is done.
///
/// # Errors
/// I/O. Where `switch` fails and its layout may be found all the same, it has to have failed the tier.
pub(super) async fn take_over_to(
    shared: &Shared,
    state: &dyn Facts,
    layout: Layout,
    switch: Switch<'_>,
) -> io::Result<()> {
    in_turn(shared, state, Some((layout, switch))).await
}

/// Makes the superblocks lead to another layout.
pub(super) type Switch<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

async fn in_turn(shared: &Shared, state: &dyn Facts, to: Option<(Layout, Switch<'_>)>) -> io::Result<()> {
    let _turn = shared.checkpoint_turn.lock().await;
    let grows = to.is_some();
    {
        let mut inner = shared.lock();
        if grows && inner.stop {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the fast tier is being closed"));
        }
        // What was wanted is not done by a growth that fails.
        inner.checkpoint.wanted &= grows;
        inner.checkpoint.running = true;
    }
    let result = match shared.check_health() {
        Ok(()) => write(shared, state, to).await,
        failed => failed,
    };
    let mut inner = shared.lock();
    inner.draining = None;
    let checkpoint = &mut inner.checkpoint;
    checkpoint.running = false;
    match &result {
        Ok(()) => checkpoint.failed = None,
        // The checkpoints that there are are as good as they were, and the next one goes where they are.
        Err(_) if grows => {}
        Err(error) => {
            checkpoint.failed = Some(outcome(&result));
            if inner.health == Health::Good {
                inner.health = Health::Degraded(format!("a checkpoint failed: {error}"));
            }
        }
    }
    drop(inner);
    shared.tell();
    result
}

async fn write(shared: &Shared, state: &dyn Facts, to: Option<(Layout, Switch<'_>)>) -> io::Result<()> {
    let layout = to.as_ref().map_or_else(|| shared.layout(), |(layout, _)| *layout);
    let (start, place) = {
        let mut inner = shared.lock();
        inner.checkpoint.attempted += 1;
        let area = if to.is_some() { 0 } else { inner.checkpoint.place.next().area };
        // Commits up to here are in the state already, so the journal is needed only from here on.
        (inner.ring.next(), Place { area, number: inner.checkpoint.attempted })
    };
    let device = &*shared.device;
    let mut writer = CheckpointWriter::new(device, &layout, shared.volume, shared.generation, place);
    for (number, fact) in state.facts().enumerate() {
        writer.push(&fact);
        if number % FACTS_A_TURN == 0 {
            device.turn().await;
        }
    }
    // Which epoch is open follows from the newest sealed one, so that one is always there.
    let newest_sealed = shared.lock().newest_sealed.clone();
    if let Some(sealed) = newest_sealed {
        writer.push(&sealed);
    }
    writer.finish_content()?;

    // The walk may have seen what is not durable yet.
    let seen = shared.appended.load(Ordering::SeqCst);
    if shared.durable.load(Ordering::SeqCst) < seen {
        wait_durable(shared, seen).await?;
    }
    shared.sync().await?;
    let (offset, header) = writer.header(start);
    device.turn().await;
    device.write_at(offset, &header)?;
    shared.sync().await?;
    if let Some((layout, switch)) = to {
        switch.await?;
        *lock(&shared.layout) = layout;
    }

    let mut inner = shared.lock();
    inner.ring.free_to(start);
    inner.checkpoint.place = place;
    inner.checkpoint.taken += 1;
    Ok(())
}

/// Waits until the log is durable up to `seen`. Not for the round that was asked for: that one may bring
/// newer deltas along, for which the ring has room only after this checkpoint.
async fn wait_durable(shared: &Shared, seen: u64) -> io::Result<()> {
    shared.lock().draining = Some(seen);
    shared.tell();
    let commit = shared.commit();
    loop {
        let changes = shared.changed.now();
        if shared.durable.load(Ordering::SeqCst) >= seen {
            return Ok(());
        }
        if let Some(outcome) = commit.outcome() {
            return outcome;
        }
        shared.changed.after(changes).await;
    }
}
