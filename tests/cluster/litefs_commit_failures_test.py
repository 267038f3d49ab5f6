"""Commits that LiteFS 0.5.14 loses or makes dear; see litefs_failures_test.py."""

import contextlib
import os
import sqlite3
import time

import harness

WAL_COMMITS = harness.scaled(20_000, 500_000)  # one page each
WAL_SAMPLE = harness.scaled(2_000, 10_000)
DAEMON_GROWTH_MAX = 64 << 20  # bytes
# What a commit of one page may cost a node that handles it alone: bytes, and calls of the system. How many commits a
# replica takes together depends on the load, and each alone costs more.
ALONE = {"rchar": 32 << 10, "wchar": 32 << 10, "syscr": 20, "syscw": 20}


class LiteFsCommitFailuresTest(harness.ClusterTest):
    # ---- journal_mode=MEMORY silently never replicates and loses the row at restart; so would OFF ----

    def assert_refused(self, connection, statement):
        with self.assertRaises(sqlite3.OperationalError) as raised:
            connection.execute(statement).fetchall()
        self.assertEqual(raised.exception.sqlite_errorcode & 0xff, sqlite3.SQLITE_IOERR, raised.exception)
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def write_without_journal(self, pragma):
        cluster = self.cluster()
        primary = cluster.primary
        primary.execute("app.db", "PRAGMA journal_mode=delete", "CREATE TABLE item(text)",
                        "INSERT INTO item VALUES ('kept')")
        cluster.wait_converged()
        before = primary.databases()["app.db"]
        for synchronous in ("FULL", "OFF"):
            with contextlib.closing(primary.connect("app.db")) as connection:
                connection.execute(f"PRAGMA synchronous={synchronous}")
                self.assertEqual(connection.execute(f"PRAGMA journal_mode={pragma}").fetchall(), [(pragma,)])
                self.assert_refused(connection, "INSERT INTO item VALUES ('lost')")
            cluster.wait_converged()
        self.assertRegex(primary.log_text(), r"(?i)app\.db.*journal_mode.*(memory|off)")
        # It is one line, not one a write.
        self.assertEqual(primary.log_text().count("without a journal"), 1)
        after = primary.databases()["app.db"]
        self.assertEqual((after["txid"], after["digest"]), (before["txid"], before["digest"]))
        # The same connection can go on in another mode.
        with contextlib.closing(primary.connect("app.db")) as connection:
            for number, mode in enumerate(("delete", "truncate", "persist", "wal")):
                connection.execute("PRAGMA journal_mode=delete").fetchall()
                self.assertEqual(connection.execute(f"PRAGMA journal_mode={pragma}").fetchall(), [(pragma,)])
                self.assert_refused(connection, "INSERT INTO item VALUES ('lost')")
                self.assertEqual(connection.execute("SELECT count(*) FROM item").fetchall(), [(1 + number,)])
                connection.execute("PRAGMA journal_mode=delete").fetchall()
                self.assertEqual(connection.execute(f"PRAGMA journal_mode={mode}").fetchall(), [(mode,)])
                connection.execute("INSERT INTO item VALUES (?)", (mode,))
        kept = [("kept",), ("delete",), ("truncate",), ("persist",), ("wal",)]
        cluster.wait_converged()
        self.assertEqual(cluster.replica.execute("app.db", "SELECT text FROM item"), kept)
        self.assertEqual(primary.stop(), 0)
        primary.start()
        self.assertEqual(primary.execute("app.db", "SELECT text FROM item"), kept)
        cluster.wait_converged()

    def leave_wal_for_no_journal(self, pragma):
        """SQLite does not go through a rollback journal then: page 1 is written as it is."""
        cluster = self.cluster()
        primary = cluster.primary
        primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE item(text)",
                        "INSERT INTO item VALUES ('kept')")
        cluster.wait_converged()
        with contextlib.closing(primary.connect("app.db")) as connection:
            self.assert_refused(connection, f"PRAGMA journal_mode={pragma}")
            self.assertRegex(primary.log_text(), r"(?i)app\.db.*journal_mode.*(memory|off)")
            # It is still in WAL mode, and goes on there.
            self.assertEqual(connection.execute("SELECT text FROM item").fetchall(), [("kept",)])
            connection.execute("INSERT INTO item VALUES ('goes on')")
            cluster.wait_positions()
            self.assertEqual(cluster.replica.execute("app.db", "SELECT count(*) FROM item"), [(2,)])
        cluster.wait_converged()
        self.assertEqual(primary.stop(), 0)
        primary.start()
        primary.execute("app.db", "INSERT INTO item VALUES ('last')")
        cluster.wait_converged()
        for node in cluster.nodes:
            self.assertEqual(node.execute("app.db", "SELECT text FROM item"),
                             [("kept",), ("goes on",), ("last",)])
            self.assertEqual(node.journal_mode("app.db"), "wal")

    def test_c6_journal_mode_memory_silently_never_replicates(self):
        self.write_without_journal("memory")

    def test_c6_journal_mode_off_silently_never_replicates(self):
        self.write_without_journal("off")

    def test_c6_journal_mode_memory_from_wal_silently_never_replicates(self):
        self.leave_wal_for_no_journal("memory")

    def test_c6_journal_mode_off_from_wal_silently_never_replicates(self):
        self.leave_wal_for_no_journal("off")

    # ---- COMMIT succeeds although capture failed ----

    def inserts(self, connection, statement):
        """Whether the statement committed; it may fail for want of space only."""
        try:
            connection.execute(statement)
            return True
        except sqlite3.OperationalError as error:
            self.assertIn(error.sqlite_errorcode & 0xff, (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return False

    def commit_while_the_disk_is_full(self, mode):
        """Rows whose COMMIT returned are on both nodes, wherever in the commit the space came to its end."""
        data = os.path.join(self.directory, "a", "data")
        self.addCleanup(lambda: harness.run(["umount", data], check=False))
        cluster = self.cluster(start=False)
        harness.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", data])
        cluster.start()
        primary = cluster.primary
        primary.fill("app.db", mode, rows=100)
        filler = os.path.join(data, "filler")
        committed = []
        with contextlib.closing(primary.connect("app.db", timeout=1)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            # In rollback modes echofs wants some room left in the log beside what the commit takes.
            for free in range(0, 384 << 10, 12 << 10):
                cluster.wait_positions()
                space = os.statvfs(data)
                with open(filler, "wb") as file:
                    file.truncate(0)
                    os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - free or 1)
                row = 1000 + free
                if self.inserts(connection, f"INSERT INTO t VALUES ({row}, randomblob(20000))"):
                    committed.append(row)
                os.unlink(filler)
                # Service comes back, on the same connection.
                harness.wait_for(lambda: self.inserts(connection, "INSERT INTO t(x) VALUES ('between')"),
                                 "room for a row")
        cluster.wait_converged()
        rows = {row for (row,) in cluster.replica.execute("app.db", "SELECT id FROM t")}
        self.assertEqual([row for row in committed if row not in rows], [])
        self.assertGreater(len(committed), 0)
        self.assertLess(len(committed), 32)

    @harness.needs_root
    def test_c1_commit_succeeds_although_capture_failed_in_wal_mode(self):
        self.commit_while_the_disk_is_full("wal")

    @harness.needs_root
    def test_c1_commit_succeeds_although_capture_failed_in_delete_mode(self):
        self.commit_while_the_disk_is_full("delete")

    # ---- commit cost grows with the WAL ----

    def commits(self, connection, first, count):
        """Seconds that each of `count` commits of one page takes."""
        seconds = []
        for number in range(first, first + count):
            start = time.perf_counter()
            connection.execute("UPDATE t SET n = n + 1 WHERE id = ?", (number * 7 % 2000 + 1,))
            seconds.append(time.perf_counter() - start)
        return seconds

    def grow_wal(self, path, sample):
        """Commits beside a reader that stays; returns what `sample` gave for the first and the last ones."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection, \
                contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n DEFAULT 0, x)")
            connection.execute("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 2000) "
                               "INSERT INTO t(id, x) SELECT i, hex(randomblob(450)) FROM c")
            reader.execute("BEGIN")
            self.assertEqual(reader.execute("SELECT sum(n) FROM t").fetchall(), [(0,)])
            first = sample(lambda: self.commits(connection, 0, WAL_SAMPLE))
            self.commits(connection, WAL_SAMPLE, WAL_COMMITS - 2 * WAL_SAMPLE)
            last = sample(lambda: self.commits(connection, WAL_COMMITS - WAL_SAMPLE, WAL_SAMPLE))
            frames = (os.path.getsize(path + "-wal") - 32) // (4096 + 24)
            self.assertGreaterEqual(frames, WAL_COMMITS)
            self.assertEqual(reader.execute("SELECT sum(n) FROM t").fetchall(), [(0,)])
            reader.execute("COMMIT")
            self.assertEqual(reader.execute("SELECT sum(n) FROM t").fetchall(), [(WAL_COMMITS,)])
            self.assertEqual(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0)
        return first, last

    def print_times(self, where, samples):
        for which, seconds in zip(("first", "last"), samples):
            ordered = sorted(seconds)
            print(f"{where}, {which} {len(seconds)} of {WAL_COMMITS} commits: mean "
                  f"{sum(seconds) / len(seconds) * 1e6:.0f} us, median {ordered[len(ordered) // 2] * 1e6:.0f} us, "
                  f"99th percentile {ordered[len(ordered) * 99 // 100] * 1e6:.0f} us")

    def test_c7_commit_cost_grows_with_the_wal(self):
        self.print_times("outside", self.grow_wal(os.path.join(self.directory, "outside.db"), lambda f: f()))
        cluster = self.cluster()
        replica_reader = None
        work = []

        def sample(run):
            """What the daemons do in these commits, and the time of each commit."""
            nonlocal replica_reader
            cluster.wait_positions(seconds=harness.scaled(harness.WAIT_SECONDS, 1800))
            if replica_reader is None:
                for node in cluster.nodes:
                    node.reset_memory_peak()
                self.memory_before = [node.memory("VmRSS") for node in cluster.nodes]
                replica_reader = cluster.replica.connect("app.db")
                replica_reader.execute("BEGIN")
                self.assertEqual(replica_reader.execute("SELECT sum(n) FROM t").fetchall(), [(0,)])
            before = [node.io() for node in cluster.nodes]
            seconds = run()
            cluster.wait_positions()
            work.append([{field: after[field] - start[field] for field in after}
                         for start, after in zip(before, (node.io() for node in cluster.nodes))])
            return seconds

        self.print_times("inside", self.grow_wal(cluster.primary.path("app.db"), sample))
        for index, node in enumerate(cluster.nodes):
            first, last = work[0][index], work[1][index]
            growth = node.memory("VmHWM") - self.memory_before[index]
            print(f"{node.name}: per commit {first['rchar'] / WAL_SAMPLE:.0f} bytes read and "
                  f"{first['wchar'] / WAL_SAMPLE:.0f} written at first, {last['rchar'] / WAL_SAMPLE:.0f} and "
                  f"{last['wchar'] / WAL_SAMPLE:.0f} at last; memory grew by {growth >> 10} KiB")
            for field, alone in ALONE.items():
                self.assertLess(last[field], max(first[field] * 1.5, alone * WAL_SAMPLE), f"{field} of {node.name}")
            self.assertLess(growth, DAEMON_GROWTH_MAX, node.name)
        self.assertEqual(replica_reader.execute("SELECT sum(n) FROM t").fetchall(), [(0,)])
        replica_reader.close()
        cluster.wait_converged()
