"""One transaction that is larger than the daemons may grow (design C9, L1: change sets are streamed)."""

import contextlib

import harness

LIMIT = 64 << 20  # growth of a daemon, bytes
SIZE = harness.scaled(120 << 20, 500 << 20)  # of the transaction, bytes
ROW = 1 << 20


class LargeTransactionsTest(harness.ClusterTest):
    def transaction(self, cluster, connection, statement, end="COMMIT"):
        """Runs it to the end on all nodes, and looks how much memory that took."""
        for node in cluster.nodes:
            node.reset_memory_peak()
        before = [node.memory("VmRSS") for node in cluster.nodes]
        connection.execute("BEGIN")
        connection.execute(statement)
        connection.execute(end)
        cluster.wait_positions(seconds=harness.scaled(60, 600))
        for node, size in zip(cluster.nodes, before):
            growth = node.memory("VmHWM") - size
            print(f"{node.name}: grew by {growth >> 10} KiB: {SIZE >> 20} MiB, {statement}; {end}")
            self.assertLess(growth, LIMIT, f"{node.name}: {statement}; {end}")

    def run_transactions(self, mode):
        cluster = self.cluster()
        rows = SIZE // ROW
        cluster.primary.execute("app.db", f"PRAGMA journal_mode={mode}",
                                "CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        cluster.wait_converged()
        with contextlib.closing(cluster.primary.connect("app.db")) as connection:
            insert = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                      f"LIMIT {rows}) INSERT INTO t SELECT i, randomblob({ROW}) FROM n")
            self.transaction(cluster, connection, insert)
            self.transaction(cluster, connection, f"UPDATE t SET x = randomblob({ROW})", "ROLLBACK")
            self.transaction(cluster, connection, f"UPDATE t SET x = randomblob({ROW})")
            self.transaction(cluster, connection, "DELETE FROM t")
        cluster.wait_converged()
        self.assertEqual(int(cluster.primary.databases()["app.db"]["txid"], 16), 4 if mode != "wal" else 5)

    def test_c9_l1_memory_of_a_transaction_of_500_mb_in_wal_mode(self):
        self.run_transactions("wal")

    def test_c9_l1_memory_of_a_transaction_of_500_mb_in_delete_mode(self):
        self.run_transactions("delete")
