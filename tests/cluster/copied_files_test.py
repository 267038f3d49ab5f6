"""The files of a database that was in use elsewhere are copied into the mount, and work goes on there."""

import contextlib
import os
import shutil
import sqlite3
import struct

import harness

ROWS = 200
WAL_HEADER = 32
FRAME_HEADER = 24


def interrupted_checkpoint(path):
    """Leaves the main file as a checkpoint does that was interrupted after its first page, which it writes first.

    That page says how long the database is, and the file is shorter yet.
    """
    with open(path + "-wal", "rb") as wal, open(path, "r+b") as main:
        page_size = struct.unpack(">I", wal.read(12)[8:])[0]
        wal.seek(WAL_HEADER)
        page_1 = None
        while header := wal.read(FRAME_HEADER):
            page = wal.read(page_size)
            if struct.unpack(">I", header[:4])[0] == 1:
                page_1 = page
        pages = struct.unpack(">I", page_1[28:32])[0]
        assert os.path.getsize(path) < pages * page_size
        main.write(page_1)


class CopiedFilesTest(harness.ClusterTest):
    def test_c6_wal_database_in_the_middle_of_a_checkpoint(self):
        cluster = self.cluster()
        origin = os.path.join(self.directory, "origin.db")
        with contextlib.closing(sqlite3.connect(origin, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, data BLOB)")
            for _ in range(ROWS):
                connection.execute("INSERT INTO item(data) VALUES (randomblob(1000))")
            for suffix in ("", "-wal"):
                shutil.copyfile(origin + suffix, os.path.join(self.directory, "copy.db" + suffix))
        copy = os.path.join(self.directory, "copy.db")
        interrupted_checkpoint(copy)
        for suffix in ("", "-wal"):
            shutil.copyfile(copy + suffix, cluster.primary.path("app.db" + suffix))

        with contextlib.closing(cluster.primary.connect("app.db")) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM item").fetchone(), (ROWS,))
            busy, frames, checkpointed = connection.execute("PRAGMA wal_checkpoint").fetchone()
            self.assertEqual(busy, 0)
            self.assertGreater(frames, ROWS)
            self.assertEqual(checkpointed, frames)
            connection.execute("DELETE FROM item WHERE id % 2 = 0")
        self.assertFalse(os.path.exists(cluster.primary.path("app.db-wal")))
        self.assertEqual(cluster.wait_converged(), ["app.db"])
        for node in cluster.nodes:
            self.assertEqual(node.execute("app.db", "SELECT count(*) FROM item"), [(ROWS // 2,)])
