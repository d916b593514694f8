"""Restart after kill -9 with a million dirty sub-blocks: how long it takes, and whether what is taken for dirty is."""

import os
import random
import time
from pathlib import Path

from lab import BLOCK, MIB, SUB_BLOCK, equal, expect, run, test
from rig import Job

DIRTY = int(os.environ.get("FORERUN_DIRTY", "1000000"))
LIMIT = 5.0  # seconds, of the issue
CLEAN_BLOCKS = 512
SCATTERED = 4000


@test
def restart_with_many_dirty_sub_blocks(lab):
    """Which sub-blocks are dirty is known from outside: those written since the last snapshot, which was written back
    before. After three kills they are counted, and a snapshot and its diff then name each block with its number of
    sub-blocks: what recovery takes for dirty."""
    chance = random.Random(9)
    whole = -(-(DIRTY - SCATTERED - CLEAN_BLOCKS) // 128) * 8  # what fio writes is a multiple of its 512 KiB
    first = CLEAN_BLOCKS
    size = (first + whole + SCATTERED) * BLOCK
    volume = lab.volume("dirty", f"{size // MIB + 1}M", "0", "--sync-interval", "3600", fast=lab.extra_disks[2])
    device = volume.add()

    def write(block, count):
        job = Job(
            ["fio", "--name=w", f"--filename={device}", f"--offset={block * BLOCK}", f"--size={count * BLOCK}", "--rw=write", "--bs=512k",
             "--direct=1", "--ioengine=libaio", "--iodepth=4", "--zero_buffers"],
            lab.logs / f"dirty-{block}.log",
        )  # fmt: skip
        lab.job(job).succeed(900)

    write(0, CLEAN_BLOCKS)
    volume.snapshot("before")
    volume.written_back()
    equal(volume.status()["volume"]["dirty_bytes"], 0, "dirty bytes once all is written back")
    write(first, whole)
    dirty = {block: 16 for block in range(first, first + whole)}
    pen = lab.device(device)
    # Parts of blocks that are clean otherwise, and lone sub-blocks of new ones.
    for block in range(CLEAN_BLOCKS):
        count = chance.choice((1, 2, 3))
        pen.write(block * 16 + chance.randrange(16 - count), count)
        dirty[block] = count
    for block in range(first + whole, first + whole + SCATTERED):
        pen.write(block * 16 + chance.randrange(16), 1)
        dirty[block] = 1
    pen.close()
    wanted = sum(dirty.values())
    before = volume.status()["volume"]
    equal(before["dirty_bytes"] // SUB_BLOCK, wanted, "dirty sub-blocks before the kill")
    equal(before["epochs_not_written_back"], 0, "sealed epochs before the kill")
    times, cpu = [], []
    for _ in range(3):
        volume.kill()
        began = time.monotonic()
        equal(volume.recover(), device, "the recovered device")
        run(["dd", f"if={device}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct", "status=none"], 30)
        times.append(time.monotonic() - began)
        # What the target itself computed until then, whatever else the machine does.
        fields = Path(f"/proc/{lab.forerun.target_pid(volume.name)}/stat").read_text().rpartition(")")[2].split()
        cpu.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        after = volume.status()["volume"]
        equal(after["dirty_bytes"] // SUB_BLOCK, wanted, "dirty sub-blocks after the restart")
        equal(after["fast_tier"]["clean_bytes"], before["fast_tier"]["clean_bytes"], "clean bytes after the restart")
    volume.snapshot("after")
    volume.written_back(1200)
    found = volume.forerun.json("snapshot", "diff", volume.name, "before", "after", limit=600)
    taken = {change["block"]: change["sub_blocks"] for change in found["changes"]}
    false = sum(max(0, count - dirty.get(block, 0)) for block, count in taken.items())
    missing = sum(max(0, count - taken.get(block, 0)) for block, count in dirty.items())
    lab.note(
        f"{wanted} dirty sub-blocks in {len(dirty)} blocks: serving again after {', '.join(f'{took:.2f}' for took in times)} s, "
        f"{', '.join(f'{took:.2f}' for took in cpu)} s of it the target's processor time; "
        f"{false} taken for dirty that are not, {missing} that are and were not"
    )
    equal((false, missing), (0, 0), "sub-blocks taken for dirty that are not, and the other way round")
    # On a machine that others use the best of three says what it takes.
    expect(min(times) < LIMIT, f"each restart took more than {LIMIT} s: {times}")
