"""The cliff: the fast tier is full of dirty data and the capacity tier is slow. How fast are writes then, and how long
does one take? Everything is measured side by side in one boot, against what write-back alone does."""

import os
import random
import threading
import time
from pathlib import Path

from dm import mapped, modules
from faults_fast import REQUEST_LIMIT
from lab import BLOCK, MIB, equal, expect, run, test, until
from replay import Device
from rig import Failed, quiet_umount

FAST_SECTORS = 256 * MIB // 512
SLOW_MB = 24  # megabytes a second of the capacity tier's device
VOLUME_BLOCKS = 1536 * MIB // BLOCK
ALONE_BLOCKS = 96 * MIB // BLOCK
WRITERS = 4
SECONDS = 40
SETTLE = 5  # seconds after the first wait that are not counted
LEAST_SHARE = 0.9  # of write-back alone
# What a write may wait for, stated in docs/reliability.md: the segments that are on their way at a layer's end, twice
# over, in bytes at the rate of write-back; and the layer's table and HEAD.
LONGEST_BYTES, LONGEST_MORE = 2 * 24 * MIB, 2.0


def slow_disk(lab, megabytes):
    """A disk in memory that moves so many megabytes a second, with an ext4 for a capacity tier."""
    modules("configfs")
    run(["modprobe", "null_blk", "nr_devices=0"], 30)
    run(["mount", "-t", "configfs", "none", "/sys/kernel/config"], 20, ok=None)
    disk = Path("/sys/kernel/config/nullb/slow")
    disk.mkdir()
    for name, value in {"size": 2560, "memory_backed": 1, "blocksize": 4096, "completion_nsec": 0}.items():
        (disk / name).write_text(str(value))
    (disk / "mbps").write_text(str(megabytes))
    (disk / "power").write_text("1")

    def remove():
        (disk / "power").write_text("0")
        disk.rmdir()

    lab.later(remove)
    device = "/dev/slow" if Path("/dev/slow").exists() else "/dev/nullb0"
    run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-m", "0", device], 300)
    place = lab.work / "slow-place"
    place.mkdir(exist_ok=True)
    run(["mount", device, place], 60)
    lab.later(lambda: quiet_umount(place))
    return place


class Writer(threading.Thread):
    """Writes whole blocks, each once, as fast as they go; notes when each ended and how long it took."""

    def __init__(self, path, blocks, noise):
        super().__init__(daemon=True)
        self.device, self.blocks, self.noise = Device(path), blocks, noise
        self.ends, self.failure, self.stopping = [], None, threading.Event()

    def run(self):
        try:
            buffer = self.device.buffer[:BLOCK]
            for block in self.blocks:
                if self.stopping.is_set():
                    break
                at = random.randrange(len(self.noise) - BLOCK)
                buffer[:] = self.noise[at : at + BLOCK]
                began = time.monotonic()
                os.pwritev(self.device.file, [buffer], block * BLOCK)
                ended = time.monotonic()
                self.ends.append((ended, ended - began))
        except Exception as error:  # noqa: BLE001: told by whoever waits
            self.failure = error
        finally:
            self.device.close()


def written_back_alone(volume, device, blocks, noise):
    """Bytes a second of write-back, with no request beside it."""
    writer = Writer(device, blocks, noise)
    writer.start()
    writer.join(REQUEST_LIMIT)
    expect(not writer.is_alive() and not writer.failure, lambda: f"the writer: {writer.failure}")
    # The seals that writing alone may cause are not of interest.
    began, before = time.monotonic(), volume.status()["volume"]["written_back_bytes"]
    volume.snapshot(f"alone{blocks[0]}")
    until("write-back alone", 120, lambda: volume.status()["volume"]["epochs_not_written_back"] == 0, 0.5)
    written = volume.status()["volume"]["written_back_bytes"] - before
    return written / (time.monotonic() - began)


def share(ends, fraction):
    ends = sorted(took for _, took in ends)
    return ends[min(len(ends) - 1, int(len(ends) * fraction))]


