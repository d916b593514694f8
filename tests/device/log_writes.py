"""Reads the log of dm-log-writes and replays it: what was durable on the device at each of its flushes.

The log, little-endian, in units of the device's logical blocks (`Documentation/admin-guide/device-mapper/log-writes.rst`
and `drivers/md/dm-log-writes.c` of the kernel):

    unit 0                       magic u64, version u64, entries u64, bytes of a unit u32
    unit 1, then one after the   sector u64, sectors u64, flags u64, bytes of text u64, the text of a mark;
    other, for each entry        then its data in units of its own, unless it is a discard

A completed write is put into the log when a later flush comes; the flush itself follows. So the device as it was after a
flush, with everything that was not flushed lost, is the log replayed up to that flush.
"""

import os
import struct
from collections import namedtuple

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512

Entry = namedtuple("Entry", "flags offset length data_at text")


class Log:
    """All entries, in order; positions are indices of `entries`."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        magic, version, count, self.unit = struct.unpack("<QQQI", os.pread(self.file, 28, 0))
        if magic != MAGIC or version != VERSION:
            raise ValueError(f"{path} holds no log of dm-log-writes, version {VERSION}")
        self.entries, at = [], self.unit
        for _ in range(count):
            sector, sectors, flags, text_bytes = struct.unpack("<QQQQ", os.pread(self.file, 32, at))
            text = os.pread(self.file, text_bytes, at + 32).decode(errors="replace") if flags & MARK else ""
            at += self.unit
            length = sectors * self.unit
            self.entries.append(Entry(flags, sector * self.unit, length, at, text))
            if not flags & DISCARD:
                at += length
        self.bytes = at

    def close(self):
        os.close(self.file)

    def flushes(self):
        """Positions right after a flush or a write with FUA."""
        return [at + 1 for at, entry in enumerate(self.entries) if entry.flags & (FLUSH | FUA)]

    def marks(self):
        """(position, text) of each mark."""
        return [(at, entry.text) for at, entry in enumerate(self.entries) if entry.flags & MARK]

    def replay(self, target, begin, end):
        """Does the entries from `begin` to before `end` on an open device, and makes them durable."""
        for entry in self.entries[begin:end]:
            left, source, to = entry.length, entry.data_at, entry.offset
            while left > 0 and not entry.flags & MARK:
                size = min(left, 1 << 20)
                data = bytes(size) if entry.flags & DISCARD else os.pread(self.file, size, source)
                if len(data) != size or os.pwrite(target, data, to) != size:
                    raise OSError(f"an entry of the log at byte {entry.data_at} could not be replayed")
                left, source, to = left - size, source + size, to + size
        os.fsync(target)
