"""A capacity tier that takes a while, and a device that is read past the page cache, for what scripts/bench runs in the guest."""

import json
import mmap
import os
import shutil
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rig import run, until  # noqa: E402

BLOCK = 64 << 10
PAGE = 4 << 10


def say(**fields):
    print(json.dumps(fields), flush=True)


def note(words):
    print(f"  {words}", file=sys.stderr, flush=True)


def slow_disk(mib, request_ns, number=0, mounted_on="/mnt"):
    """A disk in memory that takes so long a request, with a file system on it."""
    if not Path("/sys/kernel/config/nullb").is_dir():
        run(["modprobe", "null_blk", "nr_devices=0"])
        run(["mount", "-t", "configfs", "none", "/sys/kernel/config"], ok=(0, 32))
    device = Path(f"/sys/kernel/config/nullb/nullb{number}")
    device.mkdir()
    for name, value in (("size", mib), ("memory_backed", 1), ("irqmode", 2), ("completion_nsec", request_ns),
                        ("hw_queue_depth", 128), ("discard", 1), ("power", 1)):
        (device / name).write_text(str(value))
    until("the slow disk", 10, lambda: Path(f"/dev/nullb{number}").is_block_device())
    run(["mkfs.ext4", "-q", "-E", "nodiscard", f"/dev/nullb{number}"], limit=600)
    run(["mount", f"/dev/nullb{number}", mounted_on])


def ram_disk(size):
    """A RAM disk for the fast tier, /dev/ram0."""
    run(["modprobe", "brd", "rd_nr=1", f"rd_size={size >> 10}"])
    until("the RAM disk", 10, lambda: Path("/dev/ram0").is_block_device())


def at_hand(programs):
    """Copies of the programs in memory: with the page cache dropped they would be read from the host again."""
    folder = Path("/run/programs")
    folder.mkdir()
    for name in ("forerun", "ublk-target", "forerun-trainer"):
        shutil.copy2(Path(programs) / name, folder)
    return folder


def drop_page_cache():
    Path("/proc/sys/vm/drop_caches").write_text("1")


class Device:
    """The volume's device, read and written past the page cache."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, PAGE)

    def access(self, block, page, overwrite=True):
        """Reads, and overwrites; gives the seconds that the read took."""
        at = block * BLOCK + page * PAGE
        began = time.monotonic()
        os.preadv(self.file, [self.buffer], at)
        took = time.monotonic() - began
        if overwrite:
            self.buffer[:8] = struct.pack("<Q", at ^ time.monotonic_ns())
            os.pwritev(self.file, [self.buffer], at)
        return took

    def fill(self, blocks):
        """Data that cannot be compressed within a block."""
        noise = os.urandom(2 * BLOCK)
        buffer = mmap.mmap(-1, 16 * BLOCK)
        for first in range(0, blocks, 16):
            for at in range(16):
                shift = (first + at) * 37 % BLOCK
                buffer[at * BLOCK:(at + 1) * BLOCK] = noise[shift:shift + BLOCK]
            os.pwritev(self.file, [buffer], first * BLOCK)

    def close(self):
        os.close(self.file)
