"""Journal modes, page sizes and what else a connection can ask for; the replica follows all of it."""

import contextlib
import itertools
import os
import sqlite3

import harness

MODES = ("delete", "truncate", "persist", "wal")


class ModesTest(harness.ClusterTest):
    def test_c7_switches_between_all_journal_modes_on_a_live_database(self):
        cluster = self.cluster()
        primary = cluster.primary
        primary.execute("app.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, mode, filler)")
        # Earlier, the connection would make an empty file of its own, and stay with it.
        harness.wait_for(lambda: "app.db" in cluster.replica.databases(), "the database")
        reader = cluster.replica.connect("app.db")
        count = 0
        for before, after in itertools.permutations(MODES, 2):
            for mode in (before, after):
                # Other connections in WAL mode would keep the switch from happening.
                found = primary.execute("app.db", "PRAGMA synchronous=NORMAL", f"PRAGMA journal_mode={mode}")
                self.assertEqual(found, [(mode,)])
                with contextlib.closing(primary.connect("app.db")) as connection:
                    connection.execute("PRAGMA synchronous=NORMAL")
                    connection.execute(f"PRAGMA journal_mode={mode}")
                    for _ in range(3):
                        connection.execute("INSERT INTO t(mode, filler) VALUES (?, randomblob(3000))",
                                           (mode,))
                        count += 1
                cluster.wait_positions()
                self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(count,)])
                self.assertEqual(cluster.replica.databases()["app.db"]["journal_mode"],
                                 "wal" if mode == "wal" else "delete")
        # A reader that stays keeps the replica's WAL; without one the files follow the header.
        reader.close()
        primary.execute("app.db", "PRAGMA journal_mode=delete", "INSERT INTO t(mode) VALUES ('last')")
        cluster.wait_converged()
        self.assertEqual(cluster.replica.journal_mode("app.db"), "delete")
        self.assertEqual(os.listdir(cluster.replica.mount), ["app.db"])

    def test_c7_switches_under_writers_that_stay(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE first(x)")
        writer = self.writer(cluster.primary.path("app.db"), "delete", "OFF").start()
        writer.wait_commits(1)
        switcher = cluster.primary.connect("app.db")
        switcher.execute("PRAGMA synchronous=OFF")
        for mode in MODES * 3:
            with contextlib.suppress(sqlite3.OperationalError):  # locked: it stays as it is
                switcher.execute(f"PRAGMA journal_mode={mode}").fetchall()
            switcher.execute("CREATE TABLE IF NOT EXISTS switches(mode)")
            switcher.execute("INSERT INTO switches VALUES (?)", (mode,))
            writer.wait_commits(3)
        switcher.close()
        writer.stop()
        cluster.wait_converged()
        writer.check(cluster.replica, "app.db")
        self.assertEqual(cluster.replica.execute("app.db", "SELECT count(*) FROM switches"), [(12,)])

    def fill(self, node, name, mode, page_size=4096):
        node.execute(name, f"PRAGMA page_size={page_size}", f"PRAGMA journal_mode={mode}",
                     "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
                     "INSERT INTO t SELECT i, randomblob(1000) FROM n")

    def test_c7_vacuum(self):
        cluster = self.cluster()
        reader = None
        for mode in MODES:
            name = mode + ".db"
            self.fill(cluster.primary, name, mode)
            pages = cluster.primary.databases()[name]["pages"]
            cluster.wait_positions()
            reader = cluster.replica.connect(name)
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(2000,)])
            cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "DELETE FROM t WHERE id % 4",
                                    "VACUUM")
            cluster.wait_positions()
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(500,)])
            reader.close()
            self.assertLess(cluster.replica.databases()[name]["pages"], pages / 2)
        cluster.wait_converged()

    def test_c7_vacuum_to_another_page_size(self):
        cluster = self.cluster()
        self.fill(cluster.primary, "app.db", "delete")
        for page_size in (512, 65536, 1024, 8192):
            cluster.wait_positions()
            reader = cluster.replica.connect("app.db")
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(2000,)])
            cluster.primary.execute("app.db", f"PRAGMA page_size={page_size}", "VACUUM")
            cluster.wait_positions()
            self.assertEqual(cluster.replica.databases()["app.db"]["page_size"], page_size)
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(2000,)])
            reader.close()
            cluster.wait_converged()

    def test_c7_every_page_size(self):
        cluster = self.cluster()
        page_sizes = [512 << shift for shift in range(8)]
        for page_size in page_sizes:
            for mode in ("wal", "delete"):
                self.fill(cluster.primary, f"{mode}{page_size}.db", mode, page_size)
        cluster.wait_positions()
        for page_size in page_sizes:
            for mode in ("wal", "delete"):
                name = f"{mode}{page_size}.db"
                cluster.primary.execute(name, "UPDATE t SET x = randomblob(1500) WHERE id % 3 = 0",
                                        "DELETE FROM t WHERE id > 1900")
                self.assertEqual(cluster.primary.databases()[name]["page_size"], page_size)
        self.assertEqual(len(cluster.wait_converged()), 16)

    def test_c7_auto_vacuum_shrinks(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            name = mode + ".db"
            cluster.primary.execute(name, "PRAGMA auto_vacuum=full")
            self.fill(cluster.primary, name, mode)
            before = cluster.primary.databases()[name]["pages"]
            cluster.primary.execute(name, "DELETE FROM t WHERE id > 100")
            cluster.wait_converged()
            self.assertLess(cluster.replica.databases()[name]["pages"], before / 5)

    def test_c7_attached_databases_commit_together(self):
        cluster = self.cluster()
        for modes in (("delete", "delete"), ("wal", "delete"), ("wal", "wal"), ("persist", "truncate")):
            names = [f"{modes[0]}-{modes[1]}-{number}.db" for number in (1, 2)]
            connection = cluster.primary.connect(names[0])
            connection.execute("ATTACH ? AS second", (cluster.primary.path(names[1]),))
            for schema, mode in zip(("main", "second"), modes):
                connection.execute(f"PRAGMA {schema}.journal_mode={mode}")
                connection.execute(f"CREATE TABLE {schema}.t(x)")
            for number in range(20):
                connection.execute("BEGIN")
                connection.execute("INSERT INTO main.t VALUES (?)", (number,))
                connection.execute("INSERT INTO second.t VALUES (?)", (number,))
                connection.execute("ROLLBACK" if number % 5 == 0 else "COMMIT")
            connection.close()
            cluster.wait_positions()
            for name in names:
                self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(16,)])
        self.assertEqual(len(cluster.wait_converged()), 8)
        # Super-journals come and go.
        self.assertEqual([name for name in os.listdir(cluster.primary.mount) if "-mj" in name], [])

    def test_c7_transaction_that_spills_its_cache(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            self.fill(cluster.primary, name, mode)
            cluster.wait_positions()
            before = cluster.primary.databases()[name]
            with contextlib.closing(cluster.primary.connect(name)) as connection:
                connection.execute(f"PRAGMA journal_mode={mode}")
                connection.execute("PRAGMA cache_size=10")
                connection.execute("BEGIN")
                connection.execute("UPDATE t SET x = randomblob(3000)")
                connection.execute("INSERT INTO t(x) SELECT x FROM t")
                connection.execute("ROLLBACK")
            cluster.wait_positions()
            after = cluster.primary.databases()[name]
            self.assertEqual((after["txid"], after["digest"], after["pages"]),
                             (before["txid"], before["digest"], before["pages"]), mode)
            with contextlib.closing(cluster.primary.connect(name)) as connection:
                connection.execute(f"PRAGMA journal_mode={mode}")
                connection.execute("PRAGMA cache_size=10")
                connection.execute("BEGIN")
                connection.execute("UPDATE t SET x = randomblob(2000)")
                connection.execute("SAVEPOINT s")
                connection.execute("DELETE FROM t WHERE id % 2")
                connection.execute("ROLLBACK TO s")
                connection.execute("INSERT INTO t(x) SELECT x FROM t WHERE id < 500")
                connection.execute("COMMIT")
            cluster.wait_positions()
            after = cluster.primary.databases()[name]
            self.assertEqual(int(after["txid"], 16), int(before["txid"], 16) + 1, mode)
        cluster.wait_converged()

    def test_c8_without_powersafe_overwrite(self):
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
            cluster.wait_positions()
            # The duplicates of commit frames are no transactions. Entering WAL mode is one.
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16),
                             32 if mode == "wal" else 31)
        cluster.wait_converged()

    def test_c7_exclusive_locking_mode(self):
        cluster = self.cluster()
        for mode in MODES:
            name = mode + ".db"
            connection = cluster.primary.connect(name)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("CREATE TABLE t(x)")
            for number in range(20):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            cluster.wait_positions()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"), [(20,)])
            connection.execute("PRAGMA locking_mode=NORMAL")
            connection.execute("INSERT INTO t VALUES (99)")
            connection.close()
            cluster.primary.execute(name, "INSERT INTO t VALUES (100)")
        cluster.wait_converged()

    def test_c4_persist_with_journal_size_limit(self):
        cluster = self.cluster()
        for limit in (0, 100, 4000, 1_000_000):
            name = f"limit{limit}.db"
            connection = cluster.primary.connect(name)
            connection.execute("PRAGMA journal_mode=persist")
            connection.execute(f"PRAGMA journal_size_limit={limit}")
            connection.execute("CREATE TABLE t(x)")
            for number in range(10):
                connection.execute("INSERT INTO t VALUES (randomblob(9000))")
            connection.close()
            cluster.wait_positions()
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), 11)
        cluster.wait_converged()

    def test_c7_mmap_and_incremental_blob_writes(self):
        cluster = self.cluster()
        for mode in ("wal", "delete"):
            name = mode + ".db"
            self.fill(cluster.primary, name, mode)
            cluster.wait_positions()
            reader = cluster.replica.connect(name)
            reader.execute("PRAGMA mmap_size=100000000")
            with contextlib.closing(cluster.primary.connect(name)) as connection:
                connection.execute("PRAGMA mmap_size=100000000")
                for row in range(1, 30):
                    with connection.blobopen("t", "x", row) as blob:
                        blob.write(b"%04d" % row)
                cluster.wait_positions()
                self.assertEqual(reader.execute("SELECT substr(x, 1, 4) FROM t WHERE id = 29").fetchall(),
                                 [(b"0029",)])
                connection.execute("DELETE FROM t WHERE id > 50")
                connection.execute("VACUUM")
            cluster.wait_positions()
            self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(50,)])
            reader.close()
        cluster.wait_converged()

    def test_long_uncommitted_write_and_wal_that_grows_past_its_checkpoints(self):
        cluster = self.cluster()
        name = "app.db"
        self.fill(cluster.primary, name, "wal")
        reader = cluster.primary.connect(name)  # keeps the WAL from being restarted
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchone()
        writer = cluster.primary.connect(name)
        writer.execute("PRAGMA synchronous=OFF")
        for number in range(1500):
            writer.execute("UPDATE t SET x = randomblob(900) WHERE id = ?", (number % 2000,))
        reader.execute("COMMIT")
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t(x) VALUES (1)",
                          "PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t(x) VALUES (2)",
                          "PRAGMA wal_checkpoint(PASSIVE)"):
            writer.execute(statement).fetchall()
        writer.close()
        reader.close()
        cluster.wait_converged()
