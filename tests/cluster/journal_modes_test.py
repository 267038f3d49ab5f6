"""Every journal mode in turn on a live database, with all that PRAGMA synchronous and journal_size_limit change."""

import contextlib
import itertools
import os
import sqlite3

import harness

MODES = ("delete", "truncate", "persist", "wal")


class JournalModesTest(harness.ClusterTest):
    def switch_between_all_modes(self, synchronous):
        """Each mode to each other one, in a database that a connection on the replica reads all the time."""
        cluster = self.cluster()
        primary = cluster.primary
        primary.execute("app.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, mode, filler)")
        # Earlier, the connection would make an empty file of its own, and stay with it.
        harness.wait_for(lambda: "app.db" in cluster.replica.databases(), "the database")
        reader = cluster.replica.connect("app.db")
        count = 0
        for before, after in itertools.permutations(MODES, 2):
            for mode in (before, after):
                # Other connections in WAL mode would keep the switch from happening.
                found = primary.execute("app.db", f"PRAGMA synchronous={synchronous}",
                                        f"PRAGMA journal_mode={mode}")
                self.assertEqual(found, [(mode,)])
                with contextlib.closing(primary.connect("app.db")) as connection:
                    connection.execute(f"PRAGMA synchronous={synchronous}")
                    connection.execute(f"PRAGMA journal_mode={mode}")
                    for _ in range(3):
                        connection.execute("INSERT INTO t(mode, filler) VALUES (?, randomblob(3000))",
                                           (mode,))
                        count += 1
                cluster.wait_converged()
                self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(count,)])
                self.assertEqual(cluster.replica.databases()["app.db"]["journal_mode"],
                                 "wal" if mode == "wal" else "delete")
        # A reader that stays keeps the replica's WAL; without one the files follow the header.
        reader.close()
        primary.execute("app.db", "PRAGMA journal_mode=delete", "INSERT INTO t(mode) VALUES ('last')")
        cluster.wait_converged()
        self.assertEqual(cluster.replica.journal_mode("app.db"), "delete")
        self.assertEqual(os.listdir(cluster.replica.mount), ["app.db"])

    def test_c7_switches_between_all_journal_modes_with_synchronous_off(self):
        self.switch_between_all_modes("OFF")

    def test_c7_switches_between_all_journal_modes_with_synchronous_normal(self):
        self.switch_between_all_modes("NORMAL")

    def test_c7_switches_between_all_journal_modes_with_synchronous_full(self):
        self.switch_between_all_modes("FULL")

    def test_c7_switches_between_all_journal_modes_with_synchronous_extra(self):
        self.switch_between_all_modes("EXTRA")

    def test_c7_switches_under_writers_that_stay(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE first(x)")
        writer = self.writer(cluster.primary.path("app.db"), "delete", "OFF").start()
        writer.wait_commits(1)
        switcher = cluster.primary.connect("app.db")
        switcher.execute("PRAGMA synchronous=OFF")
        for mode in MODES * 3:
            with contextlib.suppress(sqlite3.OperationalError):  # locked: it stays as it is
                switcher.execute(f"PRAGMA journal_mode={mode}").fetchall()
            switcher.execute("CREATE TABLE IF NOT EXISTS switches(mode)")
            switcher.execute("INSERT INTO switches VALUES (?)", (mode,))
            writer.wait_commits(3)
        switcher.close()
        writer.stop()
        cluster.wait_converged()
        writer.check(cluster.replica, "app.db")
        self.assertEqual(cluster.replica.execute("app.db", "SELECT count(*) FROM switches"), [(12,)])

    def assert_size_limit_holds(self, connection, path, mode, limit):
        """In the state right after a commit, or in WAL mode after a commit into a WAL that began anew."""
        if mode != "wal":
            size = os.path.getsize(path + "-journal") if os.path.exists(path + "-journal") else 0
            # The commit is a zeroed header in a journal that may keep that much.
            self.assertLessEqual(size, limit)
            return
        # One that nobody uses begins anew with the next commit, and is cut to the limit.
        self.assertEqual(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0], 0)
        connection.execute("UPDATE t SET filler = randomblob(3000) WHERE id = 1")
        # That commit is one frame.
        self.assertLessEqual(os.path.getsize(path + "-wal"), max(limit, 32 + 24 + 4096))

    def test_c4_c7_journal_size_limit_in_every_mode(self):
        cluster = self.cluster()
        primary = cluster.primary
        path = primary.path("app.db")
        primary.execute("app.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, filler)")
        cluster.wait_converged()
        count = 0
        for limit in (0, 100, 20_000):
            for mode in (*MODES, "delete"):
                with contextlib.closing(primary.connect("app.db")) as connection:
                    connection.execute(f"PRAGMA journal_size_limit={limit}")
                    self.assertEqual(connection.execute(f"PRAGMA journal_mode={mode}").fetchall(), [(mode,)])
                    for rows in (1, 100, 1, 1):
                        connection.execute("BEGIN")
                        connection.execute("UPDATE t SET filler = randomblob(3000)")
                        for _ in range(rows):
                            connection.execute("INSERT INTO t(filler) VALUES (randomblob(3000))")
                        connection.execute("COMMIT")
                        count += rows
                        self.assert_size_limit_holds(connection, path, mode, limit)
                    # Not read through the primary's mount: the connection's WAL shall stay as it is.
                    cluster.wait_positions()
                    self.assertEqual(cluster.replica.execute("app.db", "SELECT count(*) FROM t"), [(count,)])
                cluster.wait_converged()
