"""An import that begins and then says nothing more: it keeps neither other imports out for ever, nor a node from stopping."""

import os
import signal
import sqlite3
import subprocess

import harness
import port_checks
from processes import run, wait_for

SILENCE_SECONDS = 30  # kImportSilenceMax
STOP_SECONDS = 20


class StalledImportTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.small = os.path.join(self.directory, "small.db")
        run(["sqlite3", self.small, "CREATE TABLE t(x); INSERT INTO t VALUES (7)"])

    def received(self, node):
        return os.path.join(node.data, "tmp", "import")

    def stall(self, cluster):
        """A command on the replica that stands still while it sends its file to the primary; the node itself goes on, and
        answers the primary's pings."""
        big = os.path.join(self.directory, "big.db")
        run(["sqlite3", big, "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
             "LIMIT 60000) INSERT INTO t SELECT randomblob(2000) FROM n"])
        path = self.received(cluster.primary)
        command = self.spawn([harness.ECHOFS, "import", "stalled.db", big, "--data-dir", cluster.replica.data],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(lambda: os.path.exists(path) and os.path.getsize(path) > 1 << 20, "the import to begin")
        command.send_signal(signal.SIGSTOP)
        self.assertTrue(os.path.exists(path), "the import was done before it was stopped")
        return command

    def check_failed(self, command):
        command.send_signal(signal.SIGCONT)
        said = command.communicate(timeout=STOP_SECONDS)[1].decode()
        self.assertEqual(command.returncode, 1, said)

    def test_it_gives_its_place_to_others(self):
        cluster = self.cluster(replicas=2)
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        command = self.stall(cluster)
        refused = cluster.replicas[1].echofs("import", "new.db", self.small, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("imports another database at the moment", refused.stderr)
        rows.write()
        wait_for(lambda: not os.path.exists(self.received(cluster.primary)), "the stalled import to end", SILENCE_SECONDS * 4)
        self.assertIn(f"said nothing for {SILENCE_SECONDS} seconds", cluster.primary.log_text())
        cluster.replicas[1].echofs("import", "new.db", self.small)
        self.check_failed(command)
        self.assertEqual(sorted(cluster.wait_converged()), ["app.db", "new.db"])

    def test_it_does_not_keep_the_primary_from_stopping(self):
        cluster = self.cluster()
        command = self.stall(cluster)
        self.assertEqual(cluster.primary.stop(STOP_SECONDS), 0)
        self.assertFalse(os.path.exists(self.received(cluster.primary)))
        self.check_failed(command)

    def test_it_does_not_keep_the_replica_from_stopping(self):
        cluster = self.cluster()
        command = self.stall(cluster)
        self.assertEqual(cluster.replica.stop(STOP_SECONDS), 0)
        wait_for(lambda: not os.path.exists(self.received(cluster.primary)), "the primary to give up the import", STOP_SECONDS)
        self.check_failed(command)
        cluster.replica.start()
        self.assertEqual(cluster.wait_converged(), [])
