"""What the device tests share: a place for volumes, a list of tests, and one line for each.

Each test gets volumes of its own by `lab.volume`. When it ends, they are stopped, `forerun check` has to
find each of them clean, the kernel must not have reported an I/O error, and nothing may be left running.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

from replay import Device  # noqa: E402
from rig import Failed, Forerun, Kernel, last_lines, quiet_umount, result, run, until  # noqa: E402

MIB = 1 << 20
BLOCK = 64 << 10  # bytes; the unit of mapping
SUB_BLOCK = 4 << 10  # bytes

TESTS = []


class Skipped(Exception):
    """Cannot be run here; the message says why."""


def test(function):
    """Adds a function to the tests; its name is the test's, its first line of text what it shows."""
    TESTS.append(function)
    return function


def expect(good, message):
    if not good:
        raise Failed(message() if callable(message) else message)


def equal(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: found {found!r}, expected {wanted!r}")


class Volume:
    """A volume of a test."""

    def __init__(self, lab, name, fast, capacity):
        self.lab, self.name, self.fast, self.capacity = lab, name, Path(fast), capacity
        self.forerun = lab.forerun  # of the machine that it is on, where there are several
        self.device = None
        self.expect_clean = True

    def add(self, *options, trainer=False):
        options = [*options] if trainer else [*options, "--no-trainer"]
        self.device = self.forerun("add", self.name, *options, limit=150)
        return self.device

    def delete(self):
        self.forerun("del", self.name, limit=150)

    def check(self):
        self.forerun("check", self.name, limit=240)

    def kill(self):
        return self.forerun.kill_target(self.name)

    def recover(self):
        return self.forerun("recover", self.name, limit=150)

    def status(self):
        return self.forerun.json("status", self.name)

    def snapshot(self, name, *options):
        return self.forerun.json("snapshot", "create", self.name, name, *options)

    def attach(self, snapshot):
        return self.forerun("snapshot", "attach", self.name, snapshot, limit=240)

    def detach(self, snapshot):
        self.forerun("del", f"{self.name}@{snapshot}", limit=120)

    def written_back(self, limit=120):
        """Waits until all sealed epochs are on the capacity tier."""
        until(
            f"the write-back of volume {self.name}", limit,
            lambda: self.status()["volume"]["epochs_not_written_back"] == 0, 0.5,
        )  # fmt: skip

    def records(self):
        return sorted((self.forerun.run_dir / self.name).glob("device*.json"), reverse=True)


class Lab:
    """Where volumes live: fast tiers and capacity tiers in files of one file system, unless said otherwise."""

    def __init__(self, programs, disk, extra_disks, work):
        self.work = Path(work)
        self.extra_disks = extra_disks
        self.place = self.work / "disk"
        self.place.mkdir(parents=True)
        if disk:
            run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk], 120)
            run(["mount", disk, self.place])
        self.forerun = Forerun(programs, self.work / "state", "/run/forerun-test")
        self.forerun.run_dir.mkdir(mode=0o700, exist_ok=True)
        self.logs = self.work / "logs"
        self.logs.mkdir()
        self.mounts = []
        self.jobs = []
        self.volumes = []
        self.notes = []
        self.devices = []
        self.undo = []

    def later(self, undo):
        """Has something done after the test, when its volumes are stopped and checked; the last one first."""
        self.undo.append(undo)

    def device(self, path, **options):
        """A device that is closed at the test's end, so that it can be removed."""
        device = Device(path, **options)
        self.devices.append(device)
        return device

    def note(self, text):
        """Something measured, shown below the test's line."""
        self.notes.append(text)

    def volume(self, name, size="1G", fast_size="256M", *options, fast=None, capacity=None):
        """Creates a volume; its tiers are new files, or a disk for the fast tier."""
        capacity = capacity or self.place / f"{name}.capacity"
        if fast is None:
            fast, sized = self.place / f"{name}.fast", ["--fast-size", fast_size]
        else:
            sized = []
            # What an earlier test left there is not wanted any more.
            run(["dd", "if=/dev/zero", f"of={fast}", "bs=64K", "count=2", "conv=fsync", "status=none"])
        self.forerun("create", name, "--size", size, "--fast", fast, *sized, "--capacity", capacity, *options)
        volume = Volume(self, name, fast, capacity)
        self.volumes.append(volume)
        return volume

    def mount(self, device, *options):
        path = self.work / f"mnt{len(self.mounts)}"
        path.mkdir(exist_ok=True)
        run(["mount", *options, device, path], 90)
        self.mounts.append(path)
        return path

    def unmount(self, path):
        run(["umount", path], 120)
        self.mounts.remove(path)

    def job(self, job):
        self.jobs.append(job)
        return job

    def tidy(self):
        """After a test: stops what it left, and checks its volumes."""
        problems = []
        for job in self.jobs:
            if job.running():
                job.kill()
        for device in self.devices:
            device.close()
        for path in reversed(self.mounts):
            quiet_umount(path)
        for volume in self.volumes:
            for record in volume.records():
                name = record.stem.replace("device", volume.name, 1)
                done = volume.forerun.try_("del", name, limit=120)
                if done.returncode != 0:
                    problems.append(f"forerun del {name}: {(done.stdout + done.stderr).strip()}")
            if volume.expect_clean:
                done = volume.forerun.try_("check", volume.name, limit=240)
                if done.returncode != 0:
                    problems.append(f"forerun check {volume.name}: {last_lines(done.stdout + done.stderr)}")
        if problems:
            for volume in self.volumes:
                problems.append(f"the target of {volume.name} said:\n{last_lines(volume.forerun.target_log(volume.name))}")
        for volume in self.volumes:
            shutil.rmtree(volume.capacity, ignore_errors=True)
            if volume.fast.is_file():
                volume.fast.unlink()
            shutil.rmtree(volume.forerun.state_dir / volume.name, ignore_errors=True)
        while self.undo:
            self.undo.pop()()
        self.mounts, self.jobs, self.volumes, self.devices = [], [], [], []
        return problems


