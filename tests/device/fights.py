"""Two machines fight for one volume on an object store, with pauses at random points: never two writers, nothing lost.

The owner's target is stopped by SIGSTOP in the midst of its writing, as with a virtual machine that is suspended. The other
machine takes the volume over from its capacity tier, and the first is continued: before that, in the midst of it, or after.
Or it is not stopped at all, and the other one fences it off while it writes.
Several volumes are fought for at once, as a round is waiting for the most part.

Each 4 KiB unit that is written says its place and the write's number, which rises from owner to owner. So what a new owner
shows tells after which write it was cut off, and everything else follows: all writes before that have to be there, none after
it, and it must not lie before what the former owner was told to be on the capacity tier.
"""

import os
import random
import re
import shutil
import signal
import struct
import threading
import time
import uuid

from lab import Volume, equal, expect, test, until
from object_store import Server
from replay import Device
from rig import Failed, Forerun, result

UNIT = 4096
UNITS = 512  # what is fought with is small, as the server and all its clients share one processor
PIECE = 256  # units that are read at once
AT_ONCE = 8  # volumes that are fought for side by side
CLAIM_EXPIRY = 32  # seconds without a sign of life, after which a writer on another machine counts as dead
FENCE_LIMIT = 300  # seconds, until a writer that goes on learns that another one has the volume
LIMIT = 300  # seconds, of a command that may have to wait for a claim's expiry
# How long a pause is: a restore waits for one expiry, and is done a little later.
PAUSES = {"soon": (0, CLAIM_EXPIRY), "meanwhile": (CLAIM_EXPIRY, 1.5 * CLAIM_EXPIRY)}
# "claimed": until the challenger has claimed the volume and has not got it yet, by its restore or by its start.
# "fenced": not at all, and the restore is told to fence.
WHENS = ["afterwards", "claimed", "fenced", "meanwhile", "claimed", "soon"]
IN_USE, TAKEN_OVER = "is in use by", "was taken over by writer generation"
OLD_COPY = "it is an old copy"
PAUSE_AT_EASE, PAUSE_IN_HASTE = 0.5, 0.02  # seconds between writes
# A machine as far as a writer's claim tells: another boot and another host.
APART = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && echo "$2" >/proc/sys/kernel/hostname && shift 2 && exec "$@"'


class Machine(Forerun):
    """The `forerun` command on a machine of its own, and all that it starts."""

    def __init__(self, lab, host):
        self.place = lab.place / host
        self.place.mkdir()
        super().__init__(lab.forerun.programs, self.place / "state", f"/run/forerun-{host}")
        self.env = lab.forerun.env | {"FORERUN_STATE_DIR": str(self.state_dir), "FORERUN_RUN_DIR": str(self.run_dir)}
        self.run_dir.mkdir(mode=0o700)
        self.host, self.boot = host, self.place / "boot_id"
        self.boot.write_text(f"{uuid.uuid4()}\n")

    def try_(self, *arguments, limit=90):
        apart = ["unshare", "--mount", "--uts", "sh", "-c", APART, "machine", self.boot, self.host]
        if arguments[0] not in ("create", "restore", "add"):
            apart = []  # it asks the target, or reads
        return result([*apart, self.program("forerun"), *arguments], limit, env=self.env, apart=True)

    def gone(self):
        shutil.rmtree(self.place)
        shutil.rmtree(self.run_dir)


