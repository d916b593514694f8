//! A snapshot shown read-only: served from the capacity tier alone, while the volume goes on elsewhere.
//!
//! The map is read once, when the snapshot is opened. A lease on the capacity tier keeps everything it
//! names from being deleted for as long as this process lives.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use forerun::config::CapacityAddress;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Geometry};
use tokio::sync::{mpsc, oneshot};

use crate::aligned::AlignedBuffer;
use crate::background::Reply;
use crate::capacity_tier::{CapacityTier, Place, SnapshotName, VolumeUuid};
use crate::request::{Backend, Operation, Request, RequestIo};
use crate::volume::{PlaceMap, Span, lock};

/// Blocks kept in memory after they were read, so that small reads in a row decompress a block once.
const BLOCKS_KEPT: usize = 64;
/// So often reads under way are waited for at the end, 20 ms each.
const CLOSE_TRIES: u32 = 100;

struct Fetch {
    block: BlockIndex,
    place: NonZeroU64,
    reply: Reply<Arc<AlignedBuffer>>,
}

/// A snapshot that serves reads.
pub struct SnapshotBackend {
    geometry: Geometry,
    places: Arc<PlaceMap>,
    /// None: no more.
    fetches: mpsc::UnboundedSender<Option<Fetch>>,
    /// The last blocks read, the newest at the end.
    recent: Mutex<Vec<(BlockIndex, Arc<AlignedBuffer>)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SnapshotBackend {
    /// Opens a snapshot that is on the capacity tier.
    ///
    /// # Errors
    /// No such snapshot there, a capacity tier that cannot be read, no thread.
    pub fn open(address: &CapacityAddress, volume: [u8; 16], name: &SnapshotName) -> io::Result<Self> {
        let (fetches, asked) = mpsc::unbounded_channel();
        let (opened, told) = std::sync::mpsc::channel();
        let (address, name) = (address.clone(), name.clone());
        // Made on the thread that it never leaves.
        let run = move || async move {
            match load(&address, volume, &name).await {
                Ok((tier, geometry, places)) => {
                    let _ = opened.send(Ok((geometry, places)));
                    serve(tier, asked).await;
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("capacity".to_owned())
            .spawn(move || tokio_uring::start(run()))?;
        let (geometry, places) =
            told.recv().map_err(|_| io::Error::other("the thread that reads the capacity tier ended"))??;
        Ok(Self { geometry, places, fetches, recent: Mutex::default(), thread: Mutex::new(Some(thread)) })
    }

    /// Gives the snapshot's lease back: it can be deleted from then on. The device has to be stopped before.
    pub fn close(&self) {
        // A closed channel means that the thread has ended already.
        let _ = self.fetches.send(None);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that read the capacity tier ended by a panic");
        }
    }

    async fn block(&self, block: BlockIndex, place: NonZeroU64) -> io::Result<Arc<AlignedBuffer>> {
        if let Some((_, data)) = lock(&self.recent).iter().find(|(kept, _)| *kept == block) {
            return Ok(data.clone());
        }
        let gone = || io::Error::other("the snapshot is being closed");
        let (reply, answer) = oneshot::channel();
        self.fetches.send(Some(Fetch { block, place, reply })).map_err(|_| gone())?;
        let data = answer.await.map_err(|_| gone())??;
        let mut recent = lock(&self.recent);
        if recent.len() >= BLOCKS_KEPT {
            recent.remove(0);
        }
        recent.push((block, data.clone()));
        Ok(data)
    }
}

async fn load(
    address: &CapacityAddress,
    volume: [u8; 16],
    name: &SnapshotName,
) -> io::Result<(CapacityTier, Geometry, Arc<PlaceMap>)> {
    let (tier, epoch) = CapacityTier::open_snapshot(address, Some(VolumeUuid(volume)), name)
        .await
        .map_err(io::Error::other)?;
    let geometry = tier.head().geometry;
    let places = PlaceMap::new(geometry.blocks());
    tier.load_places(Some(epoch), &mut |block, _, place| {
        places.set(block, place.map(Place::word));
    })
    .await
    .map_err(io::Error::other)?;
    Ok((tier, geometry, Arc::new(places)))
}

async fn serve(tier: CapacityTier, mut asked: mpsc::UnboundedReceiver<Option<Fetch>>) {
    let mut tier = std::rc::Rc::new(tier);
    while let Some(Some(Fetch { block, place, reply })) = asked.recv().await {
        let tier = tier.clone();
        tokio::task::spawn_local(async move {
            let mut data = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
            let read = match Place::from_word(place.get()) {
                Some(place) => tier.read_block(place, block, &mut data).await.map_err(|error| {
                    tracing::error!(%block, %error, "a block of the snapshot cannot be read");
                    io::Error::from_raw_os_error(nix::libc::EIO)
                }),
                None => Err(io::Error::other("an impossible place")),
            };
            // Whoever asked may have gone away.
            let _ = reply.send(read.map(|()| Arc::new(data)));
        });
    }
    // What is still being read is wanted by nobody any more.
    for _ in 0..CLOSE_TRIES {
        match std::rc::Rc::try_unwrap(tier) {
            Ok(tier) => return tier.close().await,
            Err(held) => tier = held,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Backend for SnapshotBackend {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_only(&self) -> bool {
        true
    }

    fn fast_tier(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        match request.operation {
            Operation::Read => {}
            Operation::Flush => return Ok(()),
            Operation::Write { .. } | Operation::Discard | Operation::WriteZeroes { .. } => {
                return Err(io::Error::from_raw_os_error(nix::libc::EROFS));
            }
        }
        let mut at = 0;
        for span in Span::cut(request.offset_bytes, request.len_bytes.into()) {
            match self.places.get(span.block) {
                None => io.zero(at, span.len).await?,
                Some(place) => {
                    let data = self.block(span.block, place).await?;
                    let range = span.start as usize..(span.start + span.len) as usize;
                    let bytes = data.get(range).ok_or_else(|| io::Error::other("a short block"))?;
                    io.put(at, bytes).await?;
                }
            }
            at += span.len;
        }
        Ok(())
    }
}