@test
def the_cliff(lab):
    """Writes of whole blocks, each once, far beyond what the fast tier holds and the capacity tier takes."""
    modules("dm_mod")
    place = slow_disk(lab, SLOW_MB)
    fast = mapped(lab, "clifffast", lab.extra_disks[0], FAST_SECTORS)
    volume = lab.volume("cliff", "1536M", "0", "--sync-interval", "3600", fast=fast.path, capacity=place / "tier")
    device = volume.add()
    noise = os.urandom(4 * MIB)
    order = list(range(VOLUME_BLOCKS))
    random.Random(3).shuffle(order)
    first, last, order = order[:ALONE_BLOCKS], order[ALONE_BLOCKS : 2 * ALONE_BLOCKS], order[2 * ALONE_BLOCKS :]
    alone = [written_back_alone(volume, device, first, noise)]
    writers = [Writer(device, order[number::WRITERS], noise) for number in range(WRITERS)]
    began = time.monotonic()
    for writer in writers:
        writer.start()

    def waits():
        return volume.status()["volume"]["waits_for_room"] > 0 or any(w.failure for w in writers)

    until("the fast tier to be full", 60, waits, 0.2)
    full = time.monotonic()
    time.sleep(SETTLE)
    written = volume.status()["volume"]["written_back_bytes"]
    measured = time.monotonic()
    refused = None
    while time.monotonic() < measured + SECONDS:
        time.sleep(4)
        done = volume.forerun.try_("snapshot", "create", volume.name, "late", limit=REQUEST_LIMIT)
        if done.returncode != 0:
            refused = done.stderr.strip()
        else:
            volume.forerun("snapshot", "delete", volume.name, "late", limit=REQUEST_LIMIT)
    ended = time.monotonic()
    status = volume.status()["volume"]
    for writer in writers:
        writer.stopping.set()
    for writer in writers:
        writer.join(REQUEST_LIMIT)
        if writer.is_alive() or writer.failure:
            raise Failed(f"a writer failed or hangs: {writer.failure}")
    volume.written_back(REQUEST_LIMIT + 60)
    alone.append(written_back_alone(volume, device, last, noise))
    ends = sorted(end for writer in writers for end in writer.ends)
    during = [(end, took) for end, took in ends if measured <= end < ended]
    rate = len(during) * BLOCK / (ended - measured)
    before = [took for end, took in ends if end < full]
    seconds = [0] * (int(ended - began) + 1)
    for end, _ in ends:
        if end < ended:
            seconds[int(end - began)] += BLOCK / MIB
    base = sum(alone) / len(alone)
    lab.note(f"write-back alone {alone[0] / MIB:.1f} and {alone[1] / MIB:.1f} MiB/s; writes at the cliff {rate / MIB:.1f} MiB/s: {rate / base:.2f} of it")
    lab.note(f"written back meanwhile {(status['written_back_bytes'] - written) / MIB / (ended - measured):.1f} MiB/s")
    lab.note(
        f"latency at the cliff: median {share(during, 0.5):.3f} s, p99 {share(during, 0.99):.2f} s, p99.9 {share(during, 0.999):.2f} s, "
        f"longest {share(during, 1.0):.2f} s, of {len(during)} writes; {len(before) * BLOCK // MIB} MiB before it was full"
    )
    lab.note("MiB in each second: " + " ".join(f"{value:.0f}" for value in seconds))
    lab.note(f"a snapshot: {refused or 'taken each time'}")
    equal(status["failed_requests"], 0, "failed requests")
    expect(rate >= LEAST_SHARE * base, f"writes go at {rate / base:.2f} of what write-back alone does")
    longest = LONGEST_BYTES / base + LONGEST_MORE
    expect(share(during, 1.0) <= longest, f"a write took {share(during, 1.0):.2f} s; at most {longest:.1f} s are stated")
    expect(refused and "write" in refused, f"no snapshot was refused: {refused}")
