"""Readers on the replica, while the primary commits (invariants A2 and A3)."""

import subprocess
import sys
import time

import harness


class ReplicaReadersTest(harness.ClusterTest):
    def run_readers_and_writers(self, mode):
        cluster = self.cluster()
        cluster.primary.execute("app.db", f"PRAGMA journal_mode={mode}", "CREATE TABLE first(x)")
        writers = [self.writer(cluster.primary.path("app.db"), mode).start() for _ in range(2)]
        writers[0].wait_commits(5)
        cluster.wait_for_databases(["app.db"])
        readers = [self.reader(node.path("app.db")).start()
                   for node in (cluster.primary, cluster.replica, cluster.replica)]
        end = time.monotonic() + 4
        while time.monotonic() < end:
            harness.wait_all_records([*readers, *writers], 5)
        for application in (*readers, *writers):
            application.stop()
        cluster.wait_converged()
        for writer in writers:
            writer.check(cluster.replica, "app.db")

    def test_a2_readers_never_see_a_torn_transaction_in_wal_mode(self):
        self.run_readers_and_writers("wal")

    def test_a4_readers_never_see_a_torn_transaction_in_delete_mode(self):
        self.run_readers_and_writers("delete")

    def test_a5_reader_of_a_delete_database_delays_that_database_alone_and_is_named(self):
        cluster = self.cluster()
        for name in ("held.db", "free.db"):
            cluster.primary.execute(name, "PRAGMA journal_mode=delete", "CREATE TABLE t(x)",
                                    "INSERT INTO t VALUES (1)")
        cluster.wait_converged()
        program = ("import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
                   "c.execute('BEGIN'); print(c.execute('SELECT x FROM t').fetchone()[0], flush=True); "
                   "sys.stdin.read()")
        reader = self.spawn([sys.executable, "-c", program, cluster.replica.path("held.db")],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(reader.stdin.close)
        self.addCleanup(reader.stdout.close)
        self.assertEqual(reader.stdout.readline(), "1\n")
        for name in ("held.db", "free.db"):
            cluster.primary.execute(name, "INSERT INTO t VALUES (2)")
        harness.wait_for(lambda: cluster.replica.execute("free.db", "SELECT count(*) FROM t") == [(2,)],
                         "the other database")
        blocked = harness.wait_for(
            lambda: cluster.replica.databases()["held.db"].get("blocked_by_pid"), "the pid in status")
        self.assertEqual(blocked, reader.pid)
        self.assertIn(str(reader.pid), cluster.replica.echofs("status").stdout)
        reader.kill()
        reader.wait()
        cluster.wait_converged()
        self.assertEqual(cluster.replica.execute("held.db", "SELECT count(*) FROM t"), [(2,)])
