"""What scripts/demo and tests/device share: running programs with a limit on each, the `forerun`
commands with their JSON, what the kernel said, and reading files past the page cache.

Nothing here waits for ever: a program that does not end in time is killed, and if even that does
not end it (it may hang in the kernel) it is left behind and the caller is told.
"""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

# What a kernel says when an I/O went wrong.
IO_ERRORS = re.compile(
    r"I/O error|EXT4-fs (error|warning)|XFS .*(error|corrupt|shutdown)|critical .* error|lost async page write"
    r"|JBD2: .*(error|abort)|Remounting filesystem read-only|blocked for more than",
    re.IGNORECASE,
)


BLKRRPART = 0x125F


class Failed(Exception):
    """Something did not hold; the message says what."""


def words(command):
    return " ".join(str(word) for word in command)


def last_lines(text, count=15):
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])


class Job:
    """A program in the background, in a process group of its own, its output in a file."""

    def __init__(self, command, log, env=None, cwd=None, user=None, pass_fds=()):
        self.command = [str(word) for word in command]
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                as_user(user) + self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
            )

    def text(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait(self, limit):
        """Waits for its end; its exit status, or a failure when it takes longer."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{words(self.command[:4])} ... did not end within {limit:.0f} s:\n{last_lines(self.text())}") from None

    def succeed(self, limit):
        status = self.wait(limit)
        if status != 0:
            raise Failed(f"{words(self.command[:4])} ... ended with status {status}:\n{last_lines(self.text())}")
        return self.text()

    def stop(self, how=signal.SIGTERM, limit=20):
        if self.running():
            self.signal(how)
        return self.wait(limit)

    def signal(self, how):
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            pass

    def kill(self):
        self.signal(signal.SIGKILL)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass  # it hangs in the kernel: nobody can help it


def as_user(user):
    if user is None:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]


def run(command, limit=60, ok=(0,), env=None, cwd=None, user=None, text_in=None):
    """Runs a program to its end; gives what it printed on both outputs. `ok`: statuses that are
    fine, or None for any."""
    return result(command, limit, ok, env, cwd, user, text_in).stdout


def result(command, limit=60, ok=None, env=None, cwd=None, user=None, text_in=None, apart=False):
    """As `run`, with the exit status; `apart` keeps standard error by itself."""
    command = [str(word) for word in command]
    process = subprocess.Popen(
        as_user(user) + command,
        stdin=subprocess.PIPE if text_in is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        start_new_session=True,
        env=env,
        cwd=cwd,
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(text_in, timeout=limit)
    except subprocess.TimeoutExpired:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        said = ""
        try:
            said = process.communicate(timeout=5)[0] or ""
        except (subprocess.TimeoutExpired, ValueError):
            pass
        raise Failed(f"`{words(command)}` did not end within {limit} s:\n{last_lines(said)}") from None
    if ok is not None and process.returncode not in ok:
        said = (out or "") + (err or "")
        raise Failed(f"`{words(command)}` ended with status {process.returncode}:\n{last_lines(said)}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def until(what, limit, condition, pause=0.2):
    """Waits until a condition gives something true, and gives that."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {limit} s in vain: {what}")
        time.sleep(pause)


class Kernel:
    """What the kernel said since a moment."""

    def __init__(self):
        self.seen = len(self.lines())

    @staticmethod
    def lines():
        return run(["dmesg"], 20, ok=None).splitlines()

    def errors(self):
        """The new lines that tell of an I/O error."""
        return [line for line in self.lines()[self.seen :] if IO_ERRORS.search(line)]


class Forerun:
    """The `forerun` command."""

    def __init__(self, programs, state_dir, run_dir):
        self.programs = Path(programs)
        self.state_dir = Path(state_dir)
        self.run_dir = Path(run_dir)
        self.env = dict(
            os.environ, FORERUN_STATE_DIR=str(state_dir), FORERUN_RUN_DIR=str(run_dir), RUST_BACKTRACE="1"
        )

    def program(self, name):
        return self.programs / name

    def __call__(self, *arguments, limit=90):
        """Runs a command that has to succeed; gives what it printed on standard output."""
        done = self.try_(*arguments, limit=limit)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise Failed(f"`forerun {words(arguments)}` ended with status {done.returncode}:\n{last_lines(said)}")
        return done.stdout.strip()

    def try_(self, *arguments, limit=90):
        """Runs a command that may fail."""
        return result([self.program("forerun"), *arguments], limit, env=self.env, apart=True)

    def json(self, *arguments, limit=90):
        text = self(*arguments, "--json", limit=limit)
        try:
            return json.loads(text)
        except ValueError:
            raise Failed(f"`forerun {words(arguments)} --json` printed no JSON: {text[:200]!r}") from None

    def device_record(self, volume, snapshot=None):
        name = "device.json" if snapshot is None else f"device@{snapshot}.json"
        return json.loads((self.run_dir / volume / name).read_text())

    def target_pid(self, volume):
        return self.device_record(volume)["pid"]

    def kill_target(self, volume):
        """Ends a volume's target as nothing else would: at once, with no chance to say anything."""
        pid = self.target_pid(volume)
        os.kill(pid, signal.SIGKILL)
        until(f"the target, process {pid}, to be gone", 20, lambda: gone(pid), 0.05)
        return pid

    def trainer_pid(self, volume):
        try:
            return int((self.run_dir / volume / "trainer.pid").read_text())
        except (OSError, ValueError):
            return None

    def target_log(self, volume):
        try:
            return (self.run_dir / volume / "target.log").read_text(errors="replace")
        except OSError:
            return ""


def gone(pid):
    """Whether a process has ended; one that nobody waited for counts."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state in "ZX"


def quiet_umount(path):
    """Unmounts what may be mounted."""
    result(["umount", "-l", path], 60)


def partition(device, start, sectors):
    """Writes a partition table as disk images have it (MBR, one partition) and waits for the partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    with open(device, "r+b") as disk:
        disk.seek(446)
        disk.write(entry + bytes(48) + b"\x55\xaa")
        disk.flush()
        os.fsync(disk.fileno())
        fcntl.ioctl(disk, BLKRRPART)
    return partition_appears(device)


def partition_appears(device):
    name = f"{device}p1"
    until(f"{name} to appear", 15, lambda: os.path.exists(name))
    return name


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
