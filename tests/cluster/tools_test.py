"""`echofs export`, `verify` and `log --export`: copies that are a state of the history, made under load; differences
between nodes, found and repaired."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess

import members
from database_content import read_database
from disk_full_test import Disk
from harness import ClusterTest, RingWriter, needs_root
from ltx_file import LtxFile
from processes import WAIT_SECONDS, scaled, wait_for
from ring import ACCOUNTS, BALANCE, MEMBERS

WRITERS = 4


def connect(path):
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def check_ring(path):
    """A sound database, and a state that ring.py can have committed."""
    with contextlib.closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT sum(balance) FROM account").fetchone() == (ACCOUNTS * BALANCE,)
        following = dict(connection.execute("SELECT id, next FROM ring"))
        member, seen = 0, set()
        while member not in seen:
            seen.add(member)
            member = following[member]
        assert len(seen) == MEMBERS


class ExportTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.target = os.path.join(self.directory, "exported.db")

    def export(self, node, name, *options):
        return json.loads(node.echofs("export", name, self.target, "--json", *options).stdout)

    def digest_in_log(self, node, name, txid):
        line, = node.echofs("log", name, "--from", txid, "--limit", "1", "--json").stdout.splitlines()
        return json.loads(line)["digest"]

    def ring_cluster(self, mode, rows):
        cluster = self.cluster()
        cluster.primary.fill("app.db", mode=mode, rows=rows)
        path = cluster.primary.path("app.db")
        writers = [RingWriter(self, path, mode).start()]
        writers[0].wait_records(1)
        writers += [RingWriter(self, path).start() for _ in range(WRITERS - 1)]
        cluster.wait_for_databases(["app.db"])
        return cluster, writers

    def run_under_writers(self, mode):
        cluster, writers = self.ring_cluster(mode, rows=20_000)
        for attempt in range(scaled(2, 20)):
            for node in cluster.nodes:
                for writer in writers:
                    writer.wait_records(10)
                answer = self.export(node, "app.db", "--force")
                self.assertEqual(answer["digest"], self.digest_in_log(cluster.primary, "app.db", answer["txid"]),
                                 f"attempt {attempt} on {node.name}")
                self.assertEqual(os.path.getsize(self.target), answer["pages"] * answer["page_size"])
                check_ring(self.target)
        # While the export stands still in the middle, all writers go on.
        os.unlink(self.target)
        process = self.spawn([os.environ["ECHOFS"], "export", "app.db", self.target, "--json", "--data-dir",
                              cluster.primary.data], stdout=subprocess.PIPE)
        partial = self.target + ".tmp"
        wait_for(lambda: os.path.exists(partial) and os.path.getsize(partial) > 0, "the export to begin")
        process.send_signal(signal.SIGSTOP)
        before = cluster.primary.databases()["app.db"]["txid"]
        for writer in writers:
            writer.wait_records(20)
        self.assertFalse(os.path.exists(self.target), "the export was done before it was stopped")
        process.send_signal(signal.SIGCONT)
        answer = json.loads(process.communicate(timeout=WAIT_SECONDS)[0])
        self.assertEqual(process.returncode, 0)
        self.assertGreater(answer["txid"], before)
        self.assertEqual(answer["digest"], self.digest_in_log(cluster.primary, "app.db", answer["txid"]))
        check_ring(self.target)
        for writer in writers:
            writer.stop()
        self.assertEqual(cluster.wait_converged(), ["app.db"])

    def test_under_writers_in_wal_mode(self):
        self.run_under_writers("wal")

    def test_under_writers_in_delete_mode(self):
        self.run_under_writers("delete")

    def test_sizes_that_change_meanwhile(self):
        """VACUUM, growth and new databases of the same name: each export is one state."""
        cluster = self.cluster()
        node = cluster.primary
        node.fill("app.db", mode="wal", rows=5000)
        script = ("import sqlite3, sys\n"
                  "c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
                  "while True:\n"
                  "    c.execute('DELETE FROM t WHERE id > 1000')\n"
                  "    c.execute('VACUUM')\n"
                  "    c.execute('WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i + 1 FROM n LIMIT 9000) "
                  "INSERT INTO t SELECT i, randomblob(1000) FROM n')\n")
        writer = self.spawn(["/usr/bin/python3", "-c", script, node.path("app.db")])
        sizes = set()

        def exported():
            answer = self.export(node, "app.db", "--force")
            self.assertEqual(answer["digest"], self.digest_in_log(node, "app.db", answer["txid"]))
            with contextlib.closing(connect(self.target)) as connection:
                self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
                sizes.add(connection.execute("SELECT count(*) FROM t").fetchone()[0])
            return len(sizes) > 1

        wait_for(exported, "exports of different states")
        self.assertIsNone(writer.poll())

    def test_refusals_change_nothing(self):
        cluster = self.cluster()
        node = cluster.primary
        node.fill("app.db", rows=100)

        def refused(said, *arguments):
            done = node.echofs("export", *arguments, check=False)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn(said, done.stderr)

        refused("no database", "none.db", self.target)
        refused("no directory", "app.db", self.directory + "/none/x.db")
        refused("in the mount", "app.db", node.path("copy.db"))
        with open(self.target, "w", encoding="ascii") as file:
            file.write("mine")
        refused("--force", "app.db", self.target)
        for suffix in ("-wal", "-journal"):
            with open(self.target + suffix, "w", encoding="ascii") as file:
                file.write("mine")
            refused("in the way", "app.db", self.target, "--force")
            os.unlink(self.target + suffix)
        with open(self.target, encoding="ascii") as file:
            self.assertEqual(file.read(), "mine")
        self.assertEqual(os.listdir(node.mount), ["app.db"])
        self.assertIn("exported to", node.echofs("export", "app.db", self.target, "--force").stdout)
        self.assertEqual(read_database(connect(self.target)), read_database(node.connect("app.db")))

    @needs_root
    def test_disk_full(self):
        self.disks = []
        cluster = self.cluster()
        cluster.primary.fill("app.db", rows=8000)
        disk = Disk(self, os.path.join(self.directory, "small"), 4)
        self.addCleanup(disk.unmount)
        self.target = os.path.join(disk.directory, "exported.db")
        with open(self.target, "w", encoding="ascii") as file:
            file.write("mine")
        done = cluster.primary.echofs("export", "app.db", self.target, "--force", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No space left", done.stderr)
        self.assertEqual(os.listdir(disk.directory), ["exported.db"])
        self.assertEqual(os.path.getsize(self.target), 4)

    def test_killed_in_the_middle(self):
        cluster = self.cluster()
        cluster.primary.fill("app.db", rows=50_000)
        process = self.spawn([os.environ["ECHOFS"], "export", "app.db", self.target, "--data-dir",
                              cluster.primary.data])
        partial = self.target + ".tmp"
        wait_for(lambda: os.path.exists(partial) and os.path.getsize(partial) > 0, "the export to begin")
        process.kill()
        self.assertEqual(process.wait(timeout=WAIT_SECONDS), -signal.SIGKILL)
        self.assertFalse(os.path.exists(self.target))
        self.export(cluster.primary, "app.db")
        self.assertFalse(os.path.exists(partial))
        self.assertEqual(read_database(connect(self.target)), read_database(cluster.primary.connect("app.db")))


class LogExportTest(ClusterTest):
    def test_change_sets_as_ltx_files(self):
        """Read by another decoder, and applied one after the other they are the database."""
        cluster = self.cluster()
        node = cluster.primary
        for mode, page_size in (("wal", 4096), ("delete", 1024)):
            name = mode + ".db"
            node.fill(name, mode=mode, page_size=page_size, rows=50)
            node.execute(name, "UPDATE t SET x = 'short' WHERE id % 3 = 0")
            node.execute(name, "DELETE FROM t WHERE id > 10", "VACUUM")
            node.execute(name, "INSERT INTO t SELECT NULL, randomblob(3000) FROM t")
            listed = [json.loads(line) for line in node.echofs("log", name, "--json").stdout.splitlines()]
            target = os.path.join(self.directory, mode)
            os.mkdir(target)
            database = bytearray()
            for entry in listed:
                path = node.echofs("log", name, "--export", entry["txid"], "--to", target).stdout.strip()
                self.assertEqual(os.path.basename(path), f"{entry['txid']}-{entry['txid']}.ltx")
                self.assertEqual(os.path.getsize(path), entry["bytes"])
                ltx = LtxFile(path)
                self.assertEqual((f"{ltx.max_txid:016x}", f"{ltx.digest:016x}", len(ltx.pages), ltx.commit, ltx.term,
                                  ltx.time_ms),
                                 tuple(entry[key] for key in ("txid", "digest", "pages", "page_count", "term",
                                                              "timestamp_ms")))
                ltx.apply(database)
            exported = os.path.join(self.directory, name)
            node.echofs("export", name, exported)
            with open(exported, "rb") as file:
                self.assertEqual(file.read(), bytes(database))
            again = node.echofs("log", name, "--export", listed[0]["txid"], "--to", target, check=False)
            self.assertEqual(again.returncode, 1)

    def test_parts_of_the_log(self):
        cluster = self.cluster()
        node = cluster.primary
        node.execute("app.db", "CREATE TABLE t(x)", *["INSERT INTO t VALUES (1)"] * 9)
        node.execute("other.db", "CREATE TABLE t(x)")

        def txids(*options):
            return [int(json.loads(line)["txid"], 16)
                    for line in node.echofs("log", "app.db", "--json", *options).stdout.splitlines()]

        self.assertEqual(txids(), list(range(1, 11)))
        self.assertEqual(txids("--limit", "3"), [8, 9, 10])
        self.assertEqual(txids("--limit", "30"), list(range(1, 11)))
        self.assertEqual(txids("--from", "9"), [9, 10])
        self.assertEqual(txids("--from", "000000000000000a"), [10])
        self.assertEqual(txids("--from", "4", "--limit", "2"), [4, 5])
        self.assertEqual(txids("--from", "b"), [])
        self.assertIn("0000000000000009", node.echofs("log", "app.db", "--limit", "2").stdout)
        os.remove(node.path("other.db"))
        for arguments, code in ((["app.db", "--from", "x"], 2), (["app.db", "--export", "0"], 2),
                                (["app.db", "--export", "1", "--limit", "1"], 2), (["app.db", "--to", "x"], 2),
                                (["app.db", "--export", "b"], 1), (["none.db", "--export", "1"], 1),
                                (["other.db", "--export", "2"], 1)):
            done = node.echofs("log", *arguments, check=False)
            self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")


class VerifyTest(ClusterTest):
    def verify(self, node, *options, code=0):
        """Results by (database, node)."""
        done = node.echofs("verify", "--json", *options, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["equal"], code == 0)
        return {(copy["database"], copy["node"]): copy for copy in answer["copies"]}

    def flip(self, node, name):
        """A bit in the middle of a page of the table, as a failing disk would; the row that it is in."""
        path = os.path.join(node.data, "files", name)
        with contextlib.closing(node.connect(name)) as connection:
            value, = connection.execute("SELECT x FROM t WHERE id = 50").fetchone()
        with open(path, "r+b") as file:
            at = file.read().index(value) + len(value) // 2
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 16]))
        return value

    def test_equal_under_writers(self):
        cluster = self.cluster(replicas=2)
        writers = []
        for mode in ("wal", "delete"):
            cluster.primary.fill(mode + ".db", mode=mode, rows=2000)
            writers.append(RingWriter(self, cluster.primary.path(mode + ".db"), mode).start())
        for _ in range(scaled(3, 30)):
            for node in cluster.nodes:
                for writer in writers:
                    writer.wait_records(5)
                found = self.verify(node, "--full")
                # Every node knows its primary; the primary knows all.
                others = [each.name for each in cluster.nodes if node is cluster.primary or each is cluster.primary]
                self.assertEqual(set(found), {(name, other) for name in ("wal.db", "delete.db")
                                              for other in {*others, node.name}})
        self.assertEqual({name for name, _ in self.verify(cluster.primary, "wal.db")}, {"wal.db"})
        for writer in writers:
            writer.stop()

    def run_flipped(self, mode):
        cluster = self.cluster()
        cluster.primary.fill("app.db", mode=mode, rows=500)
        cluster.primary.fill("other.db", mode=mode, rows=500)
        cluster.wait_converged()
        replica = cluster.replica
        # Its WAL, where there is one, is in the file afterwards.
        self.assertEqual(replica.stop(), 0)
        for name in os.listdir(os.path.join(replica.data, "files")):
            if name.endswith("-wal"):
                self.checkpoint(cluster, name[:-len("-wal")])
        replica.start()
        cluster.wait_converged()
        expected = self.flip(replica, "app.db")
        self.verify(cluster.primary, "--full")
        self.assertEqual(self.verify(replica, code=0)["app.db", "b"]["result"], "equal", "only --full reads the file")
        found = self.verify(replica, "--full", code=1)
        self.assertEqual({key: copy["result"] for key, copy in found.items()},
                         {("app.db", "a"): "equal", ("app.db", "b"): "different",
                          ("other.db", "a"): "equal", ("other.db", "b"): "equal"})
        exported = replica.echofs("export", "app.db", self.directory + "/exported.db", check=False)
        self.assertEqual(exported.returncode, 1)
        self.assertIn("damaged", exported.stderr)
        self.assertFalse(os.path.exists(self.directory + "/exported.db"))
        self.assertIn("damaged", replica.echofs("verify", "--full", check=False).stdout)
        with contextlib.closing(replica.connect("app.db")) as reader:
            reader.execute("SELECT count(*) FROM t").fetchall()
            found = self.verify(replica, "--full", "--repair")
            self.assertEqual(found["app.db", "b"]["result"], "repaired")
            self.assertEqual(found["other.db", "b"]["result"], "equal")
            self.assertEqual(reader.execute("SELECT x FROM t WHERE id = 50").fetchone(), (expected,))
        self.verify(replica, "--full")
        cluster.primary.execute("app.db", "UPDATE t SET x = 'later' WHERE id = 50")
        self.assertEqual(cluster.wait_converged(), ["app.db", "other.db"])

    def checkpoint(self, cluster, name):
        cluster.primary.execute(name, "PRAGMA wal_checkpoint(TRUNCATE)")

    def test_a_flipped_bit_is_found_and_repaired_in_wal_mode(self):
        self.run_flipped("wal")

    def test_a_flipped_bit_is_found_and_repaired_in_delete_mode(self):
        self.run_flipped("delete")

    def test_the_primary_is_not_repaired(self):
        cluster = self.cluster()
        cluster.primary.fill("app.db", mode="delete", rows=500)
        cluster.wait_converged()
        self.flip(cluster.primary, "app.db")
        self.assertEqual(self.verify(cluster.primary, "--full", code=1)["app.db", "a"]["result"], "different")
        done = cluster.primary.echofs("verify", "--full", "--repair", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("echofs handoff", done.stderr)
        self.assertEqual(cluster.primary.echofs("verify", "none.db", check=False).returncode, 1)
        self.assertEqual(cluster.primary.echofs("verify", "--no-such", check=False).returncode, 2)


class VerifyMembersTest(members.MembersTest):
    def test_each_node_of_a_cluster_compares_all(self):
        cluster = self.members()
        leader = cluster.leader()
        leader.fill("app.db", rows=200)
        cluster.wait_converged()
        for node in cluster.running():
            done = node.echofs("verify", "--json")
            self.assertEqual({(copy["node"], copy["result"]) for copy in json.loads(done.stdout)["copies"]},
                             {(each.name, "equal") for each in cluster.running()})
        lost = cluster.others(leader)[0]
        lost.process.send_signal(signal.SIGSTOP)
        os.kill(lost.daemon(), signal.SIGSTOP)
        done = leader.echofs("verify", "--json", check=False)
        lost.process.send_signal(signal.SIGCONT)
        os.kill(lost.daemon(), signal.SIGCONT)
        self.assertEqual(done.returncode, 1)
        results = {copy["node"]: copy["result"] for copy in json.loads(done.stdout)["copies"]}
        self.assertEqual(results.pop(lost.name), "not compared")
        self.assertEqual(set(results.values()), {"equal"})
