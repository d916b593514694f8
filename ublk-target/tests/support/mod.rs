//! A volume of its own for each test: the whole engine in this process, on real files, through io_uring.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use forerun::config::{
    CapacityAddress, CapacityTierConfig, FastTierConfig, HydrateOrder, Paths, SnapshotName, SyncInterval,
    VolumeConfig, VolumeName,
};
use forerun::geometry::{Epoch, Geometry};
use forerun::prediction::{Horizon, Threshold};
use io_uring::{IoUring, opcode, types};
use ublk_target::aligned::AlignedBuffer;
use ublk_target::control::ControlPlane;
use ublk_target::engine::{Open, Opened, VolumeControl, create};
use ublk_target::request::{Backend, Operation, Request, RequestIo};

pub const VOLUME_BYTES: u64 = 128 << 20;
pub const FAST_BYTES: u64 = 64 << 20;

/// A request's data in memory; the fast tier through a ring of its own, one operation at a time.
pub struct RingIo<'a> {
    ring: &'a RefCell<IoUring>,
    fd: i32,
    data: RefCell<AlignedBuffer>,
}

impl RingIo<'_> {
    fn submit(&self, entry: &io_uring::squeue::Entry) -> io::Result<usize> {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: the buffers that the entry names outlive this call, which waits for its completion.
        unsafe { ring.submission().push(entry).expect("an empty queue takes an entry") };
        ring.submit_and_wait(1)?;
        let result = ring.completion().next().expect("one completion").result();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) }
    }

    fn transfer(&self, write: bool, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        // What direct I/O accepts, whatever the caller has.
        let mut bounce = AlignedBuffer::zeroed(bytes.len());
        let len = bytes.len() as u32;
        let fd = types::Fd(self.fd);
        let entry = if write {
            bounce.copy_from_slice(bytes);
            opcode::Write::new(fd, bounce.as_ptr(), len).offset(at).build()
        } else {
            opcode::Read::new(fd, bounce.as_mut_ptr(), len).offset(at).build()
        };
        assert_eq!(self.submit(&entry)?, bytes.len(), "a short transfer of a small file");
        bytes.copy_from_slice(&bounce);
        Ok(())
    }
}

impl RequestIo for RingIo<'_> {
    async fn fast_to_data(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        let mut data = self.data.borrow_mut();
        self.transfer(false, fast, &mut data[at as usize..(at + len) as usize])
    }

    async fn data_to_fast(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        let mut data = self.data.borrow_mut();
        self.transfer(true, fast, &mut data[at as usize..(at + len) as usize])
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        let len = bytes.len();
        bytes.copy_from_slice(&self.data.borrow()[at as usize..at as usize + len]);
        Ok(())
    }

    async fn read_fast(&self, fast: u64, mut buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        (self.transfer(false, fast, &mut buffer), buffer)
    }

    async fn write_fast(&self, fast: u64, mut buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        (self.transfer(true, fast, &mut buffer), buffer)
    }

    async fn flush_fast(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(types::Fd(self.fd)).flags(types::FsyncFlags::DATASYNC).build();
        self.submit(&entry).map(|_| ())
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let begun = Instant::now();
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "a request hangs");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

pub fn request<B: Backend>(
    backend: &B,
    operation: Operation,
    offset: u64,
    data: &mut [u8],
    len: u32,
) -> io::Result<()> {
    let ring = RefCell::new(IoUring::new(8).expect("a ring"));
    let fd = backend.fast_tier().map_or(-1, |fd| fd.as_raw_fd());
    let mut buffer = AlignedBuffer::zeroed(data.len().max(1));
    buffer[..data.len()].copy_from_slice(data);
    let io = RingIo { ring: &ring, fd, data: RefCell::new(buffer) };
    block_on(backend.handle(Request { operation, offset_bytes: offset, len_bytes: len }, &io))?;
    data.copy_from_slice(&io.data.into_inner()[..data.len()]);
    Ok(())
}

pub fn write<B: Backend>(backend: &B, offset: u64, byte: u8, len: usize) {
    let operation = Operation::Write { fua: false };
    request(backend, operation, offset, &mut vec![byte; len], len as u32).expect("a write");
}

pub fn read<B: Backend>(backend: &B, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xDD; len];
    request(backend, Operation::Read, offset, &mut data, len as u32).expect("a read");
    data
}

pub fn all_are(data: &[u8], byte: u8) -> bool {
    data.iter().all(|have| *have == byte)
}

pub struct Rig {
    _folder: tempfile::TempDir,
    pub root: PathBuf,
    pub config: VolumeConfig,
    pub paths: Paths,
}

impl Rig {
    pub fn new(logical_block_bytes: u32) -> Self {
        Self::sized(VOLUME_BYTES, FAST_BYTES, logical_block_bytes, None)
    }

    pub fn sized(
        volume_bytes: u64,
        fast_bytes: u64,
        logical_block_bytes: u32,
        capacity: Option<CapacityAddress>,
    ) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let root = folder.path().to_owned();
        let paths = Paths::new(root.join("state"), root.join("run"));
        let name = VolumeName::new("v").expect("a name");
        std::fs::create_dir_all(paths.volume(&name).run_dir()).expect("a run folder");
        std::fs::create_dir_all(paths.volume(&name).state_dir()).expect("a state folder");
        let config = VolumeConfig {
            name,
            uuid: uuid::Uuid::new_v4(),
            geometry: Geometry::new(volume_bytes, logical_block_bytes).expect("a geometry"),
            fast: FastTierConfig { path: root.join("fast"), size_bytes: Some(fast_bytes) },
            capacity: CapacityTierConfig {
                address: capacity.unwrap_or_else(|| root.join("capacity").into()),
            },
            sync_interval: SyncInterval::new(3600).expect("an interval"),
            threshold: Threshold::DEFAULT,
            horizon: Horizon::DEFAULT,
            prediction: true,
            hydrate: HydrateOrder::Expected,
            created_us: 1,
        };
        create(&config).expect("a new volume");
        Self { _folder: folder, root, config, paths }
    }

    pub fn open(&self, how: Open) -> (Opened, VolumeControl) {
        let opened =
            Opened::open(&self.config, &self.paths.volume(&self.config.name), how).expect("it opens");
        let control = VolumeControl::new(self.config.clone(), self.paths.clone(), opened.backend.clone());
        (opened, control)
    }
}

/// Waits until a snapshot is on the capacity tier.
pub fn written_back(control: &VolumeControl, snapshot: &str) -> Epoch {
    let snapshots = control.snapshots().expect("a list");
    let found =
        snapshots.iter().find(|found| found.name.as_str() == snapshot).expect("the snapshot is there");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let progress = control.write_back().borrow().clone();
        assert_eq!(progress.error, "", "write-back fails");
        if progress.epoch >= found.epoch {
            return found.epoch;
        }
        assert!(Instant::now() < deadline, "write-back takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn name(text: &str) -> SnapshotName {
    SnapshotName::new(text).expect("a snapshot's name")
}
