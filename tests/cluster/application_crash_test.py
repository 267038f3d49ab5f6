"""Applications that die in the middle of what they do (design C3)."""

import fcntl
import os
import signal
import sqlite3
import struct
import subprocess
import sys

from harness import ClusterTest


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
        alive = sqlite3.connect(path, isolation_level=None, timeout=20)
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
            connection = sqlite3.connect(cluster.primary.path(name), isolation_level=None, timeout=30)
            self.addCleanup(connection.close)
            connection.execute(f"pragma journal_mode={mode}")
            connection.execute("create table t(id integer primary key, v)")
            alive[name] = connection
        script = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
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


