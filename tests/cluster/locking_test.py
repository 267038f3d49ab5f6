"""Many processes in one database: locking_mode, checkpoints and writers beside each other."""

import os
import sqlite3

import harness

MODES = ("delete", "truncate", "persist", "wal")


class LockingTest(harness.ClusterTest):
    def test_c7_exclusive_locking_mode(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            connection = cluster.primary.connect(name)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self.assertEqual(connection.execute(f"PRAGMA journal_mode={mode}").fetchall(), [(mode,)])
            connection.execute("CREATE TABLE t(x)")
            for number in range(20):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            cluster.wait_positions()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(20,)])
            # Its wal-index is in its own memory.
            self.assertFalse(os.path.exists(cluster.primary.path(name + "-shm")))
            with self.assertRaises(sqlite3.OperationalError) as raised:
                cluster.primary.connect(name, timeout=0).execute("SELECT * FROM t")
            self.assertEqual(raised.exception.sqlite_errorcode, sqlite3.SQLITE_BUSY)
            connection.execute("PRAGMA locking_mode=NORMAL")
            connection.execute("INSERT INTO t VALUES (99)")
            connection.close()
            cluster.primary.execute(name, "INSERT INTO t VALUES (100)")
            cluster.wait_converged()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(22,)])

    def test_c3_c5_exclusive_connection_of_a_wal_that_is_there_already(self):
        cluster = self.cluster()
        name = "app.db"
        cluster.primary.fill(name, "wal", rows=100)
        for number in range(3):
            cluster.wait_converged()
            first = cluster.primary.connect(name)
            first.execute("INSERT INTO t(x) VALUES ('shared')")
            exclusive = cluster.primary.connect(name)
            exclusive.execute("PRAGMA locking_mode=EXCLUSIVE")
            first.close()
            # From here on nobody else is let in; a checkpoint and a new WAL are among what it does.
            for _ in range(30):
                exclusive.execute("UPDATE t SET x = randomblob(1000)")
            exclusive.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            exclusive.execute("INSERT INTO t(x) VALUES ('exclusive')")
            cluster.wait_positions()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"),
                             [(100 + 2 * (number + 1),)])
            exclusive.close()
        cluster.wait_converged()

    def test_c2_c7_wal_with_8_writer_and_8_reader_processes(self):
        cluster = self.cluster()
        name = "app.db"
        cluster.primary.execute(name, "PRAGMA journal_mode=wal", "CREATE TABLE first(x)")
        # Sixteen processes load the machine enough: what they write must not outgrow what it can replicate.
        writers = [self.writer(cluster.primary.path(name), "wal", pause=0.01).start() for _ in range(8)]
        writers[0].wait_commits(1)
        cluster.wait_for_databases([name])
        readers = [self.reader(node.path(name)).start() for node in cluster.nodes for _ in range(4)]
        rounds = harness.scaled(1, 100)
        for _ in range(rounds):
            harness.wait_all_records([*writers, *readers], 5)
        for application in (*writers, *readers):
            application.stop()
        cluster.wait_converged()
        committed = [row for writer in writers for row in writer.records()]
        self.assertEqual(len(committed), len(set(committed)))
        self.assertGreaterEqual(len(committed), 8 * 5 * rounds)
        for writer in writers:
            writer.check(cluster.replica, name)

    def test_c5_checkpoints_of_every_kind_under_load(self):
        cluster = self.cluster()
        name = "app.db"
        cluster.primary.execute(name, "PRAGMA journal_mode=wal", "CREATE TABLE first(x)")
        # The pauses let checkpoints in: SQLite gives nobody a turn at the writer's lock.
        applications = [self.writer(cluster.primary.path(name), "wal", pause=0.002).start() for _ in range(2)]
        writers = applications[:]
        writers[0].wait_commits(1)
        cluster.wait_for_databases([name])
        applications += [self.reader(node.path(name)).start() for node in cluster.nodes]
        connection = cluster.primary.connect(name)

        def checkpoint(kind):
            """Whether it was completed: it is turned away while a writer's own checkpoint runs."""
            return connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0] == 0

        for _ in range(harness.scaled(4, 500)):
            for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
                harness.wait_all_records(applications, 1)
                checkpoint(kind)
        for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            harness.wait_for(lambda kind=kind: checkpoint(kind), f"a checkpoint of the kind {kind}")
        connection.close()
        for application in applications:
            application.stop()
        cluster.wait_converged()
        for writer in writers:
            writer.check(cluster.replica, name)

    def test_c5_checkpoints_of_a_wal_that_a_reader_let_grow(self):
        cluster = self.cluster()
        name = "app.db"
        cluster.primary.fill(name, "wal")
        reader = cluster.primary.connect(name)  # keeps the WAL from being restarted
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchone()
        writer = cluster.primary.connect(name)
        writer.execute("PRAGMA synchronous=OFF")
        for number in range(1500):
            writer.execute("UPDATE t SET x = randomblob(900) WHERE id = ?", (number % 2000,))
        reader.execute("COMMIT")
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t(x) VALUES (1)",
                          "PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t(x) VALUES (2)",
                          "PRAGMA wal_checkpoint(PASSIVE)"):
            writer.execute(statement).fetchall()
            cluster.wait_converged()
        writer.close()
        reader.close()
        cluster.wait_converged()
