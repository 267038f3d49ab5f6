"""Applications that try to write on a replica, where they cannot."""

import contextlib
import errno
import os
import sqlite3

import harness

REFUSALS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_CANTOPEN)


class ReplicaWritesTest(harness.ClusterTest):
    def assert_refused(self, connection, statement, codes=REFUSALS):
        with self.assertRaises(sqlite3.OperationalError, msg=statement) as raised:
            connection.execute(statement).fetchall()
        self.assertIn(raised.exception.sqlite_errorcode & 0xff, codes, f"{statement}: {raised.exception}")
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def write_on_replica(self, mode):
        cluster = self.cluster()
        cluster.primary.execute("app.db", f"PRAGMA journal_mode={mode}",
                                "CREATE TABLE item(id INTEGER PRIMARY KEY, text)",
                                "INSERT INTO item(text) VALUES ('one'), ('two')")
        cluster.wait_converged()
        connection = cluster.replica.connect("app.db", timeout=0.05)
        busy = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)
        for statement in ("INSERT INTO item(text) VALUES ('three')", "UPDATE item SET text = 'x'",
                          "DELETE FROM item", "CREATE TABLE other(x)", "DROP TABLE item", "BEGIN IMMEDIATE",
                          "PRAGMA user_version = 7", "VACUUM"):
            self.assert_refused(connection, statement, busy)
            self.assertEqual(connection.execute("SELECT text FROM item").fetchall(), [("one",), ("two",)])
        # Modes cannot be changed here, in whichever way SQLite says so.
        for other in ("delete", "wal", "persist"):
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute(f"PRAGMA journal_mode={other}").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        # A reader that was there all the time sees what the primary commits now.
        cluster.primary.execute("app.db", "INSERT INTO item(text) VALUES ('three')")
        cluster.wait_positions()
        self.assertEqual(connection.execute("SELECT count(*) FROM item").fetchall(), [(3,)])
        connection.close()
        cluster.wait_converged()
        wal = "wal" if mode == "wal" else "delete"  # the others are a connection's affair
        self.assertEqual(cluster.replica.journal_mode("app.db"), wal)

    def test_a1_write_on_the_replica_in_wal_mode_is_busy(self):
        self.write_on_replica("wal")

    def test_a1_write_on_the_replica_in_delete_mode_is_busy(self):
        self.write_on_replica("delete")

    def test_a1_write_on_the_replica_in_persist_mode_is_busy(self):
        self.write_on_replica("persist")

    def test_a1_no_database_can_be_created_on_the_replica(self):
        cluster = self.cluster()
        for mode in ("wal", "delete", "memory", "off"):
            with contextlib.closing(cluster.replica.connect("new.db", timeout=0.05)) as connection:
                connection.execute("PRAGMA synchronous=FULL")
                with self.assertRaises(sqlite3.OperationalError, msg=mode):
                    connection.execute(f"PRAGMA journal_mode={mode}")
                    connection.execute("CREATE TABLE t(x)")
        self.assertEqual(cluster.replica.databases(), {})
        # The name is still good for the primary.
        cluster.primary.execute("new.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        self.assertEqual(cluster.wait_converged(), ["new.db"])
        self.assertEqual(cluster.replica.execute("new.db", "SELECT x FROM t"), [(1,)])

    def assert_errno(self, codes, function, *arguments):
        with self.assertRaises(OSError) as raised:
            function(*arguments)
        self.assertIn(raised.exception.errno, codes, raised.exception)

    def test_a1_files_of_a_replicas_database_cannot_be_changed(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            cluster.primary.execute(mode + ".db", f"PRAGMA journal_mode={mode}", "CREATE TABLE t(x)")
        cluster.wait_converged()
        readers = [cluster.replica.connect(name) for name in ("wal.db", "delete.db")]
        for reader in readers:
            reader.execute("SELECT * FROM t").fetchall()
        refused = (errno.EROFS, errno.EPERM, errno.EACCES)
        for name in ("wal.db", "wal.db-wal", "delete.db"):
            path = cluster.replica.path(name)
            self.assert_errno(refused, os.unlink, path)
            self.assert_errno(refused, os.truncate, path, 0)
            self.assert_errno(refused, os.rename, path, path + "2")
            self.assert_errno(refused, os.chmod, path, 0o600)
            descriptor = os.open(path, os.O_RDWR)
            self.assert_errno(refused, os.pwrite, descriptor, b"x" * 4096, 4096)
            os.close(descriptor)
        self.assert_errno(refused, os.open, cluster.replica.path("delete.db-journal"),
                          os.O_RDWR | os.O_CREAT)
        cluster.primary.execute("wal.db", "INSERT INTO t VALUES (5)")
        cluster.primary.execute("delete.db", "INSERT INTO t VALUES (5)")
        cluster.wait_positions()
        for reader in readers:
            self.assertEqual(reader.execute("SELECT x FROM t").fetchall(), [(5,)])
            reader.close()
        cluster.wait_converged()
