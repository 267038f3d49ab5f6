"""Applications for the failpoint tests, in processes of their own: who has a -shm mapped gets SIGBUS when its mount goes away.

    failpoint_application.py write RECORD DATABASE MODE SYNCHRONOUS MOUNT...
    failpoint_application.py churn MOUNT

Both take commands from stdin, one a line. The writer: `run`, and `pause`, which it answers when it has closed its
connection. It commits on whichever of the mounts lets it; "? N" is in RECORD before the COMMIT of row N, and "+ N" when
that has returned. The other does what Churn's method of that name does, and then answers. Errors are survived.
"""

import contextlib
import os
import select
import sqlite3
import sys
import time

AUTOCHECKPOINT_PAGES = 20  # so that checkpoints and new starts of a WAL come often
PAUSE_SECONDS = 0.001  # between two commits of a writer


def filler(number):
    return "x" * (50 + number * 7919 % 700)


class Commands:
    """The lines of stdin, also when nobody waits for them."""

    def __init__(self):
        self.unread = b""

    def next(self, wait):
        """A line, "" when none has come, None at the end."""
        while b"\n" not in self.unread:
            if not wait and not select.select([0], [], [], 0)[0]:
                return ""
            read = os.read(0, 4096)
            if not read:
                return None
            self.unread += read
        line, self.unread = self.unread.split(b"\n", 1)
        return line.decode()


class Writer:
    def __init__(self, record, database, mode, synchronous, *mounts):
        with open(record, "a+", encoding="utf-8") as file:
            file.seek(0)
            self.number = 1 + max((int(line.split()[1]) for line in file), default=0)
        self.record = os.open(record, os.O_WRONLY | os.O_APPEND)
        self.paths = [os.path.join(mount, database) for mount in mounts]
        self.mode = mode
        self.synchronous = synchronous
        self.connection = None

    def run(self):
        commands = Commands()
        running = False
        while True:
            command = commands.next(wait=not running)
            if command is None:
                return
            running = command == "run" or (running and command != "pause")
            if running:
                self.step()
            else:
                self.close()
                print("paused", flush=True)

    def step(self):
        try:
            if self.connection is None:
                self.open()
            self.commit()
            time.sleep(PAUSE_SECONDS)
        except (sqlite3.Error, OSError):
            self.close()
            self.paths = self.paths[1:] + self.paths[:1]
            time.sleep(0.002)

    def open(self):
        self.connection = sqlite3.connect(f"file:{self.paths[0]}?mode=rw", uri=True, timeout=0.2,
                                          isolation_level=None)
        if self.mode != "wal":
            self.connection.execute(f"PRAGMA journal_mode={self.mode}")
        self.connection.execute(f"PRAGMA synchronous={self.synchronous}")
        self.connection.execute(f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}")

    def close(self):
        if self.connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self.connection.close()
        self.connection = None

    def commit(self):
        self.connection.execute("BEGIN IMMEDIATE")
        number = self.number
        self.number += 1
        os.write(self.record, b"? %d\n" % number)
        self.connection.execute("INSERT INTO written VALUES (?, ?, 0)", (number, filler(number)))
        self.connection.execute("UPDATE written SET changes = changes + 1 WHERE id IN "
                                "(SELECT id FROM written WHERE id <= ? ORDER BY id DESC LIMIT 1)",
                                (number * 7919 % (number + 1),))
        self.connection.execute("COMMIT")
        os.write(self.record, b"+ %d\n" % number)


class Churn:
    """Things that an application does now and then; each brings the node to other points."""

    def __init__(self, mount):
        self.mount = mount

    def run(self):
        commands = Commands()
        while True:
            command = commands.next(wait=True)
            if command is None:
                return
            with contextlib.suppress(sqlite3.Error, OSError):
                getattr(self, command)()
            print("done", flush=True)

    def path(self, name):
        return os.path.join(self.mount, name)

    def execute(self, name, *statements):
        with contextlib.closing(sqlite3.connect(self.path(name), isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement).fetchall()

    def load(self):
        """Nothing: the writers are enough."""
        time.sleep(0.005)

    def drop(self):
        """A database comes and goes."""
        self.execute("drop.db", "CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (randomblob(5000))")
        os.unlink(self.path("drop.db"))

    def solo(self):
        """The only connection of a WAL database empties its WAL, and closing it, removes it."""
        self.execute("solo.db", "PRAGMA journal_mode=WAL", "CREATE TABLE IF NOT EXISTS t(x)",
                     "INSERT INTO t VALUES (randomblob(500))", "PRAGMA wal_checkpoint(TRUNCATE)",
                     "INSERT INTO t VALUES (randomblob(500))")

    def modes(self):
        """From WAL to a rollback journal and back."""
        self.execute("modes.db", "PRAGMA journal_mode=WAL", "CREATE TABLE IF NOT EXISTS t(x)",
                     "INSERT INTO t VALUES (randomblob(500))", "PRAGMA journal_mode=DELETE",
                     "INSERT INTO t VALUES (randomblob(500))")

    def big(self):
        """A transaction of 300 pages that fills a WAL, in a database that does not grow."""
        self.execute("big.db", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF",
                     "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)",
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
                     "INSERT OR REPLACE INTO t SELECT i, randomblob(4000) FROM n")

    def attached(self):
        """One transaction in two databases."""
        schemas = ("main", "second")
        self.execute("first.db", f"ATTACH '{self.path('second.db')}' AS second",
                     *(f"CREATE TABLE IF NOT EXISTS {schema}.t(x)" for schema in schemas), "BEGIN",
                     *(f"INSERT INTO {schema}.t VALUES (randomblob(500))" for schema in schemas), "COMMIT")


if __name__ == "__main__":
    {"write": Writer, "churn": Churn}[sys.argv[1]](*sys.argv[2:]).run()
