"""A disk without room, under the files or under the log alone (design L4): SQLite says so, nothing that was
committed is lost, nothing is half done, and service goes on when there is room again."""

import contextlib
import errno
import os
import shutil
import sqlite3

from harness import ClusterTest, failed, needs_root, run, wait_for

FULL = "database or disk is full"
MODES = {"w.db": "wal", "d.db": "delete", "t.db": "truncate", "p.db": "persist"}


class Disk:
    """A small file system mounted on a directory."""

    def __init__(self, test, directory, megabytes):
        os.makedirs(directory, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", directory])
        self.directory = directory
        self.filler = os.path.join(directory, "filler")
        test.disks.append(self)

    def fill(self, leave=0):
        """Until there is no room but for `leave` bytes."""
        with open(self.filler, "ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
            filler.truncate(max(0, filler.seek(0, os.SEEK_END) - leave))

    def free(self):
        os.unlink(self.filler)

    def unmount(self):
        run(["umount", self.directory])


class Table:
    """A connection that stays, and what became of the rows that it tried to insert."""

    def __init__(self, test, node, name, mode):
        self.connection = node.connect(name)
        test.addCleanup(self.connection.close)
        self.connection.execute(f"pragma journal_mode={mode}")
        self.connection.execute("pragma cache_size=5")
        self.connection.execute("create table if not exists t(id integer primary key, v)")
        self.next_id = 1
        self.committed = set()
        self.errors = []

    def insert(self, rows=1, size=3000):
        """One transaction; True when COMMIT returned."""
        ids = range(self.next_id, self.next_id + rows)
        self.next_id += rows
        try:
            self.connection.execute("begin immediate")
            for i in ids:
                self.connection.execute("insert into t values(?, randomblob(?))", (i, size))
            self.connection.execute("commit")
        except sqlite3.Error as error:
            self.errors.append(str(error))
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            return False
        self.committed.update(ids)
        return True

    def check(self):
        """What was committed is there, and nothing else; every error said that the disk is full."""
        assert set(self.errors) <= {FULL}, self.errors
        rows = {row[0] for row in self.connection.execute("select id from t")}
        assert rows == self.committed, f"missing {sorted(self.committed - rows)[:5]}, " \
                                       f"too many {sorted(rows - self.committed)[:5]}"
        assert self.connection.execute("pragma integrity_check").fetchone() == ("ok",)


@needs_root
class DiskFullTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.disks = []

    def full_cluster(self, node, below, megabytes):
        """A cluster with a small disk for a part of one node's data directory."""
        cluster = self.cluster(start=False)
        target = getattr(cluster, node)
        disk = Disk(self, os.path.join(target.data, below) if below else target.data, megabytes)

        def end():
            if not failed(self):
                cluster.stop()
                disk.unmount()

        self.addCleanup(end)
        cluster.start()
        return cluster, disk

    def tables(self, node):
        return [Table(self, node, name, mode) for name, mode in MODES.items()]

    def fail_and_go_on(self, cluster, disk, leave, rows):
        tables = self.tables(cluster.primary)
        for table in tables:
            self.assertTrue(table.insert())
        cluster.wait_converged()
        for _ in range(2):
            disk.fill(leave)
            for table in tables:
                wait_for(lambda table=table: not table.insert(rows), "the disk to be full")
                table.insert(rows)
                table.check()
            self.assertTrue(cluster.primary.status()["ready"])
            disk.free()
            for table in tables:
                wait_for(table.insert, f"the service to go on; {set(table.errors)}")
                table.check()
            cluster.wait_converged()
        for table in tables:
            self.assertTrue(table.insert(rows))
            table.check()
        cluster.wait_converged()

    def test_l4_a_full_disk_is_told_and_service_goes_on(self):
        cluster, disk = self.full_cluster("primary", "", 40)
        self.fail_and_go_on(cluster, disk, leave=0, rows=1)

    def test_l4_a_disk_that_becomes_full_within_a_transaction(self):
        cluster, disk = self.full_cluster("primary", "", 60)
        self.fail_and_go_on(cluster, disk, leave=400_000, rows=500)

    def test_l4_a_log_without_room_is_told_and_service_goes_on(self):
        cluster, disk = self.full_cluster("primary", "log", 30)
        self.fail_and_go_on(cluster, disk, leave=0, rows=1)

    def test_l4_a_log_that_has_no_room_for_a_transaction(self):
        cluster, disk = self.full_cluster("primary", "log", 30)
        self.fail_and_go_on(cluster, disk, leave=400_000, rows=500)

    def test_l4_a_new_database_waits_for_room_in_the_log(self):
        cluster, disk = self.full_cluster("primary", "log", 30)
        original = os.path.join(self.directory, "original.db")
        with contextlib.closing(sqlite3.connect(original)) as connection:
            connection.execute("create table t(v)")
            connection.execute("insert into t values(randomblob(200000))")
            connection.commit()
        disk.fill()
        shutil.copyfile(original, cluster.primary.path("new.db"))
        wait_for(lambda: "new.db: could not be put into the log" in cluster.primary.log_text(),
                 "the node to say that the log does not take the database")
        disk.free()
        cluster.wait_for_databases(["new.db"])
        self.assertEqual(cluster.wait_converged(), ["new.db"])

    def test_l4_a_replica_without_room_says_so_and_goes_on(self):
        cluster, disk = self.full_cluster("replica", "", 40)
        tables = self.tables(cluster.primary)
        for table in tables:
            self.assertTrue(table.insert())
        cluster.wait_converged()
        disk.fill(leave=100_000)
        for table in tables:
            for _ in range(3):
                self.assertTrue(table.insert(100))
        wait_for(lambda: "No space left on device" in cluster.replica.log_text(),
                 "the replica to say that its disk is full")
        wait_for(lambda: "No space left on device" in cluster.replica.echofs("status").stdout,
                 "the status to say that the disk is full")
        for table in tables:
            self.assertTrue(table.insert(10))
        disk.free()
        cluster.wait_converged()
        for table in tables:
            table.check()
            self.assertFalse(table.errors)
