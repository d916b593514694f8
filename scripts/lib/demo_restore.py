"""The second part of `scripts/demo --capacity s3`: the machine is lost, and the volume goes on elsewhere from its
address and credentials alone. Runs as root on a machine that has seen nothing of the first part: in the VM
another boot with an empty fast tier, on a host another process after all but the object store was deleted.

How long it takes until the volume, its file system and its database are there is measured; then all is held
against what the first part noted (demo_lost.py).
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from demo_lost import NOTE, listed, written_back_epoch  # noqa: E402
from part import VOLUME, Part, arguments, carry_out  # noqa: E402
from postgres import BANK, SHIFT_ACCOUNTS, Postgres, Sums, bench_counts  # noqa: E402
from rig import Failed, drop_caches, last_lines, quiet_umount, run, until  # noqa: E402
from telling import framed, say, title  # noqa: E402
from untouched import files_problem  # noqa: E402

THEN = "then"  # the volume that the noted snapshot becomes
FIRST_QUERY = "select count(*) from pgbench_history"
GO_ON_SECONDS = 6  # of transactions at the end
HYDRATION_SECONDS = 300  # at most


class Restore(Part):
    def __init__(self, options):
        super().__init__(options)
        self.note = json.loads((self.out / NOTE).read_text())
        self.before, self.after, self.at_loss = (Sums(**self.note[name]) for name in ("before", "after", "at_loss"))
        self.result = {"snapshot": self.note["snapshot"], "snapshots": len(self.note["snapshots"])}

    # ---- What is there, and what is made of it.

    def start(self):
        title("another machine: an empty fast tier, the object store's address and credentials")
        self.make_folders()
        if self.options.capacity_disk:
            self.capacity.mkdir(parents=True)
            run(["mount", self.options.capacity_disk, self.capacity])
            self.at_end(quiet_umount, self.capacity)
        self.mount.mkdir(exist_ok=True)
        self.start_store()
        there = [path for path in (self.forerun.state_dir, *self.forerun.run_dir.iterdir()) if path.exists()]
        self.checks.that("nothing else of the volume is here", not there, there)
        count, size = self.store.objects(VOLUME)
        say(f"{self.place(VOLUME)}: {count} objects of {size >> 20} MiB")
        self.result |= {"objects": count, "object_bytes": size}

    def restore(self):
        """The volume, its file system and its database, with the seconds until each is there."""
        fast = self.options.fast_disk or self.work / "fast.img"
        size = [] if self.options.fast_disk else ["--fast-size", "1G"]
        began = time.monotonic()

        def passed():
            return round(time.monotonic() - began, 2)

        say(f"forerun restore {self.place(VOLUME)} --as {VOLUME} --fence ...")
        say("   (the lost machine has not closed the volume, and is fenced off; without --fence it is watched for 32 s first)")
        told = self.forerun("restore", self.place(VOLUME), "--as", VOLUME, "--fast", fast, "--fence", *size, limit=150)
        restored = passed()
        self.at_end(self.stop_trainer, VOLUME)
        self.at_end(self.remove_volume, VOLUME)
        self.device = self.forerun("add", VOLUME, limit=150)
        device = passed()
        run(["mount", self.device, self.mount], 120)
        self.at_end(quiet_umount, self.mount)
        mounted = passed()
        self.database = self.start_database(self.mount, self.work / "pg")
        count = int(self.database.sql(FIRST_QUERY, 150))
        queried = passed()
        say(told)
        say()
        say(f"{restored:6.2f} s  restored")
        say(f"{device:6.2f} s  {self.device} is there")
        say(f"{mounted:6.2f} s  its file system is mounted")
        say(f"{queried:6.2f} s  PostgreSQL has recovered and answered its first query: {count} transactions")
        self.result |= {
            "restore_seconds": restored, "device_seconds": device, "mounted_seconds": mounted, "first_query_seconds": queried,
        }  # fmt: skip

    def start_database(self, mount, work):
        """A database whose machine went away without a word."""
        database = Postgres(mount / "pg", work)
        self.at_end(self.stop_database, database)
        (database.data / "postmaster.pid").unlink(missing_ok=True)
        database.start()
        return database

    # ---- Held against what was noted.

    def verify(self):
        title("is it what it was?")
        checks, note = self.checks, self.note
        sums = self.database.sums()
        checks.that("the bank's sums agree", sums.problem() is None, sums.problem())
        checks.that(
            f"it holds snapshot {note['snapshot']}, and nothing that never was", sums.between(self.before, self.at_loss),
            (self.before, sums, self.at_loss),
        )  # fmt: skip
        lost = self.at_loss.transactions - sums.transactions
        say(f"       transactions: {self.before.transactions} to {self.after.transactions} when snapshot {note['snapshot']} was made, "
            f"{self.at_loss.transactions} when the")  # fmt: skip
        say(f"       machine was lost, {sums.transactions} now: what came after the last epoch written back is lost")
        snapshots = [[one["name"], one["epoch"]] for one in listed(self.forerun, VOLUME)]
        checks.that(f"its {len(snapshots)} snapshots are those that it had", snapshots == note["snapshots"], snapshots)
        problem = files_problem(note["files"], self.mount)
        checks.that(f"checksums of {len(note['files'])} files", problem is None, problem)
        checks.doing("pg_amcheck finds nothing", lambda: self.database.run("pg_amcheck", "-d", "postgres", limit=240))
        self.result |= {"transactions_lost": lost, "transactions": sums.transactions}

    def verify_noted(self):
        """The noted snapshot as a volume of its own, with its own fast tier and its own place in the store."""
        name = self.note["snapshot"]
        title(f"snapshot {name}, as a volume of its own beside it")
        checks, fast, mount = self.checks, self.capacity / "then.img", self.work / "then"
        source = f"{self.place(VOLUME)}@{name}"
        began = time.monotonic()
        self.forerun(
            "restore", source, "--as", THEN, "--fast", fast, "--fast-size", "512M", "--capacity", self.place(THEN),
            "--hydrate", "off", limit=150,
        )  # fmt: skip
        self.at_end(self.remove_volume, THEN)
        device = self.forerun("add", THEN, "--no-trainer", limit=150)
        seconds = round(time.monotonic() - began, 2)
        say(f"forerun restore {source} --as {THEN}, forerun add {THEN}: {device} is there after {seconds:.2f} s")
        mount.mkdir()
        run(["mount", device, mount], 120)
        self.at_end(quiet_umount, mount)
        database = checks.doing("a PostgreSQL starts on it", lambda: self.start_database(mount, self.work / "pg-then"))
        if database is not None:
            sums = database.sums()
            checks.that("the bank's sums agree in it", sums.problem() is None, sums.problem())
            checks.that("it is of the moment noted", sums.between(self.before, self.after), (self.before, sums, self.after))
            database.stop()
        problem = files_problem(self.note["files"], mount)
        checks.that("files' checksums in it", problem is None, problem)
        run(["umount", mount], 120)
        checks.doing("e2fsck of it", lambda: run(["e2fsck", "-fn", device], 180))
        checks.doing(f"forerun del {THEN}", lambda: self.forerun("del", THEN, limit=150))
        self.result["snapshot_device_seconds"] = seconds

    # ---- On with it.

    def hydration(self):
        return self.forerun.json("status", VOLUME)["volume"]["hydration"]

    def warm_up(self):
        title("warming up: the fast tier fills, what is expected to be used first")
        hydration = until(
            "hydration to end", HYDRATION_SECONDS,
            lambda: (now := self.hydration())["state"] in ("done", "full") and now, 0.5,
        )  # fmt: skip
        self.checks.that("every block could be fetched", hydration["failed_blocks"] == 0, hydration)
        page = self.forerun("status", VOLUME)
        (self.out / "restored-status.txt").write_text(page + "\n")
        say(page)
        self.result["hydration"] = hydration

    def go_on(self):
        title("work goes on")
        before = self.database.sums()
        job = self.database.bench(BANK, GO_ON_SECONDS, low=1, high=SHIFT_ACCOUNTS)
        done, failed = bench_counts(job.succeed(150))
        sums = self.database.sums()
        if failed:
            raise Failed(f"{failed} transactions failed:\n{last_lines(job.text())}")
        self.checks.that(
            f"{done} transactions are added, and the sums agree", done > 0 and sums.problem() is None and
            sums.transactions == before.transactions + done, (before, done, sums),
        )  # fmt: skip
        snapshot = self.forerun.json("snapshot", "create", VOLUME, "restored")["snapshot"]
        self.checks.doing(
            "snapshot restored is written back",
            lambda: until("the write-back", 300, lambda: written_back_epoch(self, VOLUME) >= snapshot["epoch"], 0.5),
        )
        self.result["transactions_after"] = done

    def finish(self):
        checks = self.checks
        checks.doing("PostgreSQL stops", self.database.stop)
        complaints = self.database.complaints()
        checks.that("its log has no I/O error", not complaints, complaints[:3])
        drop_caches()
        problem = files_problem(self.note["files"], self.mount)
        checks.that("files' checksums", problem is None, problem)
        run(["umount", self.mount], 120)
        checks.doing("e2fsck", lambda: run(["e2fsck", "-fn", self.device], 180))
        self.check_secret()
        kernel_errors = self.kernel.errors()
        checks.that("the kernel reported no I/O error", not kernel_errors, kernel_errors[:3])

    def run(self):
        self.start()
        self.restore()
        self.verify()
        self.warm_up()
        self.verify_noted()
        self.go_on()
        self.finish()

    # ---- Its figures join those of the first part.

    def good(self):
        return not self.checks.wrong

    def conclude(self):
        self.result |= self.outcome()
        path = self.out / "result.json"
        whole = json.loads(path.read_text())
        whole["restored"] = self.result
        for name in ("checks", "verify_errors", "errors"):
            whole[name] += self.result[name]
        whole["seconds"] = round(whole["seconds"] + self.result["seconds"], 1)
        path.write_text(json.dumps(whole, indent=2) + "\n")
        return self.result


def table(result):
    """What a person reads at the end."""
    hydration = result["hydration"]
    return framed([
        ("restored from", f"the object store alone: {result['objects']} objects of {result['object_bytes'] >> 20} MiB"),
        ("device there after", f"{result['device_seconds']:.2f} s"),
        ("first query after", f"{result['first_query_seconds']:.2f} s"),
        ("lost with the machine", f"{result['transactions_lost']} transactions, which were not written back yet"),
        ("warm after", f"{hydration['seconds']:.1f} s, {hydration['fetched_bytes'] >> 20} MiB fetched"),
        ("snapshots", f"{result['snapshots']}; {result['snapshot']} became a volume in {result['snapshot_device_seconds']:.2f} s"),
        ("transactions since", result["transactions_after"]),
        ("verified", f"{result['checks']} checks, {result['verify_errors']} errors"),
        ("time", f"{result['seconds'] / 60:.1f} minutes"),
    ])  # fmt: skip


def main():
    return carry_out(Restore(arguments().parse_args()), (VOLUME, THEN), table, "all of it holds", "restored-")


if __name__ == "__main__":
    sys.exit(main())
