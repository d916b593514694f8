"""A volume that becomes larger: in use where the kernel can do that, else while it is stopped."""

import json
import os
import time
from pathlib import Path

from lab import BLOCK, MIB, equal, expect, files_are, run, test, until, write_files
from ledger import Background, Ledger

OLD, NEW = 64 * MIB, 192 * MIB
BIG_MIB = 90  # more than the old size has room for


def size_of(device):
    return int(run(["blockdev", "--getsize64", device]))


def can_grow(volume, device):
    """Whether the driver has UPDATE_SIZE: a volume that cannot grow says so, and is as it was."""
    done = volume.forerun.try_("grow", volume.name, str(NEW))
    if done.returncode == 0:
        return True
    expect("UPDATE_SIZE" in done.stderr and "forerun del" in done.stderr, f"why it does not grow: {done.stderr!r}")
    equal(size_of(device), OLD, "the device's size after a refusal")
    equal(volume.status()["volume"]["size_bytes"], OLD, "the volume's size after a refusal")
    return False


@test
def a_file_system_grows(lab):
    """ext4, mounted and in use: the volume grows, then the file system; what it holds stays, and its new room holds data through a
    kill and a restart. A snapshot from before is what it was."""
    volume = lab.volume("grow", f"{OLD}", "160M", "--sync-interval", "3600")
    device = volume.add()
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], 180)
    path = lab.mount(device)
    sums = write_files(path)
    os.sync()
    volume.snapshot("small")
    online = can_grow(volume, device)
    if not online:
        lab.unmount(path)
        volume.delete()
        said = volume.forerun("grow", volume.name, f"+{NEW - OLD}")
        expect("192.0 MiB" in said and "forerun add" in said, f"what grow says: {said!r}")
        device = volume.add()
        path = lab.mount(device)
    lab.note("grown while it was mounted" if online else "grown while it was stopped")
    equal(size_of(device), NEW, "the device's size")
    run(["resize2fs", device], 180)
    big = path / "big"
    content = os.urandom(MIB)
    with open(big, "wb") as file:
        for _ in range(BIG_MIB):
            file.write(content)
    os.sync()
    volume.kill()
    volume.recover()
    equal(size_of(device), NEW, "the device's size after a kill")
    files_are(sums)
    volume.snapshot("large")
    lab.unmount(path)
    run(["e2fsck", "-fn", device], 180)
    old = lab.mount(volume.attach("small"), "-o", "ro,noload")
    files_are(sums, path, old)
    expect(not (old / "big").exists(), "the snapshot has a file that came later")
    lab.unmount(old)
    volume.detach("small")
    volume.delete()
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    equal(size_of(device), NEW, "its size after a restart")
    path = lab.mount(device)
    with open(path / "big", "rb") as file:
        for at in range(BIG_MIB):
            expect(file.read(MIB) == content, f"MiB {at} of the large file differs")
    lab.unmount(path)
    listed = Path("/run/ublksrvd") / (device.removeprefix("/dev/ublkb") + ".pid")
    said = json.loads(listed.read_bytes()[32:].rstrip(b"\0"))["target"]["dev_size"]
    equal(said, NEW, "the size in the pid file")


@test
def a_volume_grows_under_load(lab):
    """Again and again, with writes on the way and a trainer beside it: no error, nothing lost, and the trainer follows."""
    volume = lab.volume("growload", f"{OLD}", "160M", "--sync-interval", "3600")
    device = volume.add(trainer=True)
    ledger = Ledger(device, 0, OLD // 4096, seed=12)
    lab.devices.append(ledger)
    ledger.work(200)
    if not can_grow(volume, device):
        return
    load = Background(ledger, pause=0.005)
    for step in range(1, 9):
        wanted = NEW + step * 64 * MIB
        volume.forerun("grow", volume.name, "+64M")
        equal(size_of(device), wanted, "the device's size")
        pen = lab.device(device)
        pen.write((wanted - BLOCK) // 4096, 16)
        pen.close()
    load.end(60)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "requests that failed")
    volume.snapshot("after")
    after = time.time() * 1e6
    volume.written_back()
    equal(ledger.look(ledger.acknowledged), [], "what differs")
    # It rests where nothing pays, and makes no table then; but it reports each epoch.
    until("the trainer to follow", 240, lambda: volume.status()["prefetch"]["trainer_reported_us"] > after)
    equal(volume.status()["prefetch"]["tables_refused"], 0, "tables refused")
    done = volume.forerun.try_("grow", volume.name, "64M")
    expect(done.returncode == 2 and "does not shrink" in done.stderr, f"shrinking: {done.stderr!r}")
