"""The trainer is killed, stopped, and replaced by one that writes garbage and floods the API. The volume's bytes, its
requests and its commands must not notice."""

import os
import shutil
import signal
import socket
import threading
import time

from api_call import Api
from forged_table import Forger
from kills import start_trainer
from ledger import Background, Ledger
from lab import BLOCK, MIB, equal, expect, test
from rig import Failed, gone, until

UNITS = 48 * MIB // 4096
COMMAND_LIMIT = 30  # seconds, of `forerun status` and `forerun snapshot create` beside a flood
MEMORY_LIMIT = 96 * MIB  # by which the target may grow under the flood
FLOOD_SECONDS = 12


def at_work(lab, name, trainer):
    volume = lab.volume(name, "128M", "96M", "--threshold", "0.05", "--sync-interval", "2")
    ledger = Ledger(volume.add(trainer=trainer), 0, UNITS, seed=55)
    lab.devices.append(ledger)
    ledger.work(200)
    return volume, ledger


def ends_well(lab, volume, ledger, load):
    load.end(60)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "requests that failed")
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")
    equal(ledger.look(ledger.acknowledged), [], "what differs")
    volume.snapshot("at-the-end")
    volume.written_back()
    ledger.close()
    volume.delete()
    ledger.path = volume.add()
    ledger.open()
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")


@test
def trainer_killed_and_stopped(lab):
    """SIGKILL, nobody for a while, a new one, SIGSTOP, SIGCONT: snapshots and requests go on all the time."""
    volume, ledger = at_work(lab, "trainergone", True)
    load = Background(ledger, pause=0.005)
    longest, taken = 0.0, 0

    def snapshots(seconds):
        nonlocal longest, taken
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            volume.snapshot(f"t{taken}")
            longest, taken = max(longest, time.monotonic() - began), taken + 1
            time.sleep(0.5)

    snapshots(3)
    os.kill(lab.forerun.trainer_pid(volume.name), signal.SIGKILL)
    snapshots(4)
    job = start_trainer(lab, volume)
    snapshots(3)
    job.signal(signal.SIGSTOP)
    # More epochs than a follower that does not read can have waiting.
    snapshots(8)
    job.signal(signal.SIGCONT)
    snapshots(3)
    expect(job.running(), lambda: f"the trainer ended after SIGCONT:\n{job.text()[-800:]}")
    lab.note(f"{taken} snapshots, the longest took {longest:.2f} s; longest request {ledger.longest:.2f} s")
    ends_well(lab, volume, ledger, load)


