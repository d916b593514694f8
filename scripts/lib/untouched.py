"""Files that nobody touches again once they are written: what they held is known by their checksums."""

import hashlib
import os
from pathlib import Path

FILES = 60


def write_files(mount):
    """Makes them on a mounted file system: path below `mount` -> checksum."""
    folder = Path(mount) / "files"
    folder.mkdir()
    sums = {}
    for number in range(FILES):
        path = folder / f"file-{number}"
        content = os.urandom(1000 + number * number * 97)
        path.write_bytes(content)
        sums[str(path.relative_to(mount))] = hashlib.sha256(content).hexdigest()
    os.sync()
    return sums


def files_problem(sums, mount):
    """The first file whose content is not what was written, or None."""
    for path, checksum in sums.items():
        found = Path(mount) / path
        if not found.exists() or hashlib.sha256(found.read_bytes()).hexdigest() != checksum:
            return f"{found} differs from what was written"
    return None
