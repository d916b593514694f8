"""What scripts/bench --restore runs in the guest: how soon a volume that was lost is usable, and how soon it is warm.

  restore.py PROGRAMS [--quick]

Root in a throw-away machine is assumed. The capacity tier is a file system on a disk that takes 5 ms a request (null_blk),
then on one that takes 30 ms; the fast tier is a RAM disk that is emptied before each restore. Two volumes:

  hot set   512 MiB of data; one block in twenty, anywhere, is read at a steady rate, 998 reads of a thousand, the others are
            anywhere. Restored while it is read so at once.
  database  ext4 with a PostgreSQL (pgbench's tables); restored, mounted, started, asked.

Each is restored three times: with no hydration (a), with hydration in the order of addresses (b), in the order of expected
use (c). Before (c) a restore without hydration has shown what a start reads first.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from postgres import Postgres  # noqa: E402
from rig import Failed, Forerun, run, until  # noqa: E402
from slow_tier import BLOCK, PAGE, Device, at_hand, note, ram_disk, say, slow_disk  # noqa: E402

QUICK = "--quick" in sys.argv
LATENCIES_MS = (5, 30)
DATA_BLOCKS = (256 << 20 if QUICK else 512 << 20) // BLOCK
HOT_SHARE = 20  # one block in so many
ELSEWHERE = 0.002  # of the reads
RATE = 100  # reads a second
BEFORE, AFTER = (40, 40) if QUICK else (60, 90)  # seconds of reading before the loss and after each restore
LOOK = 1  # seconds between two looks at the status
FAST = 768 << 20
EPOCH = 10  # seconds
ORDERS = ("off", "address", "expected")


class Lost:
    """A volume on the slow tier, lost and restored again and again."""

    def __init__(self, forerun, name, capacity, size):
        self.forerun, self.name, self.capacity = forerun, name, capacity
        empty_fast_tier()
        forerun("create", name, "--size", size, "--fast", "/dev/ram0", "--capacity", capacity, "--sync-interval", EPOCH)
        self.device = forerun("add", name, "--no-trainer")

    def status(self):
        return self.forerun.json("status", self.name, limit=300)["volume"]

    def snapshot(self, name):
        """A snapshot that is on the capacity tier, and a warm list made after it began."""
        before = newest(self.capacity)
        self.forerun("snapshot", "create", self.name, name, limit=300)
        until("write-back", 900, lambda: self.status()["epochs_not_written_back"] == 0, 1)
        until("a warm list", 120, lambda: newest(self.capacity) > before, 1)

    def lose(self):
        self.forerun("del", self.name, limit=300)
        shutil.rmtree(self.forerun.state_dir / self.name)
        shutil.rmtree(self.forerun.run_dir / self.name, ignore_errors=True)
        empty_fast_tier()
        # What the page cache has of the capacity tier, and nothing else.
        mount = Path(self.capacity).parent
        disk = run(["findmnt", "-n", "-o", "SOURCE", mount]).strip()
        run(["umount", mount], limit=300)
        run(["mount", disk, mount], limit=300)

    def restore(self, order):
        """Gives the seconds until the device is there."""
        began = time.monotonic()
        self.forerun("restore", self.capacity, "--as", self.name, "--fast", "/dev/ram0", "--sync-interval", EPOCH, "--hydrate", order)
        self.device = self.forerun("add", self.name, "--no-trainer")
        return time.monotonic() - began


def newest(capacity):
    """The number of the newest warm list; 0 where there is none."""
    return max((int(path.name, 16) for path in Path(capacity, "warm").iterdir()), default=0)


def empty_fast_tier():
    run(["dd", "if=/dev/zero", "of=/dev/ram0", "bs=64K", "count=4", "oflag=direct"])


class Reader:
    """Reads the hot set at a steady rate, for some seconds; `reads`: (seconds since the start, seconds it took)."""

    def __init__(self, path, hot):
        self.device, self.hot = Device(path), hot
        self.chance = random.Random(5)
        self.reads = []

    def run(self, seconds):
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            due = began + number / RATE
            now = time.monotonic()
            if now > began + seconds:
                break
            if due > now:
                time.sleep(due - now)
            anywhere = self.chance.random() < ELSEWHERE
            block = self.chance.randrange(DATA_BLOCKS) if anywhere else self.chance.choice(self.hot)
            at = time.monotonic() - began
            self.reads.append((at, self.device.access(block, self.chance.randrange(BLOCK // PAGE), overwrite=False)))
        self.device.close()


def percentile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


class Looks(threading.Thread):
    """What the status says once a second: the lines, read later. One process asks for all of them: to start one for each look
    costs the guest's one processor so much that one read of a hundred met it, and a p99 was the luck of that one."""

    def __init__(self, volume):
        super().__init__(daemon=True)
        forerun = volume.forerun
        command = [forerun.program("forerun"), "status", volume.name, "--watch", "--interval", str(LOOK), "--json"]
        self.process = subprocess.Popen(command, env=forerun.env, stdout=subprocess.PIPE)
        self.lines, self.began = [], time.monotonic()
        self.start()

    def run(self):
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # it was ended in the middle of it
            self.lines.append((time.monotonic() - self.began, line))

    def end(self):
        """The curve."""
        if self.process.poll() is not None:
            raise Failed(f"`forerun status --watch` ended by itself, with status {self.process.returncode}, after {len(self.lines)} looks")
        self.process.terminate()
        self.process.wait(30)
        self.join(30)
        curve = []
        for at, line in self.lines:
            status = json.loads(line)["volume"]
            hydration = status["hydration"]
            curve.append({"s": at, "moved_bytes": status["promotions"] * BLOCK, "hydrated_bytes": hydration.get("fetched_bytes", 0),
                          "state": hydration.get("state", "")})
        return curve


