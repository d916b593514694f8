"""What scripts/bench --prediction runs in the guest: what prediction buys, on against off in one boot.

  prediction.py PROGRAMS [--quick] [returns|reads|random]...

Root in a throw-away machine is assumed. The fast tier is a RAM disk, the capacity tier a file system on a disk that takes
5 ms a request (null_blk). Three kinds of work, each on a volume with prediction and on one without, one after the other:

  returns  twelve sets of blocks (batch jobs, say), one after the other, round and round: in each phase a set is read and
           overwritten, a block every few milliseconds. All of them together are twice the fast tier.
  reads    the same, but nothing is overwritten, save for one block a phase.
  random   single blocks anywhere, one after the other without a pause.

Each access reads 4 KiB of a block, which is timed, and writes 4 KiB to it. The trainer has 0.3 CPU seconds an epoch: the
guest's processor, which counts instructions, is several times slower than a real one. Phases are as long as epochs, but not in step
with them. The page cache is dropped at each phase's beginning, so that it is no third tier.
"""

import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rig import Forerun, Job, run, until  # noqa: E402
from slow_tier import BLOCK, PAGE, Device, at_hand, drop_page_cache, note, ram_disk, say, slow_disk  # noqa: E402

QUICK = "--quick" in sys.argv
REQUEST_NS = 5_000_000
VOLUME = 1 << 30
FAST = 128 << 20
BLOCKS = VOLUME // BLOCK
SETS = 12
EXTENTS, EXTENT_BLOCKS = 10, 32  # of a set
EPOCH = 10  # seconds, of a phase as well
RANDOM_EPOCH = 5
WARM_CYCLES, MEASURED_CYCLES = (3, 1) if QUICK else (4, 2)
RANDOM_WARM, RANDOM_MEASURED = (6, 3) if QUICK else (16, 8)  # epochs
HORIZON = 2
THRESHOLD = 0.2
TRAINER_SECONDS = 0.3  # of CPU an epoch


