"""Many snapshots on one volume: what making, keeping, reading beside and deleting them costs, and that each shows what it must."""

import os
import random
import struct
import time

from api_call import Api
from lab import BLOCK, MIB, equal, expect, test, until
from replay import Device

UNIT = 4096
PIECE = 256  # units that are written or read at once
CHANGED = 256  # blocks that change between the snapshots; the fast tier has room for them
FAST_MIB = 64
NOTED = 8  # snapshots of which it is known what they must show
KEPT = 3  # of them are deleted last
# What may differ on a machine that others use too: times of single reads, and a moment for what is short.
NOISE, MOMENT = 3.0, 0.0005
SPACE_LIMIT = 300  # seconds, until the space of what was deleted is back
POOL = random.Random(7).randbytes(MIB)


def content(unit, version):
    """What a write leaves in a unit: its place, its number, and what does not compress."""
    start = (unit * 2654435761 + version * 40503) % (len(POOL) - UNIT)
    return struct.pack("<QQ", unit, version) + POOL[start : start + UNIT - 16]


class Content:
    """A device and the version that each unit must hold."""

    def __init__(self, device, seed):
        self.device, self.random = device, random.Random(seed)
        self.versions, self.version = {}, 0

    def write(self, first, count):
        self.version += 1
        data = b"".join(content(unit, self.version) for unit in range(first, first + count))
        self.device.buffer[: len(data)] = data
        equal(os.pwritev(self.device.file, [self.device.buffer[: len(data)]], first * UNIT), len(data), "the bytes that a write wrote")
        self.versions.update(dict.fromkeys(range(first, first + count), self.version))

    def fill(self, blocks):
        for first in range(blocks.start * 16, blocks.stop * 16, PIECE):
            self.write(first, min(PIECE, blocks.stop * 16 - first))

    def change(self, blocks):
        """A unit in each of so many of the blocks that change."""
        for block in self.random.sample(range(CHANGED), blocks):
            self.write(block * 16 + self.random.randrange(16), 1)

    def moment(self):
        """What the blocks that change hold now."""
        return {unit: self.versions[unit] for unit in range(CHANGED * 16)}

    def problems(self, path, moment):
        """Where a device does not show a moment."""
        reader, wrong = Device(path, writable=False), []
        try:
            for start in range(0, CHANGED * 16, PIECE):
                os.preadv(reader.file, [reader.buffer[: PIECE * UNIT]], start * UNIT)
                for unit in range(start, start + PIECE):
                    found = bytes(reader.buffer[(unit - start) * UNIT : (unit - start + 1) * UNIT])
                    if found != content(unit, moment[unit]):
                        wrong.append(f"unit {unit} holds {struct.unpack_from('<QQ', found)}, not version {moment[unit]}")
        finally:
            reader.close()
        return wrong[:5] + ([f"{len(wrong)} in all"] if len(wrong) > 5 else [])

    def read(self, units):
        """Seconds that single reads of units took, sorted."""
        seconds, buffer = [], self.device.buffer[:UNIT]
        for unit in units:
            began = time.monotonic()
            os.preadv(self.device.file, [buffer], unit * UNIT)
            seconds.append(time.monotonic() - began)
            expect(bytes(buffer) == content(unit, self.versions[unit]), f"unit {unit} does not hold version {self.versions[unit]}")
        return sorted(seconds)


class Reads:
    """Latencies of reads of resident blocks, and of blocks of the capacity tier."""

    def __init__(self, volume, data, count, cold):
        def misses():
            return volume.status()["volume"]["read_misses"]

        # Whatever of them is not there comes now.
        data.read(range(0, CHANGED * 16))
        before = misses()
        self.resident = data.read([data.random.randrange(CHANGED * 16) for _ in range(count)])
        between = misses()
        self.cold = data.read([block * 16 + data.random.randrange(16) for block in data.random.sample(cold, count)])
        self.missed = (between - before, misses() - between)

    def text(self):
        def of(seconds):
            return f"p50 {at(seconds, 0.5) * 1000:.2f} ms, p99 {at(seconds, 0.99) * 1000:.2f} ms"

        return f"resident {of(self.resident)} ({self.missed[0]} waited for the capacity tier); cold {of(self.cold)} ({self.missed[1]})"


def at(values, share):
    return values[min(len(values) - 1, int(len(values) * share))]


def ratio(after, before, share):
    return at(after, share) / at(before, share)


def made(volume, api, name):
    """Makes a snapshot: the seconds of the call, and how often it was refused until write-back had made room."""
    for refused in range(600):
        try:
            return api.call("CreatePredictiveSnapshot", (1, volume.name), (3, name))[0], refused
        except ConnectionError:
            done = volume.forerun.try_("snapshot", "create", volume.name, name)
            if done.returncode == 0:
                return None, refused + 1
            expect("to be written back" in done.stderr, f"snapshot {name} was refused: {done.stderr}")
            time.sleep(0.5)
    raise AssertionError(f"no room for snapshot {name}")


def shows_what_it_must(volume, data, noted, names):
    for name in names:
        equal(data.problems(volume.attach(name), noted[name]), [], f"what differs in snapshot {name}")
        volume.detach(name)


def used(volume):
    return volume.status()["volume"]["capacity_tier"]["used_bytes"]


def deleted(volume, names):
    """Deletes snapshots; the seconds of each command, sorted."""
    seconds = []
    for name in names:
        began = time.monotonic()
        volume.forerun("snapshot", "delete", volume.name, name)
        seconds.append(time.monotonic() - began)
    return sorted(seconds)


