"""Page sizes, and databases past SQLite's lock page."""

import contextlib
import os
import sqlite3

import harness

PAGE_SIZE = 65536
LOCK_PAGE = (1 << 30) // PAGE_SIZE + 1  # the one with the lock bytes, which is never used


class PageSizesTest(harness.ClusterTest):
    def test_c7_every_page_size(self):
        cluster = self.cluster()
        page_sizes = [512 << shift for shift in range(8)]
        for page_size in page_sizes:
            for mode in ("wal", "delete"):
                cluster.primary.fill(f"{mode}{page_size}.db", mode, page_size)
        self.assertEqual(len(cluster.wait_converged()), 16)
        for page_size in page_sizes:
            for mode in ("wal", "delete"):
                name = f"{mode}{page_size}.db"
                cluster.primary.execute(name, "UPDATE t SET x = randomblob(1500) WHERE id % 3 = 0",
                                        "DELETE FROM t WHERE id > 1900")
                self.assertEqual(cluster.primary.databases()[name]["page_size"], page_size)
        self.assertEqual(len(cluster.wait_converged()), 16)

    def make_database_below_the_lock_page(self):
        """Zeros in the end, for they compress well; in the file, as copies through the mount are."""
        path = os.path.join(self.directory, "app.db")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in (f"PRAGMA page_size={PAGE_SIZE}", "PRAGMA auto_vacuum=full", "PRAGMA synchronous=OFF",
                              "PRAGMA journal_mode=off", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                              "INSERT INTO t SELECT value, zeroblob(536600000) FROM json_each('[1, 2]')"):
                connection.execute(statement)
        return path

    def test_c8_database_past_the_lock_page(self):
        cluster = self.cluster()
        path = self.make_database_below_the_lock_page()
        harness.run(["cp", path, cluster.primary.mount + "/"])
        os.unlink(path)
        # It is taken when the kernel has told of the close, which cp does not wait for.
        harness.wait_for(lambda: "app.db" in cluster.primary.databases(), "the change set of a gigabyte")
        cluster.wait_positions(seconds=120)
        pages = cluster.primary.databases()["app.db"]["pages"]
        self.assertIn(pages, range(LOCK_PAGE - 40, LOCK_PAGE))
        for mode in ("delete", "wal"):
            with contextlib.closing(cluster.primary.connect("app.db")) as connection:
                self.assertEqual(connection.execute(f"PRAGMA journal_mode={mode}").fetchall(), [(mode,)])
                # Back and forth over the lock page, by commits and by a rollback.
                for statements, grown in ((["INSERT INTO t VALUES (3, randomblob(8000000))"], True),
                                          (["UPDATE t SET x = randomblob(9000000) WHERE id = 3"], True),
                                          (["DELETE FROM t WHERE id = 3"], False),
                                          (["BEGIN", "INSERT INTO t VALUES (3, randomblob(8000000))", "ROLLBACK"],
                                           False),
                                          (["INSERT INTO t VALUES (4, randomblob(7000000))"], True)):
                    for statement in statements:
                        connection.execute(statement)
                    pages = connection.execute("PRAGMA page_count").fetchone()[0]
                    self.assertEqual(pages > LOCK_PAGE, grown, (mode, statements, pages))
                    # In WAL mode the log follows COMMIT by a moment, in which both nodes stand where they stood.
                    harness.wait_for(lambda pages=pages: cluster.replica.databases()["app.db"]["pages"] == pages,
                                     f"{pages} pages on the replica")
                    cluster.wait_positions()
                if mode == "delete":
                    connection.execute("DELETE FROM t WHERE id = 4")
        # Page by page: integrity_check and dbhash of a gigabyte take their time.
        cluster.wait_converged(seconds=60)
