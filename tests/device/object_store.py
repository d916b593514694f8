"""A capacity tier on an object store: a real S3 server in the same machine, on good days and bad ones."""

import os
import shutil
import time

from faults_capacity import snapshot_with_room
from faults_fast import RETRY_LIMIT, shows
from kill_rounds import recovered
from lab import MIB, equal, expect, files_are, run, test, until, write_files
from ledger import Background, filled
from rig import Job, drop_caches

SECRET = "dont-log-this-secret"
UNITS = 32 * MIB // 4096


class Server:
    """s3-server, with a bucket; `faults` says what goes wrong with it from now on."""

    def __init__(self, lab):
        run(["ip", "link", "set", "lo", "up"])
        self.root, self.faults_file = lab.place / "s3", lab.work / "s3-faults"
        (self.root / "bucket").mkdir(parents=True)
        lab.later(lambda: shutil.rmtree(self.root))
        lab.later(lambda: self.faults_file.unlink(missing_ok=True))
        words = [lab.forerun.program("s3-server"), "--root", self.root, "--access-key", "key", "--secret-key", SECRET, "--faults", self.faults_file]
        # Not a job of the test's: volumes are stopped and checked when the test ends, and need it for that.
        self.job = Job(words, lab.logs / "s3-server")
        lab.later(self.job.kill)
        until("the S3 server", 20, lambda: self.job.text().startswith("http"))
        lab.forerun.env.update(
            AWS_ENDPOINT_URL=self.job.text().split()[0], AWS_ALLOW_HTTP="true", AWS_REGION="us-east-1",
            AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY=SECRET,
        )  # fmt: skip

    def faults(self, **numbers):
        text = "".join(f"{name} = {number}\n" for name, number in numbers.items())
        draft = self.faults_file.with_suffix(".new")
        draft.write_text(text)
        draft.rename(self.faults_file)


def volume_on(lab, name, size="512M", fast_size="128M", *options):
    return lab.volume(name, size, fast_size, *options, capacity=f"s3://bucket/{name}")


def told_nothing_secret(lab, volume):
    said = lab.forerun.target_log(volume.name) + lab.forerun("status", volume.name, "--json")
    expect(SECRET not in said, "the secret key is in the log or the status")


@test
def a_volume_on_an_object_store(lab):
    """A file system, a snapshot, a restart, the snapshot read from the store; no credentials in logs."""
    Server(lab)
    volume = volume_on(lab, "objects", "512M", "128M", "--sync-interval", "2")
    device = volume.add()
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], 180)
    path = lab.mount(device)
    sums = write_files(path)
    os.sync()
    volume.snapshot("then")
    for file in sums:
        file.write_bytes(b"later")
    os.sync()
    lab.unmount(path)
    volume.written_back()
    found = volume.status()["volume"]["capacity_tier"]["conditional_writes"]
    equal(found, "create-if-absent honoured, replace-if-unchanged honoured", "what is said of the server")
    told_nothing_secret(lab, volume)
    volume.delete()
    volume.check()
    volume.add()
    shown = volume.attach("then")
    old = lab.mount(shown, "-o", "ro,noload")
    files_are(sums, path, old)
    lab.unmount(old)
    volume.detach("then")
    volume.forerun("snapshot", "delete", volume.name, "then")


@test
def an_object_that_the_store_lost(lab):
    """`check` finds it, and `repair` makes a new capacity tier of all the others and of what the fast tier has."""
    server = Server(lab)
    volume = volume_on(lab, "lost", "256M", "128M", "--sync-interval", "2")
    ledger = filled(lab, volume, UNITS, seed=11)
    volume.snapshot("then")
    volume.written_back()
    ledger.close()
    volume.delete()
    segments = [path for path in (server.root / "bucket/lost/segments").iterdir() if len(path.name) == 16]
    max(segments, key=lambda path: path.stat().st_size).unlink()
    found = volume.forerun.try_("check", volume.name)
    expect(found.returncode == 5 and "--to-capacity" in found.stdout, lambda: f"check: {found.returncode} {found.stdout} {found.stderr}")
    said = volume.forerun("repair", volume.name, "--to-capacity", "s3://bucket/repaired", limit=300)
    expect("nothing is lost" in said.lower(), lambda: f"repair: {said}")
    ledger.path = volume.add()
    ledger.open()
    equal(ledger.look(ledger.acknowledged), [], "what differs after the repair")
    equal(ledger.look(ledger.acknowledged, volume.attach("then")), [], "what differs in the snapshot")
    volume.detach("then")
    lab.note(next(line.strip() for line in said.splitlines() if "s3://bucket/repaired" in line))