def sets():
    """Which blocks each set has."""
    chance = random.Random(7)
    extents = list(range(BLOCKS // EXTENT_BLOCKS))
    chance.shuffle(extents)
    return [[extent * EXTENT_BLOCKS + at for extent in extents[EXTENTS * one:EXTENTS * (one + 1)] for at in range(EXTENT_BLOCKS)]
            for one in range(SETS)]


class Volume:
    def __init__(self, forerun, name, prediction, epoch):
        self.forerun, self.name, self.prediction = forerun, name, prediction
        self.trainer = None
        run(["dd", "if=/dev/zero", "of=/dev/ram0", "bs=64K", "count=4", "oflag=direct"])
        forerun("create", name, "--size", VOLUME, "--fast", "/dev/ram0", "--capacity", f"/mnt/{name}", "--sync-interval", epoch,
                "--horizon", HORIZON, "--threshold", THRESHOLD, "--prediction", "on" if prediction else "off")
        self.device = Device(forerun("add", name, "--no-trainer"))
        self.device.fill(BLOCKS)
        self.calm()
        # Not before: filling is no work to be measured, and the guest's processor is slow.
        if prediction:
            words = [forerun.program("forerun-trainer"), "run", name, "--cpu-seconds-per-epoch", TRAINER_SECONDS]
            self.trainer = Job(words, Path(f"/tmp/{name}.log"), env=forerun.env)

    def calm(self):
        until("write-back", 600, lambda: self.status()["volume"]["epochs_not_written_back"] == 0, 1)

    def status(self):
        return self.forerun.json("status", self.name)

    def processor_seconds(self):
        """Of the target and of the trainer, since they began."""
        ticks = os.sysconf("SC_CLK_TCK")
        seconds = []
        for pid in (self.forerun.target_pid(self.name), self.trainer and self.trainer.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split() if pid else None
            seconds.append((int(fields[11]) + int(fields[12])) / ticks if fields else 0)
        return seconds

    def remove(self):
        self.device.close()
        if self.trainer:
            self.trainer.stop()
        self.forerun("del", self.name)
        run(["rm", "-rf", f"/mnt/{self.name}", self.forerun.state_dir / self.name, self.forerun.run_dir / self.name])
        drop_page_cache()


def counts(volume):
    status = volume.status()
    of_volume, prefetch = status["volume"], status["prefetch"]
    return {
        "read_hits": of_volume["read_hits"], "read_misses": of_volume["read_misses"],
        "prefetched_bytes": prefetch["prefetched_bytes"], "prefetched_used_bytes": prefetch["prefetched_used_bytes"],
        "reservations_made": prefetch["reservations_made"], "reservations_wasted": prefetch["reservations_wasted"],
    }


def result(volume, work, latencies, before, seconds):
    latencies = sorted(latencies)
    at = lambda share: 1e3 * latencies[min(int(share * len(latencies)), len(latencies) - 1)]
    after, status = counts(volume), volume.status()["prefetch"]
    processors = volume.processor_seconds()
    say(kind="prediction", work=work, prediction="on" if volume.prediction else "off", accesses=len(latencies), seconds=seconds,
        p50_ms=at(0.5), p90_ms=at(0.9), p99_ms=at(0.99), mean_ms=1e3 * sum(latencies) / len(latencies),
        state=status["state"], precision=status["precision"], recall=status["recall"], serving=status.get("serving_reason", ""),
        control_blocks=status["control_blocks"], control_missed=status["control_missed"],
        acted_blocks=status["acted_blocks"], acted_missed=status["acted_missed"],
        target_cpu_s=processors[0], trainer_cpu_s=processors[1],
        **{name: after[name] - before[name] for name in after})


def returns(volume, work="returns"):
    all_sets, chance = sets(), random.Random(11)
    latencies, before, measured_from = [], None, time.monotonic()
    phase_start = time.monotonic()
    for phase in range(SETS * (WARM_CYCLES + MEASURED_CYCLES)):
        if phase == SETS * WARM_CYCLES:
            latencies, before, measured_from = [], counts(volume), time.monotonic()
        drop_page_cache()
        blocks = list(all_sets[phase % SETS])
        chance.shuffle(blocks)
        for at, block in enumerate(blocks):
            due = phase_start + EPOCH * at / len(blocks)
            time.sleep(max(0, due - time.monotonic()))
            latencies.append(volume.device.access(block, chance.randrange(BLOCK // PAGE), work == "returns" or at == 0))
        phase_start += EPOCH
        time.sleep(max(0, phase_start - time.monotonic()))
        if phase % SETS == SETS - 1:
            now = volume.status()["prefetch"]
            last = sorted(latencies[-SETS * len(blocks):])
            note(f"{work}, prediction {'on' if volume.prediction else 'off'}: round {phase // SETS + 1}: p50 {1e3 * last[len(last) // 2]:.2f} ms, "
                 f"p99 {1e3 * last[len(last) * 99 // 100]:.2f} ms; {now['state']}; precision {now['precision']:.2f}, recall {now['recall']:.2f}; "
                 f"{now['prefetched_bytes'] >> 20} MiB fetched ahead; {now.get('serving_reason', '')}")
    result(volume, work, latencies, before, time.monotonic() - measured_from)


def reads(volume):
    returns(volume, "reads")


def at_random(volume):
    chance = random.Random(13)
    latencies, before, measured_from, done = [], None, None, 0
    began = time.monotonic()
    # The same accesses with prediction and without: how long they take is what is compared.
    warm, measured = RANDOM_WARM * RANDOM_EPOCH * 150, RANDOM_MEASURED * RANDOM_EPOCH * 150
    while done < warm + measured:
        if done == warm:
            latencies, before, measured_from = [], counts(volume), time.monotonic()
        if done % 750 == 0:
            drop_page_cache()
        if done % 3000 == 0:
            note(f"random, prediction {'on' if volume.prediction else 'off'}: {done} of {warm + measured} accesses, {time.monotonic() - began:.0f} s")
        latencies.append(volume.device.access(chance.randrange(BLOCKS), chance.randrange(BLOCK // PAGE)))
        done += 1
    note(f"random, prediction {'on' if volume.prediction else 'off'}: {time.monotonic() - began:.0f} s; {volume.status()['prefetch']['state']}")
    result(volume, "random", latencies, before, time.monotonic() - measured_from)


def main():
    programs = at_hand(sys.argv[1])
    os.environ["DM_DISABLE_UDEV"] = "1"
    say(kind="about", kernel=os.uname().release, fio="", quick=QUICK, volume_bytes=VOLUME, fast_bytes=FAST, request_ns=REQUEST_NS,
        sets=SETS, set_blocks=EXTENTS * EXTENT_BLOCKS, epoch_s=EPOCH, horizon=HORIZON, threshold=THRESHOLD)
    slow_disk(3 << 10, REQUEST_NS)
    ram_disk(FAST)
    forerun = Forerun(programs, "/tmp/state", "/tmp/run")
    works = {"returns": (returns, EPOCH), "reads": (reads, EPOCH), "random": (at_random, RANDOM_EPOCH)}
    wanted = [word for word in sys.argv[2:] if word in works] or works
    for work, epoch in (works[name] for name in wanted):
        for prediction in (False, True):
            volume = Volume(forerun, f"{work.__name__.replace('_', '-')}-{'on' if prediction else 'off'}", prediction, epoch)
            work(volume)
            volume.remove()


if __name__ == "__main__":
    main()
