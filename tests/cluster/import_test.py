"""`echofs import`: a database file becomes one transaction of the cluster, under applications that stay connected, or
nothing happens at all."""

import contextlib
import glob
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import threading

from database_content import read_database
from harness import ClusterTest
from processes import WAIT_SECONDS, children_of, process_name, wait_for

ROWS = 3000


def make_database(path, mode, page_size, label, rows=ROWS, row_size=500):
    """All rows carry the label, so that a mixture of two databases shows."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, label, x)")
        connection.execute("CREATE INDEX t_label ON t(label, id)")
        connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) "
                           "INSERT INTO t SELECT i, ?, randomblob(?) FROM n", (rows, label, row_size))
        connection.execute("PRAGMA user_version=77")
    return path


def content(path):
    return read_database(sqlite3.connect(f"file:{path}?mode=ro", uri=True))


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Watcher:
    """A connection that stays, and reads whole states in a thread: each must be one of the labels, with all rows."""

    def __init__(self, test, path, counts):
        self.counts = counts  # rows by label
        self.seen = set()
        self.errors = []
        self.ended = False
        self.path = path
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        test.addCleanup(self.stop)

    def run(self):
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=60, isolation_level=None)
        try:
            while not self.ended and not self.errors:
                rows = connection.execute("SELECT label, count(*), min(id), max(id) FROM t GROUP BY label").fetchall()
                if len(rows) != 1 or rows[0][1:] != (self.counts[rows[0][0]], 1, self.counts[rows[0][0]]):
                    self.errors.append(rows)
                self.seen.add(rows[0][0])
        except sqlite3.Error as error:
            self.errors.append(str(error))
        connection.close()

    def wait_seen(self, label):
        wait_for(lambda: label in self.seen or self.errors, f"{label} to be seen in {self.path}")
        assert not self.errors, self.errors

    def stop(self):
        self.ended = True
        self.thread.join()
        assert not self.errors, self.errors


class ImportTest(ClusterTest):
    def setUp(self):
        super().setUp()
        # Where copies are put together, by the commands and by the primary's part of them.
        self.copies = os.environ["TMPDIR"] = os.path.join(self.directory, "copies")
        os.mkdir(self.copies)

    def source(self, name, *arguments, **options):
        return make_database(os.path.join(self.directory, name), *arguments, **options)

    def position(self, node, name):
        found = node.databases().get(name)
        return found and (found["txid"], found["digest"], found["pages"])

    def test_new_databases_of_each_mode_and_page_size(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            for page_size in (512, 1024, 4096, 65536):
                name = f"sub/{mode}-{page_size}.db"
                source = self.source(os.path.basename(name), mode, page_size, "new", rows=500)
                before = file_hash(source)
                answer = json.loads(cluster.primary.echofs("import", name, source, "--json").stdout)
                self.assertEqual(answer["page_size"], page_size)
                self.assertEqual(int(answer["txid"], 16), 1)
                self.assertEqual(file_hash(source), before)
                self.assertEqual(glob.glob(source + "-*"), [])
                cluster.wait_for_databases([name])
                self.assertEqual(content(cluster.primary.path(name)), content(source))
                self.assertEqual(cluster.primary.journal_mode(name), mode)
        self.assertEqual(len(cluster.wait_converged()), 8)

    def test_what_only_the_wal_of_the_file_has(self):
        cluster = self.cluster()
        source = self.source("live.db", "wal", 4096, "old")
        with contextlib.closing(sqlite3.connect(source, isolation_level=None)) as writer:
            writer.execute("PRAGMA wal_autocheckpoint=0")
            writer.execute("UPDATE t SET label = 'committed'")
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE t SET label = 'open'")
            cluster.primary.echofs("import", "app.db", source)
            writer.execute("ROLLBACK")
        self.assertEqual(cluster.primary.execute("app.db", "SELECT DISTINCT label FROM t"), [("committed",)])
        self.assertEqual(cluster.wait_converged(), ["app.db"])

    def run_replace(self, here, there, source_format):
        """`here` and `source_format` are (journal mode, page size); the import is done on the node `there`."""
        cluster = self.cluster()
        node = cluster.primary if there == "primary" else cluster.replica
        old = self.source("old.db", *here, "old")
        new = self.source("new.db", *source_format, "new", rows=2 * ROWS)
        cluster.primary.echofs("import", "app.db", old)
        cluster.wait_converged()
        watchers = [Watcher(self, each.path("app.db"), {"old": ROWS, "new": 2 * ROWS}) for each in cluster.nodes]
        for watcher in watchers:
            watcher.wait_seen("old")
        refused = node.echofs("import", "app.db", new, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--replace", refused.stderr)
        answer = json.loads(node.echofs("import", "app.db", new, "--replace", "--json").stdout)
        self.assertEqual(int(answer["txid"], 16), 2, "it was not one change set")
        for watcher in watchers:
            watcher.wait_seen("new")
            watcher.stop()
        self.assertEqual(cluster.wait_converged(), ["app.db"])
        self.assertEqual(content(cluster.primary.path("app.db"))[:2], content(new)[:2])
        self.assertEqual(cluster.primary.journal_mode("app.db"), here[0])
        self.assertEqual(cluster.primary.execute("app.db", "PRAGMA page_size"), [(here[1],)])
        self.assertEqual(cluster.primary.execute("app.db", "PRAGMA user_version"), [(77,)])
        self.assertEqual(os.listdir(self.copies), [])
        self.assertEqual(glob.glob(os.path.join(cluster.primary.data, "tmp", "import*")), [])

    def test_replace_wal_under_connected_applications(self):
        self.run_replace(("wal", 4096), "primary", ("wal", 4096))

    def test_replace_wal_by_a_file_with_small_pages(self):
        self.run_replace(("wal", 4096), "primary", ("delete", 512))

    def test_replace_delete_by_a_wal_file_with_large_pages(self):
        self.run_replace(("delete", 1024), "primary", ("wal", 65536))

    def test_replace_by_a_replica_in_wal_mode(self):
        self.run_replace(("wal", 4096), "replica", ("wal", 4096))

    def test_replace_by_a_replica_in_delete_mode(self):
        self.run_replace(("delete", 4096), "replica", ("delete", 4096))

    def test_applications_write_before_and_after(self):
        cluster = self.cluster()
        new = self.source("new.db", "wal", 4096, "new")
        cluster.primary.echofs("import", "app.db", new)
        writer = self.writer(cluster.primary.path("app.db"), "wal").start()
        writer.wait_commits(50)
        cluster.primary.echofs("import", "app.db", new, "--replace")
        # Its table is gone with the old content: it says so, opens the database anew and makes it again.
        wait_for(lambda: "no such table" in writer.log_text(), "the writer to see the new content")
        writer.wait_commits(50)
        writer.stop()
        self.assertEqual(cluster.wait_converged(), ["app.db"])

    def test_a_damaged_file_is_refused_and_nothing_changes(self):
        cluster = self.cluster()
        good = self.source("good.db", "wal", 4096, "good")
        cluster.primary.echofs("import", "app.db", good)
        cluster.wait_converged()
        before = self.position(cluster.primary, "app.db")
        damaged = self.source("damaged.db", "delete", 4096, "bad")
        with open(damaged, "r+b") as file:
            for page in range(2, 40):
                file.seek(page * 4096)
                file.write(os.urandom(64))
        no_database = os.path.join(self.directory, "text")
        with open(no_database, "w", encoding="ascii") as file:
            file.write("this is no database\n" * 1000)
        for node in cluster.nodes:
            for file, said in ((damaged, "is damaged"), (no_database, "not a database"),
                               (self.directory + "/none", "none")):
                for name, options in (("new.db", []), ("app.db", ["--replace"])):
                    done = node.echofs("import", name, file, *options, check=False)
                    self.assertEqual(done.returncode, 1, done.stdout)
                    self.assertIn(said, done.stderr)
        self.assertEqual(self.position(cluster.primary, "app.db"), before)
        self.assertEqual(os.listdir(cluster.primary.mount), ["app.db"])
        self.assertEqual(cluster.wait_converged(), ["app.db"])

    def test_names_that_are_none(self):
        cluster = self.cluster()
        source = self.source("new.db", "wal", 4096, "new", rows=10)
        outside = os.path.join(self.directory, "outside.db")
        for node in cluster.nodes:
            for name in ("../outside.db", "a/../../outside.db", outside, "", "a//b.db", "./a.db", "a/.", "a.db-wal",
                         "a.db-journal", "a.db-shm", "a.db-pos", ".primary", "x" * 1025):
                done = node.echofs("import", name, source, check=False)
                self.assertEqual(done.returncode, 2, f"{name!r}: {done.stderr}")
        self.assertFalse(os.path.exists(outside))
        self.assertEqual(cluster.primary.databases(), {})
        # A local file, and a link that leads out of the mount where links can be made.
        with open(cluster.primary.path("local"), "w", encoding="ascii") as file:
            file.write("text")
        done = cluster.primary.echofs("import", "local", source, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no database of the cluster", done.stderr)
        cluster.primary.echofs("import", "--db=-dash.db", f"--file={source}")
        cluster.replica.echofs("import", "--db=-dash2.db", f"--file={source}")
        self.assertEqual(sorted(cluster.wait_converged()), ["-dash.db", "-dash2.db"])

    def kill_when(self, node, name, arguments, begun):
        """SIGKILL of `echofs import` as soon as begun() is true; it must not be done by then."""
        command = [os.environ["ECHOFS"], "import", name, *arguments, "--data-dir", node.data]
        process = self.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(begun, "the import to be in the middle")
        process.kill()
        self.assertEqual(process.wait(timeout=WAIT_SECONDS), -signal.SIGKILL)

    def grown(self, path, size):
        return lambda: os.path.exists(path) and os.path.getsize(path) > size

    def test_killed_in_the_middle_nothing_is_half_done(self):
        cluster = self.cluster()
        big = self.source("big.db", "wal", 4096, "big", rows=200_000)
        small = self.source("small.db", "wal", 4096, "small")
        files = os.path.join(cluster.primary.data, "files")
        self.kill_when(cluster.primary, "new.db", [big], self.grown(files + "/new.db", 1 << 20))
        self.assertNotIn("new.db", cluster.primary.databases())
        cluster.primary.echofs("import", "new.db", small)
        self.assertEqual(content(cluster.primary.path("new.db")), content(small))
        for mode in ("wal", "delete"):
            name = mode + ".db"
            cluster.primary.echofs("import", name, self.source("is-" + name, mode, 4096, mode))
            cluster.wait_for_databases([name])
            before = self.position(cluster.primary, name)
            # In rollback modes the journal has to have what the transaction overwrites.
            grows = f"{files}/{name}-wal" if mode == "wal" else f"{files}/{name}"
            size = 4 << 20 if mode == "wal" else os.path.getsize(grows) + (1 << 20)
            self.kill_when(cluster.primary, name, [big, "--replace"], self.grown(grows, size))
            self.assertEqual(cluster.primary.execute(name, "SELECT DISTINCT label FROM t"), [(mode,)])
            self.assertEqual(self.position(cluster.primary, name), before)
            cluster.primary.echofs("import", name, small, "--replace")
            self.assertEqual(content(cluster.primary.path(name))[:2], content(small)[:2])
        self.assertEqual(sorted(cluster.wait_converged()), ["delete.db", "new.db", "wal.db"])

    def test_killed_on_a_replica_nothing_is_half_done(self):
        cluster = self.cluster()
        big = self.source("big.db", "wal", 4096, "big", rows=200_000)
        small = self.source("small.db", "wal", 4096, "small")
        received = os.path.join(cluster.primary.data, "tmp", "import")
        self.kill_when(cluster.replica, "new.db", [big], self.grown(received, 1 << 20))
        wait_for(lambda: not os.path.exists(received), "what was received to be removed")
        self.kill_when(cluster.replica, "new.db", [big],
                       self.grown(os.path.join(cluster.primary.data, "files", "new.db"), 1 << 20))
        # The process that imports on the primary ends too, or was done in this moment.
        daemon = cluster.primary.daemon()
        wait_for(lambda: not [pid for pid in children_of(daemon) if process_name(pid) == "exe"],
                 "the primary's part to end")
        wait_for(lambda: not os.path.exists(received), "what was received to be removed")
        self.assertNotIn("new.db", cluster.primary.databases())
        cluster.replica.echofs("import", "new.db", small)
        self.assertEqual(cluster.wait_converged(), ["new.db"])
        self.assertEqual(content(cluster.primary.path("new.db")), content(small))
