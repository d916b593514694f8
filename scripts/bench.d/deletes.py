"""What scripts/bench --deletes runs in the guest: what deleting and pruning snapshots costs the requests beside it.

  deletes.py PROGRAMS [--quick]

Root in a throw-away machine is assumed. The fast tier is a RAM disk, the capacity tier a file system on a disk that takes
5 ms a request (null_blk). A volume of 1 GiB has many snapshots; each has written two thirds of the same blocks anew, so that
a deleted one gives back most of what it had. A hot set that is on the fast tier is read and overwritten at a steady rate,
first with nothing beside it, then while half of the snapshots are deleted in a random order, then while `forerun prune`
deletes most of the rest; after each the capacity tier is merged and compacted, and gives space back. Last once more with
nothing beside it.
"""

import os
import random
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from api_call import Api  # noqa: E402
from rig import Forerun, Job, until  # noqa: E402
from slow_tier import BLOCK, PAGE, Device, at_hand, note, ram_disk, say, slow_disk  # noqa: E402

QUICK = "--quick" in sys.argv
REQUEST_NS = 5_000_000
VOLUME = 1 << 30
FAST = 512 << 20
DATA_BLOCKS = (128 << 20 if QUICK else 256 << 20) // BLOCK
HOT_BLOCKS = 512
SNAPSHOTS = 40 if QUICK else 160
CHANGED, AMONG = 32, 48  # blocks that each snapshot has written, of so many
KEPT = 4  # snapshots that prune keeps
RATE = 100  # requests of each kind a second
SECONDS = 20 if QUICK else 60
DELETE_EVERY = 0.4  # seconds


class Load:
    """Reads and overwrites the hot set at a steady rate; how long each took."""

    def __init__(self, path):
        self.device = Device(path)
        self.chance = random.Random(3)

    def run(self, seconds):
        reads, writes, began = [], [], time.monotonic()
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            at = self.chance.randrange(HOT_BLOCKS) * BLOCK + self.chance.randrange(BLOCK // PAGE) * PAGE
            start = time.monotonic()
            os.preadv(self.device.file, [self.device.buffer], at)
            between = time.monotonic()
            self.device.buffer[:8] = struct.pack("<Q", number)
            os.pwritev(self.device.file, [self.device.buffer], at)
            reads.append(between - start)
            writes.append(time.monotonic() - between)
        return sorted(reads), sorted(writes)


class Volume:
    def __init__(self, forerun):
        self.forerun = forerun
        forerun("create", "deletes", "--size", VOLUME, "--fast", "/dev/ram0", "--capacity", "/mnt/deletes", "--sync-interval", 3600)
        self.path = forerun("add", "deletes", "--no-trainer")

    def status(self):
        return self.forerun.json("status", "deletes", limit=300)["volume"]

    def used(self):
        return self.status()["capacity_tier"]["used_bytes"]

    def written_back(self):
        until("write-back", 1200, lambda: self.status()["epochs_not_written_back"] == 0, 1)

    def settled(self):
        """Until upkeep gives no more space back."""
        seen = [self.used()]
        while len(seen) < 7 or len(set(seen[-7:])) > 1:
            time.sleep(5)
            seen.append(self.used())
        return seen[-1]


def make_snapshots(volume):
    device, chance = Device(volume.path), random.Random(9)
    device.fill(DATA_BLOCKS)
    noise = os.urandom(2 * BLOCK)
    api = Api(volume.forerun.run_dir / "deletes" / "api.sock", limit=300)
    for number in range(SNAPSHOTS):
        for block in chance.sample(range(HOT_BLOCKS, HOT_BLOCKS + AMONG), CHANGED):
            shift = chance.randrange(BLOCK // 512) * 512
            for page in range(0, BLOCK, PAGE):
                device.buffer[:] = noise[shift + page:shift + page + PAGE]
                os.pwritev(device.file, [device.buffer], block * BLOCK + page)
        api.call("CreatePredictiveSnapshot", (1, "deletes"), (3, f"s{number:04d}"))
        if number % 8 == 7:
            volume.written_back()
    volume.written_back()
    # The hot set, so that it is there; what comes after the last snapshot costs no new slot.
    for block in range(HOT_BLOCKS):
        device.access(block, 0)
    api.close()
    device.close()


def delete_half(volume, ended):
    """Deletes snapshots until none of this half is left; gives how many went."""
    names = [f"s{number:04d}" for number in range(SNAPSHOTS)]
    chance = random.Random(4)
    chance.shuffle(names)
    api = Api(volume.forerun.run_dir / "deletes" / "api.sock", limit=300)
    for name in names[:SNAPSHOTS // 2]:
        api.call("DeleteSnapshot", (1, "deletes"), (2, name))
        time.sleep(DELETE_EVERY)
    api.close()
    ended.set()


def measure(volume, load, what, beside=None):
    before = volume.used()
    ended = threading.Event()
    worker = threading.Thread(target=beside, args=(ended,)) if beside else None
    if worker:
        worker.start()
    began = time.monotonic()
    reads, writes = load.run(SECONDS)
    seconds = time.monotonic() - began
    done = ended.is_set()
    if worker:
        worker.join()
    at = lambda values, share: 1e3 * values[min(int(share * len(values)), len(values) - 1)]
    fields = {f"{kind}_{name}_ms": at(values, share) for kind, values in (("read", reads), ("write", writes))
              for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))}
    after = volume.used()
    note(f"{what}: reads p50 {fields['read_p50_ms']:.3f}, p99 {fields['read_p99_ms']:.3f} ms; writes p50 {fields['write_p50_ms']:.3f}, "
         f"p99 {fields['write_p99_ms']:.3f} ms; {(before - after) >> 20} MiB came back meanwhile")
    say(kind="deletes", what=what, requests=len(reads), seconds=seconds, ended_within=done, used_before=before, used_after=after, **fields)
    settled = volume.settled()
    say(kind="settled", what=what, used=settled)


def prune(volume, ended):
    job = Job([volume.forerun.program("forerun"), "prune", "deletes"], Path("/tmp/prune.log"), env=volume.forerun.env)
    job.succeed(600)
    ended.set()


def main():
    programs = at_hand(sys.argv[1])
    say(kind="about", kernel=os.uname().release, fio="", quick=QUICK, snapshots=SNAPSHOTS, changed_blocks=CHANGED, hot_blocks=HOT_BLOCKS,
        rate=RATE, request_ns=REQUEST_NS)
    slow_disk(3 << 10, REQUEST_NS)
    ram_disk(FAST)
    volume = Volume(Forerun(programs, "/tmp/state", "/tmp/run"))
    make_snapshots(volume)
    volume.settled()
    volume.forerun("retention", "deletes", "--named", "on", "--keep-last", KEPT, "--hourly", 0, "--daily", 0, "--weekly", 0,
                   "--monthly", 0, "--yearly", 0)
    load = Load(volume.path)
    load.run(5)
    measure(volume, load, "nothing")
    measure(volume, load, "deleting", lambda ended: delete_half(volume, ended))
    measure(volume, load, "pruning", lambda ended: prune(volume, ended))
    measure(volume, load, "nothing again")
    load.device.close()
    left = volume.forerun.json("snapshot", "list", "deletes")["snapshots"]
    if len(left) != KEPT:
        raise SystemExit(f"{len(left)} snapshots are left, not {KEPT}")
    volume.forerun("del", "deletes", limit=300)
    volume.forerun("check", "deletes", limit=600)


if __name__ == "__main__":
    main()