@test
def trainer_forgets_everything(lab):
    """SIGKILL, then all that the trainer kept is deleted, its table as well: a new one is told all epochs by the target and
    expects the same blocks as the one before."""
    volume = lab.volume("forgets", "256M", "128M", "--threshold", "0.3", "--sync-interval", "3600")
    device = lab.device(volume.add(trainer=True))
    written = [*range(40, 72), *range(700, 716)]

    def epoch(name):
        for block in written:
            device.write(block * BLOCK // 4096, 1)
        last = volume.snapshot(name)["snapshot"]["epoch"]
        until("a prediction table", 240, lambda: volume.status()["prefetch"]["table_epoch"] >= last)

    def expected():
        said = volume.forerun.json("predict", volume.name, "--from-probability", "0.3", "--no-files")
        ranges = [(piece["offset_bytes"] // BLOCK, piece["length_bytes"] // BLOCK) for piece in said["ranges"]]
        return {block for first, count in ranges for block in range(first, first + count)}

    for number in range(8):
        epoch(f"e{number}")
    before = expected()
    expect(before >= set(written), lambda: f"not all that is written again and again is expected: {sorted(before)}")
    os.kill(lab.forerun.trainer_pid(volume.name), signal.SIGKILL)
    kept, table = lab.forerun.state_dir / volume.name / "trainer", lab.forerun.run_dir / volume.name / "predictions"
    expect((kept / "history").is_dir() and table.is_file(), "the trainer kept no history, or published no table")
    until("the trainer to be gone", 20, lambda: gone(lab.forerun.trainer_pid(volume.name)))
    shutil.rmtree(kept)
    table.unlink()
    job = start_trainer(lab, volume)
    until("a new table", 240, table.is_file)
    epoch("after")
    again = expected()
    expect(again >= set(written), lambda: f"what is written again and again is not expected any more: {sorted(again)}")
    expect("change vectors from epoch 1" in job.text(), lambda: f"it did not ask for all epochs:\n{job.text()[-800:]}")
    expect((kept / "history").is_dir(), "the history was not built again")
    equal(device.check_all() > 0 and device.errors, [], "what differs on the device")
    lab.note(f"{len(before)} blocks expected before, {len(again)} after")
    device.close()


@test
def trainer_writes_garbage(lab):
    """Tables of random bytes, of the wrong length, a folder, a pipe, a link to /dev/zero, torn ones, and sound ones in
    which everything is certain."""
    volume, ledger = at_work(lab, "trainermad", False)
    path = lab.forerun.run_dir / volume.name / "predictions"
    status = volume.status()["volume"]
    forger = Forger(path, bytes.fromhex(status["uuid"].replace("-", "")), status["size_bytes"] // BLOCK, seed=4)
    load = Background(ledger, pause=0.002)
    files, until = 0, time.monotonic() + 40
    while time.monotonic() < until:
        epoch = max(volume.status()["volume"]["open_epoch"] - 1, 1)
        if files % 4 == 3:
            forger.hostile(epoch)
        else:
            forger.garbage(epoch)
        files += 1
        time.sleep(0.45)
    prefetch = volume.status()["prefetch"]
    expect(prefetch["tables_refused"] > 0, "no table was refused")
    expect(prefetch["tables_accepted"] > 0 and prefetch["reservations_made"] > 0, lambda: f"no hostile table was acted on: {prefetch}")
    log = volume.forerun.target_log(volume.name)
    expect("the prediction table is refused" in log, "the log does not tell of a refused table")
    forger.remove()
    lab.note(
        f"{files} files: {prefetch['tables_refused']} tables refused, {prefetch['tables_accepted']} taken, {prefetch['reservations_made']} reservations made, "
        f"{prefetch['reservations_wasted']} wasted; longest request {ledger.longest:.2f} s"
    )
    ends_well(lab, volume, ledger, load)


def flood(path, kind, until, counts):
    while time.monotonic() < until:
        try:
            if kind == "garbage":
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(2)
                    client.connect(str(path))
                    client.sendall(os.urandom(4096))
                    client.recv(4096)
            elif kind == "silent":
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(2)
                    client.connect(str(path))
                    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                    time.sleep(1)
            elif kind == "huge":
                # A report of 3 MiB of text.
                api = Api(path, 10)
                api.call("ReportTrainer", (1, "trainerflood"), (3, "x" * (3 << 20)))
                api.close()
            else:
                api = Api(path, 10)
                for _ in range(50):
                    api.call(kind, (1, "trainerflood"))
                api.close()
            counts[kind] = counts.get(kind, 0) + 1
        except (OSError, ConnectionError):
            counts["refused"] = counts.get("refused", 0) + 1


@test
def trainer_floods_the_api(lab):
    """Thirty clients: calls without end, connections that say nothing, garbage, reports of megabytes."""
    volume, ledger = at_work(lab, "trainerflood", False)
    load = Background(ledger, pause=0.002)
    path = lab.forerun.run_dir / volume.name / "api.sock"
    memory = volume.status()["volume"]["memory_bytes"]
    counts, until = {}, time.monotonic() + FLOOD_SECONDS
    kinds = ["garbage"] * 4 + ["silent"] * 10 + ["huge"] * 4 + ["GetVolumeStatus", "GetPrefetchStatus", "ListChains", "ListSnapshots"] * 3
    threads = [threading.Thread(target=flood, args=(path, kind, until, counts), daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    longest, taken, most = 0.0, 0, memory
    while time.monotonic() < until:
        began = time.monotonic()
        done = volume.forerun.try_("snapshot", "create", volume.name, f"f{taken}", limit=COMMAND_LIMIT)
        expect(done.returncode == 0, lambda: f"a snapshot beside the flood: {done.stderr}")
        most = max(most, volume.forerun.json("status", volume.name, limit=COMMAND_LIMIT)["volume"]["memory_bytes"])
        longest, taken = max(longest, time.monotonic() - began), taken + 1
        time.sleep(0.5)
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            raise Failed("a client of the flood hangs")
    time.sleep(2)
    after = volume.status()["volume"]["memory_bytes"]
    lab.note(
        f"{sum(counts.values())} rounds of {len(kinds)} clients ({counts}); {taken} snapshots beside, the longest with its status {longest:.1f} s; memory {memory // MIB} MiB before, "
        f"{most // MIB} at most, {after // MIB} after; longest request {ledger.longest:.2f} s"
    )
    expect(most - memory < MEMORY_LIMIT, f"the target grew by {(most - memory) // MIB} MiB")
    ends_well(lab, volume, ledger, load)
