"""After a SIGKILL the time to recover is bounded by what was written last, not by the size of the database (L5)."""

import os
import signal
import time

import harness
from processes import scaled
from sparse_database import write_sparse_database

NAME = "big.db"
SIZE = scaled(1 << 30, 10 << 30)
ROWS = 50
PROGRAM = 16 << 20  # bytes that a start reads anyway: the program's own and the libraries' files


class BigDatabaseTest(harness.ClusterTest):
    def tail(self, node):
        """Bytes that were written last: the WAL, and the segment of the log that is not finished."""
        segments = os.path.join(node.data, "log")
        newest = max(name for name in os.listdir(segments) if name.endswith(".seg"))
        wal = os.path.join(node.data, "files", NAME + "-wal")
        return os.path.getsize(os.path.join(segments, newest)) + (os.path.getsize(wal) if os.path.exists(wal) else 0)

    def check_recovery(self, mode):
        node = self.cluster(replicas=0).primary
        write_sparse_database(node.path(NAME), os.path.join(self.directory, "small.db"), SIZE)
        harness.wait_for(lambda: node.databases().get(NAME, {}).get("txid", "0" * 16) != "0" * 16, "its first change set")
        connection = node.connect(NAME)
        for statement in (f"PRAGMA journal_mode={mode}", "PRAGMA wal_autocheckpoint=20"):
            connection.execute(statement)
        for round_ in range(1, scaled(2, 5) + 1):
            for _ in range(ROWS):
                connection.execute("INSERT INTO t(x) VALUES (randomblob(30000))")
            os.kill(node.daemon(), signal.SIGKILL)
            node.wait_end()
            connection.close()
            node.clear_mount_point()
            tail = self.tail(node)
            begin = time.monotonic()
            node.start()
            seconds = time.monotonic() - begin
            read = node.io()["rchar"]
            print(f"{mode}: {SIZE >> 30} GiB, ready again after {seconds:.2f} s, {read / 2**20:.1f} MiB read, "
                  f"the tail has {tail / 2**20:.1f} MiB")
            self.assertLess(read, PROGRAM + 3 * tail)
            self.assertLess(read, SIZE // 10)
            connection = node.connect(NAME)
            self.assertEqual(connection.execute("SELECT count(*), sum(length(x)) FROM t").fetchone(),
                             (ROWS * round_, ROWS * round_ * 30000))
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        self.assertEqual(node.databases()[NAME]["pages"] * 65536, SIZE)
        connection.close()

    def test_l5_recovery_of_a_big_wal_database_reads_the_tail_only(self):
        self.check_recovery("wal")

    def test_l5_recovery_of_a_big_rollback_database_reads_the_tail_only(self):
        self.check_recovery("delete")
