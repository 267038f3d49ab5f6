"""What LiteFS 0.5.14 gets wrong (design.md, section 9): one test for each failure, named after it.

Elsewhere, for they need what is there:
- journal_mode=MEMORY never replicates, COMMIT succeeds although capture failed, commit cost grows with the WAL:
  litefs_commit_failures_test.py
- a writer killed between commit frame and wal-index update breaks all live connections:
  application_crash_test.py
Not yet, they come with what they are about:
- an expired primary goes on committing, election ignores position, writes during a handoff are lost,
  diverged transactions are thrown away: issue 5
- an import name with `../` writes outside the data directory: issue 7 (names that come over the wire are in
  tests/replication/hostile_primary_test.cc)
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import sqlite3
import struct
import subprocess
import sys

import harness

COMMITS = 2000  # beside an open reader


class FilesCreated:
    """Names of files that are created in a directory, as inotify tells them."""

    IN_CREATE = 0x100

    def __init__(self, directory):
        libc = ctypes.CDLL(None)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self.descriptor, directory.encode(), self.IN_CREATE) >= 0

    def names(self):
        """Since the last call."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(self.descriptor, 1 << 16)
        found = []
        while data:
            size = struct.unpack_from("=iIII", data)[3]
            found.append(data[16:16 + size].rstrip(b"\0").decode())
            data = data[16 + size:]
        return found


