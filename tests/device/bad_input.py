"""What is wrong, missing or not allowed: each gets a message, a non-zero exit, and changes nothing."""

import contextlib
import os
import re
import shutil

import struct
import zlib
from pathlib import Path

from lab import Volume, digest, equal, expect, run, test
from rig import Forerun, quiet_umount, result, until


PIECE = 64 << 10  # bytes


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def state_of(volume):
    """All that a refused command could have changed: both tiers and the configuration."""
    sums = {}
    folders = [volume.capacity, volume.forerun.state_dir / volume.name]
    files = [volume.fast, *(path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file())]
    for path in files:
        if path.exists() and path.is_file():
            sums[str(path)] = data_of(path)
    return sums


def data_of(path):
    """A checksum of a file's data, holes left out: they take long to read here."""
    checksum, end = 0, path.stat().st_size
    with open(path, "rb") as file:
        at = 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            # Where holes begin and end may change by itself: pieces are of fixed places.
            at -= at % PIECE
            file.seek(at)
            while at < hole:
                piece = file.read(PIECE)
                if any(piece):
                    checksum = zlib.crc32(piece, zlib.crc32(str(at).encode(), checksum))
                at += len(piece)
    return checksum, end


class Table:
    """Cases of one test: a name, a command, what its message must say."""

    def __init__(self, lab):
        self.lab = lab
        self.wrong = []
        self.count = 0

    def refused(self, what, words, says, volume=None, codes=None, forerun=None):
        """`says`: one pattern or several that must all be in the message."""
        before = state_of(volume) if volume else None
        done = (forerun or self.lab.forerun).try_(*words, limit=60)
        self.outcome(what, done, says, codes)
        if volume:
            after = state_of(volume)
            changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            if changed:
                self.wrong.append(f"{what}: changed: {', '.join(changed)}")

    def outcome(self, what, done, says, codes=None):
        self.count += 1
        message = (done.stdout or "") + (done.stderr or "")
        if done.returncode == 0:
            self.wrong.append(f"{what}: it was not refused; it said {message.strip()!r}")
        elif codes and done.returncode not in codes:
            self.wrong.append(f"{what}: exit code {done.returncode}, expected {codes}; it said {message.strip()!r}")
        elif done.returncode < 0 or done.returncode > 100 or "panicked" in message:
            self.wrong.append(f"{what}: it crashed ({done.returncode}): {message.strip()!r}")
        for pattern in [says] if isinstance(says, str) else says:
            if not re.search(pattern, message, re.I):
                self.wrong.append(f"{what}: its message lacks {pattern!r}: {message.strip()!r}")

    def end(self):
        self.lab.note(f"{self.count} cases")
        expect(not self.wrong, lambda: f"{len(self.wrong)} of {self.count} cases:\n      " + "\n      ".join(self.wrong))


@test
def bad_values(lab):
    volume = lab.volume("values", "128M", "128M")
    volume.add()
    table = Table(lab)
    for value in ("0", "0.01", "1.5", "-1", "nan", "half"):
        table.refused(f"threshold {value}", ["threshold", "values", value], r"0\.05 to 1|invalid", codes=(2,))
    for value in ("0", "65", "-3"):
        table.refused(
            f"horizon {value}", ["snapshot", "create", "values", "s", "--horizon", value], r"1 to 64|invalid|unexpected", codes=(2,)
        )
    for name in ("..", "UPPER", "a/b", "x" * 64):
        table.refused(f"snapshot name {name:.8}", ["snapshot", "create", "values", name], "name|contains|characters", codes=(2,))
    for words in (["status"], ["add"], ["del"], ["check"], ["snapshot", "list"], ["history"], ["recover"], ["chain", "list"]):
        table.refused(f"{' '.join(words)} of an unknown volume", [*words, "nosuch"], "no volume|no device", codes=(3,))
    table.refused("an unknown snapshot's attach", ["snapshot", "attach", "values", "nosuch"], "no snapshot nosuch", codes=(1, 3))
    table.refused("an unknown snapshot's deletion", ["snapshot", "delete", "values", "nosuch"], "no snapshot nosuch", codes=(3,))
    table.refused("a diff from nowhere", ["snapshot", "diff", "values", "nosuch"], "no snapshot nosuch", codes=(3,))
    equal(volume.status()["prefetch"]["threshold"], 0.5, "the threshold after all that")
    equal(volume.forerun.json("snapshot", "list", "values")["snapshots"], [], "the snapshots after all that")
    table.end()