@test
def an_object_store_that_fails_now_and_then(lab):
    """Errors, resets, lost answers, bodies cut short and delays, under load with a kill: nothing is lost."""
    server = Server(lab)
    volume = volume_on(lab, "bad-days", "512M", "128M", "--sync-interval", "2")
    ledger = filled(lab, volume, UNITS, seed=6)
    volume.snapshot("before")
    before = dict(ledger.acknowledged)
    volume.written_back()
    server.faults(error_percent=4, reset_percent=3, lost_percent=3, cut_percent=4, delay_ms=5)
    load = Background(ledger, pause=0.01)
    time.sleep(15)
    volume.kill()
    recovered(volume)
    time.sleep(15)
    load.end(120)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "requests that failed")
    # What a snapshot shows is read from the store.
    equal(ledger.look(before, volume.attach("before")), [], "what differs in the snapshot")
    volume.detach("before")
    server.faults()
    expect(ledger.flush(), "a flush failed")
    snapshot_with_room(volume, "after")
    volume.written_back(RETRY_LIMIT + 60)
    drop_caches()
    equal(ledger.look(ledger.acknowledged), [], "what differs")
    lab.note(f"{ledger.writes} writes, longest request {ledger.longest:.1f} s")


def outage(volume, seconds):
    """Waits for so long; after which time requests began to wait for a slot, and when write-back was first said to fail."""
    began, waiting, failing = time.monotonic(), None, None
    before = volume.status()["volume"]["waits_for_room"]
    while (passed := time.monotonic() - began) < seconds:
        status = volume.status()["volume"]
        if waiting is None and status["waits_for_room"] > before:
            waiting = passed
        if failing is None and "write-back does not get on" in status["health"]:
            failing = passed
        time.sleep(2)
    # A request that gets no answer is given up after a while only.
    shows(volume, "write-back does not get on", "write_back_failures", 120)
    return waiting, failing or time.monotonic() - began


@test
def an_object_store_that_is_gone_and_back(lab):
    """The server answers nothing for FORERUN_OUTAGE seconds (default 60): what the fast tier has is read and written on, the
    rest waits, and all goes on. The load overwrites what the fast tier holds four times over: it must never wait for room."""
    seconds = int(os.environ.get("FORERUN_OUTAGE", "60"))
    server = Server(lab)
    volume = volume_on(lab, "gone", "512M", "128M", "--sync-interval", "2")
    ledger = filled(lab, volume, UNITS, seed=7)
    volume.written_back()
    server.faults(stop=1)
    began = time.monotonic()
    ledger.longest, before = 0.0, ledger.writes
    load = Background(ledger, pause=0.01)
    waiting, failing = outage(volume, seconds)
    gone = time.monotonic() - began
    expect(load.is_alive(), "the load has ended")
    longest, writes = ledger.longest, ledger.writes - before
    waits = volume.status()["volume"]["waits_for_room"]
    server.faults()
    healed = time.monotonic()
    load.end(60)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "requests that failed")
    snapshot_with_room(volume, "after")
    volume.written_back(RETRY_LIMIT + 60)
    lab.note(
        f"gone for {gone:.0f} s: {writes} writes meanwhile, longest request {longest:.2f} s; written back {time.monotonic() - healed:.1f} s after the "
        f"server's return; write-back said to fail after {failing:.0f} s"
    )
    lab.note(f"{waits} waits for a slot, the first seen {waiting:.0f} s into it" if waiting is not None else "no request waited for a slot")
    expect(waiting is None, f"requests waited for a slot {waiting} s into the outage, though the fast tier holds what they overwrite")
    drop_caches()
    equal(ledger.look(ledger.acknowledged), [], "what differs")