class Owner(threading.Thread):
    """Writes to a volume's device for as long as it may, one write after the other, each within a block."""

    def __init__(self, path, number, turn, story, seed):
        super().__init__(daemon=True)
        self.device = Device(path)
        self.number, self.turn, self.story = number, turn, story
        self.random = random.Random(seed)
        self.writes, self.last, self.pause = 0, 0, PAUSE_AT_EASE
        self.stopping = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                self.write()
                if self.writes % 10 == 0:
                    os.fsync(self.device.file)
                time.sleep(self.pause)
        except Exception as error:  # noqa: BLE001: told to whoever waits
            self.failure = error
        finally:
            self.device.close()

    def write(self):
        count = self.random.choice((1, 1, 2, 4))
        first = self.random.randrange(UNITS // 4) * 4
        self.writes += 1
        version = self.turn << 33 | self.number << 32 | self.writes
        for unit in range(first, first + count):
            self.story.setdefault(unit, []).append(version)
        data = b"".join(struct.pack("<QQ", unit, version) * (UNIT // 16) for unit in range(first, first + count))
        self.device.buffer[: len(data)] = data
        done = os.pwritev(self.device.file, [self.device.buffer[: len(data)]], first * UNIT)
        equal(done, len(data), "the bytes that a write wrote")
        self.last = version

    def end(self, limit=60):
        """Waits for the write under way; gives the error it met, if any."""
        self.stopping.set()
        self.join(limit)
        expect(not self.is_alive(), f"a request did not end within {limit} s")
        return self.failure


class Claimed(threading.Thread):
    """Does something at a random moment after a claim was written, the first or a later one."""

    def __init__(self, folder, number, delay, act):
        super().__init__(daemon=True)
        self.folder, self.number, self.delay, self.act = folder, number, delay, act
        self.known, self.over = self.claims(), threading.Event()
        self.start()

    def claims(self):
        return {path.name for path in self.folder.iterdir() if re.fullmatch("[0-9a-f]{16}-[0-9a-f-]{36}", path.name)}

    def run(self):
        claims = self.known
        while len(claims - self.known) < self.number:
            if self.over.wait(0.05):
                return
            claims = claims | self.claims()
        if not self.over.wait(self.delay):
            self.act()

    def cancel(self):
        self.over.set()


def named(version):
    return f"write {version & 0xFFFFFFFF} of owner {version >> 32 & 1} in turn {version >> 33}" if version else "zeros"


def shown(path):
    """Which write each unit shows."""
    reader, found = Device(path, writable=False), {}
    try:
        for start in range(0, UNITS, PIECE):
            buffer = reader.buffer[: PIECE * UNIT]
            equal(os.preadv(reader.file, [buffer], start * UNIT), PIECE * UNIT, f"the bytes read from unit {start} on")
            for unit in range(start, start + PIECE):
                data = bytes(buffer[(unit - start) * UNIT : (unit - start + 1) * UNIT])
                at, version = struct.unpack_from("<QQ", data)
                whole = data == data[:16] * (UNIT // 16) and (at == unit if version else not at)
                expect(whole, f"unit {unit} holds what was never written to it: {data[:32].hex()}")
                found[unit] = version
    finally:
        reader.close()
    return found


def cut_off(path, story, noted, what):
    """After which write the device was cut off; fails where it does not show one single moment, not before `noted`."""
    found = shown(path)
    last = max(found.values())
    problems = []
    if last < noted:
        problems.append(f"{named(noted)} had been written back, and what is there ends with {named(last)}")
    for unit, version in found.items():
        before = [written for written in story.get(unit, ()) if written <= last] or [0]
        # The last write may be there in part.
        good = {before[-1]} if before[-1] != last or last <= noted else {last, before[-2] if len(before) > 1 else 0}
        if version not in good:
            problems.append(f"unit {unit} holds {named(version)}, not {named(before[-1])}")
    equal(problems[:5], [], f"{what}: {len(problems)} problems, what is there ends with {named(last)}")
    return last


class Fight:
    """A volume that two machines fight for."""

    def __init__(self, lab, server, machines, number, seed):
        self.lab, self.machines = lab, machines
        self.name = f"fought{number}"
        self.place, self.objects = f"s3://bucket/{self.name}", server.root / "bucket" / self.name
        self.random = random.Random(seed)
        # Each volume begins elsewhere in the row, so that a few fights already are of all kinds.
        self.whens = WHENS[number % len(WHENS) :] + WHENS[: number % len(WHENS)]
        self.turn = 0
        # The last writes before the last snapshot that is known to be on the capacity tier, and before one that may be.
        self.noted = self.unsure = 0
        self.paused = set()
        self.timers = []
        self.counts = {}
        self.longest = {}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def took(self, what, began):
        self.longest[what] = max(self.longest.get(what, 0.0), time.monotonic() - began)

    # ---- Machines.

    def volume(self, machine):
        volume = Volume(self.lab, self.name, machine.place / f"{self.name}.fast", self.place)
        volume.forerun = machine
        return volume

    def begin(self):
        self.holder = self.volume(self.machines[0])
        self.holder.forerun(
            "create", self.name, "--size", "64M", "--fast", self.holder.fast, "--fast-size", "64M",
            "--capacity", self.place, "--sync-interval", "30", limit=LIMIT,
        )  # fmt: skip
        self.lab.volumes.append(self.holder)
        self.holder.add()
        self.generation, _ = self.newest_head()
        self.owner = Owner(self.holder.device, 0, self.next_turn(), {}, self.random.random())

    def pause(self):
        pid = self.holder.forerun.target_pid(self.name)
        os.kill(pid, signal.SIGSTOP)
        self.paused.add(pid)
        return pid

    def resume(self, pid):
        if pid in self.paused:
            self.paused.discard(pid)
            os.kill(pid, signal.SIGCONT)

    def resume_after(self, pid, seconds):
        timer = threading.Timer(seconds, self.resume, (pid,))
        timer.daemon = True
        timer.start()
        self.timers.append(timer)

    def cancel_timers(self):
        for timer in self.timers:
            timer.cancel()
        self.timers = []

    def forget(self, volume):
        """What an operator removes from a machine that has lost a volume."""
        shutil.rmtree(volume.forerun.state_dir / self.name, ignore_errors=True)
        shutil.rmtree(volume.forerun.run_dir / self.name, ignore_errors=True)
        volume.fast.unlink(missing_ok=True)
        if volume in self.lab.volumes:
            self.lab.volumes.remove(volume)

    # ---- What has to be on the capacity tier.

    def on_capacity_tier(self, volume, snapshot):
        return snapshot in self.all_on_capacity_tier(volume)

    def all_on_capacity_tier(self, volume):
        listed = volume.forerun.json("snapshot", "list", self.name)["snapshots"]
        return {entry["name"] for entry in listed if entry["on_capacity_tier"]}

    def note(self, snapshot):
        """A snapshot that the owner is told to be on the capacity tier: everything before it must never be lost again."""
        version = self.owner.last
        self.holder.snapshot(snapshot)
        until(f"snapshot {snapshot} of {self.name} to be written back", FENCE_LIMIT, lambda: self.on_capacity_tier(self.holder, snapshot), 3)
        self.noted = version
        newest, _ = self.newest_head()
        expect(newest == self.generation, f"{self.name}: the newest HEAD is of generation {newest}, the owner's of {self.generation}")

    def newest_head(self):
        """(generation, sequence) of the greatest HEAD in the store."""
        names = [path.name for path in (self.objects / "heads").iterdir() if re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", path.name)]
        return max(tuple(int(part, 16) for part in name.split("-")) for name in names)

    # ---- A round.

    def next_turn(self):
        self.turn += 1
        return self.turn

    def round(self):
        """One fight; what became of it is counted."""
        turn = self.owner.turn = self.next_turn()
        self.note(f"turn{turn}")
        # Its write-back is under way, or has not begun, or is over, when the owner is stopped.
        self.owner.pause = PAUSE_IN_HASTE
        time.sleep(0.5)
        self.unsure = self.owner.last
        self.holder.snapshot(f"unsure{turn}")
        time.sleep(self.random.choice((0, 1, 2, 6)) * self.random.random())
        when = self.whens.pop(0)
        self.whens.append(when)
        pid = self.pause() if when != "fenced" else None
        self.owner.pause = PAUSE_AT_EASE
        if when == "claimed":
            number, delay = self.random.choice((1, 1, 2)), self.random.uniform(0, 0.7)
            self.timers.append(Claimed(self.objects / "writers", number, delay, lambda: self.resume(pid)))
        elif when in PAUSES:
            self.resume_after(pid, self.random.uniform(*PAUSES[when]))
        challenger = self.volume(next(machine for machine in self.machines if machine is not self.holder.forerun))
        taken = self.take_over(challenger, ["--fence"] if when == "fenced" else [])
        self.cancel_timers()
        self.count(when if when == "fenced" else f"paused until {when}")
        if taken:
            self.taken(challenger, turn, pid)
            return
        self.count("restores refused")
        self.resume(pid)
        self.goes_on(f"on{turn}")
        self.forget(challenger)

    def take_over(self, challenger, fence):
        """Restores and starts the volume on the other machine; whether it could."""
        began = time.monotonic()
        done = challenger.forerun.try_(
            "restore", self.place, "--as", self.name, "--fast", challenger.fast, "--fast-size", "64M", "--sync-interval", "30",
            *fence, limit=LIMIT,
        )  # fmt: skip
        self.took("restore that fences" if fence else "restore", began)
        if done.returncode != 0:
            expect(IN_USE in done.stderr and not fence, lambda: f"{self.name}: restore was refused: {done.stderr}")
            listed = [entry["volume"] for entry in challenger.forerun.json("list")["volumes"]]
            expect(self.name not in listed, f"{self.name} is there after a restore that was refused")
            return False
        self.lab.volumes.append(challenger)
        self.starts(challenger)
        return True

    def starts(self, challenger):
        """The restore has fenced off who had it: nothing is in the way, and there is nobody to wait for."""
        for _ in range(5):
            began = time.monotonic()
            done = challenger.forerun.try_("add", self.name, "--no-trainer", limit=LIMIT)
            self.took("add", began)
            if "no answer within" not in done.stderr:
                break
            # The store is slow, and `add` gave up and killed its target: the claim of that is no obstacle on the same machine.
            self.count("starts tried again as they took too long")
        equal(done.returncode, 0, f"{self.name}: the status of add after a restore, which said {done.stderr!r}")
        challenger.device = done.stdout.strip()

    def goes_on(self, snapshot):
        """The take-over was refused: the owner still is the owner."""
        try:
            self.note(snapshot)
        except Failed:
            if TAKEN_OVER not in self.said_by(self.holder):
                raise
            # By a claim that was given back: nobody else has it, and the owner must be able to go on.
            self.count("fenced off though nobody took over")
            equal(self.owner.end(), None, "what a write ended with")
            self.holder.delete()
            self.holder.add()
            self.generation, _ = self.newest_head()
            cut_off(self.holder.device, self.owner.story, self.owner.last, f"{self.name} after a restart")
            self.owner = Owner(self.holder.device, self.owner.number, self.next_turn(), self.owner.story, self.random.random())
            self.note(f"again-{snapshot}")

    def said_by(self, volume):
        status = volume.status()["volume"]
        return f"{status['health']}\n{status['write_back_error']}\n{volume.forerun.target_log(self.name)[-4000:]}"

    def taken(self, challenger, turn, pid):
        """The other machine has the volume: it shows what it must, and the former owner learns that it lost."""
        loser, lost = self.holder, self.owner
        former, (self.generation, _) = self.generation, self.newest_head()
        expect(self.generation > former, f"{self.name}: the newest HEAD is of generation {self.generation}, the former owner's of {former}")
        last = cut_off(challenger.device, lost.story, self.noted, f"{self.name} after take-over {turn}")
        # What the former owner writes from here on is in its own list, and nowhere else.
        story = {unit: [version for version in list(versions) if version <= last][-2:] for unit, versions in list(lost.story.items())}
        self.holder = challenger
        self.owner = Owner(challenger.device, 1 - lost.number, self.next_turn(), story, self.random.random())
        if pid is None:
            self.count("never stopped")
        elif pid in self.paused:
            self.count("went on after the take-over")
            time.sleep(self.random.uniform(0, 5))
            self.resume(pid)
        else:
            self.count("went on in the midst of it")
        self.gives_way(loser, lost, turn, last)

    def gives_way(self, loser, lost, turn, last):
        """The former owner goes on writing; none of it may get to the store, and that has to be told."""
        began = time.monotonic()
        done = loser.forerun.try_("snapshot", "create", self.name, f"lost{turn}")
        until(f"the former owner of {self.name} to say that it lost it", FENCE_LIMIT, lambda: TAKEN_OVER in self.said_by(loser), 3)
        self.took("to be told", began)
        self.count("fenced off")
        self.count("snapshots of the loser " + ("refused" if done.returncode else "made, none of them written back"))
        # What the loser was told at any time, the new owner has.
        told = self.all_on_capacity_tier(loser)
        expect(f"lost{turn}" not in told, f"{self.name}: a snapshot was written back by who had lost the volume")
        equal(told - self.all_on_capacity_tier(self.holder), set(), f"{self.name}: snapshots that the loser has on the capacity tier and the new owner has not")
        if f"unsure{turn}" in told:
            self.count("snapshots written back around the pause")
            expect(last >= self.unsure, lambda: f"{self.name}: {named(self.unsure)} was written back, what the new owner has ends with {named(last)}")
        equal(lost.end(), None, "what the loser's write ended with before its device was stopped")
        began = time.monotonic()
        loser.delete()
        self.took("del", began)
        if self.random.random() < 0.3:
            done = loser.forerun.try_("add", self.name, "--no-trainer", limit=LIMIT)
            why = next((why for why in (IN_USE, OLD_COPY) if why in done.stderr), None)
            expect(done.returncode != 0 and why, lambda: f"{self.name}: add by who had lost it: {done.stdout} {done.stderr}")
            self.count(f"starts of the loser refused ('{why}')")
        self.forget(loser)

    def end(self):
        """The last owner stops cleanly; all it was told of is there."""
        equal(self.owner.end(), None, "what the last owner's write ended with")
        last = cut_off(self.holder.device, self.owner.story, self.owner.last, f"{self.name} at the end")
        equal(named(last), named(self.owner.last), "the last write")
        self.note("last")
        self.holder.delete()
        self.holder.check()

    def fight(self, rounds):
        self.begin()
        for _ in range(rounds):
            self.round()
        self.end()

    def tidy(self):
        """Nobody may stay paused: `del` would wait for it."""
        self.cancel_timers()
        for pid in list(self.paused):
            self.resume(pid)
        if hasattr(self, "owner"):
            self.owner.stopping.set()


def side_by_side(fights, rounds):
    """Runs the fights in threads; the first failure is raised again."""
    failures = []

    def run(fight, count):
        try:
            fight.fight(count)
        except BaseException as error:  # noqa: BLE001: raised again below
            failures.append((fight, error))

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(fights, rounds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        fight, error = failures[0]
        fight.lab.note(f"{len(failures)} of {len(fights)} fights failed: {', '.join(fight.name for fight, _ in failures)}")
        raise error


def summed(fights, which, how):
    names = sorted({name for fight in fights for name in getattr(fight, which)})
    return {name: how(getattr(fight, which).get(name, 0) for fight in fights) for name in names}


@test
def two_targets_fight_for_one_volume(lab):
    """FORERUN_FIGHTS fights (default 4): at most one writer's epochs reach the store, whoever lost is told so, and what was
    told to be on the capacity tier is there on the next owner."""
    count = int(os.environ.get("FORERUN_FIGHTS", "4"))
    seed = int(os.environ.get("FORERUN_SEED", "1"))
    server = Server(lab)
    machines = [Machine(lab, host) for host in ("north", "south")]
    for machine in machines:
        lab.later(machine.gone)
    volumes = min(AT_ONCE, count)
    rounds = [count // volumes + (number < count % volumes) for number in range(volumes)]
    fights = [Fight(lab, server, machines, number, f"{seed}-{number}") for number in range(volumes)]
    try:
        side_by_side(fights, rounds)
    finally:
        for fight in fights:
            fight.tidy()
        counts = summed(fights, "counts", sum)
        lab.note(f"{sum(rounds)} fights for {volumes} volumes (seed {seed}): " + ", ".join(f"{number} {what}" for what, number in counts.items()))
        lab.note("longest: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in summed(fights, "longest", max).items()))


# Requests of who has lost fail when its device goes, and a pause may be longer than the kernel likes.
two_targets_fight_for_one_volume.expected_kernel_errors = re.compile(
    r"the kernel: .*I/O error, dev ublkb|async page (read|write)|blocked for more than"
)
