"""A PostgreSQL of Debian's packages in a folder of its own, for scripts/demo: its pgbench bank, a ledger
that a nightly batch rewrites, an audit trail that grows, and the sums that must agree at any moment.

What pgbench's transactions do keeps four sums equal (accounts, tellers, branches, history), whatever
moment a snapshot or a power cut picks: that is what `Sums.problem` looks at.
"""

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rig import Failed, Job, last_lines, run

SCALE = 2  # of pgbench: 100,000 accounts, 10 tellers and a branch each
ACCOUNTS = 100_000 * SCALE
SHIFT_ACCOUNTS = 32_000  # of each day shift
LEDGER_ROWS = 10_000

SETTINGS = """
listen_addresses = ''
max_connections = 20
shared_buffers = 48MB
wal_recycle = on
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 30min
wal_compression = lz4
jit = off
autovacuum_naptime = 5min
log_min_messages = warning
"""

TABLES = f"""
create table ledger (id int primary key, total bigint not null, filler char(200) not null) with (fillfactor = 45);
insert into ledger select n, 0, 'x' from generate_series(1, {LEDGER_ROWS}) n;
create table audit (id bigserial primary key, at timestamptz not null default now(), note text not null);
create extension amcheck;
"""

# The transaction of pgbench (TPC-B-like) with its accounts from a range of our choice.
BANK = f"""
\\set aid random(:low, :high)
\\set bid random(1, {SCALE})
\\set tid random(1, {10 * SCALE})
\\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = :bid;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (:tid, :bid, :aid, :delta, current_timestamp);
commit;
"""

AUDIT = "insert into audit (note) values (repeat('forerun ', 40));\n"

# What ends a shift: one account in eighteen of its range, so that each page of it is written.
SETTLE = "update pgbench_accounts set filler = to_char(now(), 'HH24:MI:SS') where aid between {low} and {high} and aid % 18 = 0;"

NIGHT = "update ledger set total = total + 1;"

SUMS = """
select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
       (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history),
       (select count(*) from pgbench_history), (select count(*) from audit),
       (select min(total) from ledger), (select max(total) from ledger), (select count(*) from pgbench_accounts)
"""


def folder():
    """Where Debian keeps the newest PostgreSQL's programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_amcheck")]
    if not found:
        raise Failed("no PostgreSQL in /usr/lib/postgresql: install Debian's package postgresql")
    return max(found, key=lambda path: float(path.parent.name))


def user():
    """Who runs it: PostgreSQL refuses root."""
    try:
        pwd.getpwnam("postgres")
        return "postgres"
    except KeyError:
        return "nobody"


@dataclass
class Sums:
    accounts: int
    tellers: int
    branches: int
    history: int
    transactions: int
    audit: int
    ledger_low: int
    ledger_high: int
    account_rows: int

    def problem(self):
        """What does not agree, or None."""
        if not self.accounts == self.tellers == self.branches == self.history:
            return f"the bank's sums differ: {self}"
        if self.ledger_low != self.ledger_high:
            return f"half of a nightly batch is there: totals from {self.ledger_low} to {self.ledger_high}"
        if self.account_rows != ACCOUNTS:
            return f"{self.account_rows} accounts of {ACCOUNTS}"
        return None

    def between(self, before, after):
        """Whether this moment lies between two others."""
        return (
            before.transactions <= self.transactions <= after.transactions
            and before.audit <= self.audit <= after.audit
            and before.ledger_low <= self.ledger_low <= after.ledger_low
        )


class Postgres:
    """A database cluster in `data`; its socket and logs are in `work`."""

    def __init__(self, data, work):
        self.data, self.work = Path(data), Path(work)
        self.bin, self.user = folder(), user()
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.work, self.user)
        self.log = self.work / "server.log"
        self.env = dict(os.environ, PGHOST=str(self.work), PGDATABASE="postgres", PGUSER="postgres", LC_ALL="C.UTF-8")
        self.jobs = 0

    def run(self, program, *arguments, limit=60, text_in=None):
        command = [self.bin / program, *arguments]
        return run(command, limit, env=self.env, cwd="/", user=self.user, text_in=text_in)

    def sql(self, text, limit=60):
        """The rows' values, separated by |, a line a row."""
        return self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", limit=limit, text_in=text)

    def create(self):
        self.data.mkdir()
        shutil.chown(self.data, self.user)
        self.data.chmod(0o700)
        self.run(
            "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-locale", "-E", "UTF8", "--no-sync",
            "--data-checksums", "--wal-segsize=4", limit=180,
        )  # fmt: skip
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(SETTINGS)

    def fill(self):
        self.run("pgbench", "-i", "-q", "-s", str(SCALE), "-F", "60", limit=240)
        self.sql(TABLES, limit=120)

    def start(self, limit=120):
        options = f"-c unix_socket_directories={self.work}"
        try:
            self.run("pg_ctl", "-D", self.data, "-l", self.log, "-o", options, "-w", "-t", limit, "start", limit=limit + 30)
        except Failed as error:
            raise Failed(f"PostgreSQL did not start: {error}\n{last_lines(self.log_text())}") from None

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", 90, "stop", limit=120)

    def running(self):
        return (self.data / "postmaster.pid").exists()

    def bench(self, script, seconds, clients=2, rate=None, **variables):
        """Starts pgbench in the background."""
        self.jobs += 1
        path = self.work / f"bench-{self.jobs}.sql"
        path.write_text(script)
        settings = [f"-D{name}={value}" for name, value in variables.items()]
        rates = ["-R", str(rate)] if rate else []
        command = [
            self.bin / "pgbench", "-n", "-f", path, "-c", clients, "-j", 1, "-T", max(1, round(seconds)), *rates, *settings,
        ]  # fmt: skip
        return Job(command, self.work / f"bench-{self.jobs}.log", env=self.env, cwd="/", user=self.user)

    def sums(self):
        values = self.sql(SUMS, 180).strip().split("|")
        return Sums(*(int(value or 0) for value in values))

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def complaints(self):
        """What the server said of failed input and output."""
        wrong = re.compile(r"PANIC|could not (read|write|fsync|extend|open)|invalid page|checksum|Input/output", re.I)
        return [line for line in self.log_text().splitlines() if wrong.search(line)]


def bench_counts(text):
    """Transactions done and failed, as pgbench tells at its end."""
    done = re.search(r"number of transactions actually processed: (\d+)", text)
    failed = re.search(r"number of failed transactions: (\d+)", text)
    aborted = len(re.findall(r"client \d+ aborted|client \d+ script \d+ aborted", text))
    return (int(done[1]) if done else 0), (int(failed[1]) if failed else 0) + aborted
