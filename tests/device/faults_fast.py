"""The fast tier's device fails: reads, writes, flushes, all of it; and comes back."""

import re
import time

from dm import mapped, modules
from ledger import Background, filled
from lab import MIB, equal, expect, test, until
from rig import drop_caches

FAST_SECTORS = (512 * MIB + 36 * 1024) // 512  # a gap before the last superblock that no slot fits into
UNITS = 48 * MIB // 4096
# What is stated in docs/reliability.md.
REQUEST_LIMIT = 60  # seconds, until a request ends in success or in EIO while the fast tier fails
STOP_LIMIT = 60  # seconds, of `forerun del`
RETRY_LIMIT = 45  # seconds from a fault's end until write-back has got on again
OF_DEVICES = re.compile(r"the kernel: .*(I/O error|async page (read|write)|critical .* error|EXT4-fs|JBD2: )")


def faulty(function):
    """Marks a test in which the kernel has to report I/O errors."""
    function.expected_kernel_errors = OF_DEVICES
    return test(function)


def prepared(lab, name, sync_interval="3600"):
    """A volume on a mapped device, with a ledger whose units are all written and durable."""
    modules("dm_mod", "dm_flakey")
    fast = mapped(lab, "faultfast", lab.extra_disks[0], FAST_SECTORS)
    volume = lab.volume(name, "512M", "0", "--sync-interval", sync_interval, fast=fast.path)
    ledger = filled(lab, volume, UNITS, seed=21)
    return fast, volume, ledger


def shows(volume, mode, counter, limit=20):
    """That the status says what is wrong, and counts it."""
    status = until(
        f"`forerun status` to say '{mode}'", limit,
        lambda: next((s for s in [volume.status()["volume"]] if mode in s["health"] and s[counter] > 0), None),
    )  # fmt: skip
    log = volume.forerun.target_log(volume.name)
    return status, log


def restarted(volume, ledger):
    """Stops the volume and starts it again; how long each took."""
    ledger.close()
    began = time.monotonic()
    done = volume.forerun.try_("del", volume.name, limit=STOP_LIMIT)
    stopped = time.monotonic()
    ledger.path = volume.add()
    ledger.open()
    return done, stopped - began, time.monotonic() - stopped


@faulty
def fast_tier_reads_fail(lab):
    """Reads from the fast tier and write-back of what is there fail with the reason told; both go on by
    themselves when the fault ends."""
    fast, volume, ledger = prepared(lab, "fastread")
    fast.becomes(fast.flakey("error_reads"))
    problem = None
    try:
        ledger.look(ledger.flushed)
    except OSError as error:
        problem = error
    expect(problem is not None, "a read of the failing device succeeded")
    _, log = shows(volume, "the fast tier failed a request", "fast_tier_errors")
    expect("cannot read the slot of block" in log, "the log does not name the block that could not be read")
    ledger.work(60)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "writes and flushes that failed")
    volume.snapshot("during")
    status, log = shows(volume, "write-back does not get on", "write_back_failures")
    expect("write-back failed" in log, "the log does not tell of write-back")
    expect(status["epochs_not_written_back"] >= 1, "an epoch was dropped")
    fast.heals()
    healed = time.monotonic()
    equal(ledger.look(ledger.acknowledged), [], "what differs after the fault")
    volume.written_back(RETRY_LIMIT)
    expect("write-back" not in volume.status()["volume"]["health"], "write-back is still said to fail")
    lab.note(f"written back {time.monotonic() - healed:.1f} s after the fault's end; longest request {ledger.longest:.1f} s")
    restarted(volume, ledger)
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")


@faulty
def fast_tier_gone_and_back(lab):
    """All of the device fails, for a while, under load: requests fail, nothing hangs, and it all goes on by itself."""
    fast, volume, ledger = prepared(lab, "fastgone")
    load = Background(ledger, pause=0.005)
    time.sleep(2)
    fast.becomes(fast.error())
    time.sleep(6)
    _, log = shows(volume, "the fast tier failed a request", "fast_tier_errors")
    # The journal meets it with the first commit.
    volume.forerun.try_("snapshot", "create", volume.name, "during", limit=REQUEST_LIMIT)
    status = volume.status()["volume"]
    expect(status["journal_failures"] > 0 and "the fast tier's journal" in status["health"], lambda: f"{status['health']!r}")
    failed = ledger.errors
    expect(failed > 0, "no request failed")
    fast.heals()
    until("the volume to take writes again", RETRY_LIMIT, lambda: not volume.status()["volume"]["health"].startswith("degraded: the fast tier's journal"))
    acknowledged = ledger.writes
    time.sleep(3)
    load.end(REQUEST_LIMIT)
    expect(ledger.writes > acknowledged, "no write succeeded after the fault")
    expect(ledger.flush(), "a flush after the fault failed")
    expect(ledger.longest < REQUEST_LIMIT, f"a request took {ledger.longest:.1f} s")
    equal(ledger.look(ledger.acknowledged), [], "what differs after the fault")
    volume.snapshot("after")
    volume.written_back(RETRY_LIMIT)
    lab.note(f"{failed} requests failed, {ledger.writes} were acknowledged; longest request {ledger.longest:.2f} s")
    done, stop, start = restarted(volume, ledger)
    equal(done.returncode, 0, f"`forerun del`: {done.stderr}")
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")


def fails_for_good(lab, name, begin):
    """A flush that fails is final: every later write and flush fails, and a restart finds all that was flushed."""
    fast, volume, ledger = prepared(lab, name)
    load = Background(ledger, pause=0.005)
    time.sleep(2)
    begin(fast)
    until("a flush to fail", REQUEST_LIMIT, lambda: ledger.flush_errors > 0)
    _, log = shows(volume, "failed: the fast tier cannot make anything durable", "journal_failures")
    expect("stop the volume, see to the device, and start it again" in log, "the log does not say what to do")
    flushes = ledger.flushes
    time.sleep(3)
    load.end(REQUEST_LIMIT)
    equal(ledger.flushes, flushes, "flushes that succeeded after one that failed")
    equal(ledger.look(ledger.flushed), [], "what differs while the fast tier is failed")
    refused = volume.forerun.try_("snapshot", "create", volume.name, "during", limit=REQUEST_LIMIT)
    expect(refused.returncode != 0 and "durable" in refused.stderr, lambda: f"a snapshot: {refused.stderr!r}")
    fast.heals()
    # The end of the fault alone changes nothing: what was lost meanwhile is not known.
    expect(not ledger.flush(), "a flush succeeded after one that failed")
    done, stop, start = restarted(volume, ledger)
    equal(ledger.look(ledger.flushed), [], "what differs after the restart")
    equal(volume.status()["volume"]["health"], "healthy", "the health after the restart")
    ledger.settle()
    ledger.work(100)
    expect(ledger.flush(), "a flush after the restart failed")
    drop_caches()
    equal(ledger.look(ledger.acknowledged), [], "what differs after more writes")
    lab.note(
        f"{ledger.writes} writes acknowledged, {ledger.errors} failed; longest request {ledger.longest:.2f} s; "
        f"`del` {stop:.1f} s with status {done.returncode}, `add` {start:.1f} s"
    )


@faulty
def fast_tier_writes_fail(lab):
    """All writes to the device fail, flushes too."""
    fails_for_good(lab, "fastwrite", lambda fast: fast.becomes(fast.flakey("error_writes")))


@faulty
def fast_tier_flushes_fail(lab):
    """Only flushes fail: reads and writes succeed."""
    fails_for_good(lab, "fastflush", lambda fast: fast.flushes_fail(fast.sectors - 8 - 64))
