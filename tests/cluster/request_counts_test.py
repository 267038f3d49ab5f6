"""How many requests SQLite's operations cost, counted by the daemon (design section 1)."""

import contextlib
import os

import harness
from http_client import Metrics

NAME = "app.db"
ROUNDS = 200


class RequestCountsTest(harness.ClusterTest):
    def requests(self, node):
        # Not flush: asking starts a process, which closes the descriptors that it inherits.
        metrics = Metrics(node)
        return {kind: int(metrics.get("echofs_fuse_requests_total", operation=kind))
                for kind in ("read", "write", "getattr", "lookup", "open", "other")}

    def requests_of(self, node, work):
        before = self.requests(node)
        work()
        return {kind: count - before[kind] for kind, count in self.requests(node).items()}

    def test_a_warm_read_transaction_causes_no_request(self):
        cluster = self.cluster(http="127.0.0.1:0")
        for mode in ("wal", "delete", "truncate"):  # persist: SQLite opens the journal to look at its first byte
            name = mode + ".db"
            cluster.primary.fill(name, mode)
            cluster.wait_converged()
            for node in (cluster.primary, cluster.replica):
                with contextlib.closing(node.connect(name)) as connection:
                    def read(connection=connection):
                        for row in range(1, ROUNDS):
                            connection.execute("SELECT x FROM t WHERE id = ?", (row % 50 + 1,)).fetchall()

                    read()
                    caused = self.requests_of(node, read)
                    self.assertEqual(sum(caused.values()), 0, (mode, node.name, caused))

    def test_a_frame_costs_two_requests_when_the_wal_is_used_again(self):
        cluster = self.cluster(replicas=0, http="127.0.0.1:0")
        node = cluster.primary
        node.execute(NAME, "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                     "INSERT INTO t VALUES (1, 0)")
        with contextlib.closing(node.connect(NAME)) as connection, \
                contextlib.closing(node.connect(NAME)) as reader:
            connection.execute("PRAGMA wal_autocheckpoint=0")

            def write():
                for _ in range(ROUNDS):
                    connection.execute("UPDATE t SET x = x + 1")

            first = self.requests_of(node, write)["write"]  # the WAL grows: the kernel knows nothing of what comes
            self.assertGreater(first, 2.5 * ROUNDS)
            for i in range(1, 4):
                self.assertEqual(connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()[0][0], 0)
                again = self.requests_of(node, write)["write"]
                self.assertLess(again, 2.1 * ROUNDS)
                self.assertEqual(reader.execute("SELECT x FROM t").fetchall(), [((i + 1) * ROUNDS,)])
                # The kernel has what the file has.
                with open(node.path(NAME + "-wal"), "rb") as mounted, \
                        open(os.path.join(node.data, "files", NAME + "-wal"), "rb") as backing:
                    self.assertEqual(mounted.read(), backing.read())
            self.assertEqual(reader.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def test_a_large_wal_grows_with_two_requests_for_a_frame(self):
        cluster = self.cluster(http="127.0.0.1:0")
        node = cluster.primary
        node.execute(NAME, "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                     "INSERT INTO t VALUES (1, 0)", "CREATE TABLE large(x)")

        def assert_the_kernel_has_what_the_file_has():
            with open(node.path(NAME + "-wal"), "rb") as mounted, \
                    open(os.path.join(node.data, "files", NAME + "-wal"), "rb") as backing:
                self.assertEqual(mounted.read(), backing.read())

        with contextlib.closing(node.connect(NAME)) as connection, \
                contextlib.closing(node.connect(NAME)) as reader:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA cache_size=100")  # what follows does not fit: it is written before COMMIT
            connection.execute("BEGIN")
            for _ in range(6000):
                connection.execute("INSERT INTO large VALUES (randomblob(3000))")
            connection.execute("COMMIT")
            self.assertGreater(os.path.getsize(node.path(NAME + "-wal")), 6000 * 3000)
            assert_the_kernel_has_what_the_file_has()

            def write():
                for _ in range(ROUNDS):
                    connection.execute("UPDATE t SET x = x + 1")

            caused = self.requests_of(node, write)
            self.assertLess(caused["write"], 2.1 * ROUNDS)
            self.assertLess(caused["read"], ROUNDS / 10)
            assert_the_kernel_has_what_the_file_has()
            self.assertEqual(reader.execute("SELECT x FROM t").fetchall(), [(ROUNDS,)])
            self.assertEqual(reader.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0], 0)
            self.assertEqual(os.path.getsize(node.path(NAME + "-wal")), 0)
        cluster.wait_converged()
