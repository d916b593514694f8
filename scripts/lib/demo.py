"""The demonstration itself: runs as root where ublk is (the host, or scripts/vm). Started by scripts/demo.

A volume with its trainer; on it ext4 and a PostgreSQL whose work returns (three shifts of bank transactions
and a nightly batch); after each shift a predictive snapshot; in the middle the target and the trainer are
killed; at the end everything is verified. With a trace, its replay on a second volume. With a capacity tier
on an object store the machine is lost at the end (demo_lost.py), and demo_restore.py goes on elsewhere. Every
figure is read from the API, the database, the file system or the kernel.
"""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import demo_lost  # noqa: E402
import telling  # noqa: E402
from part import VOLUME, Part, arguments, carry_out  # noqa: E402
from postgres import AUDIT, BANK, NIGHT, SETTLE, SHIFT_ACCOUNTS, Postgres, bench_counts  # noqa: E402
from replay import Device, Trace  # noqa: E402
from rig import Failed, Job, Kernel, drop_caches, last_lines, quiet_umount, run  # noqa: E402
from telling import framed, say, title  # noqa: E402
from untouched import files_problem, write_files  # noqa: E402

TRACE_VOLUME = "trace"
SHIFT_SECONDS = 6  # of transactions in each round
EPOCHS_MIN = 20
HORIZON = 1  # epochs
SYNC_SECONDS = 120  # longer than a round: each ends with a snapshot
SHIFTS = ("morning", "noon", "evening", "night")
TRACE_EPOCHS = 24
TRACE_EPOCH_SECONDS = 6  # at most, of replay
TRAINER_SECONDS = 30  # at most, until it has learned an epoch

# The API's counters that begin again with each target.
VOLUME_COUNTERS = (
    "written_back_bytes", "write_requests", "write_bytes", "read_requests", "read_bytes", "flush_requests",
    "failed_requests", "read_hits", "read_misses", "evictions", "promotions",
)  # fmt: skip
PREFETCH_COUNTERS = (
    "reservations_made", "reservations_used", "reservations_wasted", "redirects", "prefetched_bytes",
    "prefetched_used_bytes", "tables_accepted", "tables_refused",
)  # fmt: skip


class Counters:
    """The API's counters over all targets that a volume had."""

    def __init__(self, forerun, volume):
        self.forerun, self.volume = forerun, volume
        self.before = {}  # of targets that have ended
        self.now = {}
        self.pid = None
        self.published = {}  # table -> predictions in it
        self.last = None

    def look(self):
        status = self.forerun.json("status", self.volume)
        volume, prefetch = status["volume"], status["prefetch"]
        if volume["pid"] != self.pid:
            for name, value in self.now.items():
                self.before[name] = self.before.get(name, 0) + value
            self.pid = volume["pid"]
        self.now = {name: volume[name] for name in VOLUME_COUNTERS} | {
            name: prefetch[name] for name in PREFETCH_COUNTERS
        }
        if prefetch["table_published_us"]:
            table = (prefetch["table_epoch"], prefetch["table_published_us"])
            self.published[table] = prefetch["predictions_published"]
        self.last = status
        return status

    def __getitem__(self, name):
        return self.before.get(name, 0) + self.now.get(name, 0)

    def predictions_published(self):
        return sum(self.published.values())


@dataclass
class Round:
    number: int
    shift: str
    epoch: int
    name: str
    changed: int
    predicted: int
    reserved: int
    used: int
    redirects: int


