"""What scripts/bench runs in the guest: sets devices up, measures, prints one JSON object a line.

  guest.py PROGRAMS speed|memory [--quick]

PROGRAMS is the folder with the built programs. Root in a throw-away machine is assumed: the RAM disks /dev/ram*
(speed) or the disks /dev/vda and /dev/vdb (memory) are overwritten.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.argv[1])
QUICK = "--quick" in sys.argv
ZERO_COPY = not os.uname().release.startswith("6.")

BLOCK = 64 << 10
BLOCKS = 1024 if QUICK else 4096  # measured blocks: 256 MiB
SIZE = BLOCKS * BLOCK
RUN_MS = 150 if QUICK else 400
ROUNDS = 1 if QUICK else 2  # times that each block is written first
DEPTHS = (1, 32)
SEQUENTIAL_DEPTH = 8


def say(**fields):
    print(json.dumps(fields), flush=True)


def run(*command, check=True, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **options)
    if check and done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def await_(what, condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not reached in {seconds} s: {what}")
        time.sleep(0.1)


def is_block(path):
    return Path(path).is_block_device()


def fio(job, **environment):
    """Runs a job file; gives I/Os and seconds."""
    words = {name.upper(): str(value) for name, value in environment.items()}
    device = words.get("DEVICE")
    assert device is None or is_block(device), f"{device} is no block device"
    text = run("fio", "--output-format=json", HERE / f"{job}.fio", env=os.environ | words)
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"]:
        raise SystemExit(f"fio: error {job['error']}\n{text}")
    both = (job["read"], job["write"])
    return sum(way["total_ios"] for way in both), sum(way["runtime"] for way in both) / 1000


def cell(target, mode, what, depth, runs):
    """Reports a measurement: I/Os an instruction-counted second, and instructions an I/O."""
    ios, seconds = (sum(column) for column in zip(*runs))
    say(kind="cell", target=target, mode=mode, what=what, depth=depth, ios=ios, seconds=round(seconds, 3),
        iops=round(ios / seconds), instructions=round(seconds * 1e9 / ios))


def hits(target, mode, device):
    """Reads and overwrites of data that is there."""
    common = {"device": device, "size": SIZE, "ms": RUN_MS}
    for depth in DEPTHS:
        for job, what in (("4k-read", "read 4 KiB"), ("4k-write", "overwrite 4 KiB")):
            cell(target, mode, what, depth, [fio(job, depth=depth, **common)])
    for job, what in (("128k-read", "read 128 KiB"), ("128k-write", "overwrite 128 KiB")):
        cell(target, mode, what, SEQUENTIAL_DEPTH, [fio(job, depth=SEQUENTIAL_DEPTH, **common)])


def permutation(device):
    """A file that makes fio write 4 KiB to each block once, in an order that is always the same."""
    blocks = list(range(BLOCKS))
    random.Random(1).shuffle(blocks)
    return iolog(device, blocks)


def iolog(device, blocks):
    """A file that makes fio write 4 KiB to each of these blocks."""
    path = Path("/tmp/iolog")
    writes = (f"{device} write {block * BLOCK} 4096" for block in blocks)
    path.write_text("\n".join(["fio version 2 iolog", f"{device} add", f"{device} open", *writes,
                               f"{device} close", ""]))
    return path


def first_writes(target, mode, device, snapshot, quiet):
    """The first write to each block after a snapshot, against the same writes once more."""
    order = permutation(device)
    for depth in DEPTHS:
        first, again = [], []
        for _ in range(ROUNDS):
            snapshot()
            quiet()
            first.append(fio("permutation", iolog=order, depth=depth))
            again.append(fio("permutation", iolog=order, depth=depth))
        if any(ios != BLOCKS for ios, _ in first + again):
            raise SystemExit(f"not every block was written once: {first + again}")
        cell(target, mode, "first write 4 KiB", depth, first)
        cell(target, mode, "the same again", depth, again)


def fill(device):
    fio("fill", device=device, depth=8, size=SIZE)


def calm(device):
    """The same settings for all devices: no scheduler, no throttling of writes."""
    queue = Path("/sys/block", Path(os.path.realpath(device)).name, "queue")
    for name, value in (("scheduler", "none"), ("wbt_lat_usec", "0")):
        with contextlib.suppress(OSError):
            (queue / name).write_text(value)


def ram_disks(sizes):
    """As many RAM disks as sizes; each has all of its memory already, so that none is given in a measurement."""
    run("modprobe", "brd", f"rd_nr={len(sizes)}", f"rd_size={max(sizes) >> 10}")
    for number, size in enumerate(sizes):
        device = f"/dev/ram{number}"
        await_(device, lambda: is_block(device))
        calm(device)
        run("dd", "if=/dev/zero", f"of={device}", "bs=1M", f"count={size >> 20}", "oflag=direct")


@contextlib.contextmanager
def thin_loop(backing, zero_copy):
    device = "/dev/ublkb0"
    program = PROGRAMS / "examples" / "thin_loop"
    words = [program, "--file", backing, "-n", "0", *(["--zero-copy"] if zero_copy else [])]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    await_("the thin loop's device", lambda: is_block(device) or process.poll() is not None)
    calm(device)
    yield device
    process.terminate()
    process.wait()
    await_("the device is gone", lambda: not Path("/dev/ublkc0").exists())


class Forerun:
    """A volume named `bench` on a fast tier, its capacity tier in a folder."""

    def __init__(self, fast, capacity, size, zero_copy):
        self.device, self.count = "/dev/ublkb0", 0
        # What another volume may have left there.
        run("dd", "if=/dev/zero", f"of={fast}", "bs=64K", "count=2", "oflag=direct")
        self.command("create", "bench", "--size", size, "--fast", fast, "--capacity", capacity, "--sync-interval", 3600,
                     "--prediction", "off")
        self.start(zero_copy)

    def start(self, zero_copy):
        words = [PROGRAMS / "ublk-target", "add", "--volume", "bench", "-n", "0", *([] if zero_copy else ["--copy"])]
        with Path("/tmp/target.log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        await_("the volume's device", lambda: is_block(self.device) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise SystemExit(Path("/tmp/target.log").read_text(encoding="utf-8"))
        calm(self.device)
        await_("the volume's status", lambda: "transfer_mode" in self.command("status", "bench", "--json", check=False))
        mode = self.status()["transfer_mode"]
        assert mode == ("zero copy" if zero_copy else "copy"), mode

    @staticmethod
    def command(*words, check=True):
        return run(PROGRAMS / "forerun", *words, check=check)

    def status(self):
        return json.loads(self.command("status", "bench", "--json"))["volume"]

    def snapshot(self):
        self.count += 1
        self.command("snapshot", "create", "bench", f"s{self.count}")

    def quiet(self):
        """Waits until all sealed epochs are written back and the journal has nothing to do."""
        await_("write-back", lambda: self.status()["epochs_not_written_back"] == 0)
        time.sleep(5)

    def memory(self):
        """Resident memory in bytes: all, and of that what is the process's own (not program files)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        words = dict(line.split(":", 1) for line in text.splitlines())
        kib = {name: int(words[name].split()[0]) << 10 for name in ("VmRSS", "RssAnon", "RssShmem", "RssFile")}
        return {"rss": kib["VmRSS"], "own": kib["RssAnon"], "shared": kib["RssShmem"], "files": kib["RssFile"]}

    def end(self, remove=True):
        self.process.terminate()
        self.process.wait()
        if remove:
            run("rm", "-rf", "/var/lib/forerun/bench", "/run/forerun/bench")
        await_("the device is gone", lambda: not Path("/dev/ublkc0").exists())


