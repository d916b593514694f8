"""Replays a block trace on a device with its writes, and knows afterwards what each block must hold.

A trace is CSV (plain, .gz or .zst): timestamp_us,op,offset_bytes,len_bytes with op W (write), R (read),
D (discard) or A (an access of unknown direction, replayed as a write). Requests are widened to whole blocks of
4 KiB and cut into pieces of at most 1 MiB. What is written says where and when it was written, so that a
block of another place or another time is seen; what is read is checked at once.
"""

import fcntl
import gzip
import io
import mmap
import os
import struct
import subprocess
import time

UNIT = 4096  # bytes
PIECE = 1 << 20  # bytes
BLKDISCARD = 0x1277


def requests(path):
    """The trace's requests, (microseconds, op, first unit, units)."""
    raw, child = None, None
    if path.endswith(".zst"):
        child = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE)
        raw = child.stdout
    elif path.endswith(".gz"):
        raw = gzip.open(path)
    else:
        raw = open(path, "rb")
    with raw:
        for number, line in enumerate(io.TextIOWrapper(raw)):
            fields = line.strip().split(",")
            if number == 0 and not fields[0].isdigit():
                continue
            try:
                when, op, offset, length = int(fields[0]), fields[1], int(fields[2]), int(fields[3])
            except (ValueError, IndexError):
                raise ValueError(f"{path}, line {number + 1}: {line.strip()!r} is no request") from None
            if op not in "RWDA" or offset < 0 or length < 0:
                raise ValueError(f"{path}, line {number + 1}: {line.strip()!r} is no request")
            if length:
                first = offset // UNIT
                yield when, op, first, (offset + length + UNIT - 1) // UNIT - first
    if child and child.wait() != 0:
        raise ValueError(f"{path} cannot be unpacked")


class Trace:
    """A trace in memory, cut into epochs of equal time."""

    def __init__(self, path, epochs):
        self.requests = list(requests(path))
        if not self.requests:
            raise ValueError(f"{path} holds no requests")
        begin, end = self.requests[0][0], self.requests[-1][0]
        self.hours = (end - begin) / 3.6e9
        self.units = max(first + count for _, _, first, count in self.requests)
        self.epochs = [[] for _ in range(epochs)]
        for request in self.requests:
            index = (request[0] - begin) * epochs // (end - begin + 1)
            self.epochs[index].append(request)
        self.epochs = [epoch for epoch in self.epochs if epoch]


class Device:
    """A device and what it must hold: for each 4 KiB unit the number of the write that was last."""

    def __init__(self, path, writable=True):
        self.file = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_DIRECT)
        self.buffer = memoryview(mmap.mmap(-1, PIECE))
        self.model = {}
        self.writes = 0
        self.bytes_written = 0
        self.errors = []

    def close(self):
        self.buffer = None
        os.close(self.file)

    def expected(self, model, first, count):
        pack = struct.Struct("<QQ").pack
        zeros = bytes(UNIT)
        parts = []
        for unit in range(first, first + count):
            number = model.get(unit)
            parts.append(zeros if number is None else pack(unit, number) * (UNIT // 16))
        return b"".join(parts)

    def pieces(self, first, count):
        while count > 0:
            now = min(count, PIECE // UNIT)
            yield first, now
            first, count = first + now, count - now

    def write(self, first, count):
        for start, units in self.pieces(first, count):
            self.writes += 1
            self.model.update(dict.fromkeys(range(start, start + units), self.writes))
            size = units * UNIT
            self.buffer[:size] = self.expected(self.model, start, units)
            done = os.pwritev(self.file, [self.buffer[:size]], start * UNIT)
            if done != size:
                raise OSError(f"a write of {size} bytes at unit {start} wrote {done}")
            self.bytes_written += size

    def discard(self, first, count):
        fcntl.ioctl(self.file, BLKDISCARD, struct.pack("QQ", first * UNIT, count * UNIT))
        for unit in range(first, first + count):
            self.model.pop(unit, None)

    def check(self, first, count, model=None):
        """Reads and compares; notes what differs."""
        model = self.model if model is None else model
        for start, units in self.pieces(first, count):
            size = units * UNIT
            done = os.preadv(self.file, [self.buffer[:size]], start * UNIT)
            if done != size or self.buffer[:size] != self.expected(model, start, units):
                self.errors.append(f"the data at byte {start * UNIT} (up to {size} bytes) is not what was written")

    def replay(self, epoch, seconds):
        """Replays an epoch's requests as fast as they go, for at most so long; how many were left out."""
        deadline = time.monotonic() + seconds
        for index, (_, op, first, count) in enumerate(epoch):
            if time.monotonic() > deadline:
                return len(epoch) - index
            if op == "R":
                self.check(first, count)
            elif op == "D":
                self.discard(first, count)
            else:
                self.write(first, count)
        return 0

    def check_all(self, model=None):
        """Compares everything that was ever written; gives the number of units."""
        model = self.model if model is None else model
        run_start, run_end = None, None
        for unit in sorted(model):
            if unit != run_end or unit - run_start >= PIECE // UNIT:
                if run_start is not None:
                    self.check(run_start, run_end - run_start, model)
                run_start = unit
            run_end = unit + 1
        if run_start is not None:
            self.check(run_start, run_end - run_start, model)
        return len(model)
