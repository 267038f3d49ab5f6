"""Databases that come into the mount as a copy: VACUUM INTO, .backup, .clone, .recover, .restore, cp."""

import contextlib
import os
import sqlite3

import harness

SHELL = os.environ.get("SQLITE3", "sqlite3")
COUNT = "SELECT count(*), total(length(x)) FROM t"


class CopiesTest(harness.ClusterTest):
    def make_file(self, name, mode="delete"):
        path = os.path.join(self.directory, name)
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
            connection.executemany("INSERT INTO t(x) VALUES (?)", [(os.urandom(500),)] * 3000)
        connection.close()
        return path

    def test_c6_copied_database_becomes_one_change_set(self):
        cluster = self.cluster()
        for mode in ("delete", "wal"):
            source = self.make_file(mode + ".db", mode)
            harness.run(["cp", source, cluster.primary.mount + "/"])
            cluster.wait_converged()
            entry = cluster.primary.databases()[mode + ".db"]
            self.assertEqual(int(entry["txid"], 16), 1)
            self.assertEqual(entry["pages"] * entry["page_size"], os.path.getsize(source))
            with open(source, "rb") as file, open(cluster.replica.path(mode + ".db"), "rb") as copy:
                self.assertEqual(file.read(), copy.read())
            cluster.primary.execute(mode + ".db", "DELETE FROM t WHERE id % 2")
            cluster.wait_converged()
            self.assertEqual(cluster.replica.execute(mode + ".db", "SELECT count(*) FROM t"), [(1500,)])

    def recover(self, source):
        """SQL that makes the database again, as .recover prints it."""
        done = harness.run([SHELL, source, ".recover"], check=False)
        if done.returncode == 0:
            return done.stdout
        # Debian's shell is built without what .recover reads pages with. This is how its script goes.
        dump = harness.run([SHELL, source, ".dump"]).stdout
        content = dump.split("BEGIN TRANSACTION;\n")[1]
        return (f"BEGIN;\nPRAGMA writable_schema = on;\nPRAGMA encoding = 'UTF-8';\nPRAGMA page_size = '4096';\n"
                f"PRAGMA auto_vacuum = '0';\n{content.replace('COMMIT;', 'PRAGMA writable_schema = off;')}COMMIT;\n")

    def copy_in_every_way(self, cluster, source, prefix, mode):
        """Copies that the shell makes of a database, each then written to in `mode`."""
        target = {way: cluster.primary.path(f"{prefix}-{way}.db")
                  for way in ("vacuumed", "backup", "cloned", "recovered", "restored")}
        shell = [SHELL, "-cmd", ".timeout 20000"]
        commands = {
            "vacuumed": ([*shell, source, f"VACUUM INTO '{target['vacuumed']}'"], None),
            "backup": ([*shell, source, f".backup {target['backup']}"], None),
            "cloned": ([*shell, source, f".clone {target['cloned']}"], None),
            "recovered": ([*shell, target["recovered"]], self.recover(source)),
            "restored": ([*shell, target["restored"], f".restore {source}"], None),
        }
        with contextlib.closing(sqlite3.connect(source)) as connection:
            expected = connection.execute(COUNT).fetchall()
        for way, (command, text) in commands.items():
            name = os.path.basename(target[way])
            harness.run(command, **({"input": text} if text else {}))
            self.assertIn(name, cluster.wait_converged())
            self.assertEqual(cluster.replica.execute(name, COUNT), expected, name)
            self.assertEqual(cluster.primary.execute(name, f"PRAGMA journal_mode={mode}"), [(mode,)])
            cluster.primary.execute(name, "DELETE FROM t WHERE id % 3 = 0")
            cluster.wait_converged()
            self.assertEqual(cluster.replica.execute(name, "SELECT count(*) FROM t"),
                             [(expected[0][0] * 2 // 3,)], name)

    def test_c6_copies_of_a_database_from_outside_the_mount(self):
        cluster = self.cluster()
        for mode in ("delete", "wal"):
            self.copy_in_every_way(cluster, self.make_file(mode + ".db", mode), mode, mode)

    def test_c6_copies_of_a_database_of_the_mount(self):
        cluster = self.cluster()
        for mode in ("delete", "wal"):
            cluster.primary.fill(f"source-{mode}.db", mode, rows=3000)
            self.copy_in_every_way(cluster, cluster.primary.path(f"source-{mode}.db"), mode, mode)

    def test_c7_backup_over_a_database_that_is_in_use(self):
        cluster = self.cluster()
        for mode in ("delete", "wal"):
            name = mode + ".db"
            cluster.primary.fill(name, mode, rows=500)
            cluster.wait_positions()
            readers = [node.connect(name) for node in cluster.nodes]
            for reader in readers:
                self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(500,)])
            before = int(cluster.primary.databases()[name]["txid"], 16)
            with contextlib.closing(sqlite3.connect(self.make_file("source-" + name, mode))) as source, \
                    contextlib.closing(cluster.primary.connect(name)) as target:
                source.backup(target, pages=50)
            cluster.wait_positions()
            for reader in readers:
                self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchall(), [(3000,)], mode)
                reader.close()
            # However many steps it takes, a backup is one transaction.
            self.assertEqual(int(cluster.primary.databases()[name]["txid"], 16), before + 1)
            cluster.wait_converged()
