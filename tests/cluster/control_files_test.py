"""Control files, commands about a node's databases, and files that are not replicated."""

import errno
import json
import os
import sqlite3

import harness


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class ControlFilesTest(harness.ClusterTest):
    def test_primary_file_is_there_on_the_replica_only(self):
        cluster = self.cluster()
        self.assertEqual(read(cluster.replica.path(".primary")), "a\n")
        self.assertFalse(os.path.exists(cluster.primary.path(".primary")))
        for node in cluster.nodes:
            self.assertEqual(os.listdir(node.mount), [])

    def test_position_file_follows_the_database(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("folder")
        for name in ("app.db", "folder/app.db"):
            self.assertFalse(os.path.exists(cluster.primary.path(name + "-pos")))
            cluster.primary.execute(name, "PRAGMA journal_mode=wal", "CREATE TABLE t(x)")
            for number in range(3):
                cluster.primary.execute(name, f"INSERT INTO t VALUES ({number})")
                cluster.wait_positions()
                texts = [read(node.path(name + "-pos")) for node in cluster.nodes]
                self.assertRegex(texts[0], r"\A[0-9a-f]{16}/[0-9a-f]{16}\n\Z")
                self.assertEqual(texts[0], texts[1])
                entry = cluster.replica.databases()[name]
                self.assertEqual(texts[1], f"{entry['txid']}/{entry['digest']}\n")
        self.assertFalse(os.path.exists(cluster.primary.path("nothing.db-pos")))

    def test_position_file_of_a_new_database_is_found_by_those_who_looked_before(self):
        cluster = self.cluster()
        for node in cluster.nodes:
            self.assertFalse(os.path.exists(node.path("app.db-pos")))
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        cluster.wait_positions()
        for node in cluster.nodes:
            self.assertEqual(len(read(node.path("app.db-pos"))), 34)

    def test_lag_file(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        cluster.wait_positions()
        self.assertEqual(int(read(cluster.primary.path(".lag"))), 0)
        harness.wait_for(lambda: int(read(cluster.replica.path(".lag"))) < 10_000, "the lag to be small")
        self.assertRegex(read(cluster.replica.path(".lag")), r"\A[+-][0-9]{9}\n\Z")

    def test_control_files_cannot_be_changed(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        cluster.wait_positions()
        for path in (cluster.replica.path(".primary"), cluster.replica.path(".lag"),
                     cluster.primary.path("app.db-pos")):
            for change in (lambda p: open(p, "w", encoding="utf-8"), os.unlink,
                           lambda p: os.rename(p, p + "x"), lambda p: os.chmod(p, 0o777)):
                with self.assertRaises(OSError) as raised:
                    change(path)
                self.assertIn(raised.exception.errno, (errno.EACCES, errno.EPERM, errno.EROFS))

    def test_status_has_the_fields_that_scripts_rely_on(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA page_size=8192", "PRAGMA journal_mode=wal",
                                "CREATE TABLE t(x)")
        cluster.wait_positions()
        primary, replica = cluster.primary.status(), cluster.replica.status()
        for status, role in ((primary, "primary"), (replica, "replica")):
            self.assertEqual(set(status), {"node", "cluster_id", "role", "ready", "term", "primary", "log", "in_sync",
                                           "databases", "replicas", "nodes", "orphans", "rewinds", "http"})
            self.assertEqual(status["role"], role)
            self.assertIs(status["ready"], True)
            self.assertEqual(status["primary"], "a")
            self.assertEqual(status["term"], 1)
            self.assertEqual(set(status["log"]), {"index", "term"})
            self.assertIsInstance(status["in_sync"], list)
            self.assertEqual(len(status["databases"]), 1)
            entry = status["databases"][0]
            self.assertEqual(set(entry), {"name", "txid", "digest", "pages", "page_size", "journal_mode",
                                          "state", "applied_index"})
            self.assertRegex(entry["txid"], r"\A[0-9a-f]{16}\Z")
            self.assertRegex(entry["digest"], r"\A[0-9a-f]{16}\Z")
            self.assertEqual((entry["name"], entry["page_size"], entry["pages"], entry["state"],
                              entry["journal_mode"]), ("app.db", 8192, 2, "ok", "wal"))
        self.assertEqual((primary["node"], replica["node"]), ("a", "b"))
        self.assertEqual(replica["replicas"], [])
        harness.wait_for(lambda: cluster.primary.status()["replicas"][0]["acked_index"] ==
                         primary["log"]["index"], "the acknowledgement")
        entry = cluster.primary.status()["replicas"][0]
        self.assertEqual(set(entry), {"node", "address", "acked_index", "lag_ms", "in_sync"})
        self.assertEqual(entry["node"], "b")
        self.assertEqual(entry["address"], f"127.0.0.1:{cluster.replica.port}")

    def test_databases_and_log_commands(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)",
                                "INSERT INTO t VALUES (2)")
        status = cluster.wait_positions()
        for node in cluster.nodes:
            self.assertIn("app.db", node.echofs("databases").stdout)
            listed = json.loads(node.echofs("databases", "--json").stdout)
            self.assertEqual([entry["name"] for entry in listed], ["app.db"])
            lines = node.echofs("log", "app.db", "--json").stdout.splitlines()
            entries = [json.loads(line) for line in lines]
            self.assertEqual([int(entry["txid"], 16) for entry in entries], [1, 2, 3])
            self.assertEqual(entries[-1]["digest"], status["databases"][0]["digest"])
            text = node.echofs("log", "app.db").stdout
            self.assertEqual(len(text.splitlines()), 4)
            wrong = node.echofs("log", "nothing.db", check=False)
            self.assertEqual(wrong.returncode, 1)
            self.assertIn("nothing.db", wrong.stderr)

    def test_other_files_stay_local(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("folder")
        with open(cluster.primary.path("folder/notes.txt"), "w", encoding="utf-8") as file:
            file.write("notes\n")
        with open(cluster.primary.path("empty.db"), "w", encoding="utf-8"):
            pass
        with open(cluster.replica.path("mine.txt"), "w", encoding="utf-8") as file:
            file.write("of the replica\n")
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        self.assertEqual(cluster.wait_converged(), ["app.db"])
        self.assertFalse(os.path.exists(cluster.replica.path("folder/notes.txt")))
        self.assertFalse(os.path.exists(cluster.primary.path("mine.txt")))
        self.assertEqual(read(cluster.primary.path("folder/notes.txt")), "notes\n")
        self.assertEqual(sorted(cluster.primary.echofs("databases", "--local").stdout.splitlines()),
                         ["empty.db", "folder/notes.txt"])
        self.assertEqual(cluster.replica.echofs("databases", "--local").stdout, "mine.txt\n")
        self.assertEqual(json.loads(cluster.replica.echofs("databases", "--local", "--json").stdout),
                         ["mine.txt"])
        self.assertEqual(cluster.primary.log_text().count("folder/notes.txt"), 1)
        # Local files can be moved, linked files cannot be made, and an empty file may become a database.
        os.rename(cluster.primary.path("folder/notes.txt"), cluster.primary.path("moved.txt"))
        self.assertEqual(read(cluster.primary.path("moved.txt")), "notes\n")
        cluster.primary.execute("empty.db", "CREATE TABLE t(x)")
        self.assertEqual(sorted(cluster.wait_converged()), ["app.db", "empty.db"])

    def test_database_cannot_be_renamed_or_linked(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("folder")
        cluster.primary.execute("folder/app.db", "CREATE TABLE t(x)")
        path = cluster.primary.path("folder/app.db")
        with open(cluster.primary.path("file"), "w", encoding="utf-8"):
            pass
        for change, *arguments in ((os.rename, path, cluster.primary.path("other.db")),
                                   (os.rename, cluster.primary.path("file"), path),
                                   (os.rename, cluster.primary.path("folder"), cluster.primary.path("f2")),
                                   (os.link, path, cluster.primary.path("link.db"))):
            with self.assertRaises(OSError) as raised:
                change(*arguments)
            self.assertEqual(raised.exception.errno, errno.EPERM)
        cluster.primary.execute("folder/app.db", "INSERT INTO t VALUES (1)")
        self.assertEqual(cluster.wait_converged(), ["folder/app.db"])

    def test_deleted_database_is_deleted_on_the_replica_and_can_be_made_again(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("folder")
        for number, mode in enumerate(("wal", "delete", "wal", "truncate")):
            for name in ("app.db", "folder/app.db"):
                cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "CREATE TABLE t(x)",
                                        f"INSERT INTO t VALUES ({number})")
            self.assertEqual(cluster.wait_converged(), ["app.db", "folder/app.db"])
            for name in ("app.db", "folder/app.db"):
                self.assertEqual(cluster.replica.execute(name, "SELECT x FROM t"), [(number,)])
                os.unlink(cluster.primary.path(name))
            self.assertEqual(cluster.wait_positions()["databases"], [])
            for name in ("app.db", "folder/app.db"):
                for node in cluster.nodes:
                    for suffix in ("", "-pos", "-wal", "-shm"):
                        self.assertFalse(os.path.exists(node.path(name + suffix)), name + suffix)
                # An empty journal of TRUNCATE stays on the primary, as it would anywhere.
                self.assertFalse(os.path.exists(cluster.replica.path(name + "-journal")))

    def test_database_deleted_under_a_reader_of_the_replica(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(x)",
                                "INSERT INTO t VALUES (1)")
        cluster.wait_converged()
        reader = cluster.replica.connect("app.db")
        reader.execute("BEGIN")
        self.assertEqual(reader.execute("SELECT x FROM t").fetchall(), [(1,)])
        os.unlink(cluster.primary.path("app.db"))
        cluster.primary.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(x)",
                                "INSERT INTO t VALUES (2)")
        harness.wait_for(lambda: cluster.primary.status()["databases"][0]["digest"] ==
                         (cluster.replica.status()["databases"] or [{"digest": 0}])[0]["digest"],
                         "the new database")
        try:
            self.assertIn(reader.execute("SELECT x FROM t").fetchall(), [[(1,)], [(2,)]])
        except sqlite3.Error:
            pass  # its file is gone
        reader.close()
        self.assertEqual(cluster.replica.execute("app.db", "SELECT x FROM t"), [(2,)])
        cluster.wait_converged()

    def test_command_behind_the_mount(self):
        node = self.node("alone")
        marker = os.path.join(self.directory, "marker")
        node.command = ["sh", "-c", f"sqlite3 {node.path('app.db')} 'CREATE TABLE t(x)' && "
                                    f"test -e {node.path('app.db-pos')} && echo done > {marker}; exit 7"]
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 7)
        self.assertEqual(read(marker), "done\n")
        self.assertFalse(harness.is_mounted(node.mount))
        # And the database is still there at the next start.
        node.command = ["sqlite3", node.path("app.db"), "INSERT INTO t VALUES (1)"]
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 0)
        node.command = []
        node.start()
        self.assertEqual(node.execute("app.db", "SELECT x FROM t"), [(1,)])
        self.assertEqual(node.stop(), 0)
