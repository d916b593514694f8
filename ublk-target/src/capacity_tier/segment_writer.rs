//! Writing records into segments of about 8 MiB, which go to the store while the next one fills.
//!
//! At most [`SEGMENTS_IN_FLIGHT`] segments are on their way and one is being filled: 24 MiB. Each upload is a
//! task of its
//! own, so that it goes on while the next blocks are compressed. Dropped or failed, every segment of the
//! writer is queued for deletion once its upload has ended.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use forerun::geometry::{Epoch, SegmentId};
use tokio::task::JoinHandle;

use super::deletions::Provisional;
use super::error::{CapacityError, Result};
use super::names::ObjectName;
use super::options::SEGMENTS_IN_FLIGHT;
use super::place::Place;
use super::record::RecordHeader;
use super::segment::{MAX_SEGMENT_BYTES, SegmentBuilder};
use super::state::Inner;
use super::store::Store;
use super::usage::SegmentUse;

/// A segment that is in the store, durable, and not yet referred to.
pub(super) struct WrittenSegment<S: Store> {
    pub segment: SegmentId,
    pub object: Rc<Provisional<S>>,
    pub usage: SegmentUse,
}

struct InFlight<S: Store> {
    upload: JoinHandle<(io::Result<()>, Vec<u8>)>,
    written: WrittenSegment<S>,
}

/// Records on their way into segments.
pub(super) struct SegmentWriter<S: Store> {
    tier: Rc<Inner<S>>,
    epoch: Epoch,
    filling: Option<(SegmentBuilder, Rc<Provisional<S>>)>,
    in_flight: VecDeque<InFlight<S>>,
    written: Vec<WrittenSegment<S>>,
    spare: Vec<u8>,
    // A segment is missing: what was appended must never be referred to.
    failed: bool,
}

impl<S: Store> SegmentWriter<S> {
    /// For a layer whose last epoch is `epoch`.
    pub fn new(tier: &Rc<Inner<S>>, epoch: Epoch) -> Self {
        Self {
            tier: Rc::clone(tier),
            epoch,
            filling: None,
            in_flight: VecDeque::new(),
            written: Vec::new(),
            spare: Vec::new(),
            failed: false,
        }
    }

    /// Appends a record with `header` (whose segment is filled in here) and tells its place.
    pub async fn append(&mut self, header: RecordHeader, stored: &[u8]) -> Result<Place> {
        let target = self.tier.options.segment_bytes;
        if self.filling.as_ref().is_some_and(|(builder, _)| !builder.fits(header.record_bytes(), target)) {
            self.send_off().await?;
        }
        if self.filling.is_none() {
            let segment = SegmentId(self.tier.take_number().await?);
            let generation = self.tier.writer()?;
            let bytes = std::mem::take(&mut self.spare);
            let builder = SegmentBuilder::new(self.tier.volume, segment, generation, self.epoch, bytes);
            let object = Provisional::new(&self.tier, ObjectName::segment(segment));
            self.filling = Some((builder, object));
        }
        let placed = self.filling.as_mut().and_then(|(builder, _)| {
            let header = header.moved_to(builder.segment());
            builder.append(&header, stored)
        });
        placed.ok_or_else(|| CapacityError::Misuse(format!("no place for block {}", header.block)))
    }

    /// Sends the last segment off and waits until all are durable.
    pub async fn finish(mut self) -> Result<Vec<WrittenSegment<S>>> {
        if self.failed {
            return Err(CapacityError::Misuse(
                "a layer committed after one of its blocks had failed".to_owned(),
            ));
        }
        self.send_off().await?;
        while !self.in_flight.is_empty() {
            self.wait_for_first().await?;
        }
        Ok(self.written)
    }

    async fn send_off(&mut self) -> Result<()> {
        while self.in_flight.len() >= SEGMENTS_IN_FLIGHT {
            self.wait_for_first().await?;
        }
        let Some((builder, object)) = self.filling.take() else { return Ok(()) };
        let (header, bytes) = builder.finish();
        debug_assert!(bytes.len() as u64 <= MAX_SEGMENT_BYTES);
        let (tier, held) = (Rc::clone(&self.tier), Rc::clone(&object));
        let upload = tokio::task::spawn_local(async move {
            // Held to the end, so that the object is not queued for deletion while it is being written.
            let name = held.name;
            tier.store.put(name, bytes).await
        });
        let live_units = header.units.saturating_sub(1);
        let (live_records, units) = (header.records, header.units);
        let usage = SegmentUse { epoch: self.epoch, live_records, live_units, units };
        let written = WrittenSegment { segment: header.segment, object, usage };
        self.in_flight.push_back(InFlight { upload, written });
        Ok(())
    }

    async fn wait_for_first(&mut self) -> Result<()> {
        let Some(first) = self.in_flight.front_mut() else { return Ok(()) };
        let name = first.written.object.name;
        let ended = (&mut first.upload).await;
        let first = self.in_flight.pop_front();
        self.failed |= !matches!(ended, Ok((Ok(()), _)));
        let (result, bytes) =
            ended.map_err(|error| CapacityError::Misuse(format!("writing {name} stopped: {error}")))?;
        result.map_err(|error| self.tier.io_error("write", name, error))?;
        self.spare = bytes;
        self.written.extend(first.map(|first| first.written));
        Ok(())
    }
}
