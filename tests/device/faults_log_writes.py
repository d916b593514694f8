"""Power cuts at every flush: both tiers on one device whose writes and flushes dm-log-writes records; then the log is
replayed to one flush after the other, and each time the volume is checked, recovered, compared, and its file system
checked.

A replay to a flush is the device with all that was not flushed lost. Which states are allowed is known from marks that
the load puts into the log: what had been flushed when the last mark before it was made has to be there, and nothing may
be there that was begun only after the next one.
"""

import os
import threading
import time

from dm import modules, sectors_of
from ledger import Ledger
from lab import MIB, equal, run, test
from log_writes import Log
from rig import Failed, partition, partition_appears, quiet_umount, result

FAST_SECTORS = 96 * MIB // 512
CAPACITY_SECTORS = 160 * MIB // 512
TOTAL = FAST_SECTORS + CAPACITY_SECTORS
RECORD = 3000  # bytes, so that records share blocks
UNITS = 24 * MIB // 4096
RAW_FIRST = 64 * MIB // 4096
SECONDS = 14


def dmsetup(*words):
    run(["dmsetup", *words], 60)


def record(number):
    text = f"record {number:10d} ".encode()
    return (text * (RECORD // len(text) + 1))[:RECORD]


class Stack:
    """The two tiers on pieces of one device, under the same names whatever is below."""

    def __init__(self, lab, below):
        self.place = lab.work / "logged-place"
        self.place.mkdir(exist_ok=True)
        dmsetup("create", "lwfast", "--table", f"0 {FAST_SECTORS} linear {below} 0")
        dmsetup("create", "lwcapacity", "--table", f"0 {CAPACITY_SECTORS} linear {below} {FAST_SECTORS}")

    def mount(self):
        run(["mount", "/dev/mapper/lwcapacity", self.place], 60)

    def remove(self):
        quiet_umount(self.place)
        for name in ("lwcapacity", "lwfast"):
            result(["dmsetup", "remove", "--retry", name], 60)


class Records:
    """Records appended to a file, each with fsync."""

    def __init__(self, path):
        self.file = os.open(path / "records", os.O_RDWR | os.O_CREAT)
        self.count = 0

    def step(self):
        os.pwrite(self.file, record(self.count), self.count * RECORD)
        os.fsync(self.file)
        self.count += 1

    @staticmethod
    def problems(path, promised, begun):
        data = (path / "records").read_bytes()
        if len(data) < promised * RECORD:
            return [f"{promised} records were acknowledged, the file has {len(data) / RECORD:.2f}"]
        if len(data) > begun * RECORD:
            return [f"the file has {len(data) / RECORD:.2f} records, {begun} were begun"]
        return [f"record {n} is not what was written" for n in range(promised) if data[n * RECORD : (n + 1) * RECORD] != record(n)][:3]


def load(lab, volume, device, marks):
    """Writes for some seconds: raw units with flushes, files with fsync, snapshots; a mark after each flush."""
    path = lab.mount(device + "p1")
    ledger, records = Ledger(device, RAW_FIRST, UNITS, seed=77), Records(path)
    lab.devices.append(ledger)
    os.sync()
    ledger.flush()

    def mark():
        # Noted first: what is promised by it was flushed before the mark is made.
        name = f"m{len(marks)}"
        marks.append((dict(ledger.flushed), records.count, dict(ledger.begun)))
        dmsetup("message", "logged", "0", "mark", name)

    mark()
    failures, deadline = [], time.monotonic() + SECONDS

    def files():
        try:
            while time.monotonic() < deadline:
                records.step()
                time.sleep(0.05)
        except Exception as error:  # noqa: BLE001: told below
            failures.append(error)

    thread = threading.Thread(target=files, daemon=True)
    thread.start()
    taken = 0
    while time.monotonic() < deadline:
        for _ in range(12):
            ledger.write()
        if not ledger.flush():
            raise Failed("a flush failed")
        mark()
        if len(marks) % 12 == 6:
            volume.snapshot(f"s{taken}")
            taken += 1
    thread.join(60)
    if failures:
        raise failures[0]
    os.close(records.file)
    lab.unmount(path)
    ledger.flush()
    mark()
    ledger.close()
    return ledger, taken


def one(lab, stack_on, volume, ledger, promised, begun):
    """Recovers from one image; what is wrong with it."""
    stack = Stack(lab, stack_on)
    problems = []
    try:
        stack.mount()
        checked = volume.forerun.try_("check", volume.name, limit=240)
        if checked.returncode != 0:
            # Notes of what a crash leaves behind would fill the page.
            said = [line for line in (checked.stdout + checked.stderr).splitlines() if not line.startswith(("note:", "    Left by"))]
            problems.append("`forerun check` before recovery: " + "\n".join(said)[:3000])
        device = volume.add()
        ledger.begun = begun[0]
        problems += ledger.look(promised[0], device)
        partition_appears(device)
        # Replays the file system's own journal.
        path = lab.mount(device + "p1")
        problems += Records.problems(path, promised[1], begun[1])
        lab.unmount(path)
        fsck = result(["e2fsck", "-fn", device + "p1"], 120)
        if fsck.returncode != 0:
            problems.append(f"e2fsck: {fsck.stdout[-600:]}")
        volume.delete()
        checked = volume.forerun.try_("check", volume.name, limit=240)
        if checked.returncode != 0:
            problems.append(f"`forerun check` after recovery: {(checked.stdout + checked.stderr).strip()[-600:]}")
    finally:
        stack.remove()
    return problems


def chosen(positions, wanted):
    """So many of the positions, evenly over all; the last one always."""
    if wanted >= len(positions):
        return positions
    return [positions[(number + 1) * len(positions) // wanted - 1] for number in range(wanted)]


@test
def every_flush_is_a_power_cut(lab):
    """FORERUN_FLUSHES says how many of the flushes are looked at (default 10; 0 for all)."""
    modules("dm_mod", "dm_log_writes", "dm_snapshot")
    base, log_device, origin = lab.extra_disks[0], lab.extra_disks[1], lab.extra_disks[2]
    cow = f"{TOTAL} {min(sectors_of(origin) - TOTAL, 1024 * MIB // 512)}"
    # Made before anything is logged: the log begins with an empty volume whose file system is there.
    stack = Stack(lab, base)
    lab.later(stack.remove)
    run(["dd", "if=/dev/zero", "of=/dev/mapper/lwfast", "bs=64K", "count=2", "conv=fsync", "status=none"])
    run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "/dev/mapper/lwcapacity"], 60)
    stack.mount()
    volume = lab.volume("logged", "128M", "0", "--sync-interval", "3", fast="/dev/mapper/lwfast", capacity=stack.place / "tier")
    volume.expect_clean = False  # it is looked at below, each time
    device = volume.add()
    partition(device, 256, 14000)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device + "p1"], 60)
    volume.delete()
    stack.remove()
    run(["dd", f"if={base}", f"of={origin}", "bs=1M", f"count={TOTAL * 512 // MIB}", "conv=fsync", "status=none"], 300)

    dmsetup("create", "logged", "--table", f"0 {TOTAL} log-writes {base} {log_device}")
    lab.later(lambda: result(["dmsetup", "remove", "--retry", "logged"], 60))
    stack = Stack(lab, "/dev/mapper/logged")
    lab.later(stack.remove)
    stack.mount()
    device = volume.add()
    partition_appears(device)
    marks = []
    ledger, snapshots = load(lab, volume, device, marks)
    last = (dict(ledger.begun), marks[-1][1] + 1)
    volume.delete()
    stack.remove()
    dmsetup("message", "logged", "0", "mark", "end")
    dmsetup("remove", "--retry", "logged")

    log = Log(log_device)
    where = {text: at for at, text in log.marks()}
    known = [(where[f"m{number}"], promised) for number, promised in enumerate(marks)]
    flushes = [at for at in log.flushes() if at > known[0][0]]
    wanted = int(os.environ.get("FORERUN_FLUSHES", "10")) or len(flushes)
    looked = chosen(flushes, wanted)
    run(["dmsetup", "create", "lworigin", "--table", f"0 {TOTAL} linear {origin} 0"], 30)
    lab.later(lambda: result(["dmsetup", "remove", "--retry", "lworigin"], 60))
    run(["dmsetup", "create", "lwcow", "--table", f"0 {cow.split()[1]} linear {origin} {cow.split()[0]}"], 30)
    lab.later(lambda: result(["dmsetup", "remove", "--retry", "lwcow"], 60))
    target = os.open("/dev/mapper/lworigin", os.O_RDWR)
    done, bad = 0, []
    try:
        for at in looked:
            log.replay(target, done, at)
            done = at
            promised = [promise for position, promise in known if position < at][-1]
            later = [promise for position, promise in known if position >= at]
            # Records go on between a note and its mark, but not beyond the next note.
            begun = (later[0][2], later[1][1] + 1) if len(later) > 1 else last
            dmsetup("create", "lwsnap", "--table", f"0 {TOTAL} snapshot /dev/mapper/lworigin /dev/mapper/lwcow N 8")
            try:
                problems = one(lab, "/dev/mapper/lwsnap", volume, ledger, promised, begun)
            finally:
                dmsetup("remove", "--retry", "lwsnap")
            if problems:
                bad.append(f"flush {flushes.index(at) + 1} of {len(flushes)} (entry {at}): " + "; ".join(problems))
                if len(bad) == 3:
                    break
    finally:
        os.close(target)
        log.close()
    lab.note(
        f"{len(log.entries)} entries, {log.bytes // MIB} MiB, {len(flushes)} flushes, {len(marks)} marks, {snapshots} snapshots; "
        f"{len(looked)} flushes recovered from, evenly chosen"
    )
    equal(bad, [], "what is wrong after a power cut")
