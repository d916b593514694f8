"""fio with verification on a volume larger than its fast tier, with prediction off, right, random and hostile.

Region after region is written at random places and read back; then all of them are read again, before and after a
restart. What is written is a pattern of the round's number and the place: so what an earlier round wrote, or what belongs
elsewhere, is an error as well, which fio's checksums alone would take for good. A forger writes tables beside it, as the trainer would, but with what the test
wants: 'right' is the very region that the round is writing, and the next one."""

import random
import threading
import time

from forged_table import Forger
from kills import SIZES
from lab import BLOCK, MIB, equal, expect, test
from rig import Failed, drop_caches, result

REGIONS, REGION = 8, 20 * MIB
ROUNDS = REGIONS + 3  # so that some regions are written again
REGION_BLOCKS = REGION // BLOCK
SOME = 512  # blocks of a random table
TABLE_INTERVAL = 0.7  # seconds
KINDS = ADDED, MODIFIED, DELETED = (1, 2, 3)


def fio(device, number, *more, limit=300):
    """Round `number`: its region, its pattern. With --verify_only nothing is written."""
    options = {
        "name": f"round{number}", "filename": device, "offset": number % REGIONS * REGION, "size": REGION, "rw": "randwrite",
        "bssplit": SIZES, "direct": 1, "ioengine": "libaio", "iodepth": 16, "verify": "pattern", "verify_pattern": f'"round {number:04}"%o', "do_verify": 1,
        "verify_fatal": 1, "randseed": 1000 + number, "verify_state_save": 0,
    }  # fmt: skip
    done = result(["fio", *(f"--{name}={value}" for name, value in options.items()), *more], limit)
    if done.returncode != 0 or "bad pattern" in done.stdout:
        said = [line for line in done.stdout.splitlines() if "verify" in line or "pattern" in line or "err" in line]
        raise Failed(f"fio, round {number} {more}, ended with status {done.returncode}:\n" + "\n".join(said[:8]))


class Tables:
    """Writes table after table in a thread of its own."""

    def __init__(self, lab, volume, predictor):
        status = volume.status()["volume"]
        self.blocks = status["size_bytes"] // BLOCK
        path = lab.forerun.run_dir / volume.name / "predictions"
        self.forger = Forger(path, bytes.fromhex(status["uuid"].replace("-", "")), self.blocks, seed=6)
        self.random = random.Random(8)
        self.predictor, self.round, self.epoch, self.written = predictor, 0, 1, 0
        self.problem = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def begins(self, number, epoch):
        """A round is about to begin; the last sealed epoch."""
        self.epoch, self.round = epoch, number

    def work(self):
        try:
            while not self.ended.wait(TABLE_INTERVAL if self.written else 0):
                self.write()
                self.written += 1
        except Exception as error:  # told by `end`
            self.problem = error

    def write(self):
        if self.predictor in ("off", "right"):
            # What comes first is the most probable.
            first = [self.round % REGIONS, (self.round + 1) % REGIONS]
            told = [(region * REGION_BLOCKS + at, 0.95 - 0.1 * later) for later, region in enumerate(first) for at in range(REGION_BLOCKS)]
            self.sound([(block, MODIFIED, probability) for block, probability in told])
        elif self.predictor == "random":
            blocks = self.random.sample(range(self.blocks), SOME)
            chances = sorted((self.random.random() for _ in blocks), reverse=True)
            self.sound([(block, self.random.choice(KINDS), chance) for block, chance in zip(blocks, chances)])
        elif self.written % 4 == 3:
            self.forger.garbage(self.epoch)
        elif self.written % 4 == 2:
            # Certain, and wrong: what is being written is deleted, what is not is fetched.
            now = self.round % REGIONS
            told = [(block, DELETED if block // REGION_BLOCKS == now else MODIFIED, 1.0) for block in range(0, self.blocks, 2)]
            self.sound(told)
        else:
            self.forger.hostile(self.epoch)

    def sound(self, entries):
        file, at, buffer = self.forger.sound(self.epoch, 64, entries)
        self.forger.put([(0, file), (at, buffer)])

    def end(self):
        self.ended.set()
        self.thread.join(60)
        if self.problem is not None:
            raise self.problem
        self.forger.remove()


def verified(lab, predictor):
    switch = ["--prediction", "off"] if predictor == "off" else []
    volume = lab.volume(f"verify{predictor}", f"{REGIONS * REGION // MIB}M", "96M", "--threshold", "0.05", "--sync-interval", "2", *switch)
    device = volume.add()
    tables = Tables(lab, volume, predictor)
    began = time.monotonic()
    for number in range(ROUNDS):
        tables.begins(number, max(volume.status()["volume"]["open_epoch"] - 1, 1))
        # Time for a table of this round to be taken.
        time.sleep(TABLE_INTERVAL + 0.6)
        fio(device, number)
    took = time.monotonic() - began
    newest = range(ROUNDS - REGIONS, ROUNDS)
    drop_caches()
    for number in newest:
        fio(device, number, "--verify_only")
    status = volume.status()
    tables.end()
    equal(status["volume"]["failed_requests"], 0, "failed requests")
    prefetch, counts = status["prefetch"], status["volume"]
    lab.note(
        f"{tables.written} tables, {prefetch['tables_accepted']} taken, {prefetch['tables_refused']} refused; {prefetch['reservations_made']} reservations "
        f"made, {prefetch['reservations_used']} used, {prefetch['reservations_wasted']} wasted; {prefetch['prefetched_bytes'] // MIB} MiB prefetched; "
        f"{counts['evictions']} evictions, {counts['read_misses']} read misses; {ROUNDS} rounds of fio in {took:.0f} s"
    )
    expect(counts["evictions"] > 500 and counts["read_misses"] > 0, lambda: f"hardly anything left the fast tier: {counts}")
    acted = prefetch["reservations_made"] > 0 or prefetch["prefetched_bytes"] > 0
    equal(acted, predictor != "off", "whether predictions were acted on")
    if predictor == "right":
        expect(prefetch["reservations_used"] > 500, lambda: f"hardly a right prediction was of use: {prefetch}")
    if predictor == "hostile":
        expect(prefetch["tables_refused"] > 0, lambda: f"no table was refused: {prefetch}")
    volume.snapshot("at-the-end")
    volume.written_back()
    volume.delete()
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    for number in newest:
        fio(device, number, "--verify_only")
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests after a restart")


@test
def verified_with_prediction_off(lab):
    """The volume's configuration says off; right tables are there, and nobody acts on them."""
    verified(lab, "off")


@test
def verified_with_right_predictions(lab):
    """The blocks that fio is about to write."""
    verified(lab, "right")


@test
def verified_with_random_predictions(lab):
    """Random blocks, kinds and probabilities."""
    verified(lab, "random")


@test
def verified_with_hostile_predictions(lab):
    """Everything certain, the wrong kinds, and what is no table at all."""
    verified(lab, "hostile")
