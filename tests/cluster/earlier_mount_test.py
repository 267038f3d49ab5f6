"""Connections that were open when their node was restarted: their database file is the earlier mount's, and what SQLite
opens by name is the new one's."""

import os
import signal
import sqlite3
import struct
import subprocess
import sys

import harness
from application_crash_test import wal_checksum

NAME = "app.db"
ROWS = 50

# Opens the database, and uses it for the first time when it is told to.
CONNECTION = """
import sqlite3, sys
path = sys.argv[1]
def attempt(connection, statement):
    try:
        print("ok", connection.execute(statement).fetchall(), flush=True)
    except sqlite3.Error as error:
        print("error:", error, flush=True)
connection = sqlite3.connect(path, isolation_level=None)
print("open", flush=True)
sys.stdin.readline()
attempt(connection, "INSERT INTO t VALUES (-1)")
connection.close()
connection = sqlite3.connect(path, isolation_level=None, timeout=60)
attempt(connection, "INSERT INTO t VALUES (-2)")
"""


def header_of_an_empty_wal(index):
    """Both copies of a wal-index header of a WAL without frames, and with other salts, from the one that is there."""
    header = bytearray(index[:40])
    struct.pack_into("=I", header, 16, 0)
    header[32:40] = os.urandom(8)
    order = "<" if sys.byteorder == "little" else ">"
    header += struct.pack("=II", *wal_checksum(bytes(header), 0, 0, order))
    return bytes(header) * 2


class EarlierMountTest(harness.ClusterTest):
    def start(self, mode):
        cluster = self.cluster()
        cluster.primary.execute(NAME, f"PRAGMA journal_mode={mode}", "CREATE TABLE t(x)",
                                *(f"INSERT INTO t VALUES ({i})" for i in range(ROWS)))
        return cluster

    def kill(self, node):
        daemon = node.daemon()
        os.kill(daemon, signal.SIGKILL)
        harness.wait_for(lambda: not harness.is_mounted(node.mount), "the mount to be gone")
        node.wait_end()
        harness.wait_for(lambda: not harness.thread_states(daemon), "the daemon's end")

    def check_connection_from_before(self, mode, end, expected):
        cluster = self.start(mode)
        node = cluster.primary
        keeps_the_wal = node.connect(NAME)
        self.assertEqual(keeps_the_wal.execute("SELECT count(*), max(x) FROM t").fetchall(), [(ROWS, ROWS - 1)])
        connection = subprocess.Popen([sys.executable, "-c", CONNECTION, node.path(NAME)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        self.addCleanup(connection.kill)
        self.assertEqual(connection.stdout.readline(), "open\n")
        end(node)
        node.clear_mount_point()
        node.start()
        output, _ = connection.communicate("now\n", timeout=harness.WAIT_SECONDS)
        self.assertEqual(output.splitlines(), [f"error: {expected}", "ok []"])
        keeps_the_wal.close()
        self.assertEqual(node.execute(NAME, "SELECT count(*), min(x) FROM t"), [(ROWS + 1, -2)])
        cluster.wait_converged()
        return node

    def test_c3_wal_is_not_opened_after_a_sigkill(self):
        node = self.check_connection_from_before("wal", self.kill, "unable to open database file")
        self.assertIn(f"{NAME}: a process (python3) has it open from before this node was started", node.log_text())

    def test_c3_wal_is_not_opened_after_an_orderly_end(self):
        self.check_connection_from_before("wal", lambda node: node.stop(), "unable to open database file")

    def test_c4_no_journal_is_made_after_a_sigkill(self):
        self.check_connection_from_before("delete", self.kill, "attempt to write a readonly database")

    def test_c3_a_wal_index_that_lacks_commits_makes_none_go_away(self):
        cluster = self.start("wal")
        node = cluster.primary
        connection = node.connect(NAME)
        self.addCleanup(connection.close)
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("INSERT INTO t VALUES (1000)")
        shm = os.open(node.path(NAME + "-shm"), os.O_RDWR)
        self.addCleanup(os.close, shm)
        os.pwrite(shm, header_of_an_empty_wal(os.pread(shm, 48, 0)), 0)
        with self.assertRaisesRegex(sqlite3.OperationalError, "disk I/O error"):
            connection.execute("INSERT INTO t VALUES (2000)")
        self.assertIn("a new start of the WAL would drop a committed transaction", node.log_text())
        connection.execute("INSERT INTO t VALUES (3000)")
        self.assertEqual(connection.execute("SELECT x FROM t WHERE x > 999 ORDER BY x").fetchall(), [(1000,), (3000,)])
        connection.close()
        cluster.wait_converged()
