"""kill -9 of the target and of the trainer under load, with snapshots going on."""

import os
import re
import signal
import time
from pathlib import Path

from lab import MIB, equal, expect, last_lines, run, test
from patterns import Patterns
from rig import Job, drop_caches

SIZES = "4k/50:8k/10:12k/5:64k/20:68k/5:256k/7:1m/3"


def verified_load(lab, filename, size, seconds, **more):
    """fio: mixed reads and writes of many sizes, every block verified. Its job is a thread: as a process it would be in
    a session of its own, and go on after a kill of fio."""
    options = {
        "name": "load", "thread": 1, "filename": filename, "size": size, "rw": "randrw", "direct": 1, "ioengine": "libaio",
        "iodepth": 16, "bssplit": SIZES, "verify": "crc32c", "verify_backlog": 128, "verify_fatal": 1,
        "runtime": seconds, "time_based": 1, "randseed": 11, "do_verify": 1,
    } | more  # fmt: skip
    command = ["fio", *(f"--{name}={value}" for name, value in options.items())]
    return lab.job(Job(command, lab.logs / f"fio-{len(lab.jobs)}.log"))


def start_trainer(lab, volume):
    return lab.job(
        Job(
            [lab.forerun.program("forerun-trainer"), "run", volume.name],
            lab.logs / f"trainer-{len(lab.jobs)}.log",
            env=lab.forerun.env,
        )
    )


@test
def kills_under_verified_load_with_snapshots(lab):
    """Half of the device under fio, half with known patterns and a snapshot of each; two kills of the
    target and one of the trainer. No error, and each snapshot reads back as it was."""
    fast = lab.extra_disks[0] if lab.extra_disks else None
    volume = lab.volume("kills", "512M", "512M", "--sync-interval", "5", fast=fast)
    device = volume.add(trainer=True)
    load = verified_load(lab, device, "256M", 24)
    patterns = Patterns(lab.device(device), 256 * MIB // 4096, 64 * MIB // 4096, seed=5)
    began, count, events = time.monotonic(), 0, [(6, "target"), (12, "trainer"), (17, "target")]
    while load.running():
        if events and time.monotonic() - began > events[0][0]:
            what = events.pop(0)[1]
            if what == "target":
                volume.kill()
                time.sleep(0.5)
                equal(volume.recover(), device, "the recovered device")
            else:
                pid = lab.forerun.trainer_pid(volume.name)
                expect(pid is not None, "no trainer was noted by `forerun add`")
                os.kill(pid, signal.SIGKILL)
                start_trainer(lab, volume)
        patterns.write_some(25)
        count += 1
        name = f"s{count}"
        patterns.moment(name)
        volume.snapshot(name)
        expect(time.monotonic() - began < 150, "the load takes longer than it may")
        time.sleep(0.5)
    load.succeed(1)
    expect(not events, f"the load ended before {events}")
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")
    drop_caches()
    equal(patterns.problems(device, patterns.device.model), [], "what differs on the device")
    patterns.close()
    for name, moment in patterns.moments.items():
        shown = volume.attach(name)
        equal(run(["blockdev", "--getro", shown]).strip(), "1", f"{name} is read-only")
        equal(patterns.problems(shown, moment), [], f"what differs in snapshot {name}")
        volume.detach(name)
    lab.note(f"{count} snapshots, 2 kills of the target, 1 of the trainer")
    volume.delete()
    volume.check()
    # Everything again from the tiers alone.
    volume.add()
    equal(patterns.problems(device, patterns.device.model), [], "what differs after a restart")


def killed_file_system(lab, make, fsck):
    volume = lab.volume("killfs", "1G", "256M", "--sync-interval", "4")
    device = volume.add()
    run(make + [device], 180)
    path = lab.mount(device)
    load = verified_load(lab, path / "load", "64M", 9, fsync=32)
    time.sleep(3)
    volume.kill()
    time.sleep(1)
    volume.recover()
    (path / "after").write_bytes(b"after the kill" * 1000)
    time.sleep(2)
    volume.snapshot("under-load")
    load.succeed(120)
    lab.unmount(path)
    run(fsck + [device], 180)
    path = lab.mount(device)
    equal((path / "after").read_bytes(), b"after the kill" * 1000, "a file written after the kill")
    lab.unmount(path)
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")


@test
def kill_under_ext4(lab):
    killed_file_system(lab, ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0"], ["e2fsck", "-fn"])


@test
def kill_under_xfs(lab):
    killed_file_system(lab, ["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"])


@test
def kill_while_idle_and_twice_in_a_row(lab):
    """What was acknowledged and never flushed is there after two kills with nothing between."""
    volume = lab.volume("idle", "256M", "128M", "--sync-interval", "3600")
    device = volume.add()
    patterns = Patterns(lab.device(device), 0, 64 * MIB // 4096, seed=6)
    patterns.write_some(60)
    for _ in range(2):
        volume.kill()
        volume.recover()
    equal(patterns.problems(device, patterns.device.model), [], "what differs after two kills")
    patterns.write_some(20)
    volume.kill()
    again = lab.forerun.try_("add", volume.name)
    expect(again.returncode != 0 and "recover" in again.stderr, lambda: f"`add` after a kill: {again.stderr!r}")
    # What a service manager does.
    volume.forerun("add", volume.name, "--or-recover", "--no-trainer", limit=150)
    equal(patterns.problems(device, patterns.device.model), [], "what differs after `add --or-recover`")
    patterns.close()


@test
def stop_under_load(lab):
    """`forerun del` while requests are under way: it ends in time, and what was acknowledged stays."""
    volume = lab.volume("stop", "256M", "128M")
    device = volume.add()
    patterns = Patterns(lab.device(device), 0, 32 * MIB // 4096, seed=8)
    patterns.write_some(60)
    patterns.close()
    load = verified_load(lab, device, "64M", 60, offset="64M", iodepth=32, verify=0, rw="randwrite")
    time.sleep(2)
    expect(load.running(), lambda: f"fio ended early:\n{last_lines(load.text())}")
    began = time.monotonic()
    volume.delete()
    took = time.monotonic() - began
    load.wait(30)
    expect(not Path(device).exists(), f"{device} is still there")
    lab.note(f"stopped in {took:.1f} s")
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    equal(patterns.problems(device, patterns.device.model), [], "what differs after the stop")


# The requests that were under way when the device was removed fail, and the kernel says so.
stop_under_load.expected_kernel_errors = re.compile(r"the kernel: .*I/O error, dev ublkb|async page (read|write)")
