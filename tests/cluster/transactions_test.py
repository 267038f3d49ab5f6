"""What a transaction can do before it commits: spill its cache, roll back, set savepoints."""

import contextlib
import sqlite3

import harness

MODES = ("delete", "truncate", "persist", "wal")


class TransactionsTest(harness.ClusterTest):
    def connection(self, cluster, name, mode):
        connection = cluster.primary.connect(name)
        self.assertEqual(connection.execute(f"PRAGMA journal_mode={mode}").fetchall(), [(mode,)])
        return contextlib.closing(connection)

    def test_c4_c8_transaction_that_spills_its_cache(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            cluster.primary.fill(name, mode)
            cluster.wait_converged()
            before = cluster.primary.databases()[name]
            with self.connection(cluster, name, mode) as connection:
                connection.execute("PRAGMA cache_size=10")
                connection.execute("BEGIN")
                connection.execute("UPDATE t SET x = randomblob(3000)")
                connection.execute("INSERT INTO t(x) SELECT x FROM t")
                connection.execute("ROLLBACK")
            cluster.wait_converged()
            after = cluster.primary.databases()[name]
            self.assertEqual((after["txid"], after["digest"], after["pages"]),
                             (before["txid"], before["digest"], before["pages"]), mode)
            with self.connection(cluster, name, mode) as connection:
                connection.execute("PRAGMA cache_size=10")
                connection.execute("BEGIN")
                connection.execute("UPDATE t SET x = randomblob(2000)")
                connection.execute("SAVEPOINT s")
                connection.execute("DELETE FROM t WHERE id % 2")
                connection.execute("ROLLBACK TO s")
                connection.execute("INSERT INTO t(x) SELECT x FROM t WHERE id < 500")
                connection.execute("COMMIT")
            cluster.wait_converged()
            after = cluster.primary.databases()[name]
            self.assertEqual(int(after["txid"], 16), int(before["txid"], 16) + 1, mode)

    def test_c4_c8_savepoints(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            cluster.primary.fill(name, mode)
            cluster.wait_converged()
            before = int(cluster.primary.databases()[name]["txid"], 16)
            with self.connection(cluster, name, mode) as connection:
                # With so small a cache what is taken back has been in the files.
                connection.execute("PRAGMA cache_size=10")
                connection.execute("SAVEPOINT outer")
                connection.execute("DELETE FROM t WHERE id > 1000")
                connection.execute("SAVEPOINT inner")
                connection.execute("UPDATE t SET x = randomblob(2500)")
                connection.execute("CREATE TABLE gone AS SELECT * FROM t")
                connection.execute("ROLLBACK TO inner")
                connection.execute("UPDATE t SET x = 'inner' WHERE id = 1")
                connection.execute("RELEASE inner")
                connection.execute("SAVEPOINT inner")
                connection.execute("DELETE FROM t")
                connection.execute("ROLLBACK TO inner")
                connection.execute("RELEASE outer")
                cluster.wait_positions()
                self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), before + 1, mode)
                self.assertEqual(cluster.replica.execute(name, "SELECT count(*), max(id), max(x) FILTER "
                                                               "(WHERE id = 1) FROM t"), [(1000, 1000, "inner")])
                # All taken back, and yet a transaction: SQLite counts it in the header.
                connection.execute("SAVEPOINT outer")
                connection.execute("UPDATE t SET x = randomblob(2500)")
                connection.execute("ROLLBACK TO outer")
                connection.execute("RELEASE outer")
            cluster.wait_converged()
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), before + 2, mode)

    def test_c1_statement_that_fails_takes_back_itself_alone(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            cluster.primary.fill(name, mode)
            with self.connection(cluster, name, mode) as connection:
                connection.execute("PRAGMA cache_size=10")
                for row in (3000, 3001, 3002):
                    cluster.wait_converged()
                    before = int(cluster.primary.databases()[name]["txid"], 16)
                    connection.execute("BEGIN")
                    connection.execute("INSERT INTO t VALUES (?, 'kept')", (row,))
                    with self.assertRaises(sqlite3.IntegrityError):
                        connection.execute("INSERT INTO t SELECT id + 2000, randomblob(2500) FROM t")
                    committed = self.commit_or_refusal(connection)
                    self.assertTrue(committed or mode == "wal", mode)
                    if not committed:
                        self.assertIn("without checksums", cluster.primary.log_text())
                        connection.execute("INSERT INTO t VALUES (?, 'kept')", (row,))
                    cluster.wait_converged()
                    self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), before + 1, mode)
                    self.assertEqual(cluster.replica.execute(name, "SELECT x FROM t WHERE id > 2000")[-1],
                                     ("kept",))
            cluster.wait_converged()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(2003,)])

    def commit_or_refusal(self, connection):
        """SQLite 3.40.1 leaves such a commit in the WAL without checksums, where a recovery loses it. It is refused."""
        try:
            connection.execute("COMMIT")
            return True
        except sqlite3.OperationalError as error:
            self.assertEqual(error.sqlite_errorcode, sqlite3.SQLITE_IOERR_WRITE)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return False