@test
def bad_options_change_nothing(lab):
    """What the target refuses of a device's options is refused before the volume is opened."""
    volume = lab.volume("options", "128M", "128M")
    table, before = Table(lab), state_of(volume)
    cases = [
        (["-q", "65"], "1 to 64 queues"), (["-q", "0"], "1 to 64 queues"), (["-d", "1025"], "1 to 1024"),
        (["--max-io-buf-bytes", "70000"], "power of two"), (["-t", "loop"], "not loop"),
        (["--eventfd", "999"], "--eventfd"), (["-z", "--copy"], "cannot be used with"),
    ]  # fmt: skip
    if os.uname().release.startswith("6.12."):
        cases.append((["-z"], "zero copy"))
    program = lab.forerun.program("ublk-target")
    for words, says in cases:
        done = result([program, "add", "--volume", "options", *words], 60, env=lab.forerun.env)
        table.outcome(f"add {' '.join(words)}", done, says)
    equal(state_of(volume), before, "the tiers after all that")
    table.end()


@test
def a_second_target_is_refused(lab):
    volume = lab.volume("second", "128M", "128M")
    device = volume.add("-n", "3")
    other = lab.volume("other", "128M", "128M")
    table = Table(lab)
    table.refused("add again", ["add", "second"], ["running", device], codes=(1,))
    # Past the CLI's own look: the target itself, and one that knows nothing of our run directory.
    program = lab.forerun.program("ublk-target")
    done = result([program, "add", "-t", "forerun", "--volume", "second"], 60, env=lab.forerun.env)
    table.outcome("a second target", done, "in use|running|another")
    elsewhere = Forerun(lab.forerun.programs, lab.forerun.state_dir, lab.work / "other-run")
    elsewhere.run_dir.mkdir(exist_ok=True)
    table.refused("a second target with another run directory", ["add", "second", "--no-trainer"], "in use|another", forerun=elsewhere)
    table.refused("the same tiers under another name",
                  ["create", "thief", "--size", "128M", "--fast", volume.fast, "--capacity", volume.capacity],
                  "in use|not empty|holds", volume=other)  # fmt: skip
    table.refused("a device number in use", ["add", "other", "-n", "3", "--no-trainer"], "3", volume=other)
    table.refused("check of a running volume", ["check", "second"], "in use|running|stop")
    table.refused("create of a volume that is there",
                  ["create", "second", "--size", "128M", "--fast", lab.place / "new.fast", "--fast-size", "128M",
                   "--capacity", lab.place / "new.capacity"], "second")  # fmt: skip
    expect(not (lab.place / "new.fast").exists(), "a refused create left a fast tier")
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")


    run(["mkfs.ext4", "-q", "-E", "nodiscard", device], 120)
    mounted = lab.mount(device)
    table.refused("del of a mounted device", ["del", "second"], "mounted|in use|busy")
    expect(os.path.exists(device), "a refused del removed the device")
    lab.unmount(mounted)
    table.end()


