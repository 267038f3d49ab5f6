"""How SQLite gets at its files when it is told to do it otherwise: mmap, chunks, blob handles."""

import contextlib
import os

import harness
import sqlite_library

CHUNK = 1 << 20


class FileControlsTest(harness.ClusterTest):
    def test_c7_mmap_and_incremental_blob_writes(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            name = mode + ".db"
            cluster.primary.fill(name, mode)
            cluster.wait_converged()
            reader = cluster.replica.connect(name)
            reader.execute("PRAGMA mmap_size=100000000")
            with contextlib.closing(cluster.primary.connect(name)) as connection:
                connection.execute("PRAGMA mmap_size=100000000")
                for row in range(1, 30):
                    with connection.blobopen("t", "x", row) as blob:
                        blob.write(b"%04d" % row)
                cluster.wait_converged()
                self.assertEqual(reader.execute("SELECT substr(x, 1, 4) FROM t WHERE id = 29").fetchall(),
                                 [(b"0029",)])
                connection.execute("DELETE FROM t WHERE id > 50")
                connection.execute("VACUUM")
            cluster.wait_positions()
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(50,)])
            reader.close()
            cluster.wait_converged()

    def database_size(self, node, name):
        entry = node.databases()[name]
        return entry["pages"] * entry["page_size"]

    def test_c4_c7_chunk_size(self):
        cluster = self.cluster()
        for mode in ("delete", "truncate", "persist", "wal"):
            name = mode + ".db"
            path = cluster.primary.path(name)
            connection = sqlite_library.Connection(path)
            connection.set_chunk_size(CHUNK)
            connection.execute(f"PRAGMA journal_mode={mode}", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
            cluster.wait_converged()
            longer = 0
            for statements in (
                    ["INSERT INTO t(x) VALUES (randomblob(100000))"],
                    ["INSERT INTO t(x) VALUES (randomblob(3000000))"],
                    ["BEGIN", "INSERT INTO t(x) VALUES (randomblob(3000000))", "ROLLBACK"],
                    ["DELETE FROM t WHERE id = 2", "VACUUM"],
                    ["INSERT INTO t(x) VALUES (randomblob(500000))"]):
                connection.execute(*statements, "PRAGMA wal_checkpoint")
                cluster.wait_converged()
                # Most of the time the file is longer than the database.
                self.assertEqual(os.path.getsize(path) % CHUNK, 0, (mode, statements))
                longer += os.path.getsize(path) > self.database_size(cluster.primary, name)
            self.assertGreater(longer, 2, mode)
            connection.hint_size(5 * CHUNK)
            connection.execute("INSERT INTO t(x) VALUES (randomblob(50000))")
            connection.close()
            cluster.wait_converged()
            if mode != "wal":  # there the file shrinks with a later checkpoint
                self.assertEqual(os.path.getsize(cluster.replica.path(name)),
                                 self.database_size(cluster.replica, name))
        # Nor is what lies behind the pages taken for pages at the next start.
        positions = cluster.primary.databases()
        cluster.primary.stop()
        cluster.primary.start()
        self.assertEqual(cluster.primary.databases(), positions)
        for mode in ("delete", "wal"):
            cluster.primary.execute(mode + ".db", "INSERT INTO t(x) VALUES (randomblob(2000000))")
        cluster.wait_converged()
