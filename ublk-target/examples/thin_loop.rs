//! The thinnest ublk target there is, to measure forerun against: a file shown as a device.
//!
//! As libublk's own loop example in its async form: its executor, its futures, its event loop, one operation a
//! request, no checks, no recovery, nothing durable. It stays in the foreground and ends when its device is
//! stopped (SIGINT, SIGTERM or `ublk del`).

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, bail};
use clap::Parser;
use io_uring::{opcode, squeue, types};
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::helpers::IoBuf;
use libublk::io::{UblkDev, UblkQueue};
use libublk::uring_async::ublk_submit_sqe_async;
use libublk::{BufDesc, UblkError, UblkFlags, UblkUringData, sys};
use nix::libc;

/// Shows a file as a ublk device, as thinly as libublk can
#[derive(Parser)]
struct Args {
    /// The file or block device, opened with O_DIRECT
    #[arg(long)]
    file: PathBuf,
    /// The device's number; -1 for the first free one
    #[arg(short = 'n', long, default_value_t = -1, allow_negative_numbers = true)]
    id: i32,
    /// Queues
    #[arg(short, long, default_value_t = 1)]
    queues: u16,
    /// Requests under way at once in each
    #[arg(short, long, default_value_t = 128)]
    depth: u16,
    /// Zero copy (AUTO_BUF_REG) instead of copying pages
    #[arg(short, long)]
    zero_copy: bool,
}

const FILE: types::Fixed = types::Fixed(1);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&args.file)
        .with_context(|| args.file.display().to_string())?;
    let size = file.seek(SeekFrom::End(0))?;
    let auto = u64::from(sys::UBLK_F_AUTO_BUF_REG);
    let control = UblkCtrlBuilder::default()
        .name("thin_loop")
        .id(args.id)
        .nr_queues(args.queues)
        .depth(args.depth)
        .ctrl_flags(if args.zero_copy { auto } else { 0 })
        .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV)
        .build()?;
    if args.zero_copy && control.dev_info().flags & auto == 0 {
        bail!("this kernel has no zero copy (AUTO_BUF_REG)");
    }
    let id = i32::try_from(control.dev_info().dev_id)?;
    let prepare = |device: &mut UblkDev| {
        device.set_default_params(size);
        device.tgt.params.basic.logical_bs_shift = 12;
        device.tgt.fds[1] = file.as_raw_fd();
        device.tgt.nr_fds = 2;
        Ok(())
    };
    // The signals are taken by a thread; those of the queues are started after this.
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::SIGINT);
    signals.add(nix::sys::signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok()
            && let Err(error) = UblkCtrl::new_simple(id).and_then(|control| control.kill_dev())
        {
            eprintln!("stopping: {error}");
        }
    });
    control.run_target(prepare, serve, |control| control.dump())?;
    Ok(())
}

fn serve(number: u16, device: &UblkDev) {
    let queue = match UblkQueue::new(number, device) {
        Ok(queue) => Rc::new(queue),
        Err(error) => return eprintln!("queue {number}: {error}"),
    };
    let executor = Rc::new(smol::LocalExecutor::new());
    let tasks: Vec<_> = queue
        .tags()
        .map(|tag| {
            let queue = Rc::clone(&queue);
            executor.spawn(async move {
                match tag_task(&queue, tag).await {
                    Err(UblkError::QueueIsDown) | Ok(()) => {}
                    Err(error) => eprintln!("tag {tag}: {error}"),
                }
            })
        })
        .collect();
    let ticks = Rc::clone(&executor);
    smol::block_on(executor.run(async move {
        let run = || while ticks.try_tick() {};
        let done = || tasks.iter().all(smol::Task::is_finished);
        if let Err(error) = libublk::wait_and_handle_io_events(&queue, Some(20), run, done).await {
            eprintln!("queue {number}: {error}");
        }
    }));
}

async fn tag_task(queue: &UblkQueue<'_>, tag: u16) -> Result<(), UblkError> {
    let zero_copy = queue.support_auto_buf_zc();
    let bytes = if zero_copy { 4096 } else { queue.dev.dev_info.max_io_buf_bytes as usize };
    let buffer = IoBuf::<u8>::new(bytes);
    let pages = sys::ublk_auto_buf_reg { index: tag, ..Default::default() };
    if zero_copy {
        queue.submit_io_prep_cmd(tag, BufDesc::AutoReg(pages), 0, None).await?;
    } else {
        queue.submit_io_prep_cmd(tag, BufDesc::Slice(buffer.as_slice()), 0, Some(&buffer)).await?;
    }
    loop {
        let described = queue.get_iod(tag);
        let (offset, len) = (described.start_sector << 9, described.nr_sectors << 9);
        let entry = match (described.op_flags & 0xff, zero_copy) {
            (sys::UBLK_IO_OP_READ, false) => {
                opcode::Read::new(FILE, buffer.as_mut_ptr(), len).offset(offset).build()
            }
            (sys::UBLK_IO_OP_WRITE, false) => {
                opcode::Write::new(FILE, buffer.as_mut_ptr(), len).offset(offset).build()
            }
            (sys::UBLK_IO_OP_READ, true) => {
                opcode::ReadFixed::new(FILE, std::ptr::null_mut(), len, tag).offset(offset).build()
            }
            (sys::UBLK_IO_OP_WRITE, true) => {
                opcode::WriteFixed::new(FILE, std::ptr::null(), len, tag).offset(offset).build()
            }
            _ => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
        };
        let result = operation(entry).await;
        let commit = if zero_copy { BufDesc::AutoReg(pages) } else { BufDesc::Slice(buffer.as_slice()) };
        queue.submit_io_commit_cmd(tag, commit, result).await?;
    }
}

async fn operation(entry: squeue::Entry) -> i32 {
    ublk_submit_sqe_async(entry, UblkUringData::Target as u64).await.unwrap_or(-libc::EIO)
}
