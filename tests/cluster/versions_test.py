"""Files of a newer echofs: the node refuses to start, says which file it is and what to do, and changes nothing. Those of an
older one go on."""

import contextlib
import json
import os
import sqlite3
import struct
import time

import harness
import members
import port_checks
from processes import wait_for

NAME = "app.db"
NEWER = 77
TTL_SECONDS = 5


class VersionsTest(harness.ClusterTest):
    def stopped_replica(self):
        """A node that has every file that a node can have but orphans."""
        cluster = self.cluster()
        cluster.primary.fill(NAME, rows=10)
        cluster.wait_converged()
        node = cluster.replica
        self.assertEqual(node.stop(), 0)
        return node

    def check_refused(self, node, path, newer):
        """With `newer` as the file's content the node does not start; with what it was it does."""
        with open(path, "rb") as file:
            before = file.read()
        with open(path, "wb") as file:
            file.write(newer(before))
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 1, node.log_text())
        for word in (os.path.basename(path), "version", "echofs"):
            self.assertIn(word, node.log_text())
        with open(path, "rb") as file:
            self.assertEqual(file.read(), newer(before))
        with open(path, "wb") as file:
            file.write(before)
        node.start()
        self.assertEqual(node.execute(NAME, "SELECT count(*) FROM t"), [(10,)])

    def test_log_of_a_newer_version(self):
        node = self.stopped_replica()
        directory = os.path.join(node.data, "log")
        newest = max(name for name in os.listdir(directory) if name.endswith(".seg"))
        self.check_refused(node, os.path.join(directory, newest), with_version)

    def test_applied_of_a_newer_version(self):
        node = self.stopped_replica()
        self.check_refused(node, os.path.join(node.data, "applied"), with_version)

    def test_node_json_of_a_newer_version(self):
        def newer(content):
            return json.dumps({**json.loads(content), "format_version": NEWER}).encode()

        node = self.stopped_replica()
        self.check_refused(node, os.path.join(node.data, "node.json"), newer)

    def test_lease_server_of_a_newer_version(self):
        lease = members.LeaseServer(self.directory).start()
        path = os.path.join(lease.directory, "lease.db")
        harness.wait_for(lambda: os.path.exists(path) and os.path.getsize(path) > 0, "the lease server's file")
        lease.stop()
        with sqlite3.connect(path) as database:
            database.execute(f"PRAGMA user_version={NEWER}")
        database.close()
        done = harness.run(lease.command(), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("newer echofs", done.stderr)


class OldLeaseServerTest(members.MembersTest):
    def test_r1_lease_server_of_version_1_goes_on(self):
        """It did not know whose cluster a lease is. Its terms hold, and the next renewal says whose it is."""
        lease = members.LeaseServer(self.directory)
        cluster = members.Members(self.directory, lease, 2, ttl=TTL_SECONDS)
        self.addCleanup(self._stop_members, cluster)
        cluster.start()
        cluster.leader().echofs("handoff")
        leader = cluster.followed_leader()
        leader.execute(NAME, "CREATE TABLE t(x)")
        path = os.path.join(lease.directory, "lease.db")

        def stored(columns):
            with contextlib.closing(sqlite3.connect(path)) as database:
                version, = database.execute("PRAGMA user_version").fetchone()
                return version, *database.execute(f"SELECT {columns} FROM lease").fetchone()

        lease.stop()
        version, term = stored("term")
        self.assertEqual(version, 2)
        self.assertGreater(term, 1)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript("ALTER TABLE lease DROP COLUMN cluster_id; PRAGMA user_version = 1")
        lease.start()
        time.sleep(TTL_SECONDS + 1)  # without a renewal nobody would be the primary any more
        leader = cluster.followed_leader()
        self.assertGreaterEqual(leader.status()["term"], term)
        leader.execute(NAME, "INSERT INTO t VALUES (1)")
        cluster.wait_converged()
        lost, leader = leader, cluster.others(leader)[0]
        lost.kill()
        wait_for(lambda: leader.role() == "primary", "the successor to lead")
        leader.execute(NAME, "INSERT INTO t VALUES (2)")
        lost.start()
        cluster.wait_converged()
        later = leader.status()["term"]
        self.assertGreater(later, term)
        cluster.stop()
        self.assertEqual(stored("cluster_id"), (2, port_checks.cluster_id(leader)))
        self.assertGreaterEqual(stored("term")[1], later)


def with_version(content):
    """With another format version, which all binary files have behind a magic of 8 bytes."""
    return content[:8] + struct.pack(">I", NEWER) + content[12:]
