"""Another node becomes the primary by hand: both are stopped, the configuration is changed, both are started."""

import harness

MODES = ["wal", "delete", "truncate", "persist"]


class ChangePrimaryTest(harness.ClusterTest):
    def make_databases(self, node):
        for mode in MODES:
            node.execute(mode + ".db", f"PRAGMA journal_mode={mode}", "CREATE TABLE t(x)",
                         "INSERT INTO t VALUES ('first')")

    def insert(self, node, text):
        for mode in MODES:
            node.execute(mode + ".db", f"INSERT INTO t VALUES ('{text}')")

    def rows(self, node, mode):
        return [row[0] for row in node.execute(mode + ".db", "SELECT x FROM t ORDER BY rowid")]

    def change_primary(self, cluster):
        """The replica is the primary from now on; all nodes are stopped."""
        cluster.primary, cluster.replicas = cluster.replica, [cluster.primary]
        for node in cluster.nodes:
            at = node.arguments.index("--lease-primary")
            node.arguments[at + 1] = f"127.0.0.1:{cluster.primary.port}"

    def test_nothing_is_lost_when_the_replica_had_everything(self):
        cluster = self.cluster()
        self.make_databases(cluster.primary)
        # The WAL is still there when the node stops.
        writer = cluster.primary.connect("wal.db")
        writer.execute("INSERT INTO t VALUES ('open')")
        writer.commit()
        cluster.wait_positions()
        cluster.stop()
        writer.close()
        for text in ("there", "and back"):
            self.change_primary(cluster)
            cluster.start()
            self.insert(cluster.primary, text)
            self.assertEqual(sorted(cluster.wait_converged()), sorted(m + ".db" for m in MODES))
            cluster.stop()
        cluster.start()
        self.assertEqual(self.rows(cluster.primary, "wal"), ["first", "open", "there", "and back"])
        self.assertEqual(self.rows(cluster.replica, "delete"), ["first", "there", "and back"])

    def test_what_only_the_old_primary_had_gives_way_to_the_new_history(self):
        cluster = self.cluster()
        self.make_databases(cluster.primary)
        cluster.wait_converged()
        self.assertEqual(cluster.replica.stop(), 0)
        self.insert(cluster.primary, "alone")
        self.assertEqual(cluster.primary.stop(), 0)
        self.change_primary(cluster)
        cluster.primary.start()
        self.insert(cluster.primary, "new history")
        cluster.replica.start()
        self.assertEqual(sorted(cluster.wait_converged()), sorted(m + ".db" for m in MODES))
        for mode in MODES:
            self.assertEqual(self.rows(cluster.replica, mode), ["first", "new history"])
