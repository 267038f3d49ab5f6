"""Applications that die in the middle of what they do (design C3)."""

import fcntl
import os
import signal
import sqlite3
import struct
import subprocess
import sys

from harness import COMMAND_SECONDS, ClusterTest, run, scaled

CRASH_WRITER = os.environ["ECHOFS_CRASH_WRITER"]


def wal_checksum(data, s0, s1, order):
    for (a, b) in struct.iter_unpack(order + "II", data):
        s0 = (s0 + a + s1) & 0xFFFFFFFF
        s1 = (s1 + b + s0) & 0xFFFFFFFF
    return s0, s1


def write_commit_and_die(database, page, page_count, content):
    """As a SQLite connection: locks WRITE, appends one commit frame, and is killed before the wal-index."""
    shm = os.open(database + "-shm", os.O_RDWR)
    fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
    index = os.pread(shm, 48, 0)
    frame = struct.unpack_from("=I", index, 16)[0]
    wal = os.open(database + "-wal", os.O_RDWR)
    header = os.pread(wal, 32, 0)
    order = ">" if struct.unpack_from(">I", header, 0)[0] & 1 else "<"
    size = struct.unpack_from(">I", header, 8)[0]
    offset = 32 + frame * (size + 24)
    # The checksum of the last frame that SQLite knows, where the chain goes on.
    s0, s1 = struct.unpack_from(">II", os.pread(wal, 24, offset - size - 24), 16)
    start = struct.pack(">II", page, page_count)
    s0, s1 = wal_checksum(start, s0, s1, order)
    s0, s1 = wal_checksum(content, s0, s1, order)
    os.pwrite(wal, start + header[16:24] + struct.pack(">II", s0, s1), offset)
    os.pwrite(wal, content, offset + 24)
    os.kill(os.getpid(), signal.SIGKILL)


class ApplicationCrashTest(ClusterTest):
    def test_commit_whose_writer_died_before_the_wal_index_counts_C3(self):
        cluster = self.cluster()
        path = cluster.primary.path("c.db")
        alive = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.addCleanup(alive.close)
        alive.execute("pragma journal_mode=wal")
        alive.execute("create table t(v text)")
        alive.execute("insert into t values('AAAA')")
        cluster.wait_converged()
        # What page 2 would be with another value in the row.
        with open(path + "-wal", "rb") as wal:
            data = wal.read()
        at = data.rindex(b"AAAA")
        frame = (at - 32) // (4096 + 24)
        content = data[32 + frame * 4120 + 24:32 + (frame + 1) * 4120].replace(b"AAAA", b"BBBB")
        page = struct.unpack_from(">I", data, 32 + frame * 4120)[0]
        child = os.fork()
        if child == 0:
            try:
                write_commit_and_die(path, page, 2, content)
            finally:
                os._exit(1)
        self.assertEqual(os.WTERMSIG(os.waitpid(child, 0)[1]), signal.SIGKILL)

        self.assertEqual(alive.execute("select v from t").fetchall(), [("BBBB",)])
        alive.execute("insert into t values('CCCC')")
        self.assertEqual(alive.execute("select v from t").fetchall(), [("BBBB",), ("CCCC",)])
        cluster.wait_converged()
        replica = sqlite3.connect(cluster.replicas[0].path("c.db"))
        self.addCleanup(replica.close)
        self.assertEqual(replica.execute("select v from t").fetchall(), [("BBBB",), ("CCCC",)])

    def test_killed_writers_leave_live_connections_working(self):
        cluster = self.cluster()
        names = [("w.db", "wal"), ("d.db", "delete")]
        alive = {}
        for name, mode in names:
            connection = sqlite3.connect(cluster.primary.path(name), isolation_level=None, timeout=60)
            self.addCleanup(connection.close)
            connection.execute(f"pragma journal_mode={mode}")
            connection.execute("create table t(id integer primary key, v)")
            alive[name] = connection
        script = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
c.execute('pragma cache_size=5')
c.execute('pragma synchronous=normal')
while True:
    c.execute('begin immediate')
    for _ in range(20):
        c.execute('insert into t(v) values(randomblob(900))')
    last = c.execute('select max(id) from t').fetchone()[0]
    c.execute('commit')
    print(last, flush=True)
