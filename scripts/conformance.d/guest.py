"""What scripts/conformance runs in the guest: makes the devices, runs tests, and notes each beginning and end.

Root in a throw-away machine is assumed. The disks, by scripts/conformance: the fast tiers of two volumes (or two disks to test
themselves), one for everything else, one for the logs of dm-log-writes.

Notes are JSON objects, a line each, in a file that the host reads: {"begin": TEST}, {"end": TEST, "status", "seconds", "said"}, and
{"volume": NAME, "sound": BOOL, "said"} at the end. Exit status: 0 all were run, 75 the machine is to be booted again for the rest.
"""

import argparse
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from rig import Failed, Forerun, Kernel, last_lines, result, run  # noqa: E402

FAST_DISKS, PLACE_DISK, LOG_DISK = ("/dev/vda", "/dev/vdb"), "/dev/vdc", "/dev/vdd"
WORK = Path("/run/conformance")
PLACE = WORK / "place"
VOLUME_SIZE = "3G"
AGAIN = 75
MANY = 400  # lines of what a test said that are kept
ON_OUR_DEVICE = re.compile(r"(I/O error|error), dev ublkb|Buffer I/O error on dev ublkb")


class Notes:
    def __init__(self, path, kept, limit):
        self.file = open(path, "a", encoding="utf-8")
        self.kept = Path(kept)
        self.limit = limit

    def note(self, **fields):
        print(json.dumps(fields), file=self.file, flush=True)
        os.fsync(self.file.fileno())

    def end(self, test, status, began, said, files=()):
        """Notes a test's end; what it left in files is kept where it did not pass."""
        self.note(end=test, status=status, seconds=round(time.monotonic() - began, 1), limit=self.limit,
                  said="\n".join(said.splitlines()[:MANY]))
        for file in files if status in ("failed", "time") else ():
            if file.is_file():
                shutil.copy(file, self.kept / f"{test.replace('/', '-')}{file.name.removeprefix(test.split('/')[-1]) or '.result'}")


class Devices:
    """The two devices to test: forerun's volumes, or the plain disks."""

    def __init__(self, options):
        self.forerun = None
        PLACE.mkdir(parents=True)
        run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", PLACE_DISK], 300)
        run(["mount", PLACE_DISK, PLACE])
        self.paths = list(FAST_DISKS)
        self.forerun = Forerun(options.programs, WORK / "state", WORK / "run")
        self.forerun.run_dir.mkdir(mode=0o700)
        os.environ.update(FORERUN_STATE_DIR=str(self.forerun.state_dir), FORERUN_RUN_DIR=str(self.forerun.run_dir))
        self.names = []
        if options.device == "plain":
            # As the volumes: ext4 places files otherwise where seeks cost something.
            for path in FAST_DISKS:
                Path(f"/sys/block/{Path(path).name}/queue/rotational").write_text("0")
        if options.device == "forerun" and options.suite != "ublk":
            self.paths = [self.volume(f"conformance-{part}", disk) for part, disk in zip(("a", "b"), FAST_DISKS)]

    def volume(self, name, fast):
        self.forerun("create", name, "--size", VOLUME_SIZE, "--fast", fast, "--capacity", PLACE / name)
        self.names.append(name)
        return self.forerun("add", name, "--no-trainer", limit=150)

    def sound(self, notes):
        """Stops the volumes and verifies them."""
        for name in self.names:
            for words in (("del", name), ("check", name)):
                done = self.forerun.try_(*words, limit=600)
                if done.returncode != 0:
                    break
            said = (done.stdout + done.stderr).strip()
            notes.note(volume=name, sound=done.returncode == 0, said=last_lines(said))


def complaints(kernel):
    return [line for line in kernel.lines()[kernel.seen:] if ON_OUR_DEVICE.search(line)]


def end_of(process):
    """Kills a program and all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except (OSError, ValueError):
            pass
    left = [process.pid]
    while left:
        pid = left.pop()
        left += parents.get(pid, [])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass


# ---- blktests


def blktests(options, devices, notes):
    """One call of the suite for each test. Gives whether all could be run."""
    out = PLACE / "results"
    (options.tree / "config").write_text(f'TEST_DEVS=({devices.paths[0] if options.suite != "ublk" else ""})\nTIMEOUT={options.limit // 3}\n')
    for test in options.tests:
        notes.note(begin=test)
        began, kernel = time.monotonic(), Kernel()
        try:
            done = result(["./check", "-o", out, test], options.limit, cwd=options.tree)
        except Failed as error:
            notes.end(test, "time", began, str(error))
            return False
        ends = re.findall(r"\[(passed|failed|not run)\]", done.stdout)
        status = next((end for end in ("failed", "passed", "not run") if end in ends), "failed")
        said = done.stdout
        bad = [] if options.suite == "ublk" else complaints(kernel)
        if bad and status == "passed":
            status, said = "failed", said + "\n" + "\n".join(bad)
        notes.end(test, status, began, said, sorted(out.glob(f"*/{test}*")))
        if status == "failed" and options.suite == "ublk":
            said = "\n".join(path.read_text(errors="replace") for path in devices.forerun.run_dir.glob("*/target.log"))
            (notes.kept / f"{test.replace('/', '-')}.target.log").write_text(said)
    return True


# ---- xfstests


def users():
    """The users that tests become."""
    for number, name in enumerate(("fsgqa", "fsgqa2", "123456-fsgqa"), 4000):
        with open("/etc/passwd", "a", encoding="utf-8") as passwd, open("/etc/group", "a", encoding="utf-8") as group:
            print(f"{name}:x:{number}:{number}::/tmp:/bin/bash", file=passwd)
            print(f"{name}:x:{number}:", file=group)


def verdict(text):
    """A test's end, of what xfstests printed from its name on."""
    first = text.splitlines()[0] if text else ""
    if "[not run]" in text:
        return "not run"
    return "passed" if re.search(r"\s\d+s\s*$", first) else "failed"


