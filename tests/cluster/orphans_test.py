"""What only the old primary had is kept as orphans, and its databases go back by the pages touched (R5, D4)."""

import glob
import json
import os
import signal
import sqlite3
import subprocess

import harness

PAGE_SIZE = 4096
ORPHANS = 1000


class OrphansTest(harness.ClusterTest):
    def fail_over(self, cluster):
        """The replica, which is stopped, becomes the primary; the old primary is stopped in order or killed."""
        cluster.primary, cluster.replicas = cluster.replica, [cluster.primary]
        for node in cluster.nodes:
            at = node.arguments.index("--lease-primary")
            node.arguments[at + 1] = f"127.0.0.1:{cluster.primary.port}"
        cluster.primary.start()

    def orphans(self, node):
        return json.loads(node.echofs("orphans", "list", "--json").stdout)

    def run_rejoin(self, mode, rows, row_size=1000):
        cluster = self.cluster()
        old = cluster.primary
        old.execute("app.db", f"PRAGMA page_size={PAGE_SIZE}", f"PRAGMA journal_mode={mode}",
                    "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                    f"LIMIT {rows}) INSERT INTO t SELECT i, randomblob({row_size}) FROM n")
        old.fill("other.db", mode=mode)
        cluster.wait_positions()
        common = old.databases()["app.db"]["txid"]
        self.assertEqual(cluster.replica.stop(), 0)
        with old.connect("app.db") as connection:
            connection.execute("PRAGMA synchronous=OFF")
            for number in range(ORPHANS):
                connection.execute(f"UPDATE t SET x = randomblob({row_size}) WHERE id = ?",
                                   (1 + number * rows // ORPHANS,))
        connection.close()
        expected = {entry["txid"] for entry in map(json.loads, old.echofs(
            "log", "app.db", "--json").stdout.splitlines()) if entry["txid"] > common}
        self.assertEqual(old.stop(), 0)
        self.fail_over(cluster)
        new = cluster.primary
        new.execute("app.db", "UPDATE t SET x = randomblob(900) WHERE id % 5000 = 7",
                    "INSERT INTO t SELECT NULL, randomblob(1000) FROM t LIMIT 50")
        new.execute("other.db", "UPDATE t SET x = 'new' WHERE id = 5")
        old.start()
        self.assertEqual(sorted(cluster.wait_converged()), ["app.db", "other.db"])

        status = old.status()
        size = {entry["name"]: entry["pages"] for entry in status["databases"]}["app.db"] * PAGE_SIZE
        fetched = status["rewinds"]["bytes"]
        print(f"{mode}: {status['orphans']} orphans in a database of {size >> 20} MiB: "
              f"{fetched / 2**20:.1f} MiB fetched ({100 * fetched / size:.1f} %)")
        self.assertEqual(status["orphans"], len(expected))
        self.assertEqual(status["orphans"], ORPHANS)
        self.assertEqual(status["rewinds"]["databases"], 1)
        # A row and its page, some on a page border, and page 1.
        self.assertLess(fetched, 3 * ORPHANS * PAGE_SIZE)
        self.assertIn(f"{status['orphans']} change sets", old.echofs("status").stdout)
        return cluster, expected

    def check_commands(self, node, expected):
        [kept] = self.orphans(node)
        self.assertEqual(kept["databases"], {"app.db": len(expected)})
        self.assertIn(kept["id"], node.echofs("orphans", "list").stdout)
        target = os.path.join(self.directory, "exported")
        node.echofs("orphans", "export", kept["id"], "--to", target)
        files = sorted(os.path.basename(path) for path in glob.glob(target + "/app.db/*"))
        self.assertEqual(files, sorted(f"{txid}-{txid}.ltx" for txid in expected))
        for name in files:
            with open(os.path.join(target, "app.db", name), "rb") as file:
                self.assertEqual(file.read(4), b"LTX1")
        again = node.echofs("orphans", "export", kept["id"], "--to", target, check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("exists already", again.stderr)
        self.assertEqual(node.echofs("orphans", "discard", check=False).returncode, 2)
        self.assertEqual(node.echofs("orphans", "discard", "1-2-3", check=False).returncode, 1)
        node.echofs("orphans", "discard", kept["id"])
        self.assertEqual(self.orphans(node), [])
        self.assertEqual(node.status()["orphans"], 0)
        self.assertNotIn("orphans", node.echofs("status").stdout)

    def test_r5_old_primary_with_1000_orphans_rejoins_in_wal_mode(self):
        cluster, expected = self.run_rejoin("wal", rows=75000)
        self.check_commands(cluster.replica, expected)

    def test_r5_old_primary_with_1000_orphans_rejoins_in_delete_mode(self):
        self.run_rejoin("delete", rows=20000)

    def test_r5_killed_at_any_time_while_it_rejoins(self):
        """Whatever step the kill meets: the orphans are there once, the databases are the primary's."""
        cluster = self.cluster()
        old = cluster.primary
        for mode in ("wal", "delete"):
            old.fill(mode + ".db", mode=mode, rows=20000)
        cluster.wait_positions()
        self.assertEqual(cluster.replica.stop(), 0)
        for mode in ("wal", "delete"):
            for number in range(20):
                old.execute(mode + ".db", f"UPDATE t SET x = 'orphan' WHERE id = {1 + 900 * number}")
        self.assertEqual(old.stop(), 0)
        self.fail_over(cluster)
        for mode in ("wal", "delete"):
            cluster.primary.execute(mode + ".db", "UPDATE t SET x = 'new' WHERE id = 5")
        said = ["this node has entries", "are kept as orphans", "copying", "was copied", "holds the databases"]
        for attempt in range(harness.scaled(5, 50)):
            old.start(wait=False)
            wanted = said[attempt % len(said)]
            harness.wait_for(lambda wanted=wanted: wanted in old.log_text() or
                             (old.status() or {}).get("ready"), f"{wanted!r} in the log")
            os.kill(old.daemon(), signal.SIGKILL)
            old.wait_end()
        old.start()
        self.assertEqual(sorted(cluster.wait_converged()), ["delete.db", "wal.db"])
        self.assertEqual(sum(kept["change_sets"] for kept in self.orphans(old)), 40)
        for mode in ("wal", "delete"):
            self.assertEqual(old.execute(mode + ".db", "SELECT count(*) FROM t WHERE x = 'orphan'"), [(0,)])

    def test_d4_disk_full_while_orphans_are_kept(self):
        """Nothing is cut before it is kept, status says why, and it goes on when there is room."""
        cluster = self.cluster()
        old = cluster.primary
        old.fill("app.db", rows=2000)
        cluster.wait_positions()
        self.assertEqual(cluster.replica.stop(), 0)
        old.execute("app.db", "UPDATE t SET x = 'orphan' WHERE id = 5")
        self.assertEqual(old.stop(), 0)
        # Not even root can make files there.
        target = os.path.join(old.data, "orphans")
        os.makedirs(target, exist_ok=True)
        harness.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "none", target])
        self.addCleanup(subprocess.run, ["umount", target], check=False, capture_output=True)
        self.fail_over(cluster)
        old.start(wait=False)

        def refused():
            status = old.status()
            return status and not status["ready"] and "cannot be kept" in old.echofs("status").stdout

        harness.wait_for(refused, "the node to say that it cannot keep its orphans")
        reader = sqlite3.connect(f"file:{old.path('app.db')}?mode=ro", uri=True)
        self.assertEqual(reader.execute("SELECT x FROM t WHERE id = 5").fetchone(), ("orphan",))
        harness.run(["umount", target])
        old.wait_ready()
        self.assertEqual(cluster.wait_converged(), ["app.db"])
        self.assertEqual(old.status()["orphans"], 1)
        self.assertNotEqual(reader.execute("SELECT x FROM t WHERE id = 5").fetchone(), ("orphan",))
        reader.close()
