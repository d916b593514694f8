"""Export and import: streams of all and of changes, cut-off ones, raw and qcow2 images; rollback; and pruning by a policy."""

import hashlib
import os
import subprocess

from lab import BLOCK, MIB, equal, expect, run, test, until

UNIT = BLOCK // 4096


def digest(path, size):
    """What a device reads as, past the page cache."""
    sums = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(0, size, MIB):
            sums.update(file.read(MIB))
    return sums.hexdigest()


def noise(device, block, blocks=1):
    """Blocks that cannot be compressed."""
    for at in range(block, block + blocks):
        device.buffer[:BLOCK] = os.urandom(BLOCK)
        os.pwritev(device.file, [device.buffer[:BLOCK]], at * BLOCK)


def exported(lab, which, path, *options):
    lab.forerun("export", which, *options, "-o", path, limit=240)
    return path


def imported(lab, volume, *words):
    done = lab.forerun.try_("import", volume.name, *words, limit=240)
    return done.returncode, done.stdout + done.stderr


@test
def what_is_exported_is_imported(lab):
    """All of one snapshot, then what changed to the next by a pipe; the copy is the same each time."""
    size = 64 * MIB
    source, copy = lab.volume("source", size, "128M"), lab.volume("copy", size, "128M")
    device = lab.device(source.add())
    target = copy.add()
    noise(device, 3, 20)
    device.write(100 * UNIT, 7)
    noise(device, 1023)
    source.snapshot("a")
    first = exported(lab, "source@a", lab.work / "first.stream")
    lab.later(first.unlink)
    expect(first.stat().st_size < 24 * BLOCK, f"22 blocks are {first.stat().st_size} bytes")
    noise(device, 10, 2)
    device.write(600 * UNIT + 3, 1)
    device.discard(1023 * UNIT, UNIT)
    source.snapshot("b")

    equal(imported(lab, copy, first)[0], 0, "the import of all")
    shown = source.attach("a")
    equal(digest(target, size), digest(shown, size), "the copy of a")
    source.detach("a")
    equal([entry["name"] for entry in lab.forerun.json("snapshot", "list", "copy")["snapshots"]], ["a"], "its snapshots")

    program = lab.forerun.program("forerun")
    with subprocess.Popen([program, "export", "source@b", "--from", "a"], stdout=subprocess.PIPE, env=lab.forerun.env) as export:
        taken = subprocess.run([program, "import", "copy"], stdin=export.stdout, env=lab.forerun.env, capture_output=True, text=True, timeout=240)
    equal((taken.returncode, export.returncode), (0, 0), f"the import of changes by a pipe ({taken.stderr})")
    equal("imported 4 blocks" in taken.stdout, True, f"what it says: {taken.stdout!r}")
    shown = source.attach("b")
    equal(digest(target, size), digest(shown, size), "the copy of b")
    # Exporting an attached snapshot leaves it attached.
    again = exported(lab, "source@b", lab.work / "again.stream", "--from", "a")
    lab.later(again.unlink)
    expect(os.path.exists(shown), "the export detached a snapshot that was attached before")
    source.detach("b")

    status, said = imported(lab, copy, again)
    expect(status == 2 and "builds on a" in said and "imported last is b" in said, f"a second time: {said!r}")
    source.snapshot("c")
    third = exported(lab, "source@c", lab.work / "third.stream", "--from", "b")
    lab.later(third.unlink)
    with open(target, "r+b", buffering=0) as file:
        file.write(b"x" * 4096)
        os.fsync(file.fileno())
    status, said = imported(lab, copy, third)
    expect(status == 2 and "was written to since snapshot b" in said, f"a copy that was written to: {said!r}")
    status, said = imported(lab, copy, first)
    expect(status == 2 and "holds data already" in said, f"over data: {said!r}")
    done = lab.forerun.try_("export", "source@a", "--from", "b", "-o", lab.work / "none")
    expect(done.returncode == 2 and "is not older" in done.stderr, f"the wrong way round: {done.stderr!r}")


