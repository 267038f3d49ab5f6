"""Replicas that start late or stop for a while, and a primary that is restarted."""

import harness

DATABASES = {"wal.db": "wal", "delete.db": "delete", "folder/deep/wal.db": "wal",
             "folder/truncate.db": "truncate", "folder/persist.db": "persist"}


class LateReplicaTest(harness.ClusterTest):
    def make_databases(self, node):
        node.mkdirs("folder/deep")
        for name, mode in DATABASES.items():
            node.execute(name, f"PRAGMA journal_mode={mode}", "CREATE TABLE first(x)")

    def write_history(self, node, commits):
        """That many commits in every database, without syncs: they are about replication here."""
        for name in DATABASES:
            node.execute(name, "PRAGMA synchronous=OFF",
                         "CREATE TABLE IF NOT EXISTS history(id INTEGER PRIMARY KEY, filler)",
                         *["INSERT INTO history(filler) VALUES (randomblob(200))"] * commits)

    def start_writers(self, node):
        return {name: self.writer(node.path(name), mode).start()
                for name, mode in DATABASES.items()}

    def finish(self, cluster, writers):
        for writer in writers.values():
            writer.stop()
        self.assertEqual(sorted(cluster.wait_converged()), sorted(DATABASES))
        for name, writer in writers.items():
            for node in cluster.nodes:
                writer.check(node, name)

    def test_replica_that_starts_after_thousands_of_commits_while_the_primary_commits(self):
        cluster = self.cluster(replicas=0)
        self.make_databases(cluster.primary)
        self.write_history(cluster.primary, 800)
        writers = self.start_writers(cluster.primary)
        harness.wait_all_records(writers.values(), 5)
        for _ in range(2):
            cluster.add_replica().start()
        harness.wait_all_records(writers.values(), 20)
        self.finish(cluster, writers)

    def test_replica_that_is_stopped_and_started_while_the_primary_commits(self):
        cluster = self.cluster()
        self.make_databases(cluster.primary)
        writers = self.start_writers(cluster.primary)
        for _ in range(3):
            harness.wait_all_records(writers.values(), 10)
            self.assertEqual(cluster.replica.stop(), 0)
            harness.wait_all_records(writers.values(), 20)
            cluster.replica.start()
        self.finish(cluster, writers)

    def test_primary_that_is_stopped_and_started(self):
        cluster = self.cluster()
        self.make_databases(cluster.primary)
        writers = self.start_writers(cluster.primary)
        for _ in range(2):
            harness.wait_all_records(writers.values(), 10)
            self.assertEqual(cluster.primary.stop(), 0)
            cluster.primary.start()
        harness.wait_all_records(writers.values(), 10)
        self.finish(cluster, writers)
        self.assertGreaterEqual(cluster.primary.status()["term"], 3)

    def test_all_nodes_stopped_and_started_in_the_other_order(self):
        cluster = self.cluster(replicas=2)
        self.make_databases(cluster.primary)
        self.write_history(cluster.primary, 20)
        before = cluster.wait_positions()
        cluster.stop()
        # The replicas come first, and have nobody to follow yet.
        for node in cluster.replicas:
            node.start(wait=False)
        for node in cluster.replicas:
            harness.wait_for(node.status, "an answer of " + node.name)
            for name in DATABASES:
                self.assertEqual(node.execute(name, "SELECT count(*) FROM history"), [(20,)])
        cluster.primary.start()
        self.assertEqual(sorted(cluster.wait_converged()), sorted(DATABASES))
        after = cluster.primary.status()
        self.assertEqual({d["name"]: (d["txid"], d["digest"]) for d in before["databases"]},
                         {d["name"]: (d["txid"], d["digest"]) for d in after["databases"]})
        self.write_history(cluster.primary, 5)
        cluster.wait_converged()

    def test_second_replica_that_lost_its_data_directory_is_copied_again(self):
        cluster = self.cluster(replicas=2)
        self.make_databases(cluster.primary)
        self.write_history(cluster.primary, 50)
        cluster.wait_converged()
        lost = cluster.replicas[1]
        self.assertEqual(lost.stop(), 0)
        lost.lose_data()
        self.write_history(cluster.primary, 5)
        lost.start()
        self.assertEqual(sorted(cluster.wait_converged()), sorted(DATABASES))
