"""A fast tier that becomes larger while its volume is in use, in a file and on a device, with kills of the target."""

import os

from dm import SECTOR, mapped, modules
from lab import MIB, equal, expect, test
from ledger import Background, Ledger


def fast_bytes(volume):
    return volume.status()["volume"]["fast_tier"]["total_bytes"]


def grows(volume, ledger, steps, grow):
    """Grows the fast tier step by step under load, with a kill soon after each second one; all is there in the end, and after a restart."""
    load = Background(ledger, pause=0.005)
    for step in range(steps):
        before = fast_bytes(volume)
        grow(step)
        expect(fast_bytes(volume) > before + 32 * MIB, f"the fast tier holds {fast_bytes(volume)} after {before}")
        if step % 2 == 1:
            load.end(60)
            kept = fast_bytes(volume)
            volume.kill()
            volume.recover()
            equal(fast_bytes(volume), kept, "what the fast tier holds after a kill")
            load = Background(ledger, pause=0.005)
    load.end(60)
    equal((ledger.errors, ledger.flush_errors), (0, 0), "requests that failed")
    equal(ledger.look(ledger.acknowledged), [], "what differs")
    ledger.close()
    volume.delete()
    volume.check()
    volume.add()
    ledger.open()
    equal(ledger.look(ledger.acknowledged), [], "what differs after a restart")


@test
def a_fast_tier_grows_in_its_file(lab):
    """Again and again under load, with kills: nothing fails, nothing is lost, and a file system that is full changes nothing."""
    volume = lab.volume("growfile", f"{1024 * MIB}", "96M", "--sync-interval", "3600")
    device = volume.add()
    ledger = Ledger(device, 0, 128 * MIB // 4096, seed=21)
    lab.devices.append(ledger)
    ledger.work(200)
    said = volume.forerun.try_("grow", volume.name, "--fast", "+100T")
    expect(said.returncode != 0 and "take room" in said.stderr, f"what is said of a size that does not fit: {said.stderr!r}")
    grows(volume, ledger, 4, lambda step: volume.forerun("grow", volume.name, "--fast", "+48M"))
    equal(os.path.getsize(volume.fast), (96 + 4 * 48) * MIB, "the file's size")


@test
def a_fast_tier_grows_on_a_device(lab):
    """The same on a mapped device that becomes larger, as a logical volume does; before that it is refused."""
    modules("dm-mod")
    tier = mapped(lab, "growing", lab.extra_disks[0], 96 * MIB // SECTOR)
    volume = lab.volume("growdev", f"{1024 * MIB}", "-", "--sync-interval", "3600", fast=tier.path)
    device = volume.add()
    ledger = Ledger(device, 0, 128 * MIB // 4096, seed=22)
    lab.devices.append(ledger)
    ledger.work(200)
    done = volume.forerun.try_("grow", volume.name, "--fast", "128M")
    expect(done.returncode == 2 and "make the device larger first" in done.stderr, f"what is said: {done.stderr!r}")
    said = volume.forerun("grow", volume.name, "--fast", "all")
    expect("already" in said, f"what is said where there is no more: {said!r}")

    def larger(_step):
        tier.sectors += 64 * MIB // SECTOR
        tier.becomes(tier.linear())
        volume.forerun("grow", volume.name, "--fast", "all")

    grows(volume, ledger, 4, larger)
