"""VACUUM, auto_vacuum and incremental_vacuum: databases that are rewritten, and that shrink."""

import contextlib

import harness
import sqlite_library

MODES = ("delete", "truncate", "persist", "wal")


class VacuumTest(harness.ClusterTest):
    def vacuum(self, cluster, mode, size):
        """Of a database of `size` bytes of which every fourth row stays, beside a reader on the replica."""
        name = mode + ".db"
        rows = size // 1000
        cluster.primary.fill(name, mode, rows=rows)
        before = cluster.primary.databases()[name]
        self.assertGreaterEqual(before["pages"] * before["page_size"], size)
        cluster.wait_positions()
        reader = cluster.replica.connect(name)
        self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(rows,)])
        cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "DELETE FROM t WHERE id % 4", "VACUUM")
        cluster.wait_positions()
        self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(rows // 4,)])
        reader.close()
        self.assertLess(cluster.replica.databases()[name]["pages"], before["pages"] / 2)
        # DELETE and VACUUM are one transaction each.
        self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), int(before["txid"], 16) + 2)
        cluster.wait_converged()

    def test_c7_vacuum_of_4_mb_in_delete_truncate_and_persist_mode(self):
        cluster = self.cluster()
        for mode in ("delete", "truncate", "persist"):
            self.vacuum(cluster, mode, 4_000_000)

    def test_c7_vacuum_of_a_large_database_in_wal_mode(self):
        self.vacuum(self.cluster(), "wal", harness.scaled(40_000_000, 200_000_000))

    def test_c7_vacuum_of_a_large_database_in_delete_mode(self):
        self.vacuum(self.cluster(), "delete", harness.scaled(40_000_000, 200_000_000))

    def test_c7_auto_vacuum_shrinks(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            cluster.primary.execute(name, "PRAGMA auto_vacuum=full")
            cluster.primary.fill(name, mode)
            cluster.wait_converged()
            before = cluster.primary.databases()[name]["pages"]
            cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "DELETE FROM t WHERE id > 100")
            cluster.wait_converged()
            self.assertLess(cluster.replica.databases()[name]["pages"], before / 5)

    def test_c7_incremental_vacuum_shrinks_step_by_step(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            cluster.primary.execute(name, "PRAGMA auto_vacuum=incremental")
            cluster.primary.fill(name, mode)
            # Python steps only once in a PRAGMA without columns, and each step is a page.
            with contextlib.closing(sqlite_library.Connection(cluster.primary.path(name))) as connection:
                connection.execute(f"PRAGMA journal_mode={mode}", "DELETE FROM t WHERE id % 3")
                cluster.wait_converged()
                pages = cluster.primary.databases()[name]["pages"]
                for _ in range(3):
                    connection.execute("PRAGMA incremental_vacuum(50)")
                    pages -= 50
                    # What shrinks in a transaction that is rolled back is there again.
                    connection.execute("BEGIN", "PRAGMA incremental_vacuum", "ROLLBACK")
                    connection.execute("UPDATE t SET x = randomblob(1000) WHERE id % 7 = 0")
                    cluster.wait_converged()
                    self.assertEqual(cluster.replica.databases()[name]["pages"], pages, mode)
                connection.execute("PRAGMA incremental_vacuum")
            cluster.wait_converged()
            self.assertLess(cluster.replica.databases()[name]["pages"], pages - 50)
