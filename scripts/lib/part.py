"""What both parts of the demonstration share: the one until the machine is lost (demo.py) and the one on another
machine (demo_restore.py). Where things are, what is undone at the end, and how a part ends.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import telling
from rig import Failed, Forerun, Kernel, last_lines
from s3 import ObjectStore
from telling import Checks, say

VOLUME = "demo"


class Part:
    def __init__(self, options):
        self.options = options
        self.work = Path(options.work)
        self.out = Path(options.out)
        self.capacity = self.work / "capacity"
        self.mount = self.work / "mnt"
        self.forerun = Forerun(options.programs, self.work / "state", f"/run/forerun-demo-{os.getpid()}")
        self.checks = Checks()
        self.kernel = Kernel()
        self.cleanups = []
        self.store = None  # the object store, if that is the capacity tier
        self.lost = False  # whether all but the object store is gone

    def at_end(self, *action):
        self.cleanups.append(action)

    def clean_up(self):
        if self.options.where == "vm":
            return  # the guest ends with all that is in it
        if self.options.keep and not self.lost:
            say("kept; to see: FORERUN_STATE_DIR={} FORERUN_RUN_DIR={} {} list".format(
                self.forerun.state_dir, self.forerun.run_dir, self.forerun.program("forerun")))  # fmt: skip
            return
        for action, *arguments in reversed(self.cleanups):
            try:
                action(*arguments)
            except Exception as error:  # all of them get their turn
                say(f"cleaning up: {error}")

    def make_folders(self):
        for path in (self.forerun.run_dir, self.work / "logs"):
            path.mkdir(parents=True, exist_ok=True)
        self.at_end(shutil.rmtree, self.forerun.run_dir, True)

    def start_store(self):
        """The object store's server, on the capacity tier's file system."""
        self.store = ObjectStore(self.forerun.program("s3-server"), self.capacity / "s3", self.work / "logs" / "s3-server.log")
        self.at_end(self.store.stop)
        self.forerun.env.update(self.store.environment())
        say(f"an S3 server at {self.store.url}, its objects in {self.store.root}; credentials of this run alone")

    def place(self, volume):
        """A volume's capacity tier."""
        return self.store.place(volume) if self.store else self.capacity / volume

    def remove_volume(self, volume):
        """Stops what a volume may have left running."""
        if not (self.forerun.run_dir / volume).exists():
            return
        for record in sorted((self.forerun.run_dir / volume).glob("device*.json"), reverse=True):
            name = record.stem.replace("device", volume, 1)
            done = self.forerun.try_("del", name, limit=60)
            if done.returncode != 0:
                say(f"forerun del {name}: {(done.stdout + done.stderr).strip()}")

    def stop_trainer(self, volume):
        pid = self.forerun.trainer_pid(volume)
        if pid:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def stop_database(self, database):
        if database.running():
            database.stop("immediate")

    def outcome(self):
        """What a part's figures end with."""
        return {
            "checks": self.checks.count,
            "verify_errors": len(self.checks.wrong),
            "errors": self.checks.wrong,
            "seconds": round(time.monotonic() - telling.began, 1),
        }

    def logs(self):
        """Each log there is, and the name it is kept by."""
        for log in self.forerun.run_dir.glob("*/*.log"):
            yield log, f"{log.parent.name}-{log.name}"
        for log in [*(self.work / "logs").glob("*"), *(self.work / "pg").glob("*.log")]:
            yield log, log.name

    def keep_logs(self, prefix=""):
        for log, name in self.logs():
            shutil.copy(log, self.out / f"{prefix}{name}")

    def check_secret(self):
        """No log and no page may hold the object store's secret key."""
        told = self.store.tells_secret([*self.out.iterdir(), *(log for log, _ in self.logs())])
        self.checks.that("the secret key is in no log", not told, told)


def arguments():
    """The parser of what scripts/demo gives to each part."""
    parser = argparse.ArgumentParser()
    for name in ("programs", "work", "out", "where"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("fast-disk", "capacity-disk"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--keep", action="store_true")
    return parser


def carry_out(part, volumes, table, good_end, log_prefix=""):
    """Runs a part to its end, whatever happens, and gives its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Where they are built in there is nothing to load.
    subprocess.run(["modprobe", "-qa", "loop", "ext4"], check=False)
    status = 1
    try:
        part.run()
        result = part.conclude()
        say()
        print(table(result), flush=True)
        for wrong in part.checks.wrong:
            print(f"FAILED: {wrong}")
        good = part.good()
        print(good_end if good else "NOT all of it holds", flush=True)
        status = 0 if good else 1
    except Failed as error:
        part.checks.that("the demonstration runs to its end", False, error)
        part.conclude()
    except Exception:
        part.checks.that("the demonstration runs to its end", False, traceback.format_exc())
        part.conclude()
    finally:
        if status != 0:
            for volume in volumes:
                log = part.forerun.target_log(volume)
                if log:
                    say(f"the last words of {volume}'s target:\n{last_lines(log)}")
        part.keep_logs(log_prefix)
        part.clean_up()
    return status
