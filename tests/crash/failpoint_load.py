"""Writers for the failpoint tests: what they were told, and what is in doubt, is held against the nodes' databases."""

import contextlib
import itertools
import os
import sqlite3
import threading
import time

AUTOCHECKPOINT_PAGES = 20  # so that checkpoints and new starts of a WAL come often
PAUSE_SECONDS = 0.001  # between two commits of a writer


def filler(number):
    return "x" * (50 + number * 7919 % 700)


def pending(node):
    """Whether the node may still come to its failpoint: its processes run."""
    return node.process.poll() is None


class Load:
    """Databases name: (journal mode, synchronous, whether COMMIT promises to survive a failover)."""

    def __init__(self, databases):
        self.databases = databases
        self.numbers = itertools.count(1)
        self.acknowledged = {name: set() for name in databases}
        self.in_doubt = {name: set() for name in databases}
        self.settled = {name: set() for name in databases}  # seen in the history on all nodes
        self.stopped = threading.Event()

    def create(self, node):
        for name, (mode, _, _) in self.databases.items():
            node.execute(name, f"PRAGMA journal_mode={mode}",
                         "CREATE TABLE written(id INTEGER PRIMARY KEY, filler TEXT, changes INTEGER)")

    @contextlib.contextmanager
    def running(self, nodes, names=None):
        """Writers run, of all databases or of some, each on whichever of the nodes lets it."""
        self.stopped.clear()
        threads = [threading.Thread(target=self._write, args=(name, nodes), daemon=True)
                   for name in (self.databases if names is None else names)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def _write(self, name, nodes):
        while not self.stopped.is_set():
            for node in nodes:
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._write_on(node, name)
            time.sleep(0.002)

    def _write_on(self, node, name):
        mode, synchronous, _ = self.databases[name]
        connection = sqlite3.connect(f"file:{node.path(name)}?mode=rw", uri=True, timeout=0.2,
                                     isolation_level=None)
        with contextlib.closing(connection):
            if mode != "wal":
                connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}")
            while not self.stopped.is_set():
                connection.execute("BEGIN IMMEDIATE")
                number = next(self.numbers)
                self.in_doubt[name].add(number)
                connection.execute("INSERT INTO written VALUES (?, ?, 0)", (number, filler(number)))
                connection.execute("UPDATE written SET changes = changes + 1 WHERE id IN "
                                   "(SELECT id FROM written WHERE id <= ? ORDER BY id DESC LIMIT 1)",
                                   (number * 7919 % (number + 1),))
                connection.execute("COMMIT")
                self.acknowledged[name].add(number)
                self.in_doubt[name].discard(number)
                time.sleep(PAUSE_SECONDS)

    def check(self, nodes, orphans):
        """The nodes have converged. `orphans`: how many change sets of each database they keep as such."""
        for name, (_, _, promised) in self.databases.items():
            found = None
            for node in nodes:
                rows = self._read(node, name)
                assert found is None or rows == found, f"{name} differs on {node.name}"
                found = rows
            self._check_rows(name, set(found), 0 if promised else orphans.get(name, 0))

    def _check_rows(self, name, rows, missing_max):
        lost = self.settled[name] - rows
        assert not lost, f"{name}: {len(lost)} rows that were in the history are gone, first {sorted(lost)[:5]}"
        missing = self.acknowledged[name] - rows
        assert len(missing) <= missing_max, (f"{name}: {len(missing)} acknowledged commits are missing, "
                                             f"orphans {missing_max}, first {sorted(missing)[:5]}")
        strange = rows - self.acknowledged[name] - self.in_doubt[name]
        assert not strange, f"{name}: rows that nobody wrote, first {sorted(strange)[:5]}"
        self.settled[name] = rows

    def _read(self, node, name):
        with contextlib.closing(node.connect(name)) as connection:
            connection.execute("BEGIN")
            check = connection.execute("PRAGMA integrity_check").fetchall()
            assert check == [("ok",)], f"{name} on {node.name}: {check}"
            rows = connection.execute("SELECT id, filler, changes FROM written").fetchall()
        wrong = [number for number, text, _ in rows if text != filler(number)]
        assert not wrong, f"{name} on {node.name}: rows {wrong[:5]} have wrong content"
        return {number: changes for number, _, changes in rows}


class Churn:
    """Things that an application does now and then; each brings the node to other points. The primary's death is no error."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __call__(self, step):
        with contextlib.suppress(sqlite3.Error, OSError):
            getattr(self, step)(self.cluster.primary)

    def load(self, _):
        time.sleep(0.005)

    def drop(self, node):
        """A database comes and goes."""
        node.execute("drop.db", "CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (randomblob(5000))")
        os.unlink(node.path("drop.db"))

    def solo(self, node):
        """The only connection of a WAL database empties its WAL, and closing it, removes it."""
        node.execute("solo.db", "PRAGMA journal_mode=WAL", "CREATE TABLE IF NOT EXISTS t(x)",
                     "INSERT INTO t VALUES (randomblob(500))", "PRAGMA wal_checkpoint(TRUNCATE)",
                     "INSERT INTO t VALUES (randomblob(500))")

    def modes(self, node):
        """From WAL to a rollback journal and back."""
        node.execute("modes.db", "PRAGMA journal_mode=WAL", "CREATE TABLE IF NOT EXISTS t(x)",
                     "INSERT INTO t VALUES (randomblob(500))", "PRAGMA journal_mode=DELETE",
                     "INSERT INTO t VALUES (randomblob(500))")

    def big(self, node):
        """A transaction of 300 pages that fills a WAL, in a database that does not grow."""
        node.execute("big.db", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF",
                     "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)",
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
                     "INSERT OR REPLACE INTO t SELECT i, randomblob(4000) FROM n")

    def attached(self, node):
        """One transaction in two databases."""
        with contextlib.closing(node.connect("first.db")) as connection:
            connection.execute("ATTACH ? AS second", (node.path("second.db"),))
            for schema in ("main", "second"):
                connection.execute(f"CREATE TABLE IF NOT EXISTS {schema}.t(x)")
            connection.execute("BEGIN")
            for schema in ("main", "second"):
                connection.execute(f"INSERT INTO {schema}.t VALUES (randomblob(500))")
            connection.execute("COMMIT")

    def segment(self, node):
        """Fills a good part of a log segment."""
        node.execute("segment.db", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF",
                     "PRAGMA wal_autocheckpoint=1000000",
                     "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)",
                     "INSERT OR REPLACE INTO t VALUES (1, randomblob(17000000))", "PRAGMA wal_checkpoint(TRUNCATE)")
