"""The contract with the stock `ublk` tool: it runs `ublk.TYPE` beside itself and talks over a pipe."""

import json
import os
import struct
import subprocess
import time
from pathlib import Path

from lab import Failed, equal, expect, run, test, until
from rig import gone, result

FAILED = 0xFFFF_FFFF_FFFF_FFFE
PID_FILES = Path("/run/ublksrvd")


def as_stock_ublk_does(program, words, env, limit=60):
    """A stand-in for `ublk WORD...`: a session of its own, no standard descriptors, the write end of a
    pipe that stays open in the child. Gives the number of 8 bytes, or None where it ended without."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def closed():
        os.setsid()
        for fd in (0, 1, 2):
            os.close(fd)

    child = subprocess.Popen(
        [program, *words, "--eventfd", str(writer)], env=env, close_fds=False, preexec_fn=closed
    )
    os.close(writer)
    deadline, said = time.monotonic() + limit, b""
    os.set_blocking(reader, False)
    try:
        while len(said) < 8:
            try:
                piece = os.read(reader, 8 - len(said))
            except BlockingIOError:
                if time.monotonic() > deadline:
                    child.kill()
                    raise Failed(f"{words} neither answered nor ended within {limit} s") from None
                time.sleep(0.05)
                continue
            if not piece:
                return None, child
            said += piece
        return struct.unpack("=Q", said)[0], child
    finally:
        os.close(reader)


def link(lab):
    """The program under the name that stock `ublk` looks for."""
    path = lab.work / "ublk.forerun"
    if not path.exists():
        path.symlink_to(lab.forerun.program("ublk-target"))
    return path


@test
def stock_ublk_adds_lists_recovers_and_deletes(lab):
    lab.volume("stock", "128M", "128M")
    program, env = link(lab), lab.forerun.env
    word, child = as_stock_ublk_does(program, ["add", "-t", "forerun", "--volume", "stock", "-n", "7", "-q", "1", "-d", "32"], env)
    equal(word, 8, "the 8 bytes: the device's number plus 1")
    expect(os.path.exists("/dev/ublkb7"), "/dev/ublkb7 is not there")
    # The pid file was complete before the bytes were sent.
    raw = (PID_FILES / "7.pid").read_bytes()
    equal(raw[:32].rstrip(b"\0"), f"{child.pid}\n".encode(), "the pid in the first 32 bytes")
    expect(raw.endswith(b"}\0") and raw.count(b"\0", 32) == 1, "the JSON is ended by one zero byte, where the file ends")
    about = json.loads(raw[32:-1])
    equal((about["target"]["name"], about["target"]["volume"]), ("forerun", "stock"), "target")
    equal(about["target"]["dev_size"], 128 << 20, "target.dev_size")
    equal(about["dev_info"]["dev_id"], 7, "dev_info.dev_id")
    equal(list(about["queues"]), ["0"], "queues")
    expect(isinstance(about["queues"]["0"]["affinity"], str), "affinity is a string")
    listed = result([program, "list", "-n", "7"], 30, env=env).stdout
    line = next((line for line in listed.splitlines() if "state" in line), "")
    equal(line.split()[10:11], ["LIVE"], f"the state in {listed!r}")
    device = lab.device("/dev/ublkb7")
    device.write(0, 16)
    pid = lab.forerun.kill_target("stock")
    equal(pid, child.pid, "the process that serves")
    child.wait(10)
    word, child = as_stock_ublk_does(program, ["recover", "-n", "7"], env)
    equal(word, 8, "the 8 bytes of recover")
    device.check_all()
    device.close()
    equal(device.errors, [], "what differs after the recovery")
    run([program, "del", "-n", "7"], 60, env=env)
    until("the process to end", 20, lambda: gone(child.pid))
    child.wait(10)
    expect(not os.path.exists("/dev/ublkb7"), "/dev/ublkb7 is still there")
    expect(not (PID_FILES / "7.pid").exists(), "the pid file is still there")
    # A failure is told too, and nothing is left.
    word, child = as_stock_ublk_does(program, ["add", "-t", "forerun", "--volume", "nosuch"], env)
    expect(word in (None, FAILED), f"the answer for a volume that is not there: {word}")
    expect(child.wait(20) != 0, "its exit status is 0")


@test
def stock_ublk_shows_the_targets_help(lab):
    """`ublk help -t forerun` runs `ublk.forerun help -t forerun`, without --eventfd."""
    program, env = link(lab), lab.forerun.env
    text = run([program, "help", "-t", "forerun"], 20, env=env)
    expect("--volume" in text and "--snapshot" in text, f"what add takes is not in {text!r}")
    expect("recover" in run([program, "help"], 20, env=env), "help lists the commands")
    expect(result([program, "help", "-t", "loop"], 20, env=env).returncode != 0, "help of another type")


@test
def devices_are_listed_and_found_by_number(lab):
    volume = lab.volume("numbers", "128M", "128M")
    equal(volume.add("-n", "5", "-q", "1", "-d", "16"), "/dev/ublkb5", "the device asked for")
    entry = next(entry for entry in lab.forerun.json("list")["volumes"] if entry["volume"] == "numbers")
    equal((entry["state"], entry["device"]), ("running", "/dev/ublkb5"), "forerun list")
    expect("LIVE" in lab.forerun("list", "-n", "5"), "forerun list -n 5")
    listed = lab.forerun.json("list", "-n", "5")["devices"]
    equal(
        [(entry["device"], entry["state"], entry["shows"], entry["forerun"], entry["size_bytes"]) for entry in listed],
        [("/dev/ublkb5", "LIVE", "numbers", True, 128 << 20)], "forerun list -n 5 --json",
    )  # fmt: skip
    expect("the device is there" in lab.forerun.target_log("numbers"), "the target's messages are in its log")
    status = volume.status()["volume"]
    equal((status["device"], status["queues"], status["queue_depth"]), ("/dev/ublkb5", 1, 16), "status")
    scheduler = Path("/sys/block/ublkb5/queue/scheduler")
    until("the device to be without an I/O scheduler", 10, lambda: "[none]" in scheduler.read_text(), 0.1)
    lab.note(f"data path: {status['transfer_mode']}; not granted: {status['not_granted'] or 'nothing'}")
    lab.forerun("del", "-n", "5")
    entry = next(entry for entry in lab.forerun.json("list")["volumes"] if entry["volume"] == "numbers")
    equal((entry["state"], entry["device"]), ("stopped", None), "forerun list after del")
