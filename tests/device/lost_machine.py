"""Restore and clone on real devices: the machine is lost, and its capacity tier is not; in a directory and on an object store."""

import os
import shutil

from lab import BLOCK, MIB, Volume, equal, expect, files_are, run, test, until, write_files
from ledger import filled
from object_store import Server
from rig import drop_caches


def with_files(lab, volume):
    """A file system with files whose sums are known, written back whole."""
    device = volume.add()
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], 180)
    path = lab.mount(device)
    sums = write_files(path)
    os.sync()
    run(["fsfreeze", "-f", path], 60)
    try:
        volume.snapshot("then")
    finally:
        run(["fsfreeze", "-u", path], 60)
    lab.unmount(path)
    volume.snapshot("last")
    volume.written_back()
    return sums, path


def adopted(lab, name, fast, capacity):
    """A volume that was not made by `create`, to be stopped and checked with the others."""
    volume = Volume(lab, name, fast, capacity)
    lab.volumes.append(volume)
    return volume


def lose(lab, volume):
    """The machine is gone: nothing of the volume is left here but its capacity tier."""
    volume.delete()
    lab.volumes.remove(volume)
    volume.fast.unlink()
    shutil.rmtree(lab.forerun.state_dir / volume.name)
    shutil.rmtree(lab.forerun.run_dir / volume.name, ignore_errors=True)


def goes_on(lab, capacity, objects):
    """`objects` is the folder that the capacity tier's objects lie in, on whatever machine."""
    volume = lab.volume("lost", "512M", "160M", "--sync-interval", "2", capacity=capacity)
    sums, path = with_files(lab, volume)
    place = volume.capacity
    # A snapshot brings it with it, ten seconds after the start.
    until("a warm list", 60, lambda: any(objects.glob("warm/*")), 0.5)
    lose(lab, volume)
    fast = lab.place / "again.fast"
    said = lab.forerun("restore", place, "--as", "again", "--fast", fast, "--fast-size", "160M", limit=120)
    expect("goes on from the end of epoch" in said, f"what restore says: {said!r}")
    again = adopted(lab, "again", fast, place)
    again.add()
    warm = until("hydration to end", 120, lambda: hydrated(again), 0.2)
    expect(warm["listed_done"] == warm["listed_blocks"] > 0 and warm["fetched_bytes"] >= (warm["listed_blocks"] - 8) * BLOCK, f"hydration: {warm}")
    page = lab.forerun("status", "again")
    expect("  warming up    done" in page, f"the status: {page}")
    before = again.status()["volume"]["read_misses"]
    mounted = lab.mount(again.device)
    files_are(sums, path, mounted)
    missed = again.status()["volume"]["read_misses"] - before
    lab.note(f"hydrated {warm['fetched_bytes'] / MIB:.0f} MiB in {warm['seconds']:.1f} s; {missed} reads waited after that")
    expect(missed < 20, f"{missed} reads waited after hydration")
    (mounted / "more").write_bytes(os.urandom(8 * MIB))
    os.sync()
    more = (mounted / "more").read_bytes()
    lab.unmount(mounted)
    equal([entry["name"] for entry in lab.forerun.json("snapshot", "list", "again")["snapshots"]], ["then", "last"], "its snapshots")
    again.snapshot("later")
    again.written_back()
    again.delete()
    mounted = lab.mount(again.add())
    equal((mounted / "more").read_bytes() == more, True, "what was written after the restore")
    lab.unmount(mounted)
    run(["e2fsck", "-fn", again.device], 120)
    return again, sums, path


def hydrated(volume):
    """How hydration ended, once it has."""
    hydration = volume.status()["volume"]["hydration"]
    return hydration if hydration["state"] in ("done", "full") else None


def is_cloned(lab, origin, sums, path, capacity, origin_objects):
    """A clone of a snapshot is written to, promoted, and stands when all of the origin has gone."""
    fast = lab.place / "copy.fast"
    lab.forerun("clone", f"{origin.name}@then", "copy", "--fast", fast, "--fast-size", "160M", "--capacity", capacity, limit=120)
    copy = adopted(lab, "copy", fast, capacity)
    mounted = lab.mount(copy.add())
    files_are(sums, path, mounted)
    (mounted / "own").write_bytes(b"own" * MIB)
    os.sync()
    lab.unmount(mounted)
    listed = lab.forerun.json("snapshot", "list", origin.name)
    equal([clone["name"] for clone in listed["clones"]], ["copy"], "the clones of the origin")
    lab.forerun("snapshot", "delete", origin.name, "then")

    def stands_alone():
        # Asking again presses on; by itself it goes on every ten seconds.
        lab.forerun("promote", "copy")
        return not copy.status()["volume"].get("origins")

    until("the clone to stand alone", 180, stands_alone, 2)
    until("the pin to go", 60, lambda: not lab.forerun.json("snapshot", "list", origin.name).get("clones"), 2)
    lose(lab, origin)
    shutil.rmtree(origin_objects)
    drop_caches()
    copy.delete()
    mounted = lab.mount(copy.add())
    files_are(sums, path, mounted)
    equal((mounted / "own").read_bytes() == b"own" * MIB, True, "what was written to the clone")
    lab.unmount(mounted)
    run(["e2fsck", "-fn", copy.device], 120)


@test
def a_lost_machine_and_a_clone_in_directories(lab):
    """Restored from the directory alone; a clone is promoted, and its origin deleted."""
    capacity = lab.place / "lost.capacity"
    again, sums, path = goes_on(lab, capacity, capacity)
    is_cloned(lab, again, sums, path, lab.place / "copy.capacity", capacity)


@test
def a_lost_machine_and_a_clone_on_an_object_store(lab):
    """The same with both on an object store: restored from the address and the credentials alone."""
    server = Server(lab)
    again, sums, path = goes_on(lab, "s3://bucket/lost", server.root / "bucket" / "lost")
    is_cloned(lab, again, sums, path, "s3://bucket/copy", server.root / "bucket" / "lost")


@test
def what_was_not_written_back_is_lost_and_the_rest_is_not(lab):
    """A target that dies with its machine: what a snapshot on the capacity tier had is there, byte for byte."""
    volume = lab.volume("dead", "256M", "160M", "--sync-interval", "3600")
    ledger = filled(lab, volume, 64 * MIB // 4096, seed=9)
    volume.snapshot("kept")
    volume.written_back()
    kept = dict(ledger.acknowledged)
    ledger.work(200)
    volume.kill()
    done = lab.forerun.try_("restore", volume.capacity, "--as", "other", "--fast", lab.place / "other.fast", "--fast-size", "160M")
    expect(done.returncode != 0 and "dead" in done.stderr, f"a volume that is configured here: {done.stderr!r}")
    volume.recover()
    ledger.close()
    lose(lab, volume)
    fast = lab.place / "other.fast"
    lab.forerun("restore", volume.capacity, "--as", "other", "--fast", fast, "--fast-size", "160M")
    other = adopted(lab, "other", fast, volume.capacity)
    ledger.path = other.add()
    # `del` wrote nothing back: what came after the snapshot is gone with the fast tier.
    ledger.begun = kept
    equal(ledger.look(kept), [], "what differs from the snapshot")