class DmThin:
    """A thin volume on a pool with forerun's block size."""

    def __init__(self, metadata, data, data_size):
        run("dd", "if=/dev/zero", f"of={metadata}", "bs=64K", "count=1", "oflag=direct")
        self.snapshots = 0
        sectors = BLOCK >> 9
        run("modprobe", "dm-thin-pool")
        run("dmsetup", "create", "pool", "--table", f"0 {data_size >> 9} thin-pool {metadata} {data} {sectors} 0 1 "
            "skip_block_zeroing")
        run("dmsetup", "message", "/dev/mapper/pool", "0", "create_thin 0")
        run("dmsetup", "create", "thin", "--table", f"0 {SIZE >> 9} thin /dev/mapper/pool 0")
        self.device = "/dev/mapper/thin"

    def snapshot(self):
        # The one before goes: its blocks come back to the pool, and the thin volume shares none with it.
        if self.snapshots:
            run("dmsetup", "message", "/dev/mapper/pool", "0", f"delete {self.snapshots}")
        self.snapshots += 1
        run("dmsetup", "suspend", "/dev/mapper/thin")
        run("dmsetup", "message", "/dev/mapper/pool", "0", f"create_snap {self.snapshots} 0")
        run("dmsetup", "resume", "/dev/mapper/thin")

    def quiet(self):
        time.sleep(2)


