//! What earlier writers left behind: objects that nothing refers to, because a crash or a lost race came between their writing
//! and HEAD, or between HEAD and their deletion.
//!
//! Listing all objects takes a request for every thousand of them, or a look at every file, so a volume is open before it is
//! done: the first step of maintenance does it. What this writer writes meanwhile has numbers above those that are looked at.

use std::collections::BTreeSet;

use forerun::geometry::{Epoch, SegmentId};

use super::error::Result;
use super::maintain::Busy;
use super::names::{ObjectKind, ObjectName};
use super::state::Inner;
use super::store::Store;
use super::tier::CapacityTier;

impl<S: Store> CapacityTier<S> {
    /// Looks for what earlier writers left, unless that was done or a step of maintenance is at it.
    pub async fn survey(&self) {
        if !self.inner.maintaining.replace(true) {
            let _busy = Busy(&self.inner.maintaining);
            self.inner.survey().await;
        }
    }
}

impl<S: Store> Inner<S> {
    /// Queues what earlier writers left and nothing refers to, learns how long their segments are, and tells of those that are
    /// missing; once for each opening. A store that cannot be listed is told of once, and is asked again the next time: without
    /// this, upkeep knows less, and nothing of what it does is wrong.
    pub(super) async fn survey(&self) {
        if let Err(error) = self.look_for_left().await
            && !std::mem::replace(&mut self.state.borrow_mut().survey_fails, true)
        {
            tracing::warn!(%error, "what earlier writers left cannot be looked for; it is tried again now and then");
        }
    }

    async fn look_for_left(&self) -> Result<()> {
        let Some(below) = self.state.borrow().unsurveyed_below else { return Ok(()) };
        let segments = self.left_of(ObjectKind::Segment, below).await?;
        let layers = self.left_of(ObjectKind::Layer, below).await?;
        self.tell_of_missing(&segments, below);
        let (head, due) = (self.head(), self.due());
        let mut state = self.state.borrow_mut();
        // What this writer has dropped itself, if the first attempt failed.
        let queued: BTreeSet<_> = state.deletions.names().collect();
        for (name, bytes) in segments.into_iter().chain(layers) {
            let used = match name.kind {
                ObjectKind::Segment => state.usage.set_len(SegmentId(name.number), bytes),
                ObjectKind::Layer => head.layers().iter().any(|layer| layer.id.0 == name.number),
                ObjectKind::Warm => true,
            };
            if !used && !queued.contains(&name) {
                state.deletions.queue(name, bytes, due, Epoch(0));
            }
        }
        state.unsurveyed_below = None;
        drop(state);
        crate::memory::give_back();
        Ok(())
    }

    async fn left_of(&self, kind: ObjectKind, below: u64) -> Result<Vec<(ObjectName, u64)>> {
        let listed = self.store.list(kind).await;
        let mut listed = listed.map_err(|error| self.io_error("list", kind.folder(), error))?;
        listed.retain(|(name, _)| name.number < below);
        Ok(listed)
    }

    fn tell_of_missing(&self, listed: &[(ObjectName, u64)], below: u64) {
        let there: BTreeSet<_> = listed.iter().map(|(name, _)| SegmentId(name.number)).collect();
        let (state, place) = (self.state.borrow(), self.store.place());
        for (segment, used) in state.usage.iter() {
            if (state.own_from..below).contains(&segment.0) && !there.contains(&segment) {
                let (segment, blocks) = (ObjectName::segment(segment), used.live_records);
                tracing::error!(%place, %segment, blocks, "a segment is missing; reading its blocks will fail");
            }
        }
    }
}