def xfstests(options, devices, notes):
    """One call of the suite for all, watched. Gives whether all could be run."""
    users()
    test_dir, scratch, results = WORK / "test", WORK / "scratch", PLACE / "results"
    for path in (test_dir, scratch, results):
        path.mkdir()
    make = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}[options.fs]
    run([*make, devices.paths[0]], 300)
    environment = os.environ | {
        "FSTYP": options.fs, "TEST_DEV": devices.paths[0], "TEST_DIR": str(test_dir), "SCRATCH_DEV": devices.paths[1],
        "SCRATCH_MNT": str(scratch), "LOGWRITES_DEV": LOG_DISK, "RESULT_BASE": str(results), "DIFF_LENGTH": "60",
    }  # fmt: skip
    kernel, said, current, began = Kernel(), "", None, time.monotonic()
    names = re.compile(r"^((?:generic|shared|ext4|xfs)/\d+)\b", re.MULTILINE)

    def end(status=None):
        text = said[said.index(current):] if current in said else said
        status, bad = status or verdict(text), complaints(kernel)
        if bad and status == "passed":
            status, text = "failed", text + "\n" + "\n".join(bad)
        folder, number = current.split("/")
        if status == "failed":
            (notes.kept / f"{current.replace('/', '-')}.kernel").write_text("\n".join(kernel.lines()[kernel.seen:]) + "\n")
        notes.end(current, status, began, text, [*sorted((results / folder).glob(f"{number}.*")), options.tree / "tests" / f"{current}.out"])
        kernel.seen = len(kernel.lines())

    process = subprocess.Popen(["./check", "--exact-order", *options.tests], cwd=options.tree, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            piece = os.read(process.stdout.fileno(), 65536)
            said += piece.decode(errors="replace")
            found = list(names.finditer(said))
            while found and found[-1][1] != current:
                at = next((n for n, match in enumerate(found) if match[1] == current), -1)
                following = found[at + 1]
                if current:
                    whole, said = said, said[:following.start()]
                    end()
                    said = whole[following.start():]
                else:
                    said = said[following.start():]
                current, began = following[1], time.monotonic()
                notes.note(begin=current)
                found = list(names.finditer(said))
            if not piece:
                break
        if current and time.monotonic() - began > options.limit:
            stacks = run(["ps", "-eo", "pid,stat,wchan:30,etimes,args"], 30, ok=None)
            (notes.kept / f"{current.replace('/', '-')}.processes").write_text(stacks)
            end("time")
            end_of(process)
            return False
    process.wait()
    if current is None:
        notes.note(failed="xfstests ran nothing", said=last_lines(said, 40))
        return True
    tail = re.search(r"^(Ran|Not run|Failures|Interrupted|Passed all)\b", said, re.MULTILINE)
    said = said[:tail.start()] if tail else said
    end()
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", choices=("ublk", "block", "xfstests"), required=True)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--device", choices=("forerun", "plain"), required=True)
    parser.add_argument("--fs", required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--keep", required=True)
    parser.add_argument("tests", nargs="+")
    options = parser.parse_args()
    os.environ["PATH"] = f"{HERE / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    os.environ.update(CONFORMANCE_PROGRAMS=options.programs, CONFORMANCE_PLACE=str(PLACE), CONFORMANCE_NOTES=options.notes)
    notes = Notes(options.notes, options.keep, options.limit)
    devices = Devices(options)
    notes.note(kernel=os.uname().release, devices=devices.paths if options.suite != "ublk" else [])
    whole = (xfstests if options.suite == "xfstests" else blktests)(options, devices, notes)
    run(["dmsetup", "remove_all"], 60, ok=None)
    if all(result(["umount", path], 120).returncode == 0 for path in (WORK / "test", WORK / "scratch") if os.path.ismount(path)):
        devices.sound(notes)
    return 0 if whole else AGAIN


sys.exit(main())