@test
def many_snapshots_on_one_volume(lab):
    """FORERUN_SNAPSHOTS snapshots (default 60): making one and reading beside them costs the same with the last as with the
    first; they show what they must; all deleted in any order, their space comes back."""
    count = int(os.environ.get("FORERUN_SNAPSHOTS", "60"))
    reads = 2000 if count >= 500 else 200
    volume = lab.volume("many", "1G", f"{FAST_MIB}M", "--sync-interval", "3600", "--hydrate", "off")
    data = Content(lab.device(volume.add()), int(os.environ.get("FORERUN_SEED", "1")))
    # What is written first leaves the fast tier first; the blocks that change come last.
    cold = [range(CHANGED, CHANGED + reads), range(CHANGED + reads, CHANGED + 2 * reads)]
    for blocks in [*cold, range(cold[1].stop, cold[1].stop + FAST_MIB * MIB // BLOCK), range(CHANGED)]:
        data.fill(blocks)
    api = Api(lab.forerun.run_dir / volume.name / "api.sock")
    calls, refused, noted = [], 0, {}
    each = max(1, count // NOTED)
    for number in range(count):
        name = f"s{number}"
        if number % each == 0:
            noted[name] = data.moment()
        took, again = made(volume, api, name)
        calls.append(took)
        refused += again
        if number == 0:
            volume.written_back()
            used_by_one, first = used(volume), Reads(volume, data, reads, cold[0])
        data.change(4)
    api.close()
    volume.written_back(300)
    last = Reads(volume, data, reads, cold[1])
    used_by_all = used(volume)
    timed = [call for call in calls if call is not None]
    few = max(5, count // 50)
    median_first, median_last = at(sorted(timed[:few]), 0.5), at(sorted(timed[-few:]), 0.5)
    lab.note(
        f"{count} snapshots, {refused} calls refused until write-back had made room; a call: median {at(sorted(timed), 0.5) * 1000:.1f} ms, longest "
        f"{max(timed) * 1000:.1f} ms; the first {few} {median_first * 1000:.1f} ms, the last {few} {median_last * 1000:.1f} ms"
    )
    lab.note(f"{reads} reads beside 1 snapshot: {first.text()}")
    lab.note(f"{reads} reads beside {count}: {last.text()}")
    ratios = {kind: [ratio(getattr(last, kind), getattr(first, kind), share) for share in (0.5, 0.99)] for kind in ("resident", "cold")}
    lab.note("of the former: " + "; ".join(f"{kind} p50 {p50:.2f}, p99 {p99:.2f}" for kind, (p50, p99) in ratios.items()))
    for kind in ratios:
        before, after = at(getattr(first, kind), 0.5), at(getattr(last, kind), 0.5)
        expect(after < NOISE * before + MOMENT, f"{kind} reads take {after * 1000:.2f} ms beside {count} snapshots, {before * 1000:.2f} ms beside one")
    began = time.monotonic()
    names = [entry["name"] for entry in volume.forerun.json("snapshot", "list", volume.name)["snapshots"]]
    equal(names, [f"s{number}" for number in range(count)], "the snapshots there are")
    listing = time.monotonic() - began
    # Everything again from the tiers alone.
    data.device.close()
    volume.delete()
    began = time.monotonic()
    data.device = lab.device(volume.add())
    lab.note(f"`snapshot list` takes {listing:.1f} s, a start {time.monotonic() - began:.1f} s with {count} snapshots")
    chosen = list(noted)
    data.random.shuffle(chosen)
    kept, shown = chosen[:KEPT], chosen[KEPT : KEPT + 3]
    shows_what_it_must(volume, data, noted, shown)
    others = [name for name in names if name not in kept]
    data.random.shuffle(others)
    times = deleted(volume, others)
    shows_what_it_must(volume, data, noted, kept)
    equal(data.problems(volume.device, data.versions), [], "what differs on the volume")
    deleted(volume, kept)
    ended = time.monotonic()
    equal(volume.forerun.json("snapshot", "list", volume.name)["snapshots"], [], "the snapshots that are left")
    cost = used_by_all - used_by_one
    live = used_by_one + max(16 * MIB, cost // 4)
    now = until(f"the capacity tier to use {live // MIB} MiB or less again", SPACE_LIMIT, lambda: used(volume) <= live and used(volume), 2)
    lab.note(
        f"deleted in random order: a command's median {at(times, 0.5) * 1000:.0f} ms, longest {times[-1] * 1000:.0f} ms; {len(shown)} snapshots verified before, "
        f"{KEPT} when they were the last"
    )
    lab.note(
        f"the capacity tier's use: {used_by_one // MIB} MiB with one snapshot, {used_by_all // MIB} with all, {now // MIB} without any, "
        f"{time.monotonic() - ended:.0f} s after the last was deleted"
    )
    # Segments of which most is in use are left alone until space is short, or somebody asks. What is deleted goes after half a minute.
    volume.forerun("gc", volume.name, limit=SPACE_LIMIT)
    live = used_by_one + 4 * MIB
    now = until(f"`gc` to bring the capacity tier to {live // MIB} MiB or less", SPACE_LIMIT, lambda: used(volume) <= live and used(volume), 2)
    lab.note(f"after `gc`, which copies what is left in segments of which most is in use as well: {now // MIB} MiB")
