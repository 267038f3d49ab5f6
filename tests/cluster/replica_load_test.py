"""Many readers on the replica while the primary commits at full speed (invariants A1 to A5).

Every reader checks in each of its transactions what must hold in every state (ring.py), and no error of SQLite's
is survived: in WAL mode there is none, in rollback modes none after the busy timeout.
"""

import contextlib
import os
import random
import signal
import sqlite3
import time

import harness
from memory_cgroup import MemoryCgroup

SECONDS = harness.scaled(10, 300)


class ReplicaLoadTest(harness.ClusterTest):
    def start_writer(self, cluster, mode, page_size=4096):
        path = cluster.primary.path("app.db")
        harness.run(["sqlite3", path, f"PRAGMA page_size={page_size}; VACUUM;"])
        writer = harness.RingWriter(self, path, mode).start()
        writer.wait_records(10)
        cluster.wait_for_databases(["app.db"])
        # Earlier, a reader would find the tables missing.
        harness.wait_for(lambda: cluster.replica.execute("app.db", "SELECT count(*) FROM sqlite_schema")
                         == [(3,)], "the tables on the replica")
        return writer

    def run_load(self, mode, reader_options, seconds=SECONDS, page_size=4096, disturb=lambda _: None, prefix=()):
        """Readers with these options each, for so long; `disturb(cluster)` is called again and again.

        `prefix` is a command that starts the readers and the replica's node.
        """
        cluster = self.cluster(start=False)
        cluster.replica.prefix = list(prefix)
        cluster.start()
        writer = self.start_writer(cluster, mode, page_size)
        path = cluster.replica.path("app.db")
        readers = [harness.RingReader(self, path, *options) for options in reader_options]
        for reader in readers:
            reader.prefix = list(prefix)
            reader.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disturb(cluster)
            harness.wait_all_records([*readers, writer], 1)
        for application in (*readers, writer):
            application.stop()
        print(f"{mode}: {writer.record_count()} commits, {sum(reader.record_count() for reader in readers)} reads")
        cluster.wait_converged()
        self.assertEqual(cluster.replica.databases()["app.db"]["page_size"], page_size)
        return cluster

    def test_a2_sixteen_readers_in_wal_mode(self):
        self.run_load("wal", [[]] * 16)

    def test_a4_sixteen_readers_in_delete_mode(self):
        self.run_load("delete", [[]] * 16)

    def test_a4_sixteen_readers_in_truncate_mode(self):
        self.run_load("truncate", [[]] * 16)

    def test_a4_sixteen_readers_in_persist_mode(self):
        self.run_load("persist", [[]] * 16)

    def test_a2_ways_to_open_in_wal_mode(self):
        self.run_load("wal", [["mmap=100000000"], ["open=ro"], ["open=ro", "reopen=1"], ["reopen=1"],
                              ["hold=0.05"], ["mmap=100000000", "reopen=1"]])

    def test_a4_ways_to_open_in_delete_mode(self):
        self.run_load("delete", [["mmap=100000000"], ["open=ro"], ["open=ro", "reopen=1"], ["reopen=1"],
                                 ["hold=0.05"], ["mmap=100000000", "reopen=1"]])

    def run_killed_readers(self, mode):
        cluster = self.cluster()
        writer = self.start_writer(cluster, mode)
        path = cluster.replica.path("app.db")
        steady = [harness.RingReader(self, path).start() for _ in range(2)]
        chance = random.Random(4)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            victims = [harness.RingReader(self, path, "hold=0.01").start() for _ in range(4)]
            harness.wait_all_records(victims, chance.randrange(1, 4))
            for victim in victims:
                victim.process.send_signal(signal.SIGKILL)
                victim.process.wait(timeout=harness.WAIT_SECONDS)
            harness.wait_all_records(steady, 1)
        for application in (*steady, writer):
            application.stop()
        cluster.wait_converged()

    def test_a2_readers_killed_in_wal_mode(self):
        self.run_killed_readers("wal")

    def test_a4_readers_killed_in_delete_mode(self):
        self.run_killed_readers("delete")

    @staticmethod
    def drop_caches(_):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as switch:
            switch.write("3\n")

    @staticmethod
    def change_attributes(cluster):
        """As SQLite run by root does at every open, and more. All of it is refused on a replica (EPERM)."""
        for suffix in ("", "-wal", "-shm"):
            path = cluster.replica.path("app.db" + suffix)
            for change in (lambda p: os.chown(p, 0, 0), lambda p: os.chmod(p, 0o644), os.utime,
                           lambda p: os.truncate(p, 0)):
                with contextlib.suppress(PermissionError, FileNotFoundError):
                    change(path)

    @harness.needs_root
    def test_a2_kernel_caches_dropped_under_readers(self):
        for mode in ("wal", "delete"):
            with self.subTest(mode=mode):
                self.directory = os.path.join(os.environ["ECHOFS_TEST_DIR"], mode)
                os.mkdir(self.directory)
                self.run_load(mode, [[], ["mmap=100000000"], ["hold=0.05"]], SECONDS / 2,
                              disturb=self.drop_caches)

    def run_squeezed_readers(self, mode):
        """As in a container with little memory: what the daemon stores is its page cache, what is read the readers'."""
        cgroup = MemoryCgroup(self)
        reclaimed = []
        self.run_load(mode, [[], ["mmap=100000000"], ["hold=0.05"], ["reopen=1"]],
                      disturb=lambda _: reclaimed.append(cgroup.squeeze()), prefix=cgroup.prefix())
        print(f"page cache was reclaimed {len(reclaimed)} times, {sum(reclaimed) >> 10} KiB in all")
        self.assertGreater(sum(reclaimed), 0)

    @harness.needs_root
    def test_a2_readers_without_memory_for_pages_in_wal_mode(self):
        self.run_squeezed_readers("wal")

    @harness.needs_root
    def test_a4_readers_without_memory_for_pages_in_delete_mode(self):
        self.run_squeezed_readers("delete")

    @harness.needs_root
    def test_a2_attributes_changed_by_root_under_readers(self):
        for page_size in (512, 4096, 65536):
            with self.subTest(page_size=page_size):
                self.directory = os.path.join(os.environ["ECHOFS_TEST_DIR"], str(page_size))
                os.mkdir(self.directory)

                def disturb(cluster):
                    self.change_attributes(cluster)
                    self.drop_caches(cluster)

                self.run_load("wal", [[], ["mmap=100000000"], ["hold=0.05"]], SECONDS / 3, page_size,
                              disturb)

    def test_a5_page_size_changed_under_readers_that_stay(self):
        cluster = self.cluster(arguments=["--config", self.reader_timeout("2s")])
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(x)",
                                "INSERT INTO t VALUES (1)")
        cluster.primary.execute("other.db", "CREATE TABLE t(x)")
        cluster.wait_converged()
        idle = cluster.replica.connect("app.db")
        self.assertEqual(idle.execute("SELECT x FROM t").fetchall(), [(1,)])
        inside = cluster.replica.connect("app.db")
        inside.execute("BEGIN")
        self.assertEqual(inside.execute("SELECT x FROM t").fetchall(), [(1,)])
        cluster.primary.execute("app.db", "PRAGMA journal_mode=delete", "PRAGMA page_size=8192", "VACUUM",
                                "PRAGMA journal_mode=wal", "INSERT INTO t VALUES (2)")
        blocked = harness.wait_for(lambda: cluster.replica.databases()["app.db"].get("blocked_by_pid"),
                                   "the readers to be named")
        self.assertEqual(blocked, os.getpid())
        self.assertIn("blocked_for_ms", cluster.replica.databases()["app.db"])
        # Others go on meanwhile.
        cluster.primary.execute("other.db", "INSERT INTO t VALUES (3)")
        harness.wait_for(lambda: cluster.replica.execute("other.db", "SELECT x FROM t") == [(3,)],
                         "the other database")
        cluster.wait_positions()
        for connection in (idle, inside):
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("COMMIT")
            self.assertEqual(self.wait_for_error(connection), "disk I/O error")
            connection.close()
        self.assertEqual(cluster.replica.execute("app.db", "SELECT x FROM t"), [(1,), (2,)])
        self.assertEqual(cluster.replica.execute("app.db", "PRAGMA page_size"), [(8192,)])
        self.assertIn("reader-timeout", cluster.replica.log_text())
        cluster.primary.execute("app.db", "INSERT INTO t VALUES (3)")
        cluster.wait_converged()

    def wait_for_error(self, connection):
        """The error of a query that has gone well so far."""
        def failed():
            try:
                self.assertEqual(connection.execute("SELECT x FROM t").fetchall(), [(1,)])
            except sqlite3.Error as error:
                return str(error)
            return None

        return harness.wait_for(failed, "the old connection to fail")

    def reader_timeout(self, value):
        path = os.path.join(self.directory, "timeout.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"replication: {{ reader-timeout: {value} }}\n")
        return path
