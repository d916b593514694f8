"""The capacity tier fails: reads, writes, all of it; it is full, or read-only, or slow; and comes back."""

import errno
import os
import threading
import time
from pathlib import Path

from dm import mapped, modules
from faults_fast import REQUEST_LIMIT, RETRY_LIMIT, STOP_LIMIT, faulty, restarted, shows
from ledger import Background, Ledger
from lab import MIB, Failed, equal, expect, run, test, until
from rig import drop_caches, quiet_umount

FAST_SIZE = "160M"
UNITS = 288 * MIB // 4096  # more than the fast tier holds
NO_JOURNAL = ("-O", "^has_journal")


def file_system(lab, *options, mount=()):
    """A mapped device with an ext4 on it, for a capacity tier."""
    modules("dm_mod", "dm_flakey", "dm_delay")
    disk = mapped(lab, "faultcapacity", lab.extra_disks[1])
    run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", *options, disk.path], 120)
    place = lab.work / "capacity-place"
    place.mkdir(exist_ok=True)
    run(["mount", *mount, disk.path, place], 60)
    lab.later(lambda: quiet_umount(place))
    return disk, place


def prepared(lab, name, place, fill=True, fast=None):
    volume = lab.volume(name, "512M", FAST_SIZE, "--sync-interval", "5", capacity=place / "tier", fast=fast)
    ledger = Ledger(volume.add(), 0, UNITS, seed=33)
    lab.devices.append(ledger)
    if fill:
        ledger.fill()
        expect(ledger.flush(), "the first flush failed")
        snapshot_with_room(volume, "before")
        volume.written_back()
        drop_caches()
    return volume, ledger


def snapshot_with_room(volume, name):
    """Takes a snapshot; it is refused until write-back has made some room."""

    def is_taken():
        return volume.forerun.try_("snapshot", "create", volume.name, name).returncode == 0

    until("a snapshot to be taken", RETRY_LIMIT, is_taken)


def full_of_dirty(volume, limit=120):
    """Waits until the write under way waits for a slot, and goes on waiting."""

    def waits():
        if "throttled" not in volume.status()["volume"]["health"]:
            return False
        time.sleep(1)
        return "throttled" in volume.status()["volume"]["health"]

    until("writes to wait for slots", limit, waits)


def recovers(lab, volume, ledger, load, healed):
    """The fault has ended: the waiting write goes on, all is written back, and every byte is there."""
    load.end(RETRY_LIMIT + REQUEST_LIMIT)
    resumed = time.monotonic() - healed
    expect(ledger.flush(), "a flush after the fault failed")
    snapshot_with_room(volume, "after")
    volume.written_back(RETRY_LIMIT + 60)
    equal(ledger.look(ledger.acknowledged), [], "what differs after the fault")
    expect("write-back" not in volume.status()["volume"]["health"], "write-back is still said to fail")
    lab.note(
        f"{ledger.writes} writes acknowledged, {ledger.errors} failed; the write that waited went on {resumed:.1f} s "
        f"after the fault's end; longest request {ledger.longest:.1f} s"
    )
    restarted(volume, ledger)
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")


@faulty
def capacity_reads_fail(lab):
    """Cold blocks cannot be read: EIO with the reason told; hot ones can. All can when the fault ends."""
    disk, place = file_system(lab)
    volume, ledger = prepared(lab, "capread", place)
    disk.becomes(disk.flakey("error_reads"))
    problem = None
    began = time.monotonic()
    try:
        ledger.look(ledger.flushed)
    except OSError as error:
        problem = error
    took = time.monotonic() - began
    expect(problem is not None, "cold data was read from a device whose reads fail")
    expect(took < REQUEST_LIMIT, f"the read took {took:.1f} s")
    status, log = shows(volume, "a block could not be read from the capacity tier", "capacity_read_errors")
    expect("a block cannot be read from the capacity tier" in log, "the log does not tell of it")
    disk.heals()
    equal(ledger.look(ledger.acknowledged), [], "what differs after the fault")
    lab.note(f"{status['capacity_read_errors']} reads failed, the first within {took:.1f} s")


@faulty
def capacity_writes_fail(lab):
    """Write-back fails until the fault ends: writes go on until the fast tier is full of dirty data, then wait."""
    disk, place = file_system(lab, *NO_JOURNAL)
    volume, ledger = prepared(lab, "capwrite", place)
    disk.becomes(disk.flakey("error_writes"))
    load = Background(ledger)
    status, log = shows(volume, "write-back does not get on", "write_back_failures", 60)
    expect("write-back failed" in log, "the log does not tell of it")
    full_of_dirty(volume)
    # Everything acknowledged is there to be read while the capacity tier cannot be written.
    time.sleep(2)
    disk.heals()
    recovers(lab, volume, ledger, load, time.monotonic())


@faulty
def capacity_gone_and_back(lab):
    """The device of the capacity tier fails altogether for 20 s."""
    disk, place = file_system(lab, *NO_JOURNAL)
    volume, ledger = prepared(lab, "capgone", place)
    disk.becomes(disk.error())
    load = Background(ledger, pause=0.002)
    shows(volume, "write-back does not get on", "write_back_failures", 60)
    time.sleep(20)
    disk.heals()
    recovers(lab, volume, ledger, load, time.monotonic())


