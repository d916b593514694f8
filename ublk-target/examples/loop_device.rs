//! `device` and `daemon` over a plain file or block device: what the tests of both run.
//!
//! A volume's name is the path of its file here. Special names show what a broken or slow backend
//! does to a device; they are a comma-separated list after the path (`/dev/vda,foreign,...`):
//!
//! - `foreign`: each request first waits for another thread to wake it;
//! - `stuck`: no request is ever answered;
//! - `panic`: the first write panics;
//! - `bounce`: data goes through buffers of our own, by `put`, `get`, `read_fast` and `write_fast`;
//! - `drop`: each request starts an operation, forgets it, and fails every second time before it is done;
//! - `512`: logical blocks of 512 bytes.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use anyhow::Context;
use forerun::geometry::{BLOCK_BYTES, Geometry};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use ublk_target::aligned::AlignedBuffer;
use ublk_target::daemon::{self, Source};
use ublk_target::request::{Backend, Operation, Request, RequestIo};

struct Files;

struct LoopFile {
    file: File,
    geometry: Geometry,
    ways: Vec<String>,
    helper: mpsc::Sender<(Arc<AtomicBool>, Waker)>,
    count: AtomicU64,
}

impl Source for Files {
    type Backend = LoopFile;

    fn ready(&self, _: &Arc<LoopFile>, _: &ublk_target::device::DeviceInfo) -> anyhow::Result<()> {
        Ok(())
    }

    fn paths(&self, volume: &str) -> Vec<PathBuf> {
        vec![volume.split(',').next().unwrap_or_default().into()]
    }

    fn open(&self, volume: &str, _take_over: bool) -> anyhow::Result<Arc<LoopFile>> {
        let mut words = volume.split(',').map(str::to_owned);
        let path = words.next().unwrap_or_default();
        let ways: Vec<String> = words.collect();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("{path} cannot be opened"))?;
        let size = file.seek(SeekFrom::End(0))?;
        let logical = if ways.iter().any(|way| way == "512") { 512 } else { 4096 };
        let geometry = Geometry::new(size - size % BLOCK_BYTES, logical)?;
        let (helper, work) = mpsc::channel::<(Arc<AtomicBool>, Waker)>();
        std::thread::spawn(move || {
            for (done, waker) in work {
                // Sometimes while the queue is awake, sometimes after it has gone to sleep.
                if (Arc::as_ptr(&done) as usize / 64).is_multiple_of(4) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                done.store(true, Ordering::Release);
                waker.wake();
            }
        });
        Ok(Arc::new(LoopFile { file, geometry, ways, helper, count: AtomicU64::new(0) }))
    }

    fn close(&self, backend: Arc<LoopFile>) -> anyhow::Result<()> {
        backend.file.sync_all()?;
        Ok(())
    }
}

impl LoopFile {
    fn is(&self, way: &str) -> bool {
        !self.ways.is_empty() && self.ways.iter().any(|word| word == way)
    }

    async fn by_another_thread(&self) {
        let done = Arc::new(AtomicBool::new(false));
        let mut sent = false;
        poll_fn(|context| {
            if done.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if !sent {
                sent = self.helper.send((Arc::clone(&done), context.waker().clone())).is_ok();
            }
            Poll::Pending
        })
        .await;
    }

    async fn bounce<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let (offset, len) = (request.offset_bytes, request.len_bytes as usize);
        let mut buffer = AlignedBuffer::zeroed(len);
        let half = (len / 2) as u32;
        if request.operation == Operation::Read {
            let (result, buffer) = io.read_fast(offset, buffer).await;
            result?;
            io.zero(0, len as u32).await?;
            io.put(half, &buffer[half as usize..]).await?;
            return io.put(0, &buffer[..half as usize]).await;
        }
        io.get(0, &mut buffer[..half as usize]).await?;
        io.get(half, &mut buffer[half as usize..]).await?;
        io.write_fast(offset, buffer).await.0
    }
}

impl Backend for LoopFile {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_only(&self) -> bool {
        self.is("ro")
    }

    fn fast_tier(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let Request { operation, offset_bytes, len_bytes } = request;
        if !self.ways.is_empty() {
            if self.is("stuck") {
                std::future::pending::<()>().await;
            }
            if self.is("foreign") {
                self.by_another_thread().await;
            }
            if self.is("panic") && matches!(operation, Operation::Write { .. }) {
                panic!("the test asked for it");
            }
            if self.is("bounce") && matches!(operation, Operation::Read | Operation::Write { .. }) {
                return self.bounce(request, io).await;
            }
            if self.is("drop") && operation == Operation::Read {
                // Begun and forgotten: the answer has to wait for it all the same.
                let mut forgotten = pin!(io.fast_to_data(offset_bytes, 0, len_bytes));
                poll_fn(|context| Poll::Ready(forgotten.as_mut().poll(context).is_ready())).await;
                let buffer = AlignedBuffer::zeroed(4096);
                let mut other = pin!(io.read_fast(0, buffer));
                poll_fn(|context| Poll::Ready(other.as_mut().poll(context).is_ready())).await;
                if self.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                    return Ok(());
                }
            }
        }
        match operation {
            Operation::Read => io.fast_to_data(offset_bytes, 0, len_bytes).await,
            Operation::Write { fua } => {
                io.data_to_fast(offset_bytes, 0, len_bytes).await?;
                if fua { io.flush_fast().await } else { Ok(()) }
            }
            Operation::Flush => io.flush_fast().await,
            Operation::Discard | Operation::WriteZeroes { .. } => {
                let flags = match operation {
                    Operation::Discard => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
                    _ => FallocateFlags::FALLOC_FL_ZERO_RANGE,
                };
                let flags = flags | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(&self.file, flags, offset_bytes as i64, i64::from(len_bytes)).map_err(Into::into)
            }
        }
    }
}

fn main() -> ExitCode {
    daemon::main(&Files, |_| anyhow::bail!("a loop device knows only add, recover, list and del"))
}
