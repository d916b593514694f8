"""Runs the device tests on this machine, as root; tests/device/run does that in a VM.

Usage: guest.py --programs DIR --out FILE [--disk DEVICE] [--extra-disk DEVICE...] [WORD...]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import lab  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", default="/run/device-tests")
    parser.add_argument("--disk")
    parser.add_argument("--extra-disk", action="append", default=[])
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    subprocess.run(["modprobe", "-qa", "loop", "ext4", "xfs"], check=False)
    # The short ones first. What the tiers, the API and the commands do by themselves depends on no kernel: it runs on the newer
    # ones only. The last two measure times: they run where they are named, on a machine that does nothing else.
    modules = ["contract", "bad_input", "security", "take_over", "filesystems", "snapshots"]
    modules += ["streams", "object_store", "lost_machine"] if options.words or int(os.uname().release.split(".")[0]) >= 7 else []
    modules += ["kills", "faults_fast", "faults_capacity", "faults_log_writes", "faults_trainer", "verify_predictions", "kill_rounds"]
    modules += ["restart", "cliff"] if options.words else []
    for module in modules:
        __import__(module)
    place = lab.Lab(options.programs, options.disk, options.extra_disk, options.work)
    counts = lab.run_tests(place, options.words, options.out)
    print(f"{os.uname().release}: " + json.dumps(counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