@faulty
def capacity_file_system_aborts(lab):
    """ext4 with a journal turns read-only on a failed write: stop, repair the file system, start. Nothing is lost."""
    disk, place = file_system(lab, mount=("-o", "errors=remount-ro"))
    volume, ledger = prepared(lab, "capabort", place)
    disk.becomes(disk.flakey("error_writes"))
    load = Background(ledger)
    shows(volume, "write-back does not get on", "write_back_failures", 60)
    full_of_dirty(volume)
    disk.heals()
    # Whoever waits for a slot waits until the device is stopped, and gets an error then.
    ledger.close()
    began = time.monotonic()
    stopped = volume.forerun.try_("del", volume.name, limit=STOP_LIMIT + 60)
    took = time.monotonic() - began
    load.stopping.set()
    load.join(REQUEST_LIMIT)
    expect(not load.is_alive(), "a request outlived its device")
    run(["umount", place], 60)
    run(["e2fsck", "-fy", disk.path], 120, ok=(0, 1))
    run(["mount", disk.path, place], 60)
    ledger.path = volume.add()
    ledger.open()
    equal(ledger.look(ledger.acknowledged), [], "what differs after the repair")
    volume.written_back(RETRY_LIMIT + 60)
    equal(volume.status()["volume"]["health"], "healthy", "the health after the repair")
    lab.note(f"`del` took {took:.1f} s (status {stopped.returncode}); {ledger.writes} writes acknowledged, all there")


class Filler(threading.Thread):
    """Others take what is free on a file system, and go on taking: upkeep gives back what overwritten blocks had, and
    write-back would live on that."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.removing, self.failure = path, threading.Event(), None
        self.file = open(path, "wb", buffering=0)
        self.fill()
        self.start()

    def fill(self):
        try:
            while not self.removing.is_set():
                self.file.write(bytes(MIB))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def run(self):
        try:
            while not self.removing.wait(0.02):
                self.fill()
        except OSError as error:
            self.failure = error

    def remove(self):
        """All of it is free again; raises what kept it from taking space, if anything did."""
        self.removing.set()
        self.join()
        self.file.close()
        self.path.unlink(missing_ok=True)
        if self.failure:
            raise self.failure


def refused_snapshot(volume, tries=20):
    """The answer to the first snapshot that is refused, and the seconds it took: what little upkeep gives back before
    others take it may do for one or two."""
    for number in range(tries):
        began = time.monotonic()
        answer = volume.forerun.try_("snapshot", "create", volume.name, f"full{number}", limit=REQUEST_LIMIT)
        took = time.monotonic() - began
        if answer.returncode != 0:
            expect("write" in answer.stderr, lambda: f"a snapshot: {answer.stdout!r} {answer.stderr!r}")
            return answer, took
    raise Failed(f"{tries} snapshots were taken with no space on the capacity tier")


@test
def capacity_full(lab):
    """No space on the capacity tier: reads and writes go on, then writes wait; room is made, and all goes on."""
    disk, place = file_system(lab)
    volume, ledger = prepared(lab, "capfull", place)
    others = Filler(place / "filler")
    lab.later(others.remove)
    load = Background(ledger)
    status, _ = shows(volume, "write-back does not get on", "write_back_failures", 90)
    expect("No space" in status["write_back_error"], lambda: f"the reason: {status['write_back_error']!r}")
    full_of_dirty(volume)
    refused, took = refused_snapshot(volume)
    lab.note(f"a snapshot is refused within {took:.1f} s: {refused.stderr.strip()}")
    equal(ledger.errors, 0, "writes that failed")
    others.remove()
    os.sync()
    recovers(lab, volume, ledger, load, time.monotonic())


@faulty
def capacity_read_only(lab):
    """The capacity tier's file system is made read-only under the target (an administrator cannot do that while a
    file is open for writing, so by the kernel's emergency remount), and writable again."""
    disk, place = file_system(lab)
    volume, ledger = prepared(lab, "capro", place, fast=mapped(lab, "faultfast", lab.extra_disks[0], 160 * MIB // 512).path)
    others = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("/dev/vd")]
    Path("/proc/sysrq-trigger").write_text("u")
    until("the file system to be read-only", 30, lambda: os.statvfs(place).f_flag & os.ST_RDONLY)
    for path in others:
        run(["mount", "-o", "remount,rw", path], 60)
    load = Background(ledger)
    status, _ = shows(volume, "write-back does not get on", "write_back_failures", 60)
    expect("ead-only" in status["write_back_error"], lambda: f"the reason: {status['write_back_error']!r}")
    full_of_dirty(volume)
    run(["mount", "-o", "remount,rw", place], 60)
    recovers(lab, volume, ledger, load, time.monotonic())


@test
def capacity_slow(lab):
    """Each request of the capacity tier's device takes 100 ms longer: writes slow down, none fails."""
    disk, place = file_system(lab)
    volume, ledger = prepared(lab, "capslow", place)
    disk.becomes(disk.delay(100, 100))
    load = Background(ledger)
    full_of_dirty(volume)
    before = ledger.writes
    time.sleep(20)
    expect(ledger.writes > before, "no write got on in 20 s")
    expect(ledger.errors == 0, f"{ledger.errors} writes failed")
    slowest = ledger.longest
    disk.heals()
    recovers(lab, volume, ledger, load, time.monotonic())
    lab.note(f"longest request while it was slow: {slowest:.2f} s")
