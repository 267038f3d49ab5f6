"""A primary whose disk fails: COMMIT reports an error or is on both nodes (design C1, C3, C4)."""

import contextlib
import errno
import os
import sqlite3

from faulty_disk import SYNC, WRITE, FaultyDisk
from harness import ClusterTest, wait_for


class DiskErrorTest(ClusterTest):
    def faulty_cluster(self):
        cluster = self.cluster(start=False)
        disk = FaultyDisk(os.path.join(self.directory, "faults"), cluster.primary)
        cluster.start()
        return cluster, disk

    def connect(self, cluster, name, mode, synchronous="full"):
        connection = cluster.primary.connect(name)
        self.addCleanup(connection.close)
        connection.execute(f"pragma journal_mode={mode}")
        connection.execute(f"pragma synchronous={synchronous}")
        connection.execute("create table if not exists t(id integer primary key, v)")
        return connection

    def fail_each(self, mode, checkpoint=False):
        """One commit after the other on one connection, each with another operation that fails."""
        cluster, disk = self.faulty_cluster()
        connection = self.connect(cluster, "x.db", mode)
        other = self.connect(cluster, "x.db", mode)
        committed = set()
        number = 0

        def commit(on):
            nonlocal number
            number += 1
            on.execute("begin immediate")
            on.executemany("insert into t values(?, randomblob(900))", [(number * 10 + i,) for i in range(6)])
            on.execute("update t set v=randomblob(800) where id%10=3 and id>?", (number * 10 - 60,))
            on.execute("commit")
            committed.add(number)
            if checkpoint:
                on.execute("pragma wal_checkpoint(restart)")

        def check(k):
            rows = dict(other.execute("select id/10, count(*) from t group by id/10"))
            self.assertEqual(set(rows.values()), {6}, f"operation {k}: a transaction is there in part")
            self.assertLessEqual(committed, set(rows), f"operation {k}: a commit is missing")

        for _ in range(4):
            commit(connection)
        cluster.wait_converged()
        for error, forever in ((errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, True)):
            k = 0
            failed = True
            errors = 0
            while failed:
                k += 1
                disk.fail(k, error=error, forever=forever)
                try:
                    commit(connection)
                except sqlite3.Error as error_seen:
                    self.assertGreater(disk.failed, 0, f"operation {k}: {error_seen}")
                    errors += 1
                failed = disk.failed > 0
                disk.heal()
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("rollback")
                # The log may still be behind, for the moment that it takes until the next attempt.
                for on in (connection, other):
                    wait_for(lambda on=on: self.goes_on(commit, on), f"a commit after operation {k} failed")
                check(k)
                if k % 10 == 0:
                    cluster.wait_positions()
            self.assertGreater(k, 5)
            self.assertGreater(errors, 0)
            cluster.wait_converged()
        self.assertNotIn("copied again", cluster.replica.log_text())
        connection.close()
        other.close()
        cluster.primary.stop()
        cluster.primary.start()
        other = self.connect(cluster, "x.db", mode)
        commit(other)
        check("all")
        cluster.wait_converged()

    @staticmethod
    def goes_on(commit, connection):
        try:
            commit(connection)
            return True
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("rollback")
            return False

    def test_c1_each_operation_of_a_wal_commit_fails(self):
        self.fail_each("wal")

    def test_c1_each_operation_of_a_wal_commit_with_a_checkpoint_fails(self):
        self.fail_each("wal", checkpoint=True)

    def test_c1_each_operation_of_a_delete_commit_fails(self):
        self.fail_each("delete")

    def test_c1_each_operation_of_a_truncate_commit_fails(self):
        self.fail_each("truncate")

    def test_c1_each_operation_of_a_persist_commit_fails(self):
        self.fail_each("persist")

    def test_c3_a_sync_that_fails_after_the_commit_frame(self):
        cluster, disk = self.faulty_cluster()
        connection = self.connect(cluster, "x.db", "wal")
        other = self.connect(cluster, "x.db", "wal")
        for i in range(1, 5):
            connection.execute("insert into t values(?, 'before')", (i,))
        # A reader of its own that stays.
        open_select = connection.execute("select id from t order by id")
        self.assertEqual(open_select.fetchone(), (1,))
        disk.fail(1, kinds=SYNC, suffix="-wal")
        with self.assertRaisesRegex(sqlite3.OperationalError, "disk I/O error"):
            connection.execute("insert into t values(5, 'doubtful')")
        self.assertEqual(disk.failed, 1)
        disk.heal()
        # It keeps its snapshot and cannot write in it; the others have the transaction.
        with self.assertRaises(sqlite3.OperationalError):
            connection.execute("insert into t values(6, 'beside the reader')")
        self.assertEqual(open_select.fetchall(), [(2,), (3,), (4,)])
        expected = [(1,), (2,), (3,), (4,), (5,)]
        self.assertEqual(other.execute("select id from t").fetchall(), expected)
        other.execute("insert into t values(7, 'other')")
        connection.execute("insert into t values(8, 'same')")
        self.assertEqual(connection.execute("select id from t").fetchall(), [*expected, (7,), (8,)])
        cluster.wait_converged()

    def test_c3_no_room_for_the_shared_memory_of_a_commit(self):
        cluster, disk = self.faulty_cluster()
        connection = self.connect(cluster, "x.db", "wal")
        other = self.connect(cluster, "x.db", "wal")
        connection.execute("pragma wal_autocheckpoint=0")
        # SQLite makes the -shm longer after it has written the commit frame: for frames behind the 4062nd.
        disk.fail(1, kinds=WRITE, suffix="-shm", error=errno.ENOSPC, forever=True)
        with self.assertRaises(sqlite3.OperationalError):
            connection.execute("with recursive c(i) as (select 1 union all select i+1 from c where i<4200) "
                               "insert into t select i, randomblob(3000) from c")
        self.assertGreater(disk.failed, 0)
        disk.heal()
        for on in (other, connection):
            self.assertEqual(on.execute("select count(*) from t").fetchone(), (4200,))
        connection.execute("insert into t values(5000, 'same')")
        other.execute("insert into t values(5001, 'other')")
        self.assertEqual(connection.execute("select count(*) from t").fetchone(), (4202,))
        cluster.wait_converged()