def run_tests(lab, only, out):
    """Runs the tests whose names hold one of the words; a line each. Gives the numbers of each end."""
    passed = failed = skipped = 0
    for function in TESTS:
        name = function.__name__
        if only and not any(word in name for word in only):
            continue
        began, kernel, end, detail = time.monotonic(), Kernel(), "ok", ""
        lab.notes = []
        logs = ""
        try:
            function(lab)
        except Skipped as reason:
            end, detail = "skipped", str(reason)
        except Failed as error:
            end, detail = "FAILED", str(error)
        except Exception:
            end, detail = "FAILED", traceback.format_exc()
        if end == "FAILED":
            for volume in lab.volumes:
                logs += f"    the target of {volume.name} said:\n{last_lines(volume.forerun.target_log(volume.name))}\n"
        try:
            problems = lab.tidy()
        except Exception:
            problems = [traceback.format_exc()]
        problems += [f"the kernel: {line}" for line in kernel.errors()]
        expected = getattr(function, "expected_kernel_errors", None)
        if expected:
            problems = [problem for problem in problems if not expected.search(problem)]
        if problems and end != "FAILED":
            end = "FAILED"
        detail = "\n    ".join([detail, *problems]).strip()
        print(f"{end:8s} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        for note in lab.notes:
            print(f"         {note}")
        if detail:
            print("    " + detail)
        if logs:
            print(logs, end="")
        sys.stdout.flush()
        passed += end == "ok"
        failed += end == "FAILED"
        skipped += end == "skipped"
    counts = {"passed": passed, "failed": failed, "skipped": skipped}
    Path(out).write_text(json.dumps(counts) + "\n")
    return counts


# ---- Small helpers of several tests.


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_files(folder, count=40):
    """Files of many sizes; path -> checksum."""
    sums = {}
    for number in range(count):
        path = Path(folder) / f"d{number % 5}" / f"file-{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(1 + number * number * 211))
        sums[path] = digest(path)
    return sums


def files_are(sums, old=None, new=None):
    """That files are what they were, possibly under another mount point."""
    for path, wanted in sums.items():
        found = path if old is None else Path(new) / path.relative_to(old)
        equal(digest(found), wanted, f"the content of {found}")


__all__ = [name for name in globals() if not name.startswith("_")] + [
    "Failed", "Forerun", "result", "run", "until", "last_lines",
]  # fmt: skip
