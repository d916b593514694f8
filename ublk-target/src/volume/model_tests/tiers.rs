//! The capacity tier in memory, and what requests ask of other threads.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use forerun::geometry::{BlockIndex, Epoch};

use super::log::MemoryLog;
use crate::aligned::AlignedBuffer;
use crate::fast_tier::log::DeltaLog;
use crate::volume::handle::Services;
use crate::volume::{Flushes, lock};

pub type Places = Vec<(BlockIndex, Option<NonZeroU64>)>;

#[derive(Default)]
pub struct Capacity {
    blocks: HashMap<u64, (BlockIndex, Arc<AlignedBuffer>)>,
    /// What HEAD names.
    pub layers: Vec<(Epoch, Places)>,
}

impl Capacity {
    pub fn read(&self, block: BlockIndex, place: NonZeroU64) -> Arc<AlignedBuffer> {
        let (of, data) = self.blocks.get(&place.get()).expect("a place that is named exists");
        assert_eq!(*of, block, "a place belongs to its block");
        data.clone()
    }

    pub fn store(&mut self, block: BlockIndex, data: AlignedBuffer) -> NonZeroU64 {
        let place = NonZeroU64::new(self.blocks.len() as u64 + 1).expect("not zero");
        self.blocks.insert(place.get(), (block, Arc::new(data)));
        place
    }

    pub fn written_back(&self) -> Epoch {
        self.layers.last().map_or(Epoch(0), |(epoch, _)| *epoch)
    }
}

pub struct TestServices {
    pub capacity: Arc<Mutex<Capacity>>,
    pub log: Arc<MemoryLog>,
    pub room_wanted: Mutex<bool>,
    pub flush_wanted: Mutex<bool>,
    pub flushes: Flushes,
}

impl Services for TestServices {
    async fn fetch(&self, block: BlockIndex, place: NonZeroU64) -> io::Result<Arc<AlignedBuffer>> {
        Ok(lock(&self.capacity).read(block, place))
    }

    async fn commit(&self) -> io::Result<()> {
        *lock(&self.flush_wanted) = true;
        let target = self.log.appended();
        std::future::poll_fn(|_| if self.log.durable() >= target { Poll::Ready(()) } else { Poll::Pending })
            .await;
        Ok(())
    }

    fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    fn flush_failed(&self, _: &io::Error) {
        self.log.failed.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn fast_tier_failed(&self, _: &'static str, _: BlockIndex, _: &io::Error) {}

    fn need_room(&self) {
        *lock(&self.room_wanted) = true;
    }
}
