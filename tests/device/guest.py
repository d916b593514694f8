"""Runs the device tests on this machine, as root; tests/device/run does that in a VM.

Usage: guest.py --programs DIR --out FILE [--disk DEVICE] [--extra-disk DEVICE...] [--deal K/N] [WORD...]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402

# The short ones first.
MODULES = ["contract", "bad_input", "security", "take_over", "filesystems", "grow", "grow_fast", "snapshots", "streams"]
MODULES += ["object_store", "lost_machine"]
MODULES += ["predictions", "kills", "faults_fast", "faults_capacity", "faults_log_writes", "faults_trainer", "verify_predictions"]
MODULES += ["kill_rounds"]
# These measure times, or take long: they run where they are named, the first two on a machine that does nothing else.
MEASURING = ["restart", "cliff", "many_snapshots", "fights"]
# What these look at is forerun's own, and depends on no kernel: where several kernels run side by side, each takes its share.
ANY_KERNEL = {"bad_input", "grow_fast", "streams", "object_store", "lost_machine", "predictions"}
ANY_KERNEL |= {"faults_capacity", "faults_log_writes", "faults_trainer", "verify_predictions"}
# By far the longest of its module; `random_kills` is much the same, and runs on each.
ANY_KERNEL_TESTS = {"kills_under_verified_load_with_snapshots"}


def dealt(tests, deal):
    """The tests of share K of N: all that a kernel can break, and every N-th of the others."""
    k, n = (int(number) for number in deal.split("/"))
    others = [test for test in tests if test.__module__ in ANY_KERNEL or test.__name__ in ANY_KERNEL_TESTS]
    return [test for test in tests if test not in others or others.index(test) % n == k]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", default="/run/device-tests")
    parser.add_argument("--disk")
    parser.add_argument("--extra-disk", action="append", default=[])
    parser.add_argument("--deal", default="0/1")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    subprocess.run(["modprobe", "-qa", "loop", "ext4", "xfs"], check=False)
    modules = MODULES + (MEASURING if options.words else [])
    for module in modules:
        __import__(module)
    lab.TESTS[:] = dealt(lab.TESTS, options.deal)
    place = lab.Lab(options.programs, options.disk, options.extra_disk, options.work)
    counts = lab.run_tests(place, options.words, options.out)
    print(f"{os.uname().release}: " + json.dumps(counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
