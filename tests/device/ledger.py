"""A writer that notes what it was promised, over a device whose requests may fail or take long.

Each unit of 4 KiB is written with its number and a version. `acknowledged` is the version of the last write that
returned, `flushed` that of the last one which a later flush covered, `begun` that of the last one that began. After
whatever happened, a unit has to hold a version from the promised one to the one begun; and nothing else, ever.
"""

import errno
import os
import random
import struct
import threading
import time

from lab import Failed
from replay import Device

UNIT = 4096
EIO = (errno.EIO, errno.EROFS)


class Ledger:
    def __init__(self, path, first, units, seed):
        self.path, self.first, self.units = path, first, units
        self.random = random.Random(seed)
        self.version = 0
        self.begun, self.acknowledged, self.flushed = {}, {}, {}
        self.writes = self.errors = self.flush_errors = self.flushes = 0
        self.longest = 0.0
        self.sizes = (1, 1, 1, 2, 4, 16)
        self.open()

    def open(self):
        self.device = Device(self.path)

    def close(self):
        self.device.close()

    def timed(self, work):
        began = time.monotonic()
        try:
            return work()
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    def write(self, unit=None, count=None):
        """Writes at a random place; whether it was acknowledged."""
        count = count or self.random.choice(self.sizes)
        unit = self.random.randrange(self.units - count + 1) if unit is None else unit
        self.version += 1
        data = b"".join(struct.pack("<QQ", at, self.version) * 256 for at in range(unit, unit + count))
        for at in range(unit, unit + count):
            self.begun[at] = self.version
        buffer = self.device.buffer[: len(data)]
        buffer[:] = data
        try:
            done = self.timed(lambda: os.pwritev(self.device.file, [buffer], (self.first + unit) * UNIT))
        except OSError as error:
            if error.errno not in EIO:
                raise
            self.errors += 1
            return False
        if done != len(data):
            self.errors += 1
            return False
        self.writes += 1
        for at in range(unit, unit + count):
            self.acknowledged[at] = self.version
        return True

    def flush(self):
        """Whether what was acknowledged is durable now."""
        covered = dict(self.acknowledged)
        try:
            self.timed(lambda: os.fsync(self.device.file))
        except OSError as error:
            if error.errno not in EIO:
                raise
            self.flush_errors += 1
            return False
        self.flushes += 1
        self.flushed = covered
        return True

    def work(self, writes, flush_every=20):
        for number in range(writes):
            self.write()
            if number % flush_every == flush_every - 1:
                self.flush()

    def fill(self):
        """Every unit, once, in order."""
        for unit in range(0, self.units, 16):
            if not self.write(unit, 16):
                raise Failed(f"a write of unit {unit} failed")

    def look(self, promised, device=None):
        """What is wrong with what the device holds, given what was promised (`flushed` or `acknowledged`)."""
        reader = Device(device or self.path, writable=False)
        problems = []
        try:
            for start in range(0, self.units, 256):
                count = min(256, self.units - start)
                buffer = reader.buffer[: count * UNIT]
                done = os.preadv(reader.file, [buffer], (self.first + start) * UNIT)
                if done != count * UNIT:
                    problems.append(f"a read of units {start} to {start + count} gave {done} bytes")
                for at in range(count):
                    problem = self.unit_problem(start + at, bytes(buffer[at * UNIT : (at + 1) * UNIT]), promised)
                    if problem:
                        problems.append(problem)
        finally:
            reader.close()
        return problems[:5] + ([f"{len(problems)} in all"] if len(problems) > 5 else [])

    def unit_problem(self, unit, found, promised):
        least, most = promised.get(unit, 0), self.begun.get(unit, 0)
        if not any(found):
            return f"unit {unit} is zeros; version {least} was promised" if least else None
        at, version = struct.unpack_from("<QQ", found)
        if at != unit or found != found[:16] * 256:
            return f"unit {unit} holds what was never written to it"
        if not least <= version <= most:
            return f"unit {unit} holds version {version}; {least} was promised, {most} was begun"
        return None

    def settle(self):
        """What was read back counts as promised from now on: versions that were in doubt are not any more."""
        reader = Device(self.path, writable=False)
        for unit in range(self.units):
            os.preadv(reader.file, [reader.buffer[:UNIT]], (self.first + unit) * UNIT)
            at, version = struct.unpack_from("<QQ", reader.buffer)
            if version:
                self.acknowledged[unit] = version
        reader.close()
        self.flushed = dict(self.acknowledged)


def filled(lab, volume, units, seed):
    """A ledger over the first units of a volume that is started for it: each is written and flushed."""
    ledger = Ledger(volume.add(), 0, units, seed=seed)
    lab.devices.append(ledger)
    ledger.fill()
    if not ledger.flush():
        raise Failed("the first flush failed")
    return ledger


class Background(threading.Thread):
    """Keeps a ledger at work until it is told to stop; an unexpected error is raised again by `end`."""

    def __init__(self, ledger, flush_every=20, pause=0.0):
        super().__init__(daemon=True)
        self.ledger, self.flush_every, self.pause = ledger, flush_every, pause
        self.stopping = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            number = 0
            while not self.stopping.is_set():
                number += 1
                self.ledger.write()
                if number % self.flush_every == 0:
                    self.ledger.flush()
                if self.pause:
                    time.sleep(self.pause)
        except Exception as error:  # noqa: BLE001: told to whoever waits
            self.failure = error

    def end(self, limit):
        """Waits for the request under way, for at most so long."""
        self.stopping.set()
        self.join(limit)
        if self.is_alive():
            raise Failed(f"a request did not end within {limit} s")
        if self.failure:
            raise self.failure