@test
def wrong_fast_tiers(lab):
    volume, other = lab.volume("mine", "128M", "128M"), lab.volume("yours", "128M", "128M")
    volume.add()
    run(["dd", "if=/dev/urandom", f"of={volume.device}", "bs=1M", "count=4", "oflag=direct", "status=none"])
    volume.delete()
    table, fast = Table(lab), volume.fast
    away = fast.with_suffix(".away")
    add = ["add", "mine", "--no-trainer"]

    fast.rename(away)
    table.refused("a fast tier that is missing", add, ["not there|no such", re.escape(str(fast))], volume=volume)
    expect(not fast.exists(), "a missing fast tier was made")

    shutil.copy(other.fast, fast)
    table.refused("the fast tier of another volume", add, ["another|other|belongs", re.escape(str(fast))], volume=volume)

    with open(fast, "wb") as file:
        file.truncate(128 << 20)
    table.refused("a fast tier of zeros", add, "no forerun|not a|superblock|empty", volume=volume)
    run(["mkfs.ext4", "-q", "-F", fast], 60)
    table.refused("a fast tier that is a file system", add, "not|superblock", volume=volume)

    run(["cp", "--sparse=always", away, fast], 60)
    os.truncate(fast, 96 << 20)
    table.refused("a fast tier that has become smaller", add, "smaller|bytes|size", volume=volume)

    run(["cp", "--sparse=always", away, fast], 60)
    for offset in (0, (128 << 20) - 4096):
        with open(fast, "r+b") as file:
            file.seek(offset)
            page = bytearray(file.read(4096))
            expect(page[:8] == b"forerunF", f"no superblock at byte {offset}: this test must follow the format")
            page[72:76] = struct.pack("<I", 99)
            page[12:16] = bytes(4)
            number = page[32:40]
            page[12:16] = struct.pack("<I", crc32c(struct.pack("<I", 1) + number + page))
            file.seek(offset)
            file.write(page)
    table.refused("a superblock of a newer version", add, ["version", "99"], volume=volume)

    run(["cp", "--sparse=always", away, fast], 60)
    for offset in (0, (128 << 20) - 4096):
        with open(fast, "r+b") as file:
            file.seek(offset + 100)
            file.write(b"\xff")
    table.refused("two damaged superblocks", add, "damaged|checksum|superblock", volume=volume)

    fast.unlink()
    away.rename(fast)
    volume.add()
    table.refused("create on a fast tier in use",
                  ["create", "new", "--size", "128M", "--fast", fast, "--capacity", lab.place / "new.capacity"],
                  "in use|not empty", forerun=lab.forerun)  # fmt: skip
    foreign = lab.place / "foreign"
    with open(foreign, "wb") as file:
        file.truncate(128 << 20)
    run(["mkfs.ext4", "-q", "-F", foreign], 60)
    before = digest(foreign)
    table.refused("create on a file system",
                  ["create", "new", "--size", "128M", "--fast", foreign, "--capacity", lab.place / "new.capacity"],
                  ["not empty|holds", "nothing was changed"])  # fmt: skip
    equal(digest(foreign), before, "the file system that create was refused on")
    foreign.unlink()
    table.refused("create on a device that is not there",
                  ["create", "new", "--size", "128M", "--fast", "/dev/nosuch", "--capacity", lab.place / "new.capacity"],
                  "/dev/nosuch", codes=(3,))  # fmt: skip
    expect(not (lab.forerun.state_dir / "new" / "volume.toml").exists(), "a refused create left a configuration")
    expect(not (lab.place / "new.capacity").exists(), "a refused create left a capacity tier")
    table.end()


