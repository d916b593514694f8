"""The last of the first part of `scripts/demo --capacity s3`: the database works on, a snapshot is taken under
load and what it has to hold is noted, and the machine is lost. What is left is the object store.

In the VM the store is cut off and the machine ends with all that runs on it; its fast tier's disk is thrown
away by scripts/demo. On a host the volume is stopped, and its fast tier, state and run directory are deleted.
"""

import dataclasses
import json
import shutil
import time

from postgres import AUDIT, BANK
from rig import run, until
from telling import say, title

NOTE = "lost.json"  # in the folder that outlives the machine
SNAPSHOT = "last"
SECONDS = 150  # of --minutes, for this and for what demo_restore.py does
WORK_SECONDS = 14  # of transactions before the snapshot; a list of what is warm is made from the tenth second on
UNSAVED_SECONDS = 4  # of transactions before the loss; they are lost with the machine
WARM_LIST_SECONDS = 15  # at most, until it is on the store


def lose(demo, volume):
    """The whole of it; the note is in `demo.out` afterwards."""
    title("the volume works on, and its machine is lost")
    demo.device = demo.forerun("add", volume, limit=150)
    run(["mount", demo.device, demo.mount], 60)
    demo.database.start()
    say(f"{demo.device} is there again, and PostgreSQL runs on it")
    lists = warm_lists(demo, volume)
    jobs = transactions(demo)
    time.sleep(WORK_SECONDS)
    note = noted_snapshot(demo, volume)
    for job in jobs:
        job.stop()
    wait_for_store(demo, volume, note, lists)
    demo.check_secret()
    jobs = transactions(demo)
    time.sleep(UNSAVED_SECONDS)
    note["at_loss"] = dataclasses.asdict(demo.database.sums())
    end_machine(demo, volume, jobs)
    (demo.out / NOTE).write_text(json.dumps(note, indent=2) + "\n")
    demo.lost = True


def transactions(demo):
    """Work that does not end by itself, and leaves a slow machine time for the rest."""
    low, high = demo.accounts(0)
    jobs = [
        demo.database.bench(AUDIT, 3600, clients=1, rate=5),
        demo.database.bench(BANK, 3600, rate=10, low=low, high=high),
    ]
    for job in jobs:
        demo.at_end(job.kill)
    return jobs


def noted_snapshot(demo, volume):
    """A snapshot under load; its moment lies between two looks at the sums."""
    before = demo.database.sums()
    snapshot = demo.forerun.json("snapshot", "create", volume, SNAPSHOT)["snapshot"]
    after = demo.database.sums()
    for sums in (before, after):
        demo.checks.that("the bank's sums agree, under load", sums.problem() is None, sums.problem())
    say(f"snapshot {SNAPSHOT} of epoch {snapshot['epoch']}, under load: made between {before.transactions} and "
        f"{after.transactions} transactions")  # fmt: skip
    return {
        "snapshot": SNAPSHOT, "epoch": snapshot["epoch"], "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(after), "files": demo.files,
    }  # fmt: skip


def wait_for_store(demo, volume, note, lists):
    """Until the snapshot is on the store, and the list of what is warm that it brings with it, if it brings one: where
    little changed, the one before serves. Transactions pause meanwhile: write-back yields to them."""
    until("the write-back", 300, lambda: written_back_epoch(demo, volume) >= note["epoch"], 0.5)
    deadline = time.monotonic() + WARM_LIST_SECONDS
    while warm_lists(demo, volume) <= lists and time.monotonic() < deadline:
        time.sleep(0.5)
    count, size = demo.store.objects(volume)
    note |= {
        "written_back_epoch": written_back_epoch(demo, volume),
        "snapshots": [[one["name"], one["epoch"]] for one in listed(demo.forerun, volume)],
        "objects": count,
        "object_bytes": size,
    }
    say(f"the snapshot is on the store: {count} objects of {size >> 20} MiB, {len(note['snapshots'])} snapshots; transactions go on")


def written_back_epoch(part, volume):
    return part.forerun.json("status", volume)["volume"]["written_back_epoch"]


def listed(forerun, volume):
    return forerun.json("snapshot", "list", volume)["snapshots"]


def warm_lists(demo, volume):
    return {path.name for path in (demo.store.root / "bucket" / volume / "warm").glob("*")}


def end_machine(demo, volume, jobs):
    if demo.options.where == "vm":
        demo.store.cut_off()
        say("the object store is cut off, the machine ends with all that runs on it: no `forerun del`, no unmount")
        return
    for job in jobs:
        job.kill()
    demo.stop_database(demo.database)
    run(["umount", demo.mount], 120)
    demo.forerun("del", volume, limit=150)
    demo.stop_trainer(volume)
    demo.store.cut_off()
    (demo.work / "fast.img").unlink()
    shutil.rmtree(demo.forerun.state_dir)
    say("the volume is stopped; its fast tier and its state directory are deleted")
