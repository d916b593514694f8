"""The object store of `scripts/demo --capacity s3`: the S3 server of the tests on this machine's loopback, with
credentials made for the run. It stands for a store that is elsewhere: what it keeps outlives the demo's machine.
"""

import os
import secrets
from pathlib import Path

from rig import Job, run, until

BUCKET = "bucket"


class ObjectStore:
    """A server with one bucket; its objects lie below `root`."""

    def __init__(self, program, root, log):
        self.root = Path(root)
        (self.root / BUCKET).mkdir(parents=True, exist_ok=True)
        # Who asks is known by the environment alone, and no two runs have the same key.
        self.key, self.secret = secrets.token_hex(8), secrets.token_hex(20)
        words = [program, "--root", self.root, "--access-key", self.key, "--secret-key", self.secret]
        self.job = Job(words, log)
        until("the S3 server's address", 20, lambda: self.job.text().startswith("http"), 0.05)
        self.url = self.job.text().split()[0]

    def environment(self):
        """What the `forerun` commands need to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret,
        }  # fmt: skip

    def place(self, volume):
        return f"s3://{BUCKET}/{volume}"

    def objects(self, volume):
        """How many objects a volume has in it, and their bytes."""
        sizes = []
        for folder, _, names in os.walk(self.root / BUCKET / volume):
            for name in names:
                try:
                    sizes.append((Path(folder) / name).stat().st_size)
                except FileNotFoundError:
                    pass  # deleted meanwhile
        return len(sizes), sum(sizes)

    def tells_secret(self, files):
        """Which of the files hold the secret key."""
        return [path for path in files if path.is_file() and self.secret.encode() in path.read_bytes()]

    def stop(self):
        self.job.kill()

    def cut_off(self):
        """Nothing reaches it any more, and what it had accepted is safe."""
        self.job.kill()
        run(["sync", "-f", self.root], 120)
