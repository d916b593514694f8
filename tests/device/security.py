"""What docs/threat-model.md says of a running volume: the unit's rights are enough, other users are kept out, and nothing
of a block that was given up ever shows."""

import mmap
import os
import re
from pathlib import Path

from lab import BLOCK, MIB, equal, expect, result, run, test
from rig import drop_caches

UNIT = Path(__file__).parents[2] / "scripts/systemd/forerun@.service"
SUB_BLOCK = 4096


def unit_rights():
    """The capabilities of the unit, as its file has them."""
    words = re.search(r"^CapabilityBoundingSet=(.+)$", UNIT.read_text(), re.MULTILINE).group(1).split()
    return [word.removeprefix("CAP_").lower() for word in words]


@test
def the_units_rights_are_enough(lab):
    """Everything a target does, with the capabilities of forerun@.service and no others."""
    rights = unit_rights()
    limited = ["setpriv", "--no-new-privs", "--bounding-set=" + ",".join(["-all", *(f"+{right}" for right in rights)])]
    volume = lab.volume("rights", "256M", "96M")

    def forerun(*words):
        done = result([*limited, lab.forerun.program("forerun"), *words], 150, env=lab.forerun.env, apart=True)
        expect(done.returncode == 0, f"forerun {' '.join(words)}: {(done.stdout + done.stderr).strip()}")
        return done.stdout.strip()

    device = forerun("add", volume.name, "--no-trainer")
    status = Path(f"/proc/{lab.forerun.target_pid(volume.name)}/status").read_text()
    bounding = int(re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE).group(1), 16)
    equal(bin(bounding).count("1"), len(rights), "capabilities of the target")
    write(device, 0, b"rights" * 700)
    volume.snapshot("then")
    shown = forerun("snapshot", "attach", volume.name, "then")
    equal(read(shown, 0, SUB_BLOCK), read(device, 0, SUB_BLOCK), "the snapshot")
    forerun("del", f"{volume.name}@then")
    volume.kill()
    forerun("recover", volume.name)
    run(["mkfs.ext4", "-q", "-F", device], 180)
    path = lab.mount(device)
    (path / "file").write_bytes(b"x" * MIB)
    lab.unmount(path)
    log = lab.forerun.target_log(volume.name)
    for warning in ("nice", "oom_score_adj", "PR_SET_IO_FLUSHER", "mount namespace"):
        expect(warning not in log, f"the target lacks a right: {[line for line in log.splitlines() if warning in line]}")
    forerun("del", volume.name)
    lab.note(f"{len(rights)} capabilities: {' '.join(rights)}")


CONNECT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(20)
try:
    client.connect(sys.argv[1])
    client.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0")
    print("served" if client.recv(1) else "closed")
except ConnectionError:
    print("closed")
except PermissionError:
    print("denied")
"""


@test
def other_users_are_kept_from_the_api(lab):
    """By the directory's mode; and where somebody opened that up, by the user the kernel names."""
    volume = lab.volume("others", "128M", "96M")
    volume.add()
    folder = lab.forerun.run_dir / volume.name
    socket = folder / "api.sock"
    equal(oct(folder.stat().st_mode & 0o777), "0o700", "the mode of the volume's run directory")
    equal(oct(socket.stat().st_mode & 0o777), "0o600", "the mode of the socket")
    equal(oct((folder / "pending").stat().st_mode & 0o777), "0o600", "the mode of the pending log")
    equal(oct((lab.forerun.state_dir / volume.name).stat().st_mode & 0o777), "0o700", "the mode of its state directory")
    # Not the file system's: where the test's own folders are is nobody's business.
    above = lab.forerun.run_dir
    mode = above.stat().st_mode
    above.chmod(0o755)

    def connect(*user):
        return run([*user, "/usr/bin/python3", "-c", CONNECT, socket], 60).strip()

    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    equal(connect(*nobody), "denied", "another user")
    folder.chmod(0o755)
    socket.chmod(0o666)
    equal(connect(*nobody), "closed", "another user, with the modes opened up")
    equal(connect(), "served", "root")
    expect("refused a user" in lab.forerun.target_log(volume.name), "the log says nothing of it")
    above.chmod(mode)


def buffer_of(data):
    room = mmap.mmap(-1, len(data))
    room[:] = data
    return room


def write(device, offset, data):
    data = data.ljust(-(-len(data) // SUB_BLOCK) * SUB_BLOCK, b"\0")
    file = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        equal(os.pwritev(file, [buffer_of(data)], offset), len(data), "bytes written")
    finally:
        os.close(file)


def read(device, offset, size):
    file = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        room = mmap.mmap(-1, size)
        equal(os.preadv(file, [room], offset), size, "bytes read")
        return bytes(room)
    finally:
        os.close(file)


@test
def what_was_given_up_never_shows(lab):
    """A fast tier full of a secret that is discarded, written back, evicted; then parts of blocks in the slots it was in.
    Everything else of those blocks is zeros: before and after a kill, in a snapshot, and after a restart."""
    secret = os.urandom(SUB_BLOCK)
    blocks = 2048
    volume = lab.volume("leaks", f"{blocks * BLOCK // MIB}M", "96M")
    device = volume.add()
    per_block = BLOCK // SUB_BLOCK
    for block in range(0, 1024, 16):
        write(device, block * BLOCK, secret * (16 * per_block))
    # All of the fast tier has held the secret. A part is discarded while it is dirty, a part after it was sealed.
    run(["blkdiscard", "-o", str(0), "-l", str(512 * BLOCK), device], 120)
    volume.snapshot("before")
    volume.written_back()
    run(["blkdiscard", "-o", str(512 * BLOCK), "-l", str(512 * BLOCK), device], 120)
    volume.snapshot("discarded")
    volume.written_back()
    # Lone sub-blocks: in blocks that held the secret, and in blocks that never held anything.
    wanted = {}
    for number in range(600):
        block = (number * 7) % 1024 if number % 2 else 1024 + (number * 5) % 1024
        index = block * per_block + number % per_block
        wanted[index] = number.to_bytes(8, "big") * (SUB_BLOCK // 8)
        write(device, index * SUB_BLOCK, wanted[index])

    def look(path, when):
        drop_caches()
        zeros, leaked = bytes(SUB_BLOCK), []
        for start in range(0, blocks, 16):
            data = read(path, start * BLOCK, 16 * BLOCK)
            for piece in range(16 * per_block):
                index = start * per_block + piece
                if data[piece * SUB_BLOCK : (piece + 1) * SUB_BLOCK] != wanted.get(index, zeros):
                    leaked.append(index)
            expect(secret[:512] not in data, f"{when}: the secret shows in blocks {start} to {start + 15}")
        equal(leaked[:10], [], f"{when}: sub-blocks that are not as they were written, of {len(leaked)}")

    look(device, "after the writes")
    volume.snapshot("parts")
    volume.kill()
    equal(volume.recover(), device, "the recovered device")
    look(device, "after a kill")
    volume.written_back()
    look(device, "after write-back")
    shown = volume.attach("parts")
    look(shown, "in the snapshot")
    volume.detach("parts")
    volume.delete()
    device = volume.add()
    look(device, "after a restart")
    lab.note(f"{blocks * per_block} sub-blocks read five times, {len(wanted)} of them written")
