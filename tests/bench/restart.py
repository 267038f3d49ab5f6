"""How long a node with a large database takes from the start of its process until its mount answers a query: after an
orderly end, and after SIGKILL in the middle of an application's commits."""

import contextlib
import os
import signal
import sqlite3
import statistics
import sys
import time

from nodes import wait_for
from theme import Theme

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
from sparse_database import write_sparse_database  # pylint: disable=wrong-import-position

DATABASE = "large.db"
COMMITS = 100  # before each end
TITLES = {"restart": "an orderly end", "restart-crash": "SIGKILL"}


class Restart(Theme):
    NAMES = list(TITLES)

    def start(self):
        self.node = self.start_node("large").wait_until_ready()
        self.path = os.path.join(self.node.mount, DATABASE)
        write_sparse_database(self.path, os.path.join(self.directory, "small.db"), self.sizes.sparse_gigabytes << 30)
        wait_for("the first change set", lambda: self.node.position(DATABASE)[:16].strip("0") != "")
        with contextlib.closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode=wal")

    def connect(self):
        return sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, isolation_level=None)

    def rows(self):
        """None as long as the mount is not there."""
        try:
            with contextlib.closing(self.connect()) as connection:
                return connection.execute("SELECT count(*) FROM t").fetchone()[0]
        except sqlite3.OperationalError:
            return None

    def run(self, name, _number):
        connection = self.connect()
        for _ in range(COMMITS):
            connection.execute("INSERT INTO t(x) VALUES (randomblob(100))")
        expected = self.rows()
        if name == "restart":
            connection.close()
            self.node.stop()
        else:
            os.kill(self.node.daemon(), signal.SIGKILL)
            self.node.process.wait()
            with contextlib.suppress(sqlite3.Error):
                connection.close()
            # An open connection makes its -shm anew where the mount was.
            for left in os.listdir(self.node.mount):
                os.remove(os.path.join(self.node.mount, left))
        begin = time.monotonic()
        self.node.start()
        wait_for(f"{expected} rows", lambda: self.rows() == expected, 0.002)
        seconds = time.monotonic() - begin
        self.node.wait_until_ready()
        return {"bytes": os.path.getsize(self.path), "seconds": seconds}

    @staticmethod
    def summarize(_name, rounds):
        seconds = [r["seconds"] for r in rounds]
        return {"gigabytes": rounds[0]["bytes"] / (1 << 30), "seconds": statistics.median(seconds),
                "max_seconds": max(seconds)}

    @staticmethod
    def sentences(summary):
        return [f"{name}: a database of {s['gigabytes']:.0f} GiB, most of it holes, answers a query {s['seconds']:.2f} s "
                f"after the start of the process, at most {s['max_seconds']:.2f} s, after {TITLES[name]}"
                for name, s in summary.items() if name in TITLES]
