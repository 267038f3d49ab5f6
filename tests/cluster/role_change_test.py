"""Databases change roles with applications connected and working (invariants R2 and R4 below the lease).

role_nodes.cc has two nodes in one process and changes their roles when it is told to.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess

import harness

WRITER_PATIENCE_MS = 60000


class TwoNodes:
    def __init__(self, test, directory, primary="a"):
        self.test = test
        self.directory = directory
        self.log_path = os.path.join(directory, "nodes.log")
        self.start(primary)

    def start(self, primary):
        with open(self.log_path, "ab") as log:
            self.process = self.test.spawn([os.environ["ECHOFS_ROLE_NODES"], self.directory, primary],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                           text=True)
        self.test.addCleanup(self.process.stdin.close)
        self.test.addCleanup(self.process.stdout.close)
        self.expect("ready")

    def expect(self, start):
        line = self.process.stdout.readline()
        with open(self.log_path, encoding="utf-8") as log:
            self.test.assertTrue(line.startswith(start), f"{line!r}, and the log says: {log.read()}")
        return line.strip()

    def ask(self, command, start):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.expect(start)

    def handoff(self, patience_ms=WRITER_PATIENCE_MS, victim=0):
        """Swaps the roles; how many milliseconds nobody could write. The process `victim` is killed in the middle."""
        return int(self.ask(f"handoff {patience_ms} {victim}", "ok").split()[1])

    def check_same(self):
        a, b = self.ask("state", "a").split(" b")
        self.test.assertEqual(a[1:], b)

    def end(self):
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        self.test.assertEqual(self.process.wait(timeout=harness.WAIT_SECONDS), 0)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=harness.WAIT_SECONDS)
        for name in "ab":
            # A process that is killed while it uses its own mount needs the connection to be aborted.
            harness.run(["umount", "-f", "-l", os.path.join(self.directory, name, "mnt")], check=False)

    def path(self, node, name):
        return os.path.join(self.directory, node, "mnt", name)

    def connect(self, node, name, timeout=60):
        connection = sqlite3.connect(self.path(node, name), timeout=timeout, isolation_level=None)
        self.test.addCleanup(connection.close)
        return connection


@harness.needs_root
class RoleChangeTest(harness.ClusterTest):
    def nodes(self):
        return TwoNodes(self, self.directory)

    def wait_for_schema(self, nodes, node, name, count):
        def there():
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(
                    sqlite3.connect(f"file:{nodes.path(node, name)}?mode=ro", uri=True)) as connection:
                return connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (count,)
            return False

        harness.wait_for(there, f"{name} on node {node}")

    def run_handoffs(self, mode):
        nodes = self.nodes()
        writers = {"a": harness.RingWriter(self, nodes.path("a", "app.db"), mode).start()}
        writers["a"].wait_records(1)
        self.wait_for_schema(nodes, "b", "app.db", 3)
        writers["b"] = harness.RingWriter(self, nodes.path("b", "app.db")).start()
        readers = [harness.RingReader(self, nodes.path(node, "app.db")).start() for node in "ab"]
        gaps = []
        for round_number in range(harness.scaled(10, 200)):
            writers["ab"[round_number % 2]].wait_records(5)
            gaps.append(nodes.handoff())
            harness.wait_all_records(readers, 2)
        print(f"{mode}: nobody could write for {sorted(gaps)} ms")
        # The one on the replica waits for its lock, so it ends when it is the primary's turn.
        for node in ("a", "b"):
            writers[node].process.send_signal(signal.SIGTERM)
            self.assertEqual(writers[node].process.wait(timeout=harness.WAIT_SECONDS), 0,
                             writers[node].log_text())
            nodes.handoff()
        for reader in readers:
            reader.stop()
        nodes.check_same()
        for node in "ab":
            self.assertEqual(nodes.connect(node, "app.db").execute("PRAGMA integrity_check").fetchone(),
                             ("ok",))
        nodes.end()

    def test_r4_writers_on_both_nodes_go_on_in_wal_mode(self):
        self.run_handoffs("wal")

    def test_r4_writers_on_both_nodes_go_on_in_delete_mode(self):
        self.run_handoffs("delete")

    def test_r4_writers_on_both_nodes_go_on_in_persist_mode(self):
        self.run_handoffs("persist")

    def write_error(self, connection):
        with contextlib.closing(connection):
            try:
                connection.execute("INSERT INTO t VALUES ('never', '')")
            except sqlite3.OperationalError as error:
                return str(error)
        return None

    def run_writer_that_stays(self, mode):
        nodes = self.nodes()
        writer = nodes.connect("a", "app.db")
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("PRAGMA cache_size=5")
        writer.execute("CREATE TABLE t(x, filler)")
        writer.execute("INSERT INTO t VALUES ('before', '')")
        self.wait_for_schema(nodes, "b", "app.db", 1)
        other = nodes.connect("b", "app.db")
        writer.execute("BEGIN IMMEDIATE")
        # Enough to spill: uncommitted frames in the WAL, or pages in the database file.
        writer.executemany("INSERT INTO t VALUES ('never', randomblob(3000))", [()] * 50)
        nodes.handoff(100)
        with self.assertRaisesRegex(sqlite3.OperationalError, "disk I/O error"):
            writer.execute("COMMIT")
        with contextlib.suppress(sqlite3.OperationalError):
            writer.execute("ROLLBACK")
        # It has left: the node joins the database as a replica, without an entry that wants to be applied.
        harness.wait_for(lambda: self.write_error(nodes.connect("a", "app.db", timeout=0)) == "database is locked",
                         "the replica's locks")
        other.execute("INSERT INTO t VALUES ('on b', '')")

        def rows(connection):
            with contextlib.suppress(sqlite3.OperationalError):  # locked while it is being joined
                return connection.execute("SELECT x FROM t ORDER BY rowid").fetchall()

        expected = [("before",), ("on b",)]
        harness.wait_for(lambda: rows(writer) == expected, "the new primary's row on the old connection")
        self.assertEqual(rows(other), expected)
        nodes.check_same()
        nodes.handoff()
        writer.execute("INSERT INTO t VALUES ('on a again', '')")
        nodes.check_same()
        expected.append(("on a again",))
        self.assertEqual(rows(writer), expected)
        harness.wait_for(lambda: rows(other) == expected, "the row on the other node")
        nodes.end()

    def test_r2_writer_that_stays_is_refused_in_wal_mode(self):
        self.run_writer_that_stays("wal")

    def test_r2_writer_that_stays_is_refused_in_delete_mode(self):
        self.run_writer_that_stays("delete")

    def run_killed_after_handoff(self, mode):
        """The new primary has no entry of its own yet: its WAL must not be taken for commits of its own."""
        nodes = self.nodes()
        writer = nodes.connect("a", "app.db")
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("CREATE TABLE t(x)")
        for number in range(100):
            writer.execute("INSERT INTO t VALUES (?)", (number,))
        writer.close()
        nodes.handoff()
        nodes.kill()
        nodes.start("b")
        nodes.check_same()
        there = nodes.connect("b", "app.db")
        self.assertEqual(there.execute("SELECT count(*) FROM t").fetchone(), (100,))
        there.execute("INSERT INTO t VALUES ('more')")
        nodes.check_same()
        self.assertEqual(there.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        here = nodes.connect("a", "app.db")
        harness.wait_for(lambda: here.execute("SELECT count(*) FROM t").fetchone() == (101,), "the row")
        nodes.end()

    def test_l5_killed_after_handoff_in_wal_mode(self):
        self.run_killed_after_handoff("wal")

    def test_l5_killed_after_handoff_in_delete_mode(self):
        self.run_killed_after_handoff("delete")

    # Leaves a transaction that has reached the database file.
    HOT_JOURNAL = ("import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
                   "c.execute('PRAGMA cache_size=2'); c.execute('BEGIN'); "
                   "c.executemany('INSERT INTO t VALUES (3, randomblob(3000))', [()] * 40); "
                   "c.execute('UPDATE t SET f = randomblob(3000)'); ")

    def nodes_with_two_rows(self):
        nodes = self.nodes()
        path = nodes.path("a", "app.db")
        harness.run(["sqlite3", path, "PRAGMA journal_mode=delete; CREATE TABLE t(x, f); "
                     "INSERT INTO t VALUES (1, randomblob(3000)), (2, randomblob(3000));"])
        self.wait_for_schema(nodes, "b", "app.db", 1)
        return nodes, path

    def check_third_row_is_on_both(self, nodes):
        nodes.connect("b", "app.db").execute("INSERT INTO t VALUES (4, '')")
        reader = nodes.connect("a", "app.db")
        harness.wait_for(lambda: reader.execute("SELECT x FROM t").fetchall() == [(1,), (2,), (4,)],
                         "the same rows")
        nodes.check_same()

    def test_r4_hot_journal_of_a_dead_writer_is_undone(self):
        nodes, path = self.nodes_with_two_rows()
        done = harness.run(["/usr/bin/python3", "-c", self.HOT_JOURNAL + "os.kill(os.getpid(), signal.SIGKILL)", path],
                           check=False)
        self.assertEqual(done.returncode, -signal.SIGKILL)
        self.assertTrue(os.path.exists(path + "-journal"))
        nodes.handoff()
        self.assertFalse(os.path.exists(path + "-journal"))
        self.check_third_row_is_on_both(nodes)
        nodes.end()

    def test_r4_hot_journal_of_a_writer_that_dies_after_its_time_is_undone(self):
        nodes, path = self.nodes_with_two_rows()
        writer = self.spawn(["/usr/bin/python3", "-c", self.HOT_JOURNAL + "print('ready', flush=True); sys.stdin.read()",
                             path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(writer.stdin.close)
        self.addCleanup(writer.stdout.close)
        self.assertEqual(writer.stdout.readline(), "ready\n")
        nodes.handoff(100, victim=writer.pid)
        self.assertEqual(writer.wait(timeout=harness.WAIT_SECONDS), -signal.SIGKILL)
        self.check_third_row_is_on_both(nodes)
        self.assertFalse(os.path.exists(path + "-journal"))
        # As a primary it lets applications look for a journal again.
        nodes.handoff()
        self.assertEqual(nodes.connect("a", "app.db").execute("SELECT x FROM t").fetchall(), [(1,), (2,), (4,)])
        nodes.check_same()
        nodes.end()

    def run_rejoin(self, mode):
        """A running primary becomes a replica with commits that the new primary lacks, under readers."""
        nodes = self.nodes()
        writer = harness.RingWriter(self, nodes.path("a", "app.db"), mode).start()
        writer.wait_records(1)
        # So that what the orphans touch is a small part.
        filling = nodes.connect("a", "app.db", timeout=60)
        filling.execute("CREATE TABLE filling(x)")
        filling.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000) "
                        "INSERT INTO filling SELECT randomblob(1000) FROM n")
        filling.close()
        writer.stop()
        nodes.check_same()
        readers = {node: [harness.RingReader(self, nodes.path(node, "app.db"), *options).start()
                          for options in ((), ("open=ro", "mmap=1000000"), ("reopen=1",))]
                   for node in "ab"}
        nodes.ask("pause", "ok")
        writer = harness.RingWriter(self, nodes.path("a", "app.db")).start()
        writer.wait_records(50)
        writer.stop()
        idle = nodes.connect("a", "app.db")
        orphan = idle.execute("SELECT group_concat(balance) FROM account").fetchone()
        nodes.ask(f"split {WRITER_PATIENCE_MS}", "ok")
        for reader in readers["a"]:
            reader.wait_records(2)
        there = harness.RingWriter(self, nodes.path("b", "app.db")).start()
        there.wait_records(20)
        databases, pages, orphans = map(int, nodes.ask("rejoin", "ok").split()[1:])
        print(f"{mode}: {orphans} orphans, {pages} pages fetched")
        self.assertEqual(databases, 1)
        self.assertGreaterEqual(orphans, 50)
        self.assertLess(pages, 300)
        for reader in readers["a"] + readers["b"]:
            reader.wait_records(3)
        there.wait_records(20)
        there.stop()
        for reader in readers["a"] + readers["b"]:
            reader.stop()
        nodes.check_same()
        rows = [nodes.connect(node, "app.db").execute("SELECT group_concat(balance) FROM account").fetchone()
                for node in "ab"]
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(idle.execute("SELECT group_concat(balance) FROM account").fetchone(), rows[0])
        self.assertNotEqual(rows[0], orphan)
        self.assertEqual(nodes.connect("a", "app.db").execute("PRAGMA integrity_check").fetchone(), ("ok",))
        nodes.end()

    def test_r5_running_primary_takes_its_orphans_back_under_readers_in_wal_mode(self):
        self.run_rejoin("wal")

    def test_r5_running_primary_takes_its_orphans_back_under_readers_in_delete_mode(self):
        self.run_rejoin("delete")
