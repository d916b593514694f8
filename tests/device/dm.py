"""Device-mapper devices whose table changes while they are in use: errors, delays, a device that goes and comes back."""

import os
from pathlib import Path

from lab import Skipped, run
from rig import Failed, result

SECTOR = 512


def modules(*names):
    """Loads kernel modules; a test that needs one that is not there is skipped."""
    for name in names:
        done = result(["modprobe", name], 30)
        if done.returncode != 0:
            raise Skipped(f"this kernel has no module {name}")
    os.environ["DM_DISABLE_UDEV"] = "1"


def sectors_of(device):
    return int(run(["blockdev", "--getsz", device]))


class Mapped:
    """A mapped device over the first sectors of another one."""

    def __init__(self, name, below, sectors=None):
        self.name, self.below = name, below
        self.path = f"/dev/mapper/{name}"
        self.sectors = sectors or sectors_of(below)
        run(["dmsetup", "create", name, "--table", self.linear()], 30)
        if not Path(self.path).exists():
            raise Failed(f"{self.path} did not appear")

    def linear(self, first=0, count=None):
        """A piece that is as it should be."""
        return f"{first} {self.sectors - first if count is None else count} linear {self.below} {first}"

    def error(self, first=0, count=None):
        """A piece whose reads and writes fail. A flush passes it by."""
        return f"{first} {self.sectors - first if count is None else count} error"

    def flakey(self, what, first=0, count=None):
        """A piece that does `what`, all the time: error_reads, or error_writes, which fails flushes too."""
        count = self.sectors - first if count is None else count
        return f"{first} {count} flakey {self.below} {first} 0 1 1 {what}"

    def delay(self, read_ms, write_ms):
        return f"0 {self.sectors} delay {self.below} 0 {read_ms} {self.below} 0 {write_ms}"

    def becomes(self, *pieces):
        """Changes the table. Requests under way end on the old one or are done on the new one."""
        run(["dmsetup", "suspend", "--noflush", "--nolockfs", self.name], 60)
        try:
            run(["dmsetup", "load", self.name], 60, text_in="\n".join(pieces) + "\n")
        finally:
            run(["dmsetup", "resume", self.name], 60)

    def heals(self):
        self.becomes(self.linear())

    def flushes_fail(self, at):
        """Everything works but flushes: a piece of 8 sectors that nobody uses fails them."""
        self.becomes(
            *([self.linear(0, at)] if at else []),
            self.flakey("error_writes", at, 8),
            self.linear(at + 8),
        )

    def remove(self):
        result(["dmsetup", "remove", "--force", "--retry", self.name], 60)


def mapped(lab, name, below, sectors=None):
    """A mapped device that is removed after the test, when its volumes are gone."""
    device = Mapped(name, below, sectors)
    lab.later(device.remove)
    return device