class Demo(Part):
    def __init__(self, options):
        super().__init__(options)
        self.rounds = []
        self.kill = {"kill9": 0, "io_errors": 0, "trainer_kills": 0}
        self.result = {"kernel": os.uname().release, "where": options.where, "capacity": options.capacity}

    def tiers(self):
        """The fast tier; the capacity tier's file system is made: two disks in the VM, files on the host."""
        options = self.options
        self.capacity.mkdir(parents=True)
        if not options.fast_disk:
            return self.work / "fast.img"
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", options.capacity_disk], 120)
        run(["mount", options.capacity_disk, self.capacity])
        self.at_end(quiet_umount, self.capacity)
        return options.fast_disk

    # ---- The main part: a file system and a database.

    def start(self):
        title("a volume: its tiers, its device, its trainer")
        fast = self.tiers()
        self.make_folders()
        if self.options.capacity == "s3":
            self.start_store()
        size = [] if self.options.fast_disk else ["--fast-size", "1G"]
        self.forerun(
            "create", VOLUME, "--size", "1G", "--fast", fast, *size, "--capacity", self.place(VOLUME),
            "--sync-interval", SYNC_SECONDS, "--horizon", HORIZON,
        )  # fmt: skip
        self.at_end(self.stop_trainer, VOLUME)
        self.at_end(self.remove_volume, VOLUME)
        self.device = self.forerun("add", VOLUME, limit=150)
        self.counters = Counters(self.forerun, VOLUME)
        volume = self.counters.look()["volume"]
        say(f"{self.device}: 1 GiB, fast tier {fast}, capacity tier {self.place(VOLUME)}, {volume['transfer_mode']}")
        if volume["not_granted"]:
            say(f"not granted by this kernel: {volume['not_granted']}")
        self.result |= {"device": self.device, "transfer_mode": volume["transfer_mode"]}

        title("ext4 and PostgreSQL on it")
        run(["mkfs.ext4", "-q", "-J", "size=16", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device], 180)
        self.mount.mkdir()
        run(["mount", self.device, self.mount])
        self.at_end(quiet_umount, self.mount)
        self.database = Postgres(self.mount / "pg", self.work / "pg")
        self.at_end(self.stop_database, self.database)
        say("initdb ...")
        self.database.create()
        self.database.start()
        say("filling the tables ...")
        self.database.fill()
        self.database.sql("checkpoint", 120)
        self.files = write_files(self.mount)
        size = sum((self.mount / path).stat().st_size for path in self.files)
        say(f"{len(self.files)} files of {size >> 20} MiB beside it, checksums noted")

    def shift(self, number):
        """A round's work; ends with the database's checkpoint, as a day's end would."""
        name = SHIFTS[number % len(SHIFTS)]
        if name == "night":
            self.database.sql(NIGHT, 120)
            self.database.sql("vacuum ledger", 120)
            return name, None
        low, high = self.accounts(number)
        return name, self.database.bench(BANK, SHIFT_SECONDS, low=low, high=high)

    def accounts(self, number):
        low = 1 + SHIFT_ACCOUNTS * (number % len(SHIFTS))
        return low, low + SHIFT_ACCOUNTS - 1

    def end_of_shift(self, number, job):
        done = (0, 0)
        if job is not None:
            done = bench_counts(job.succeed(150))
            if done[1]:
                raise Failed(f"{done[1]} transactions failed:\n{last_lines(job.text())}")
            low, high = self.accounts(number)
            self.database.sql(SETTLE.format(low=low, high=high), 120)
        self.database.sql("checkpoint", 150)
        return done[0]

    def one_round(self, number, during=None):
        # Since the snapshot before: reservations are made when a prediction arrives.
        made, used, redirects = self.base
        self.await_table(self.counters, self.rounds[-1].epoch if self.rounds else 0)
        predicted = self.counters.last["prefetch"]["predictions_above_threshold"]
        shift, job = self.shift(number)
        if during:
            time.sleep(1)
            during()
        transactions = self.end_of_shift(number, job)
        name = f"r{number:02d}-{shift}"
        answer = self.forerun.json("snapshot", "create", VOLUME, name, "--horizon", HORIZON)
        snapshot = answer["snapshot"]
        self.counters.look()
        changed = self.changed(VOLUME, name)
        self.rounds.append(
            Round(
                number, shift, snapshot["epoch"], name, changed, predicted,
                self.counters["reservations_made"] - made, self.counters["reservations_used"] - used,
                self.counters["redirects"] - redirects,
            )
        )  # fmt: skip
        self.base = self.counts()
        self.show_round(transactions)

    def counts(self):
        return [self.counters[name] for name in ("reservations_made", "reservations_used", "redirects")]

    def changed(self, volume, name):
        """The blocks that a snapshot's epoch changed; known when its last writes have come to their end."""
        deadline = time.monotonic() + 15  # a busy machine
        while True:
            listed = self.forerun.json("snapshot", "list", volume)["snapshots"]
            snapshot = next(snapshot for snapshot in listed if snapshot["name"] == name)
            count = snapshot["added_blocks"] + snapshot["modified_blocks"] + snapshot["deleted_blocks"]
            if count or time.monotonic() > deadline:
                return count
            time.sleep(0.2)

    def show_round(self, transactions):
        this = self.rounds[-1]
        prefetch = self.counters.last["prefetch"]
        serving = prefetch["serving_predictor"] or "nobody yet"
        hit = f"{100 * this.used / this.redirects:3.0f} %" if this.redirects else "   - "
        say(
            f"{this.epoch:5d}  {this.shift:8s} {transactions:5d}  {this.changed:7d}  {this.predicted:9d}"
            f"  {this.reserved:8d}  {this.used:6d}  {hit}  {prefetch['precision']:9.2f}  {prefetch['recall']:6.2f}  {serving}"
        )

    def rounds_header(self):
        say("A shift works on accounts of its own, the night on a ledger, an audit trail grows all the time; after")
        say(f"each a predictive snapshot (horizon {HORIZON}). Predicted: blocks above the threshold when the shift begins; used:")
        say("reservations in which a write landed; hit: their share of the first writes (redirects). A shift of hours")
        say(f"lasts seconds here: the trainer gets up to {TRAINER_SECONDS} s before the next one.")
        say()
        say("epoch  shift     done  changed  predicted  reserved    used    hit  precision  recall  serving")

    def work_rounds(self):
        title("a pattern that returns")
        self.rounds_header()
        deadline = telling.began + self.options.minutes * 60 - self.reserve_seconds()
        self.audit = self.database.bench(AUDIT, 3600, clients=1, rate=10)
        self.at_end(self.audit.kill)
        self.counters.look()
        self.base = self.counts()
        number, noted_round, kill_round, trainer_round = 0, 9, 13, 16
        while number < EPOCHS_MIN or time.monotonic() < deadline:
            during = {kill_round: self.kill_target, trainer_round: self.kill_trainer}.get(number)
            if number == noted_round:
                self.before = self.database.sums()
            self.one_round(number, during)
            if number == noted_round:
                self.after = self.database.sums()
                self.noted = self.rounds[-1].name
                say(f"       noted for later: {self.noted} was made between {self.before.transactions} and "
                    f"{self.after.transactions} transactions, {self.before.audit} and {self.after.audit} audit rows")  # fmt: skip
            number += 1
            if number > 400:
                break

    def reserve_seconds(self):
        """What is kept of the time for what comes after the rounds."""
        lost = demo_lost.SECONDS if self.options.capacity == "s3" else 0
        return 90 + (TRACE_EPOCHS * 5 + 30 if self.options.trace else 0) + lost

    def kill_target(self):
        """kill -9 under load, recovery, no I/O error."""
        self.counters.look()
        before = Kernel()
        stress = self.stress()
        time.sleep(2)
        pid = self.forerun.kill_target(VOLUME)
        say(f"       kill -9 {pid}: the target is gone, under load; requests wait")
        time.sleep(1.5)
        recovered = self.forerun("recover", VOLUME, limit=150)
        say(f"       forerun recover {VOLUME}: {recovered} is served again, by process {self.forerun.target_pid(VOLUME)}")
        self.kill["kill9"] += 1
        status = stress.wait(180)
        problems = before.errors() + self.database.complaints()
        if status != 0:
            problems.append(f"fio ended with status {status}:\n{last_lines(stress.text())}")
        if not self.audit.running():
            problems.append(f"the audit trail's writer ended:\n{last_lines(self.audit.text())}")
        failed = self.counters.look()["volume"]["failed_requests"]
        self.kill["io_errors"] += len(problems) + failed
        self.checks.that(f"kill -9 under load: no I/O error ({self.fio_done(stress)})", not problems and not failed, problems)

    def stress(self):
        """Mixed I/O of many sizes, every block verified, on a file beside the database."""
        return Job(
            ["fio", "--name=stress", f"--filename={self.mount}/stress", "--size=48M", "--rw=randrw", "--direct=1",
             "--ioengine=libaio", "--iodepth=16", "--bssplit=4k/60:16k/20:64k/15:256k/5", "--verify=crc32c",
             "--verify_backlog=64", "--runtime=8", "--time_based", "--randseed=7", "--output-format=json",
             f"--output={self.work}/logs/stress.json"],
            self.work / "logs" / "stress.log",
        )  # fmt: skip

    def fio_done(self, job):
        try:
            text = (self.work / "logs" / "stress.json").read_text()
            # Notes may come before it.
            done = json.loads(text[text.index("{") :])["jobs"][0]
            return f"fio: {done['read']['total_ios'] + done['write']['total_ios']} requests, error {done['error']}"
        except (OSError, ValueError, KeyError, IndexError):
            return f"fio's report cannot be read:\n{last_lines(job.text())}"

    def kill_trainer(self):
        """The trainer is killed and started again, as a service manager would; the volume goes on."""
        pid = self.forerun.trainer_pid(VOLUME)
        if pid is None:
            raise Failed("no trainer is noted in the run directory")
        os.kill(pid, signal.SIGKILL)
        self.kill["trainer_kills"] += 1
        trainer = Job(
            [self.forerun.program("forerun-trainer"), "run", VOLUME],
            self.work / "logs" / "trainer.log",
            env=self.forerun.env,
        )
        self.at_end(trainer.kill)
        say(f"       kill -9 {pid}: the trainer is gone; another one started, process {trainer.process.pid}")

    # ---- Verification.

    def verify(self):
        title("verification")
        checks = self.checks
        self.audit.stop()
        sums = checks.doing("the database answers", self.database.sums)
        checks.that("the bank's sums agree", sums is not None and sums.problem() is None, sums and sums.problem())
        checks.doing("pg_amcheck finds nothing", lambda: self.database.run("pg_amcheck", "-d", "postgres", limit=180))
        checks.doing("PostgreSQL stops", self.database.stop)
        checks.that("its log has no I/O error", not self.database.complaints(), self.database.complaints()[:3])
        checks.doing(
            "pg_checksums finds nothing",
            lambda: self.database.run("pg_checksums", "-c", "-D", self.database.data, limit=180),
        )
        drop_caches()
        checks.that("files' checksums", files_problem(self.files, self.mount) is None, files_problem(self.files, self.mount))
        run(["umount", self.mount], 120)
        checks.doing("e2fsck", lambda: run(["e2fsck", "-fn", self.device], 180))
        end = self.forerun.json("snapshot", "create", VOLUME, "end")["snapshot"]
        self.verify_noted()
        self.verify_end(end)
        self.snapshots = len(self.forerun.json("snapshot", "list", VOLUME)["snapshots"])
        return sums

    def attach(self, name):
        device = self.forerun("snapshot", "attach", VOLUME, name, limit=240)
        if run(["blockdev", "--getro", device]).strip() != "1":
            self.checks.that(f"{VOLUME}@{name} is read-only", False)
        return device

    def verify_noted(self):
        """The snapshot of the noted moment: its database is started from a copy, as after a power cut."""
        device = self.checks.doing(f"attach {self.noted}", lambda: self.attach(self.noted))
        if device is None:
            return
        copy, mount = self.capacity / "copy.img", self.work / "snapshot"
        run(["dd", f"if={device}", f"of={copy}", "bs=1M", "conv=sparse", "status=none"], 240)
        self.checks.doing(f"del {VOLUME}@{self.noted}", lambda: self.forerun("del", f"{VOLUME}@{self.noted}"))
        mount.mkdir()
        run(["mount", "-o", "loop", copy, mount], 120)
        self.at_end(quiet_umount, mount)
        database = Postgres(mount / "pg", self.work / "pg-snapshot")
        self.at_end(self.stop_database, database)
        (database.data / "postmaster.pid").unlink(missing_ok=True)
        if self.checks.doing("a PostgreSQL starts on the snapshot", lambda: database.start() or True):
            sums = database.sums()
            self.checks.that("the bank's sums agree in it", sums.problem() is None, sums.problem())
            self.checks.that("it is of the moment noted", sums.between(self.before, self.after), (self.before, sums, self.after))
            database.stop()
        self.checks.that("files' checksums in it", files_problem(self.files, mount) is None, files_problem(self.files, mount))
        run(["umount", mount], 120)
        self.checks.doing("e2fsck of it", lambda: run(["e2fsck", "-fn", copy], 180))
        copy.unlink()

    def verify_end(self, end):
        """The last snapshot equals the volume, byte for byte: nothing was written since."""
        device = self.checks.doing("attach the last snapshot", lambda: self.attach("end"))
        if device is None:
            return
        drop_caches()
        self.checks.doing(
            f"the last snapshot (epoch {end['epoch']}) equals the volume, byte for byte",
            lambda: run(["cmp", self.device, device], 420),
        )
        self.checks.doing(f"del {VOLUME}@end", lambda: self.forerun("del", f"{VOLUME}@end"))

    def finish(self):
        self.counters.look()
        chains = self.forerun.json("chain", "list", VOLUME)
        history = self.forerun("history", VOLUME)
        (self.out / "history.txt").write_text(history + "\n")
        (self.out / "status.txt").write_text(self.forerun("status", VOLUME) + "\n")
        title("what the volume says of itself")
        say(self.forerun("status", VOLUME))
        checks = self.checks
        checks.doing(f"forerun del {VOLUME}", lambda: self.forerun("del", VOLUME, limit=150))
        checks.doing(f"forerun check {VOLUME}", lambda: self.forerun("check", VOLUME, limit=300))
        # The same again after a start: what is on the tiers, not what was in memory.
        if checks.doing(f"forerun add {VOLUME}, again", lambda: self.forerun("add", VOLUME, "--no-trainer", limit=150)):
            run(["mount", "-o", "ro", self.device, self.mount], 60)
            checks.that("files' checksums", files_problem(self.files, self.mount) is None, files_problem(self.files, self.mount))
            run(["umount", self.mount], 60)
            checks.doing(f"forerun del {VOLUME}", lambda: self.forerun("del", VOLUME, limit=150))
        return chains

    # ---- A trace.

    def replay(self):
        path = self.options.trace
        title(f"the replay of {Path(path).name} on a volume of its own")
        trace = Trace(path, TRACE_EPOCHS)
        size = max(64 << 20, (trace.units * 4096 + 65535) // 65536 * 65536)
        say(f"{len(trace.requests)} requests of {trace.hours:.1f} hours on {size / 2**30:.1f} GiB, in {len(trace.epochs)} epochs "
            "of equal time; the device is as large, thin")  # fmt: skip
        fast = self.capacity / "trace.img"
        self.forerun(
            "create", TRACE_VOLUME, "--size", size, "--fast", fast, "--fast-size", "1G",
            "--capacity", self.place(TRACE_VOLUME), "--sync-interval", 300,
        )  # fmt: skip
        self.at_end(self.stop_trainer, TRACE_VOLUME)
        self.at_end(self.remove_volume, TRACE_VOLUME)
        path = self.forerun("add", TRACE_VOLUME, limit=150)
        counters, device, left_out, noted = Counters(self.forerun, TRACE_VOLUME), Device(path), 0, None
        say()
        say("epoch  requests  changed  reserved    used    hit  precision  recall  serving")
        for number, epoch in enumerate(trace.epochs):
            made, used, redirects = (counters[name] for name in ("reservations_made", "reservations_used", "redirects"))
            left_out += device.replay(epoch, TRACE_EPOCH_SECONDS)
            snapshot = self.forerun.json("snapshot", "create", TRACE_VOLUME, f"t{number:02d}")["snapshot"]
            if number == len(trace.epochs) // 2:
                noted = (f"t{number:02d}", dict(device.model))
            status = counters.look()
            made, used, redirects = (
                counters[name] - before
                for name, before in (("reservations_made", made), ("reservations_used", used), ("redirects", redirects))
            )
            changed = self.changed(TRACE_VOLUME, snapshot["name"])
            hit = f"{100 * used / redirects:3.0f} %" if redirects else "   - "
            prefetch = status["prefetch"]
            say(f"{snapshot['epoch']:5d}  {len(epoch):8d}  {changed:7d}  {made:8d}  {used:6d}  {hit}  {prefetch['precision']:9.2f}"
                f"  {prefetch['recall']:6.2f}  {prefetch['serving_predictor'] or 'nobody yet'}")  # fmt: skip
            self.await_table(counters, snapshot["epoch"])
        self.verify_replay(device, path, noted, left_out)
        prefetch = counters.look()["prefetch"]
        self.forerun("del", TRACE_VOLUME, limit=150)
        self.checks.doing(f"forerun check {TRACE_VOLUME}", lambda: self.forerun("check", TRACE_VOLUME, limit=300))
        self.result["trace"] = {
            "file": Path(self.options.trace).name, "requests": len(trace.requests), "requests_left_out": left_out,
            "epochs": len(trace.epochs), "hours": round(trace.hours, 2), "bytes_written": device.bytes_written,
            "predictions_published": counters.predictions_published(), "precision": prefetch["precision"],
            "recall": prefetch["recall"], "serving_predictor": prefetch["serving_predictor"],
        } | {name: counters[name] for name in PREFETCH_COUNTERS}  # fmt: skip

    def await_table(self, counters, epoch):
        """An epoch is over in seconds where it took hours: the trainer gets a moment."""
        deadline = time.monotonic() + TRAINER_SECONDS
        while time.monotonic() < deadline:
            if counters.look()["prefetch"]["table_epoch"] >= epoch:
                return
            time.sleep(0.5)

    def verify_replay(self, device, path, noted, left_out):
        if left_out:
            say(f"{left_out} requests were left out: their epochs had more than fits into {TRACE_EPOCH_SECONDS} s here")
        drop_caches()
        units = device.check_all()
        self.checks.that(f"all {units} blocks of 4 KiB hold what was written last", not device.errors, device.errors[:3])
        device.close()
        name, model = noted
        snapshot = self.checks.doing(f"attach {name}", lambda: self.forerun("snapshot", "attach", TRACE_VOLUME, name, limit=240))
        if snapshot is None:
            return
        reader = Device(snapshot, writable=False)
        # What came later must not show either.
        units = reader.check_all({unit: model.get(unit) for unit in device.model})
        self.checks.that(f"in {name} all {units} blocks hold what they held then", not reader.errors, reader.errors[:3])
        reader.close()
        self.forerun("del", f"{TRACE_VOLUME}@{name}")

    # ---- All of it.

    def run(self):
        self.start()
        self.work_rounds()
        sums = self.verify()
        status = self.counters.look()
        chains = self.finish()
        if self.options.trace:
            self.replay()
        self.report(status, sums, chains)
        if self.store:
            demo_lost.lose(self, VOLUME)

    def report(self, status, sums, chains):
        volume, prefetch, counters = status["volume"], status["prefetch"], self.counters
        kernel_errors = self.kernel.errors()
        self.checks.that("the kernel reported no I/O error", not kernel_errors, kernel_errors[:3])
        self.result |= {
            "epochs": volume["open_epoch"] - 1,
            "snapshots": self.snapshots,
            "predictions_published": counters.predictions_published(),
            "tables_accepted": counters["tables_accepted"],
            "tables_refused": counters["tables_refused"],
            "reservations_made": counters["reservations_made"],
            "reservations_used": counters["reservations_used"],
            "reservations_wasted": counters["reservations_wasted"],
            "precision": prefetch["precision"],
            "recall": prefetch["recall"],
            "score_window_epochs": prefetch["score_window_epochs"],
            "serving_predictor": prefetch["serving_predictor"],
            "serving_reason": prefetch["serving_reason"],
            "predictors": prefetch["predictors"],
            "chains": len(chains["chains"]),
            "redirects": counters["redirects"],
            "bytes_written": counters["write_bytes"],
            "bytes_written_back": counters["written_back_bytes"],
            "target_memory_bytes": volume["memory_bytes"],
            "transactions": sums.transactions if sums else None,
            "target_kills": self.kill["kill9"],
            "trainer_kills": self.kill["trainer_kills"],
            "kill9_io_errors": self.kill["io_errors"],
            "rounds": [vars(this) for this in self.rounds],
        }
        for name in ("predictions_published", "reservations_made", "reservations_used", "redirects"):
            self.checks.that(f"{name.replace('_', ' ')}: more than none", self.result[name] > 0)
        self.checks.that(f"at least {EPOCHS_MIN} epochs", self.result["epochs"] >= EPOCHS_MIN, self.result["epochs"])
        self.checks.that("the target was killed and recovered", self.kill["kill9"] > 0)

    def good(self):
        return not self.checks.wrong and self.result["kill9_io_errors"] == 0

    def conclude(self):
        self.result |= self.outcome()
        if self.store:
            self.result["restored"] = None  # demo_restore.py's to say
        (self.out / "result.json").write_text(json.dumps(self.result, indent=2) + "\n")
        return self.result


def table(result):
    """What a person reads at the end."""

    def share(part, whole):
        return f"{part} of {whole} ({100 * part / whole:.0f} %)" if whole else f"{part} of {whole}"

    mib = 1 << 20
    lines = [
        ("kernel, device", f"{result['kernel']}, {result['device']} ({result['transfer_mode']})"),
        ("epochs, snapshots", f"{result['epochs']}, {result['snapshots']}"),
        ("transactions", result["transactions"]),
        ("written; written back", f"{result['bytes_written'] // mib} MiB; {result['bytes_written_back'] // mib} MiB"),
        ("predictions published", f"{result['predictions_published']} in {result['tables_accepted']} tables; {result['chains']} chains"),
        ("reservations used", share(result["reservations_used"], result["reservations_made"])),
        ("first writes into them", share(result["reservations_used"], result["redirects"])),
        ("precision, recall", f"{result['precision']:.2f}, {result['recall']:.2f} over {result['score_window_epochs']} epochs"),
        ("serving", f"{result['serving_predictor'] or 'nobody'}: {result['serving_reason'] or 'no reason given'}"),
    ]
    if "trace" in result:
        trace = result["trace"]
        lines += [
            ("trace", f"{trace['file']}: {trace['requests']} requests in {trace['epochs']} epochs"),
            ("  first writes met", share(trace["reservations_used"], trace["redirects"])),
            ("  precision, recall", f"{trace['precision']:.2f}, {trace['recall']:.2f}; serving: {trace['serving_predictor'] or 'nobody'}"),
        ]
    lines += [
        ("kill -9 of the target", f"{result['target_kills']} under load, {result['kill9_io_errors']} I/O errors"),
        ("kill -9 of the trainer", result["trainer_kills"]),
        ("verified", f"{result['checks']} checks, {result['verify_errors']} errors"),
        ("time", f"{result['seconds'] / 60:.1f} minutes"),
    ]
    return framed(lines)


def main():
    parser = arguments()
    parser.add_argument("--trace")
    parser.add_argument("--capacity", choices=("directory", "s3"), default="directory")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    good_end = "all of it holds" if options.capacity == "directory" else "all of it holds so far"
    return carry_out(Demo(options), (VOLUME, TRACE_VOLUME), table, good_end)


if __name__ == "__main__":
    sys.exit(main())
