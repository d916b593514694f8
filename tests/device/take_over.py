"""What is left when something other than a plain kill goes wrong: a take-over that fails, a queue that fails, a
stop while requests wait for a capacity tier that is full. Nothing acknowledged may be lost, nothing may wait for ever."""

import ctypes
import errno
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

from lab import MIB, Skipped, Volume, equal, expect, run, test, until
from patterns import Patterns
from rig import Job, gone, quiet_umount, result


def state_of(lab, name):
    return next(entry["state"] for entry in lab.forerun.json("list")["volumes"] if entry["volume"] == name)


@test
def a_take_over_that_fails_can_be_tried_again(lab):
    """`recover` cannot start the API: it fails, twice, and the third one finds all that was acknowledged."""
    volume = lab.volume("again", "256M", "128M", "--sync-interval", "3600")
    device = volume.add("-q", "2")
    patterns = Patterns(lab.device(device), 0, 64 * MIB // 4096, seed=21)
    patterns.write_some(60)
    volume.kill()
    # A folder where the API's socket should be.
    socket = lab.forerun.run_dir / volume.name / "api.sock"
    socket.unlink(missing_ok=True)
    (socket / "in-the-way").mkdir(parents=True)
    for _ in range(2):
        done = lab.forerun.try_("recover", volume.name, limit=120)
        expect(done.returncode != 0, "a take-over without an API socket succeeded")
        expect("left waiting again" in done.stderr, lambda: f"it says: {done.stderr}")
        expect(os.path.exists(device), f"{device} is gone")
        equal(state_of(lab, volume.name), "waits for recovery", "the state after a take-over that failed")
    (socket / "in-the-way").rmdir()
    socket.rmdir()
    equal(volume.recover(), device, "the recovered device")
    equal(patterns.problems(device, patterns.device.model), [], "what differs after the third take-over")
    patterns.write_some(20)
    equal(patterns.problems(device, patterns.device.model), [], "what differs of what was written then")
    patterns.close()
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")


@test
def a_record_that_was_left_over_names_no_other_device(lab):
    """A's target dies, its device is deleted by number, B gets the number: `del A` must not delete B's device."""
    first, second = lab.volume("first", "128M", "128M"), lab.volume("second", "128M", "128M")
    equal(first.add("-n", "0"), "/dev/ublkb0", "the first device")
    left_over = first.records()[0].read_text()
    first.kill()
    # As the stock tool does it, which knows nothing of records.
    run([lab.forerun.program("ublk-target"), "del", "-n", "0"], 60, env=lab.forerun.env)
    first.records()[0].write_text(left_over)
    equal(second.add("-n", "0"), "/dev/ublkb0", "the second device")
    equal((state_of(lab, "first"), state_of(lab, "second")), ("stopped", "running"), "the states")
    first.delete()
    equal(state_of(lab, "second"), "running", "the state of the second after del of the first")
    equal(first.records(), [], "the first one's records")
    (lab.forerun.run_dir / "first" / "device.json").write_text(left_over)
    expect(first.add() != "/dev/ublkb0", "the first one starts again, under another number")
    # By number and all at once, with nothing left.
    first.kill()
    lab.forerun("del", "-n", first.device.removeprefix("/dev/ublkb"))
    equal(first.records(), [], "the first one's records after del -n")
    first.add()
    lab.forerun("del", "-a")
    equal((first.records(), second.records()), ([], []), "the records after del -a")
    equal(json.loads(lab.forerun("list", "-a", "--json"))["devices"], [], "the devices after del -a")


class Registers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in (
            "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
            "fs_base gs_base ds es fs gs"
        ).split()
    ]