def speed():
    fast_size = SIZE * (2 + 2 * ROUNDS)  # room for every round's redirects: nothing is evicted meanwhile
    thin_size = SIZE * 3
    ram_disks([SIZE, fast_size, thin_size, 64 << 20])
    fill("/dev/ram0")
    hits("RAM disk", "-", "/dev/ram0")
    thin = DmThin("/dev/ram3", "/dev/ram2", thin_size)
    fill(thin.device)
    hits("dm-thin", "-", thin.device)
    first_writes("dm-thin", "-", thin.device, thin.snapshot, thin.quiet)
    for zero_copy in (False, True) if ZERO_COPY else (False,):
        mode = "zero copy" if zero_copy else "copy"
        with thin_loop("/dev/ram0", zero_copy) as device:
            hits("thin loop", mode, device)
        volume = Forerun("/dev/ram1", f"/tmp/capacity-{zero_copy}", SIZE, zero_copy)
        fill(volume.device)
        volume.quiet()
        hits("forerun", mode, volume.device)
        first_writes("forerun", mode, volume.device, volume.snapshot, volume.quiet)
        volume.end()
        run("rm", "-rf", f"/tmp/capacity-{zero_copy}")


def memory():
    """A volume of 1 TiB, written in random places; each write maps another block.

    There are more blocks than slots from the first: a slot that was never used is not resident yet, and its
    first use would count as a block's."""
    size, first, more = 1 << 40, *((135_000, 20_000) if QUICK else (140_000, 200_000))
    run("mkfs.ext4", "-qF", "/dev/vdb")
    run("mount", "/dev/vdb", "/mnt")
    volume = Forerun("/dev/vda", "/mnt/capacity", size, ZERO_COPY)
    random_blocks = random.Random(2).sample(range(size // BLOCK), first + more)

    def report(state):
        status = volume.status()
        say(kind="memory", state=state, slots=status["fast_tier"]["total_bytes"] // BLOCK,
            mapped_blocks=status["mapped_bytes"] // BLOCK, evictions=status["evictions"], **volume.memory())

    def write(some, what):
        fio("permutation", iolog=iolog(volume.device, some), depth=32)
        report(f"{what} written")
        volume.snapshot()
        volume.quiet()
        report(f"{what} written back")
        volume.end(remove=False)
        volume.start(ZERO_COPY)
        report(f"{what} opened again")

    report("empty")
    write(random_blocks[:first], f"{first:,} blocks")
    write(random_blocks[first:], f"{first + more:,} blocks")
    volume.end()


def main():
    os.environ["DM_DISABLE_UDEV"] = "1"
    say(kind="about", kernel=os.uname().release, fio=run("fio", "--version").strip(), quick=QUICK, blocks=BLOCKS,
        run_ms=RUN_MS)
    {"speed": speed, "memory": memory}[sys.argv[2]]()


main()