@test
def a_stream_that_was_cut_off_goes_on(lab):
    """A cut-off import says so and keeps others away; the whole stream ends it. A changed byte is found."""
    size = 64 * MIB
    source, copy = lab.volume("source", size, "128M"), lab.volume("copy", size, "128M")
    device = lab.device(source.add())
    target = copy.add()
    noise(device, 0, 20)
    source.snapshot("a")
    whole = exported(lab, "source@a", lab.work / "whole.stream")
    lab.later(whole.unlink)
    part, hurt = lab.work / "part.stream", lab.work / "hurt.stream"
    lab.later(part.unlink)
    lab.later(hurt.unlink)
    data = whole.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    changed = bytearray(data)
    changed[len(data) * 3 // 4] ^= 1
    hurt.write_bytes(changed)
    status, said = imported(lab, copy, part)
    expect(status == 1 and "cut off" in said, f"half of it: {said!r}")
    status, said = imported(lab, copy, hurt)
    expect(status == 1 and "damaged at byte" in said, f"a changed byte: {said!r}")
    noise(device, 50)
    source.snapshot("b")
    other = exported(lab, "source@b", lab.work / "other.stream")
    lab.later(other.unlink)
    status, said = imported(lab, copy, other)
    expect(status == 2 and "half-way through an import of snapshot a" in said, f"another one: {said!r}")
    status, said = imported(lab, copy, whole)
    equal(status, 0, f"the whole stream ({said})")
    shown = source.attach("a")
    equal(digest(target, size), digest(shown, size), "the copy")
    source.detach("a")
    mounted = lab.volume("mounted", size, "128M")
    mounted.add()
    run(["mkfs.ext4", "-q", mounted.device], 120)
    lab.mount(mounted.device)
    status, said = imported(lab, mounted, whole, "--force")
    expect(status == 1 and "unmount it first" in said, f"a mounted volume: {said!r}")


@test
def a_volume_is_rolled_back(lab):
    """To a snapshot and forth again: byte for byte, not while it is mounted, and only what differs is copied."""
    size = 64 * MIB
    volume = lab.volume("back", size, "160M")
    device = volume.add()
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], 180)
    path = lab.mount(device)
    (path / "kept").write_bytes(b"kept" * (MIB // 2))
    run(["sync"], 60)
    run(["fsfreeze", "-f", path], 60)
    volume.snapshot("good")
    run(["fsfreeze", "-u", path], 60)
    (path / "kept").write_bytes(b"lost" * (MIB // 2))
    (path / "new").write_bytes(os.urandom(4 * MIB))
    run(["sync"], 60)
    done = lab.forerun.try_("rollback", "back@good")
    expect(done.returncode == 1 and "is mounted or held" in done.stderr, f"while it is mounted: {done.stderr!r}")
    lab.unmount(path)
    before = digest(device, size)
    wanted = volume.attach("good")
    good = digest(wanted, size)
    volume.detach("good")
    said = lab.forerun.json("rollback", "back@good", "--dry-run", limit=240)
    expect(0 < said["copied_blocks"] < 200 and said["kept"] is None, f"what would be copied: {said}")
    equal(digest(device, size), before, "the volume after a dry run")
    done = lab.forerun.json("rollback", "back@good", "--keep", "bad", limit=240)
    equal((done["copied_blocks"], done["kept"]), (said["copied_blocks"], "bad"), "what was done")
    run(["blockdev", "--flushbufs", device], 60)
    equal(digest(device, size), good, "the volume at the snapshot")
    path = lab.mount(device)
    equal((path / "kept").read_bytes() == b"kept" * (MIB // 2) and not (path / "new").exists(), True, "the files")
    lab.unmount(path)
    done = lab.forerun.try_("rollback", "back@good", "--keep", "bad")
    expect(done.returncode == 1 and "another moment already" in done.stderr, f"the same name again: {done.stderr!r}")
    lab.forerun("rollback", "back@bad", limit=240)
    run(["blockdev", "--flushbufs", device], 60)
    equal(digest(device, size), before, "the volume as it was before")
    names = [entry["name"] for entry in lab.forerun.json("snapshot", "list", "back")["snapshots"]]
    expect(len(names) == 3 and names[:2] == ["good", "bad"] and names[2].startswith("before-rollback-20"), f"its snapshots: {names}")
    done = lab.forerun.try_("rollback", "back@none")
    equal(done.returncode, 3, f"a snapshot that is not there: {done.stderr!r}")
    done = lab.forerun.try_("rollback", "back")
    equal(done.returncode, 2, f"no snapshot given: {done.stderr!r}")


@test
def a_raw_image_is_imported(lab):
    """A file system in a file, onto a volume that held something else."""
    size = 64 * MIB
    volume = lab.volume("image", size, "128M")
    target = volume.add()
    device = lab.device(target)
    noise(device, 0, 4)
    noise(device, 1000, 4)
    device.close()
    image = lab.work / "disk.img"
    lab.later(image.unlink)
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    run(["mkfs.ext4", "-q", "-F", "-L", "imported", image], 120)
    status, said = imported(lab, volume, image)
    expect(status == 2 and "--raw" in said, f"an image without --raw: {said!r}")
    status, said = imported(lab, volume, image, "--raw")
    expect(status == 2 and "--force" in said, f"over data: {said!r}")
    equal(imported(lab, volume, image, "--raw", "--force")[0], 0, "the import")
    run(["e2fsck", "-fn", target], 120)
    equal(run(["blkid", "-o", "value", "-s", "LABEL", target]).strip(), "imported", "the label")
    with open(target, "rb") as file:
        file.seek(1000 * BLOCK)
        equal(file.read(BLOCK).count(0), BLOCK, "zeros behind the image's end")


@test
def a_qcow2_image_is_imported(lab):
    """A compressed one, over data of before: the volume is then what the image was made of, and zeros behind its end."""
    size, held = 64 * MIB, 48 * MIB
    volume = lab.volume("qcow", size, "128M")
    target = volume.add()
    device = lab.device(target)
    noise(device, 5, 4)
    noise(device, 1000, 2)
    device.close()
    raw, image = lab.work / "disk.raw", lab.work / "disk.qcow2"
    for path in (raw, image):
        lab.later(lambda path=path: path.unlink(missing_ok=True))
    with open(raw, "wb") as file:
        file.truncate(held)
        for at in (0, 11, 12, 700):
            file.seek(at * BLOCK + 512)
            file.write(os.urandom(BLOCK))
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image], 120)
    with open(image, "rb") as file:
        done = subprocess.run(
            [lab.forerun.program("forerun"), "import", "qcow"], stdin=file, env=lab.forerun.env, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
    expect(done.returncode == 2 and "cannot be read from a pipe" in done.stderr, f"from a pipe: {done.stderr!r}")
    status, said = imported(lab, volume, image)
    expect(status == 2 and "--force" in said, f"over data: {said!r}")
    equal(imported(lab, volume, image, "--force")[0], 0, "the import")
    equal(digest(target, held), digest(raw, held), "the volume and what the image was made of")
    with open(target, "rb") as file:
        file.seek(held)
        expect(not any(file.read(size - held)), "zeros behind the image's end")
    cut = lab.work / "cut.qcow2"
    lab.later(cut.unlink)
    cut.write_bytes(image.read_bytes()[: 100 * 1024])
    status, said = imported(lab, volume, cut, "--force")
    expect(status != 0 and "qemu-img" in said, f"an image that was cut off: {said!r}")


@test
def a_policy_prunes_snapshots(lab):
    """What the policy does not keep goes, what has a name or is attached stays, and the space comes back."""
    volume = lab.volume("pruned", "64M", "128M", "--sync-interval", "3600")
    device = lab.device(volume.add())
    for number in range(6):
        noise(device, 0, 32)
        volume.snapshot("monday" if number == 1 else f"auto-{number}")
    volume.written_back()
    used = volume.status()["volume"]["capacity_tier"]["used_bytes"]
    lab.forerun("retention", "pruned", "--keep-last", 1, "--hourly", 0, "--daily", 0, "--weekly", 0, "--monthly", 0)
    volume.attach("auto-3")
    dry = lab.forerun.json("prune", "pruned", "--dry-run")
    whats = {entry["name"]: entry["what"] for entry in dry["snapshots"]}
    equal(whats, {"auto-0": "cut", "monday": "keep", "auto-2": "cut", "auto-3": "cut", "auto-4": "cut", "auto-5": "keep"}, "the plan")
    done = lab.forerun.json("prune", "pruned")
    equal(done["in_use"], ["auto-3"], "what is attached")
    names = lambda: [entry["name"] for entry in lab.forerun.json("snapshot", "list", "pruned")["snapshots"]]
    equal(names(), ["monday", "auto-3", "auto-5"], "what is left")
    volume.detach("auto-3")
    lab.forerun("prune", "pruned")
    equal(names(), ["monday", "auto-5"], "what is left at last")
    until("the space to come back", 90, lambda: used - volume.status()["volume"]["capacity_tier"]["used_bytes"] >= 5 * MIB, 1)