def fail_in_ring(tid):
    """Makes the io_uring_enter in which a thread waits return EBADF."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    cont, getregs, setregs, detach, seize, interrupt = 7, 12, 13, 17, 0x4206, 0x4207
    io_uring_enter, wall = 426, 0x40000000

    def ptrace(request, data=None):
        if libc.ptrace(request, tid, None, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace {request}: {os.strerror(number)}")

    ptrace(seize)
    for _ in range(100):
        ptrace(interrupt)
        os.waitpid(tid, wall)
        registers = Registers()
        ptrace(getregs, ctypes.byref(registers))
        if registers.orig_rax == io_uring_enter:
            registers.rax = 2**64 - errno.EBADF
            registers.orig_rax = 2**64 - 1
            ptrace(setregs, ctypes.byref(registers))
            ptrace(detach)
            return
        ptrace(cont)
        time.sleep(0.01)
    raise AssertionError(f"thread {tid} never waited in its ring")


@test
def a_queue_that_fails_can_be_recovered(lab):
    """The only queue's ring fails: that is no clean stop. The process ends, the device waits, nothing is lost."""
    if platform.machine() != "x86_64":
        raise Skipped("written for the registers of x86_64")
    volume = lab.volume("ring", "256M", "128M", "--sync-interval", "3600")
    device = volume.add("-q", "1")
    patterns = Patterns(lab.device(device), 0, 64 * MIB // 4096, seed=22)
    patterns.write_some(60)
    pid = lab.forerun.target_pid(volume.name)
    number = device.removeprefix("/dev/ublkb")
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == f"ublk{number}q0":
            fail_in_ring(int(task.name))
            break
    else:
        raise AssertionError(f"process {pid} has no thread of queue 0")
    until(f"the target, process {pid}, to end", 30, lambda: gone(pid), 0.1)
    equal(state_of(lab, volume.name), "waits for recovery", "the state after a queue has failed")
    expect("waiting in the ring" in lab.forerun.target_log(volume.name), "the log says what failed")
    equal(volume.recover(), device, "the recovered device")
    equal(patterns.problems(device, patterns.device.model), [], "what differs after the take-over")
    patterns.close()
    equal(volume.status()["volume"]["failed_requests"], 0, "failed requests")


@test
def a_mounted_device_is_waited_for_or_forced(lab):
    volume = lab.volume("held", "256M", "128M")
    device = volume.add()
    run(["mkfs.ext4", "-q", device], 120)
    mounted = lab.mount(device)
    began = time.monotonic()
    done = lab.forerun.try_("del", volume.name, "--wait", "2")
    expect(done.returncode != 0 and "in use" in done.stderr, lambda: f"del of a mounted device: {done.stderr!r}")
    expect(time.monotonic() - began >= 2, "it did not wait")
    lab.job(Job(["sh", "-c", f"sleep 3; umount {mounted}"], lab.logs / "umount.log"))
    lab.forerun("del", volume.name, "--wait", "30", limit=90)
    lab.mounts.remove(mounted)
    expect(not os.path.exists(device), f"{device} is still there")
    volume.check()
    equal(volume.add(), device, "the device after a restart")
    mounted = lab.mount(device)
    lab.forerun("del", volume.name, "--force", limit=90)
    equal(state_of(lab, volume.name), "stopped", "the state after del --force")
    quiet_umount(mounted)
    lab.mounts.remove(mounted)
    until(f"{device} to go", 20, lambda: not os.path.exists(device))
    equal(volume.records(), [], "the records after del --force")


a_mounted_device_is_waited_for_or_forced.expected_kernel_errors = re.compile("the kernel: .*(ext4|EXT4|JBD2|I/O error)", re.I)


@test
def what_was_not_granted_is_said_and_kept(lab):
    """More queues than CPUs: that is said, and still known after a take-over."""
    volume = lab.volume("granted", "128M", "128M")
    device = volume.add("-q", "64", "-d", "4")
    before = volume.status()["volume"]
    cpus = os.cpu_count()
    equal(before["queues"], cpus, "the queues there are")
    expect(f"64 queues (it has {cpus}" in before["not_granted"], f"not granted: {before['not_granted']}")
    volume.kill()
    recovered = lab.forerun.json("recover", volume.name)
    equal(recovered["device"], device, "recover --json")
    equal(recovered["pid"], lab.forerun.target_pid(volume.name), "recover --json")
    equal(volume.status()["volume"]["not_granted"], before["not_granted"], "not granted, after a take-over")


def stuck_volume(lab, name, place):
    """A volume on which a write waits: its capacity tier, on `place`, is full, and so is its fast tier."""
    run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place])
    lab.forerun("create", name, "--size", "512M", "--fast", lab.place / f"{name}.fast", "--fast-size", "128M",
                "--capacity", place / "tier", "--sync-interval", "1")  # fmt: skip
    volume = Volume(lab, name, lab.place / f"{name}.fast", place / "tier")
    lab.volumes.append(volume)
    device = volume.add()
    command = ["dd", "if=/dev/urandom", f"of={device}", "bs=1M", "oflag=direct", "status=none"]
    writer = lab.job(Job(command, lab.logs / f"{name}-dd.log"))
    stat = Path(f"/sys/class/block/{device.removeprefix('/dev/')}/stat")

    def stands_still():
        before = stat.read_text().split()
        time.sleep(4)
        after = stat.read_text().split()
        return int(after[8]) > 0 and before[4] == after[4]

    until("requests to wait", 120, stands_still)
    expect(writer.running(), lambda: f"dd ended: {writer.text()}")
    return volume, device, writer


def is_sound_after_a_stop(lab, volume, device, writer, place):
    expect(not os.path.exists(device), f"{device} is still there")
    writer.wait(30)
    run(["mount", "-o", "remount,size=400m", place])
    volume.check()
    volume.add()
    volume.written_back(90)
    volume.delete()


ABANDONED = re.compile(r"the kernel: .*I/O error, dev ublkb|async page (read|write)|blocked for more than")


@test
def del_while_requests_wait(lab):
    """`forerun del` ends although the requests under way cannot: they fail, as the documents say."""
    place = lab.work / "stuck"
    place.mkdir(exist_ok=True)
    try:
        volume, device, writer = stuck_volume(lab, "stuck", place)
        began = time.monotonic()
        done = lab.forerun.try_("del", volume.name, limit=150)
        lab.note(f"stopped in {time.monotonic() - began:.0f} s")
        equal(done.returncode, 0, f"the exit status of del, which said {done.stderr!r}")
        is_sound_after_a_stop(lab, volume, device, writer, place)
    finally:
        lab.tidy()
        quiet_umount(place)


del_while_requests_wait.expected_kernel_errors = ABANDONED


@test
def a_foreign_stop_while_requests_wait(lab):
    """As above with a stop that never tells the target, as that of the stock `ublk del`: the target notices."""
    place = lab.work / "stuck"
    place.mkdir(exist_ok=True)
    try:
        volume, device, writer = stuck_volume(lab, "foreign", place)
        pid = lab.forerun.target_pid(volume.name)
        number = device.removeprefix("/dev/ublkb")
        began = time.monotonic()
        # Killed at once, so that it can do nothing but this one command to the driver.
        stop = subprocess.Popen([lab.forerun.program("ublk-target"), "del", "-n", number], env=lab.forerun.env)
        time.sleep(3)
        stop.kill()
        until("the target to notice, fail the requests and end", 120, lambda: gone(pid), 0.5)
        lab.note(f"stopped in {time.monotonic() - began:.0f} s")
        stop.wait(30)
        result([lab.forerun.program("ublk-target"), "del", "-n", number], 60, env=lab.forerun.env)
        is_sound_after_a_stop(lab, volume, device, writer, place)
    finally:
        lab.tidy()
        quiet_umount(place)


a_foreign_stop_while_requests_wait.expected_kernel_errors = ABANDONED
