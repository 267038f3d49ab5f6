"""Files of a newer echofs: the node refuses to start, says which file it is and what to do, and changes nothing."""

import json
import os
import sqlite3
import struct

import harness
import members

NAME = "app.db"
NEWER = 77


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


def with_version(content):
    """With another format version, which all binary files have behind a magic of 8 bytes."""
    return content[:8] + struct.pack(">I", NEWER) + content[12:]