def read_and_look(volume, hot, seconds):
    """Reads for so long; gives the reads, and what the status said meanwhile. Looking takes time from the one processor, before
    the loss as well as after it."""
    looks, reader = Looks(volume), Reader(volume.device, hot)
    reader.run(seconds)
    return reader, looks.end()


def hot_set(forerun, mount, latency_ms):
    hot = random.Random(3).sample(range(DATA_BLOCKS), DATA_BLOCKS // HOT_SHARE)
    volume = Lost(forerun, "hot", f"{mount}/hot", 1 << 30)
    filler = Device(volume.device)
    filler.fill(DATA_BLOCKS)
    filler.close()
    before, _ = read_and_look(volume, hot, BEFORE)
    steady = percentile([took for at, took in before.reads if at > BEFORE / 2], 0.99)
    volume.snapshot("before")
    for order in ORDERS:
        volume.lose()
        device_s = volume.restore(order)
        reader, curve = read_and_look(volume, hot, AFTER)
        say(kind="restore", latency_ms=latency_ms, order=order, device_s=device_s, steady_p99_ms=1e3 * steady, curve=curve,
            reads=[(round(at, 3), round(1e3 * took, 4)) for at, took in reader.reads])
        waited = sum(took > latency_ms / 2e3 for _, took in reader.reads)
        note(f"{latency_ms} ms, {order}: device after {device_s:.2f} s; {waited} of {len(reader.reads)} reads waited; "
             f"{curve[-1]['moved_bytes'] >> 20} MiB moved; {curve[-1]['state']}")
    volume.lose()


def database(forerun, mount, latency_ms):
    volume = Lost(forerun, "db", f"{mount}/db", 1 << 30)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,nodiscard", volume.device], 600)
    path = Path("/run/db")
    path.mkdir(exist_ok=True)
    run(["mount", volume.device, path])
    postgres = Postgres(path / "data", "/run/db-work")
    postgres.create()
    postgres.start()
    postgres.fill()
    postgres.stop()
    run(["umount", path])
    volume.snapshot("before")
    for order in ("off", *ORDERS):
        volume.lose()
        began = time.monotonic()
        device_s = volume.restore(order)
        run(["mount", volume.device, path])
        postgres.start()
        rows = int(postgres.sql("select count(*) from pgbench_accounts where aid % 1000 = 7"))
        query_s = time.monotonic() - began
        status = volume.status()
        say(kind="database", latency_ms=latency_ms, order=order, device_s=device_s, first_query_s=query_s, rows=rows,
            misses=status["read_misses"], hydrated_bytes=status["hydration"].get("fetched_bytes", 0))
        note(f"{latency_ms} ms, database, {order}: device after {device_s:.2f} s, first query answered after {query_s:.2f} s, "
             f"{status['read_misses']} reads waited")
        # What this start read first is on the next list.
        postgres.stop()
        run(["umount", path])
        time.sleep(11)
        volume.snapshot(f"after-{order}-{time.monotonic_ns()}")
    volume.lose()


def main():
    programs = at_hand(sys.argv[1])
    os.environ["DM_DISABLE_UDEV"] = "1"
    say(kind="about", kernel=os.uname().release, fio="", quick=QUICK, data_bytes=DATA_BLOCKS * BLOCK, hot_blocks=DATA_BLOCKS // HOT_SHARE,
        rate=RATE, fast_bytes=FAST)
    ram_disk(FAST)
    forerun = Forerun(programs, "/tmp/state", "/tmp/run")
    for number, latency_ms in enumerate(LATENCIES_MS):
        mount = Path(f"/run/slow{number}")
        mount.mkdir()
        slow_disk(1536, latency_ms * 1_000_000, number, mount)
        hot_set(forerun, mount, latency_ms)
        database(forerun, mount, latency_ms)


if __name__ == "__main__":
    main()
