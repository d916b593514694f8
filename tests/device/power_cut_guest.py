"""What runs in each boot of tests/device/power_cut: look at what the last cut left, then work until the next.

Two writers: records of a file on ext4, each fsynced, and 4 KiB blocks of a raw volume, each flushed; beside them fio
with fsync on the same file system. What was acknowledged to the two is noted on the host, which keeps its power. A record says its number and holds a text made of
it; the ones noted must be there, in full. A raw block must hold what was flushed last or something that was
written to it later, never anything else.
"""

import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

from replay import Device  # noqa: E402
from rig import Failed, Forerun, partition, partition_appears, run  # noqa: E402

RECORD = 3000  # bytes, so that records share blocks
RAW_UNITS = 2048  # of 4 KiB
# The raw half of the volume begins here.
RAW_FIRST = (256 << 20) // 4096

programs, noted, cuts = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
boot = int(os.environ.get("FORERUN_VM_BOOT", "0"))
last = boot == cuts


def say(text):
    print(f"boot {boot}: {text}", flush=True)


def note(name, value):
    """Replaces a note at once: the cut may come in the middle of this."""
    (noted / f"{name}.new").write_text(json.dumps(value))
    (noted / f"{name}.new").rename(noted / name)


def noted_value(name, otherwise):
    try:
        return json.loads((noted / name).read_text())
    except FileNotFoundError:
        return otherwise


def record(number):
    text = f"record {number:10d} ".encode()
    return (text * (RECORD // len(text) + 1))[:RECORD]


class Files:
    """Records appended to a file of a file system, each with fsync before it is noted."""

    def __init__(self, path):
        self.path = path / "records"
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.count = 0

    def look(self):
        wanted = noted_value("files", 0)
        size = os.fstat(self.file).st_size
        if size < wanted * RECORD:
            raise Failed(f"{wanted} records were acknowledged, the file has {size / RECORD:.2f}")
        for number in range(wanted):
            if os.pread(self.file, RECORD, number * RECORD) != record(number):
                raise Failed(f"record {number} of {wanted} that were acknowledged is not there")
        self.count = wanted
        return wanted

    def step(self):
        os.pwrite(self.file, record(self.count), self.count * RECORD)
        os.fsync(self.file)
        self.count += 1
        note("files", self.count)
        time.sleep(random.uniform(0, 0.1))


class Raw:
    """Blocks of a device, overwritten in turn and at random; flushed in groups."""

    def __init__(self, path):
        self.device = Device(path)
        self.version = 0  # of the last write begun, noted before it is made
        self.flushed = {}

    def unit(self, index, version):
        return struct.pack("<QQ", index, version) * 256

    def look(self):
        self.version = noted_value("begun", 0)
        self.flushed = {int(index): version for index, version in noted_value("flushed", {}).items()}
        for index in range(RAW_UNITS):
            os.preadv(self.device.file, [self.device.buffer[:4096]], (RAW_FIRST + index) * 4096)
            found_index, version = struct.unpack_from("<QQ", self.device.buffer)
            least = self.flushed.get(index, 0)
            if version == 0 and least == 0 and not any(self.device.buffer[:4096]):
                continue
            if found_index != index or self.device.buffer[:4096] != self.unit(index, version):
                raise Failed(f"block {index} holds what was never written to it")
            if not least <= version <= self.version:
                raise Failed(f"block {index} holds version {version}; {least} was flushed, {self.version} begun")
        return len(self.flushed)

    def step(self):
        base = self.version
        self.version += 24
        note("begun", self.version)
        written = {}
        for number in range(24):
            version = base + 1 + number
            index = version % RAW_UNITS if number % 2 else version * 7919 % RAW_UNITS
            self.device.buffer[:4096] = self.unit(index, version)
            os.pwritev(self.device.file, [self.device.buffer[:4096]], (RAW_FIRST + index) * 4096)
            written[index] = version
        # Some of the time nobody has flushed for a while.
        time.sleep(random.uniform(0, 0.1))
        os.fsync(self.device.file)
        self.flushed |= written
        note("flushed", self.flushed)


def prepare(forerun, capacity):
    run(["dd", "if=/dev/zero", "of=/dev/vda", "bs=64K", "count=2", "conv=fsync", "status=none"])
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "/dev/vdb"], 60)
    run(["mount", "/dev/vdb", capacity])
    forerun("create", "cut", "--size", "512M", "--fast", "/dev/vda", "--capacity", capacity / "tier", "--sync-interval", 3)
    # The configuration would be on the machine's own disk.
    text = (forerun.state_dir / "cut" / "volume.toml").read_text()
    device = forerun("add", "cut", "--no-trainer", limit=120)
    # The volume's blocks are of 4096 bytes, and so are the numbers in the table.
    partition(device, 256, 64000)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device + "p1"], 60)
    return device, text


def main():
    work = Path("/run/power-cut")
    forerun = Forerun(programs, work / "state", "/run/forerun-test")
    for path in (work / "capacity", work / "mnt", forerun.run_dir):
        path.mkdir(parents=True)
    if noted_value("prepared", None) is None:
        device, text = prepare(forerun, work / "capacity")
        run(["mount", device + "p1", work / "mnt"])
        files, raw = Files(work / "mnt"), Raw(device)
        # The file's name is in the folder's data.
        run(["sync"], 60)
        note("prepared", text)
        say("prepared")
    else:
        run(["mount", "/dev/vdb", work / "capacity"], 60)
        (forerun.state_dir / "cut").mkdir(parents=True)
        (forerun.state_dir / "cut" / "volume.toml").write_text(noted_value("prepared", None))
        forerun("check", "cut", limit=120)
        device = forerun("add", "cut", "--no-trainer", limit=120)
        partition_appears(device)
        run(["mount", device + "p1", work / "mnt"], 60)
        files, raw = Files(work / "mnt"), Raw(device)
        records, blocks = files.look(), raw.look()
        os.close(files.file)
        run(["umount", work / "mnt"], 60)
        run(["e2fsck", "-fn", device + "p1"], 60)
        say(f"all {records} records and {blocks} flushed blocks are there; file system and tiers are clean")
        run(["mount", device + "p1", work / "mnt"], 60)
        files = Files(work / "mnt")
        files.count = records
        (noted / "records").write_text(f"{records} + {blocks}\n")
    (noted / f"good-{boot}").touch()
    if last:
        os.close(files.file)
        run(["umount", work / "mnt"], 60)
        raw.device.close()
        forerun("del", "cut", limit=120)
        forerun("check", "cut", limit=120)
        return 0

    def keep_on(step):
        try:
            while True:
                step()
        except Exception as error:
            say(f"FAILED: {error!r}")
            os._exit(1)

    def snapshots():
        time.sleep(2)
        forerun("snapshot", "create", "cut", f"b{boot}-{time.monotonic_ns()}")

    subprocess.Popen(
        ["fio", "--name=load", f"--filename={work}/mnt/load", "--size=24M", "--rw=randwrite", "--bssplit=4k/60:16k/20:64k/20",
         "--direct=1", "--ioengine=libaio", "--iodepth=4", "--fsync=4", "--time_based", "--runtime=300"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for step in (files.step, raw.step, snapshots):
        threading.Thread(target=keep_on, args=(step,), daemon=True).start()
    time.sleep(300)
    say("FAILED: no power cut came")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        say(f"FAILED: {error}")
        sys.exit(1)
