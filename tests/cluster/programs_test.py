"""Unmodified programs write in the primary's mount, in WAL and in DELETE mode; the replica is equal."""

import json
import os
import sqlite3

import harness

ROWS = 200


class ProgramsTest(harness.ClusterTest):
    def check(self, cluster, mode):
        self.assertEqual(cluster.wait_converged(), ["app.db"])
        for node in cluster.nodes:
            self.assertEqual(node.execute("app.db", "SELECT count(*), sum(n) FROM item"),
                             [(ROWS, ROWS * (ROWS + 1) // 2)])
            self.assertEqual(node.journal_mode("app.db"), mode)

    def run_sqlite3_shell(self, mode):
        cluster = self.cluster()
        inserts = "\n".join(f"INSERT INTO item(n, text) VALUES ({n}, hex(randomblob({n})));"
                            for n in range(1, ROWS + 1))
        harness.run(["sqlite3", "-bail", cluster.primary.path("app.db")],
                    input=f"""PRAGMA journal_mode={mode};
                    CREATE TABLE item(id INTEGER PRIMARY KEY, n INTEGER, text TEXT);
                    CREATE INDEX item_n ON item(n);
                    {inserts}
                    UPDATE item SET text = upper(text) WHERE n % 3 = 0;
                    """)
        self.check(cluster, mode)
        # The shell's own hash of the whole content.
        hashes = [harness.run(["sqlite3", node.path("app.db"), ".sha3sum --schema"]).stdout
                  for node in cluster.nodes]
        self.assertEqual(hashes[0], hashes[1])
        self.assertGreater(len(hashes[0].strip()), 40)

    def test_sqlite3_shell_in_wal_mode(self):
        self.run_sqlite3_shell("wal")

    def test_sqlite3_shell_in_delete_mode(self):
        self.run_sqlite3_shell("delete")

    def run_python(self, mode):
        cluster = self.cluster()
        connection = sqlite3.connect(cluster.primary.path("app.db"))
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, n INTEGER, data BLOB)")
        for n in range(1, ROWS + 1):
            with connection:
                connection.execute("INSERT INTO item(n, data) VALUES (?, zeroblob(?))", (n, n * 20))
        with self.assertRaises(ZeroDivisionError), connection:
            connection.execute("DELETE FROM item")
            raise ZeroDivisionError  # rolls back
        connection.close()
        self.check(cluster, mode)

    def test_python_in_wal_mode(self):
        self.run_python("wal")

    def test_python_in_delete_mode(self):
        self.run_python("delete")

    def run_node(self, mode):
        cluster = self.cluster()
        modules = os.environ["ECHOFS_NODE_MODULES"]
        environment = {**os.environ, "NODE_PATH": modules}
        done = harness.run(["node", os.path.join(os.path.dirname(__file__), "node", "program.js"),
                            cluster.primary.path("app.db"), mode, str(ROWS)], env=environment)
        self.assertEqual(json.loads(done.stdout)["mode"], mode)
        self.check(cluster, mode)

    def test_node_better_sqlite3_in_wal_mode(self):
        self.run_node("wal")

    def test_node_better_sqlite3_in_delete_mode(self):
        self.run_node("delete")
