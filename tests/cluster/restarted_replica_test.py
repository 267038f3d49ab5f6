"""Applications that wait for the mount of a node, and write the moment it is there, while it comes back as a replica: none
of that is taken for a commit, and nothing of it is left when the node leads again (A1, L5)."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import members
from processes import scaled

FILL = ("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
        "INSERT INTO t SELECT i, hex(randomblob(100)) FROM n")
IMPATIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "impatient.py")
MODES = ("wal", "delete", "truncate", "persist")


class RestartedReplicaTest(members.MembersTest):
    def test_a1_writers_wait_for_the_mount(self):
        cluster = self.members(count=2)
        leader = cluster.leader()
        for mode in MODES:
            leader.execute(mode + ".db", f"PRAGMA journal_mode={mode}", *FILL)
        cluster.wait_followed(leader)
        for number in range(scaled(6, 40)):
            leader = cluster.leader()
            other = cluster.others(leader)[0]
            self.come_back(cluster, other, leader, number)
            self.assertEqual(leader.echofs("handoff", "--to", other.name).returncode, 0)
            cluster.leader(among=[other])
            for mode in MODES:
                self.change(other, mode, f"after {number}")
            cluster.wait_converged()
            self.check(cluster, f"after {number}")

    def come_back(self, cluster, node, leader, number):
        """As a replica, with writers who wait for that, and with what an unsynced transaction leaves of a journal."""
        node.kill()
        for mode in MODES[1:]:
            with open(os.path.join(node.data, "files", mode + ".db-journal"), "wb") as journal:
                journal.write(bytes(512))
        for mode in MODES:
            self.change(leader, mode, f"while it was away {number}")
        writers = [self.spawn([sys.executable, IMPATIENT, node.path(mode + ".db")], stdout=subprocess.PIPE)
                   for mode in MODES]
        for writer in writers:
            writer.stdout.readline()  # it has begun
        node.start(wait=False)
        node.wait_ready()
        for writer in writers:
            writer.terminate()
        self.assertEqual([int(writer.communicate()[0]) for writer in writers], [0] * len(writers))
        cluster.wait_followed(leader)
        cluster.wait_converged()

    def change(self, node, mode, text):
        with contextlib.closing(node.connect(mode + ".db")) as connection:
            connection.execute("PRAGMA busy_timeout=10000")
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("UPDATE t SET x = ? WHERE id % 3 = 0", (text,))
            connection.commit()

    def check(self, cluster, text):
        for node in cluster.running():
            for mode in MODES:
                with contextlib.closing(node.connect(mode + ".db")) as connection:
                    self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
                    self.assertEqual(connection.execute(
                        "SELECT count(*) FROM t WHERE x = ? OR (id % 3 != 0 AND length(x) = 200)",
                        (text,)).fetchone(), (300,))
                self.assertNotIn("cannot be opened as a replica", node.log_text())
