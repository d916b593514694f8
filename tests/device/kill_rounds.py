"""kill -9 of the target at random moments, round after round, under fio with verification and under a ledger."""

import os
import random
import time

from kills import verified_load
from ledger import Background, Ledger
from lab import MIB, equal, expect, test
from rig import Failed, drop_caches, result


# What is shown where a take-over fails: threads that do not sleep as they should, locks, where the kernel waits.
STATE = """ps -eLo pid,lwp,stat,wchan:32,comm | awk '$3 !~ /^[SI]/'; cat /proc/locks
for task in /proc/[0-9]*/task/*; do
    if grep -qE 'State:.*(D|Z|X)' $task/status 2>/dev/null; then cat $task/comm $task/stack; fi
done
for task in /proc/[0-9]*/comm; do if grep -q kworker $task; then grep -lE 'io_ring|ublk' ${task%comm}stack; fi; done 2>/dev/null | while read stack; do cat $stack; done"""


def recovered(volume):
    """Takes the device over."""
    try:
        return volume.recover()
    except Failed as error:
        state = result(["sh", "-c", STATE], 60).stdout
        raise Failed(f"{error}\n{state[-6000:]}") from None


@test
def random_kills(lab):
    """FORERUN_ROUNDS kills (default 4), each at a random moment of a second and a half; snapshots in between. fio sees
    no error and verifies all it reads; what the ledger was told of is there after each take-over, flushed or not."""
    rounds = int(os.environ.get("FORERUN_ROUNDS", "4"))
    seed = int(os.environ.get("FORERUN_SEED", "1"))
    chance = random.Random(seed)
    fast = lab.extra_disks[0] if lab.extra_disks else None
    volume = lab.volume("rounds", "512M", "512M", "--sync-interval", "2", fast=fast)
    device = volume.add()
    ledger = Ledger(device, 256 * MIB // 4096, 32 * MIB // 4096, seed=seed)
    lab.devices.append(ledger)
    load, loads, snapshots, refused, longest = None, 0, 0, 0, 0.0
    for number in range(rounds):
        if load is None or not load.running():
            if load is not None:
                load.succeed(1)
            loads += 1
            load = verified_load(lab, device, "192M", 120, randseed=seed + loads)
        work = Background(ledger, flush_every=chance.choice((3, 20, 200)), pause=0.002)
        time.sleep(chance.uniform(0.0, 1.5))
        volume.kill()
        time.sleep(chance.choice((0, 0, 0.3)))
        began = time.monotonic()
        equal(recovered(volume), device, "the recovered device")
        longest = max(longest, time.monotonic() - began)
        work.end(60)
        equal((ledger.errors, ledger.flush_errors), (0, 0), "requests of the ledger that failed")
        if chance.random() < 0.3:
            done = volume.forerun.try_("snapshot", "create", volume.name, f"r{number}")
            # Write-back begins anew with each kill: it may not have kept up.
            expect(done.returncode == 0 or "waits to be written back" in done.stderr, lambda: f"a snapshot: {done.stderr}")
            snapshots, refused = snapshots + (done.returncode == 0), refused + (done.returncode != 0)
        if number % 10 == 9 or number == rounds - 1:
            # What was acknowledged survives the target, flushed or not.
            equal(ledger.look(ledger.acknowledged), [], f"what differs after round {number + 1} (seed {seed})")
    if load.running():
        load.signal(2)
        status = load.wait(60)
        if status not in (0, 128) or "verify: bad" in load.text() or "err=" in load.text().replace("err= 0", ""):
            raise Failed(f"fio ended with status {status}:\n{load.text()[-1500:]}")
    else:
        load.succeed(1)
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")
    drop_caches()
    equal(ledger.look(ledger.acknowledged), [], "what differs at the end")
    ledger.close()
    volume.delete()
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")
    lab.note(
        f"{rounds} kills (seed {seed}), {snapshots} snapshots, {refused} refused for want of room, {loads} runs of fio with verification, {ledger.writes} writes of the ledger; "
        f"a take-over took {longest:.1f} s at most, a request {ledger.longest:.1f} s"
    )
    expect(ledger.writes > 0, "the ledger wrote nothing")


@test
def kills_soon_after_a_start(lab):
    """A fresh start, load, and a kill within a second: FORERUN_ROUNDS times (default 4). The take-over succeeds each time."""
    rounds = int(os.environ.get("FORERUN_ROUNDS", "4"))
    seed = int(os.environ.get("FORERUN_SEED", "1"))
    chance = random.Random(seed)
    fast = lab.extra_disks[0] if lab.extra_disks else None
    volume = lab.volume("fresh", "512M", "512M", "--sync-interval", "1", fast=fast)
    ledger = None
    for number in range(rounds):
        device = volume.add()
        if ledger is None:
            ledger = Ledger(device, 256 * MIB // 4096, 32 * MIB // 4096, seed=seed)
            lab.devices.append(ledger)
        else:
            ledger.open()
        work = Background(ledger, flush_every=5, pause=0.002)
        load = verified_load(lab, device, "64M", 60, randseed=seed + number)
        time.sleep(chance.uniform(0.0, 1.0))
        volume.kill()
        equal(recovered(volume), device, "the recovered device")
        work.end(60)
        # It is there for the load alone: what counts is in the ledger.
        load.kill()
        equal((ledger.errors, ledger.flush_errors), (0, 0), "requests of the ledger that failed")
        equal(ledger.look(ledger.acknowledged), [], f"what differs after round {number + 1} (seed {seed})")
        ledger.close()
        volume.delete()
    lab.note(f"{rounds} starts, each killed within a second (seed {seed}); {ledger.writes} writes of the ledger")