@test
def wrong_capacity_tiers(lab):
    volume, other = lab.volume("mine", "128M", "128M"), lab.volume("yours", "128M", "128M")
    table, capacity = Table(lab), volume.capacity
    away = capacity.with_suffix(".away")
    add = ["add", "mine", "--no-trainer"]

    capacity.rename(away)
    table.refused("a capacity directory that is missing", add, re.escape(str(capacity)), volume=volume)
    expect(not capacity.exists(), "a missing capacity directory was made")
    capacity.mkdir()
    table.refused("an empty capacity directory", add, re.escape(str(capacity)), volume=volume)
    capacity.rmdir()
    shutil.copytree(other.capacity, capacity)
    table.refused("the capacity tier of another volume", add, "another|other|belongs", volume=volume)
    shutil.rmtree(capacity)
    shutil.copytree(away, capacity)
    head = capacity / "HEAD"
    damaged = bytearray(head.read_bytes())
    damaged[30] ^= 1
    head.write_bytes(damaged)
    table.refused("a damaged HEAD", add, ["HEAD", "checksum|damaged|corrupt|not what"], volume=volume)
    table.refused("check of a damaged HEAD", ["check", "mine"], "HEAD", volume=volume, codes=(5,))
    shutil.rmtree(capacity)
    away.rename(capacity)

    run(["mount", "--bind", capacity, capacity])
    try:
        run(["mount", "-o", "remount,bind,ro", capacity])
        table.refused("a capacity directory that is read-only", add, ["read-only", re.escape(str(capacity))], volume=volume)
    finally:
        quiet_umount(capacity)

    full = lab.work / "full"
    full.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full])
    try:
        with open(full / "stuffing", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        table.refused("create in a full directory",
                      ["create", "new", "--size", "128M", "--fast", lab.place / "new.fast", "--fast-size", "128M",
                       "--capacity", full / "tier"], "space|full")  # fmt: skip
        expect(not (lab.place / "new.fast").exists(), "a refused create left a fast tier")
    finally:
        quiet_umount(full)
    # All as it was: it starts.
    volume.add()
    table.end()


@test
def a_capacity_tier_that_fills_up(lab):
    """Write-back says so, nothing is lost, and it goes on when there is room again."""
    place = lab.work / "filling"
    place.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place])
    try:
        lab.forerun("create", "filling", "--size", "256M", "--fast", lab.place / "filling.fast", "--fast-size", "128M",
                    "--capacity", place / "tier", "--sync-interval", "1")  # fmt: skip


        volume = Volume(lab, "filling", lab.place / "filling.fast", place / "tier")
        lab.volumes.append(volume)
        device = volume.add()
        source = lab.place / "random"
        source.write_bytes(os.urandom(32 << 20))
        run(["dd", f"if={source}", f"of={device}", "bs=1M", "oflag=direct", "status=none"], 60)
        status = until(
            "write-back to say that the tier is full", 40,
            lambda: (status := volume.status()["volume"])["write_back_error"] and status,
        )  # fmt: skip
        lab.note(f"write_back_error: {status['write_back_error']}")
        expect(re.search("space|full", status["write_back_error"], re.I), f"it says {status['write_back_error']!r}")
        run(["cmp", "-n", str(32 << 20), source, device], 60)
        run(["mount", "-o", "remount,size=200m", place])
        volume.written_back(60)
        equal(volume.status()["volume"]["write_back_error"], "", "the error after there is room again")
        run(["cmp", "-n", str(32 << 20), source, device], 60)
        volume.delete()
        volume.check()
        source.unlink()
        lab.volumes.remove(volume)
        shutil.rmtree(lab.forerun.state_dir / "filling", ignore_errors=True)
        volume.fast.unlink()
    finally:
        quiet_umount(place)


@test
def without_driver_or_rights(lab):
    volume = lab.volume("rights", "128M", "128M")
    table = Table(lab)
    hidden = Path("/dev/ublk-control.hidden")
    Path("/dev/ublk-control").rename(hidden)
    try:
        table.refused("a kernel without ublk", ["add", "rights", "--no-trainer"], ["ublk", "driver|modprobe|/dev/ublk-control"], volume=volume)
        table.refused("a list without ublk", ["list", "-a"], "ublk")
    finally:
        hidden.rename("/dev/ublk-control")
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    for words in (["add", "rights"], ["status", "rights"], ["create", "x", "--size", "1G", "--fast", "/x", "--fast-size", "1G", "--capacity", "/y"]):
        done = result([*as_nobody, lab.forerun.program("forerun"), *words], 60, env=lab.forerun.env)
        table.outcome(f"{words[0]} without rights", done, "permission|right|root|denied")
    equal(volume.add("-n", "0"), "/dev/ublkb0", "the device afterwards")
    table.end()