"""
        for round_number in range(20):
            for name, _ in names:
                writer = subprocess.Popen([sys.executable, "-c", script, cluster.primary.path(name)],
                                          stdout=subprocess.PIPE, text=True)
                acknowledged = 0
                for _ in range(1 + round_number % 4):
                    acknowledged = int(writer.stdout.readline())
                writer.kill()
                for line in writer.stdout.read().splitlines():
                    acknowledged = int(line) if line.isdigit() else acknowledged
                writer.wait()
                writer.stdout.close()
                found = alive[name].execute("select max(id), count(*) from t").fetchone()
                self.assertGreaterEqual(found[0], acknowledged)
                self.assertEqual(found[1] % 20, 0)
        for name, _ in names:
            self.assertEqual(alive[name].execute("pragma integrity_check").fetchone(), ("ok",))
        cluster.wait_converged()


class KilledWriterTest(ClusterTest):
    """Writers that crash_writer kills; see its head for what it checks by itself."""

    def create(self, cluster, name, mode):
        cluster.primary.execute(
            name, f"pragma journal_mode={mode}", "create table t(id integer primary key, round, n, v)",
            "create table b(id integer primary key, v)")
        cluster.wait_converged()

    def crash(self, cluster, *arguments, names):
        done = run([CRASH_WRITER, *map(str, arguments), cluster.primary.mount, cluster.replica.mount, *names],
                   check=False, seconds=scaled(COMMAND_SECONDS, 3000))
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr)
        return done.stdout

    def end(self, cluster):
        cluster.wait_converged()
        # A replica that had to fetch a database again would hide that an entry was wrong.
        self.assertNotIn("digest", cluster.replica.log_text())

    def steps(self, mode, synchronous, rows, after="", names=("a.db",)):
        """Kills a writer after each of its operations; returns [(operation, kept, returned)]."""
        cluster = self.cluster()
        for name in names:
            self.create(cluster, name, "wal" if mode == "new-wal" else mode)
        output = self.crash(cluster, "steps", mode, synchronous, rows, after, names=names)
        found = []
        for line in output.splitlines():
            operation, outcome = line.split(" after ", 1)[1].split(": ")
            found.append((operation, outcome.startswith("kept"), outcome.endswith("COMMIT returned")))
        self.assertEqual(found[-1], ("nothing", True, True), "the last one must come to its end")
        self.end(cluster)
        return found

    def check_window(self, found, operation):
        """Somebody was killed after the commit and before SQLite knew of it, and it counts."""
        self.assertIn((operation, True, False), found)
        self.assertIn(False, [kept for _, kept, _ in found])

    def test_c3_wal_commit_killed_after_each_operation_normal(self):
        self.check_window(self.steps("wal", "normal", scaled(3, 60)), "write -wal")

    def test_c5_checkpoint_killed_after_each_operation(self):
        found = self.steps("new-wal", "normal", scaled(3, 60), after="pragma wal_checkpoint(truncate)")
        self.check_window(found, "write -wal")
        operations = [operation for operation, _, _ in found]
        for operation in ("sync -wal", "write database", "sync database", "truncate -wal"):
            self.assertIn(operation, operations)

    def test_c3_wal_commit_killed_after_each_operation_full(self):
        found = self.steps("wal", "full", scaled(3, 60))
        self.check_window(found, "write -wal")
        self.check_window(found, "sync -wal")
        self.check_window(found, "barrier -shm")

    def test_c3_wal_commit_of_one_frame_killed_after_each_operation(self):
        self.check_window(self.steps("wal", "normal", 1), "write -wal")

    def test_c3_first_commit_of_a_wal_killed_after_each_operation(self):
        found = self.steps("new-wal", "full", scaled(3, 60))
        self.check_window(found, "write -wal")
        self.check_window(found, "sync -wal")

    def test_c4_delete_commit_killed_after_each_operation(self):
        found = self.steps("delete", "full", scaled(3, 60))
        self.check_window(found, "delete -journal")
        operations = [operation for operation, _, _ in found]
        # Between the journal's header and the first page, and between pages and commit.
        self.assertLess(operations.index("write -journal"), operations.index("write database"))
        self.assertLess(operations.index("write database"), operations.index("delete -journal"))

    def test_c4_truncate_commit_killed_after_each_operation(self):
        self.check_window(self.steps("truncate", "normal", scaled(3, 60)), "truncate -journal")

    def test_c4_persist_commit_killed_after_each_operation(self):
        self.check_window(self.steps("persist", "full", scaled(3, 60)), "write -journal")

    def test_c7_commit_over_attached_databases_killed_after_each_operation(self):
        found = self.steps("delete", "normal", 2, names=("a.db", "b.db", "c.db"))
        self.check_window(found, "delete super-journal")

    def test_c7_wal_commit_over_attached_databases_killed_after_each_operation(self):
        found = self.steps("wal", "normal", 2, names=("a.db", "b.db"))
        self.check_window(found, "write -wal")

    def test_c3_c4_writers_killed_at_random_moments(self):
        cluster = self.cluster()
        for mode in ("wal", "delete", "truncate", "persist"):
            name = f"{mode}.db"
            self.create(cluster, name, mode)
            print(mode, self.crash(cluster, "random", mode, scaled(75, 1000), os.getpid(), names=[name]),
                  flush=True)
        self.end(cluster)
