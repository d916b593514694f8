"""File systems and partitions on the device."""

import os
from pathlib import Path

from lab import BLOCK, MIB, equal, expect, files_are, run, test, until, write_files
from rig import drop_caches, partition, partition_appears


def through_a_restart(lab, volume, make, fsck, *mount_options):
    """Makes a file system, fills it, stops the volume, starts it, and finds everything."""
    run(make, 180)
    path = lab.mount(volume.device, *mount_options)
    sums = write_files(path)
    big = path / "big"
    big.write_bytes(os.urandom(20 * MIB))
    lab.unmount(path)
    run(fsck, 180)
    volume.delete()
    volume.check()
    again = volume.add()
    equal(again, volume.device, "the device after a restart")
    path = lab.mount(volume.device, *mount_options)
    files_are(sums)
    (path / "after").write_text("written after the restart")
    lab.unmount(path)
    run(fsck, 180)


@test
def ext4(lab):
    volume = lab.volume("ext4")
    device = volume.add()
    equal(run(["blockdev", "--getss", device]).strip(), "4096", "the logical block size")
    through_a_restart(
        lab, volume, ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], ["e2fsck", "-fn", device]
    )


@test
def xfs(lab):
    volume = lab.volume("xfs")
    device = volume.add()
    through_a_restart(lab, volume, ["mkfs.xfs", "-q", "-f", device], ["xfs_repair", "-n", device])


@test
def partitions_of_512_byte_blocks(lab):
    """An MBR with a partition from sector 63 on, as disk images have: nothing in it is aligned to 4 KiB."""
    volume = lab.volume("sectors", "512M", "128M", "--logical-block-size", "512")
    device = volume.add()
    equal(run(["blockdev", "--getss", device]).strip(), "512", "the logical block size")
    part = partition(device, 63, 600001)
    equal(Path(f"/sys/class/block/{os.path.basename(part)}/start").read_text().strip(), "63", "the partition's start")
    run(["mkfs.ext4", "-q", "-b", "1024", part], 180)
    path = lab.mount(part)
    sums = write_files(path)
    lab.unmount(path)
    volume.delete()
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    partition_appears(device)
    run(["e2fsck", "-fn", part], 180)
    path = lab.mount(part)
    files_are(sums)
    lab.unmount(path)


@test
def discards_give_space_back(lab):
    """fstrim after a deletion: blocks leave the map at once, and the capacity tier when their epochs are
    merged: some epochs later, and after the delay before objects are deleted."""
    volume = lab.volume("trim", "1G", "256M", "--sync-interval", "1")
    device = volume.add()
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", device], 180)
    path = lab.mount(device)
    size = 24 * MIB
    (path / "big").write_bytes(os.urandom(size))
    os.sync()

    def used():
        return volume.status()["volume"]["capacity_tier"]["used_bytes"]

    until("the data to be on the capacity tier", 60, lambda: used() >= size, 0.5)
    full = volume.status()["volume"]
    expect(full["mapped_bytes"] >= size, f"{full['mapped_bytes']} bytes are mapped after writing {size}")
    (path / "big").unlink()
    os.sync()
    run(["fstrim", path], 60)
    freed = full["mapped_bytes"] - volume.status()["volume"]["mapped_bytes"]
    expect(freed >= size - 4 * MIB, f"of {size} bytes discarded, {freed} left the map")
    before = used()

    def given_back():
        (path / "small").write_bytes(os.urandom(5000))
        os.sync()
        return before - used() >= size - 4 * MIB

    until("the capacity tier to give them back", 120, given_back, 0.7)
    lab.note(f"{size // MIB} MiB discarded: the capacity tier went from {before // MIB} to {used() // MIB} MiB")
    lab.unmount(path)
    drop_caches()
    run(["e2fsck", "-fn", device], 60)


@test
def fast_tier_smaller_than_the_data(lab):
    """Four times as much as fits into the fast tier is written, read back and overwritten."""
    volume = lab.volume("small", "1G", "64M", "--sync-interval", "2")
    device = volume.add()
    run(
        ["fio", "--name=fill", f"--filename={device}", "--rw=write", "--bs=256k", "--size=200M", "--direct=1",
         "--ioengine=libaio", "--iodepth=8", "--verify=crc32c", "--randseed=3"],
        240,
    )  # fmt: skip
    volume.written_back()
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")
    expect(200 * MIB > 3 * 64 * MIB - BLOCK, "the sizes of this test")