class LiteFsFailuresTest(harness.ClusterTest):
    def test_vacuum_in_wal_mode_of_a_database_over_1_mb(self):
        cluster = self.cluster()
        cluster.primary.fill("app.db", "wal", rows=4000)
        before = cluster.primary.databases()["app.db"]
        self.assertGreater(before["pages"] * before["page_size"], 4_000_000)
        for statements in (["VACUUM"], ["DELETE FROM t WHERE id % 4", "VACUUM"]):
            cluster.wait_positions()
            reader = cluster.replica.connect("app.db")
            count = reader.execute("SELECT count(*) FROM t").fetchall()
            cluster.primary.execute("app.db", *statements)
            cluster.wait_positions()
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(),
                             count if statements == ["VACUUM"] else [(1000,)])
            reader.close()
            cluster.wait_converged()
        self.assertLess(cluster.replica.databases()["app.db"]["pages"], before["pages"] / 2)

    def test_wal_to_delete_kills_every_replica_for_good(self):
        cluster = self.cluster(replicas=2)
        cluster.primary.fill("app.db", "wal", rows=100)
        cluster.wait_converged()
        for mode in ("delete", "wal", "delete"):
            self.assertEqual(cluster.primary.execute("app.db", f"PRAGMA journal_mode={mode}"), [(mode,)])
            cluster.primary.execute("app.db", "INSERT INTO t(x) VALUES (randomblob(1000))")
            cluster.wait_converged()
        # Neither now nor at the next start.
        for replica in cluster.replicas:
            self.assertEqual(replica.stop(), 0)
        cluster.primary.execute("app.db", "INSERT INTO t(x) VALUES (randomblob(1000))")
        for replica in cluster.replicas:
            replica.start()
        cluster.primary.execute("app.db", "INSERT INTO t(x) VALUES (randomblob(1000))")
        cluster.wait_converged()
        for replica in cluster.replicas:
            self.assertEqual(replica.execute("app.db", "SELECT count(*) FROM t"), [(105,)])
            self.assertEqual(replica.journal_mode("app.db"), "delete")

    def change_page_size(self, cluster, page_size, mode):
        # SQLite changes the page size in a rollback mode only.
        found = cluster.primary.execute("app.db", "PRAGMA journal_mode=delete", f"PRAGMA page_size={page_size}",
                                        "VACUUM", f"PRAGMA journal_mode={mode}")
        self.assertEqual(found, [(mode,)])

    def test_changed_page_size_corrupts(self):
        cluster = self.cluster()
        count = "SELECT count(*) FROM t"
        for mode in ("delete", "wal"):
            cluster.primary.fill("app.db", mode)
            for page_size in (512, 65536, 1024, 8192):
                cluster.wait_converged()
                reader = cluster.replica.connect("app.db")
                self.assertEqual(reader.execute(count).fetchall(), [(2000,)])
                self.change_page_size(cluster, page_size, mode)
                if mode == "wal":
                    # No connection can go on in a WAL with other pages: apply waits until this one is gone.
                    harness.wait_for(lambda: cluster.replica.databases()["app.db"].get("blocked_by_pid") ==
                                     os.getpid(), "the reader in status")
                    self.assertEqual(reader.execute(count).fetchall(), [(2000,)])
                    reader.close()
                cluster.wait_positions()
                self.assertEqual(cluster.replica.databases()["app.db"]["page_size"], page_size)
                if mode == "delete":
                    self.assertEqual(reader.execute(count).fetchall(), [(2000,)])
                    reader.close()
                cluster.wait_converged()
            os.unlink(cluster.primary.path("app.db"))

    def test_attach_commits_fail_with_eio(self):
        cluster = self.cluster()
        created = FilesCreated(cluster.primary.mount)
        databases = []
        for modes in (("delete", "delete", "delete"), ("wal", "wal", "wal"), ("persist", "truncate", "delete"),
                      ("wal", "delete", "wal")):
            names = ["-".join(modes) + f"-{number}.db" for number in range(3)]
            databases += names
            connection = cluster.primary.connect(names[0])
            schemas = ("main", "second", "third")
            for schema, name, mode in zip(schemas, names, modes):
                if schema != "main":
                    connection.execute(f"ATTACH ? AS {schema}", (cluster.primary.path(name),))
                connection.execute(f"PRAGMA {schema}.journal_mode={mode}")
                connection.execute(f"CREATE TABLE {schema}.t(x)")
            cluster.wait_positions()
            before = cluster.primary.databases()
            for number in range(20):
                connection.execute("BEGIN")
                for schema in schemas:
                    connection.execute(f"INSERT INTO {schema}.t VALUES (?)", (number,))
                connection.execute("ROLLBACK" if number % 5 == 0 else "COMMIT")
            connection.close()
            cluster.wait_converged()
            after = cluster.primary.databases()
            for name in names:
                self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(16,)])
                self.assertEqual(int(after[name]["txid"], 16), int(before[name]["txid"], 16) + 16)
            # Two or more rollback journals commit by a super-journal.
            self.assertEqual(any("-mj" in name for name in created.names()), modes.count("wal") < 2, modes)
        self.assertEqual([name for name in os.listdir(cluster.primary.mount) if "-mj" in name], [])
        self.assertEqual(sorted(cluster.wait_converged()), sorted(databases))

    def test_c4_persist_with_journal_size_limit_fails_every_write(self):
        cluster = self.cluster()
        for limit in (0, 100, 4000, 1_000_000):
            name = f"limit{limit}.db"
            connection = cluster.primary.connect(name)
            connection.execute("PRAGMA journal_mode=persist")
            connection.execute(f"PRAGMA journal_size_limit={limit}")
            connection.execute("CREATE TABLE t(x)")
            for _ in range(10):
                connection.execute("INSERT INTO t VALUES (randomblob(9000))")
            connection.close()
            cluster.wait_converged()
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), 11)

    def test_c8_psow_0_leaves_the_replica_behind(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            name = mode + ".db"
            connection = sqlite3.connect(f"file:{cluster.primary.path(name)}?psow=0", uri=True,
                                         isolation_level=None)
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE t(x)")
            for number in range(30):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
                if number % 10 == 0:
                    cluster.wait_positions()
            connection.close()
            cluster.wait_converged()
            # The duplicates of commit frames are no transactions. Entering WAL mode is one.
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16),
                             32 if mode == "wal" else 31)

    def test_a2_open_reader_on_a_replica_stalls_replication(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal",
                                "CREATE TABLE t(id INTEGER PRIMARY KEY, n, filler)",
                                "INSERT INTO t SELECT value, 0, randomblob(200) FROM "
                                "(WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c "
                                "LIMIT 500) SELECT value FROM c)")
        cluster.wait_converged()
        question = "SELECT count(*), sum(n), total(length(filler)) FROM t"
        old = cluster.replica.connect("app.db")
        old.execute("BEGIN")
        before = old.execute(question).fetchall()
        self.assertEqual(before[0][:2], (500, 0))
        new = cluster.replica.connect("app.db")
        writer = cluster.primary.connect("app.db")
        writer.execute("PRAGMA synchronous=NORMAL")
        for number in range(1, COMMITS + 1):
            if number % 2:
                writer.execute("UPDATE t SET n = n + 1, filler = randomblob(250) WHERE id = ?",
                               (number % 500 + 1,))
            else:
                writer.execute("INSERT INTO t(n, filler) VALUES (1, randomblob(300))")
            if number % 400 == 0:
                cluster.wait_positions()
                self.assertEqual(old.execute(question).fetchall(), before)
                self.assertEqual(new.execute("SELECT sum(n) FROM t").fetchall(), [(number,)])
        cluster.wait_positions()
        self.assertEqual(old.execute(question).fetchall(), before)
        self.assertEqual(new.execute("SELECT count(*), sum(n) FROM t").fetchall(),
                         [(500 + COMMITS // 2, COMMITS)])
        self.assertEqual(cluster.replica.databases()["app.db"]["state"], "ok")
        old.execute("COMMIT")
        self.assertEqual(old.execute("SELECT sum(n) FROM t").fetchall(), [(COMMITS,)])
        for connection in (old, new, writer):
            connection.close()
        cluster.wait_converged()

    def test_partly_failed_range_lock_leaks_bytes(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        cluster.wait_converged()
        flock = struct.Struct("hhqqi4x")
        for node in cluster.nodes:
            # Owned by open descriptions, such locks conflict within one process.
            with contextlib.ExitStack() as stack:
                holder, partly, witness = (stack.enter_context(open(node.path("app.db"), "r+b"))
                                           for _ in range(3))

                def lock(file, kind, start, size):
                    fcntl.fcntl(file, fcntl.F_OFD_SETLK, flock.pack(kind, os.SEEK_SET, start, size, 0))

                lock(holder, fcntl.F_WRLCK, 10, 10)
                with self.assertRaises(OSError) as raised:
                    lock(partly, fcntl.F_WRLCK, 0, 30)
                self.assertIn(raised.exception.errno, (errno.EAGAIN, errno.EACCES))
                for start in (0, 20):
                    lock(witness, fcntl.F_WRLCK, start, 10)
                with self.assertRaises(OSError):
                    lock(witness, fcntl.F_WRLCK, 19, 1)
                lock(holder, fcntl.F_UNLCK, 10, 10)
                lock(witness, fcntl.F_WRLCK, 0, 30)
        cluster.primary.execute("app.db", "INSERT INTO t VALUES (1)")
        cluster.wait_converged()

    def test_non_database_file_leaves_a_phantom_database(self):
        cluster = self.cluster()
        for number, content in enumerate((b"", b"no database", b"SQLite format 4\0" * 1000)):
            name = f"app{number}.db"
            path = cluster.primary.path(name)
            with open(path, "wb") as file:
                file.write(content)
            self.assertFalse(os.path.exists(path + "-pos"))
            cluster.primary.execute("other.db", "CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (1)")
            self.assertEqual(cluster.wait_converged(), ["other.db"])
            self.assertFalse(os.path.exists(cluster.replica.path(name)))
            self.assertEqual(cluster.primary.stop(), 0)
            cluster.primary.start()
            self.assertEqual(cluster.wait_converged(), ["other.db"])
            with open(path, "rb") as file:
                self.assertEqual(file.read(), content)
            os.unlink(path)
        # The names are still good.
        for number in range(3):
            cluster.primary.execute(f"app{number}.db", "CREATE TABLE t(x)")
        self.assertEqual(sorted(cluster.wait_converged()), ["app0.db", "app1.db", "app2.db", "other.db"])

    def test_busy_mount_survives_exit(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(x)",
                                "INSERT INTO t VALUES (1)")
        cluster.wait_converged()
        program = ("import sqlite3, sys\n"
                   "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                   "c.execute('BEGIN IMMEDIATE')\n"
                   "c.execute('INSERT INTO t VALUES (2)')\n"
                   "print('inside', flush=True)\n"
                   "sys.stdin.readline()\n"
                   "try:\n"
                   "    c.execute('COMMIT')\n"
                   "except sqlite3.Error as error:\n"
                   "    print(error.sqlite_errorname, flush=True)\n")
        application = self.spawn([sys.executable, "-c", program, cluster.primary.path("app.db")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(application.stdout.close)
        self.addCleanup(application.stdin.close)
        self.assertEqual(application.stdout.readline(), "inside\n")
        self.assertEqual(cluster.primary.stop(), 0)  # and the mount is gone
        self.assertIn(str(application.pid), cluster.primary.log_text())
        self.assertEqual(os.listdir(cluster.primary.mount), [])
        application.stdin.write("\n")
        application.stdin.flush()
        self.assertRegex(application.stdout.readline(), r"\ASQLITE_IOERR")
        self.assertEqual(application.wait(timeout=harness.WAIT_SECONDS), 0)
        cluster.primary.start()
        self.assertEqual(cluster.primary.execute("app.db", "SELECT x FROM t"), [(1,)])
        cluster.primary.execute("app.db", "INSERT INTO t VALUES (3)")
        cluster.wait_converged()
        self.assertEqual(cluster.replica.execute("app.db", "SELECT x FROM t"), [(1,), (3,)])
