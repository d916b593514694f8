"""Prediction tables from somebody who means no good: sound ones with the worst of predictions, and garbage.

The layout is that of `src/prediction_table/layout.rs`, version 2."""

import os
import random
import struct
import time
from pathlib import Path

ENTRY_BYTES, MAX_ENTRIES, HEADER_BYTES = 12, 1 << 20, 4096
BUFFER_BYTES = (128 + MAX_ENTRIES * ENTRY_BYTES + 4095) // 4096 * 4096
FILE_BYTES = HEADER_BYTES + 2 * BUFFER_BYTES

CRC_TABLE = []
for value in range(256):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    CRC_TABLE.append(value)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Forger:
    def __init__(self, path, uuid, blocks, seed):
        self.path, self.uuid, self.blocks = Path(path), uuid, blocks
        self.random = random.Random(seed)
        self.sequence = 0

    def sound(self, epoch, horizon, entries):
        """A whole file whose table is as it should be in form. Entries: (block, kind, probability)."""
        self.sequence += 1
        body = b"".join(struct.pack("<IB3xf", *entry) for entry in entries)
        now = int(time.time() * 1e6)
        header = struct.pack(
            "<8sQQ16s32sIIQI28xI", b"FRPREDBF", self.sequence, now, self.uuid, b"hostile", epoch, horizon, now, len(entries), crc32c(body)
        )
        header += struct.pack("<I", crc32c(header))
        file = struct.pack("<8sIIIIQ16s12x", b"FRPREDTB", 2, ENTRY_BYTES, MAX_ENTRIES, 0, self.sequence, self.uuid)
        file += struct.pack("<I", crc32c(file))
        return file, HEADER_BYTES + self.sequence % 2 * BUFFER_BYTES, header + body

    def put(self, parts, length=FILE_BYTES):
        """Puts a file in place whose parts are (offset, bytes)."""
        beside = self.path.with_name("forged")
        with open(beside, "wb") as file:
            for at, data in parts:
                file.seek(at)
                file.write(data)
            file.truncate(length)
        self.remove()
        os.rename(beside, self.path)

    def remove(self):
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)

    def hostile(self, epoch):
        """Sound in form: random blocks, all of them certain to change."""
        count = 2048
        blocks = self.random.sample(range(self.blocks), min(count, self.blocks))
        file, at, buffer = self.sound(epoch, 64, [(block, self.random.randint(1, 4), 1.0) for block in blocks])
        self.put([(0, file), (at, buffer)])

    def garbage(self, epoch):
        """One of many things that are no table, or a table that is wrong somewhere."""
        what = self.random.randrange(11)
        sound = self.sound(epoch, 4, [(self.random.randrange(self.blocks), 2, 1.0)])
        file, at, buffer = sound
        if what == 0:
            self.put([(0, os.urandom(1 << 20))])
        elif what == 1:
            self.put([(0, file)], self.random.randrange(1 << 16))
        elif what == 2:
            wrong = bytearray(buffer)
            wrong[self.random.randrange(len(wrong))] ^= 1 << self.random.randrange(8)
            self.put([(0, file), (at, wrong)])
        elif what == 3:
            wrong = bytearray(file)
            wrong[self.random.randrange(len(wrong))] ^= 1 << self.random.randrange(8)
            self.put([(0, wrong), (at, buffer)])
        elif what == 4:
            file, at, buffer = self.sound(epoch, 4, [(0xFFFFFFFF, 2, 1.0)])
            self.put([(0, file), (at, buffer)])
        elif what == 5:
            file, at, buffer = self.sound(epoch, 4, [(1, 2, float("nan")), (1, 9, -5.0)])
            self.put([(0, file), (at, buffer)])
        elif what == 6:
            self.put([], 1 << 40)
        elif what == 7:
            self.remove()
            self.path.mkdir()
        elif what == 8:
            self.remove()
            os.mkfifo(self.path)
        elif what == 9:
            self.remove()
            self.path.symlink_to("/dev/zero")
        else:
            # In place, while it is read.
            self.put([(0, file), (at, buffer)])
            with open(self.path, "r+b") as table:
                for _ in range(50):
                    table.seek(self.random.randrange(4096 + 256))
                    table.write(os.urandom(64))
                table.truncate(self.random.choice((0, 100, FILE_BYTES - 1)))
