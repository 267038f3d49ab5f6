"""The power goes, at any moment: what was acknowledged under synchronous=FULL is there, and the node works by itself.

A node runs on a recorded disk; then it is started on what the disk could have been at many moments of that run.
"""

import bisect
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3

import harness
import members
from applications import Application
from database_content import read_database
from power_states import SYNC_END, VARIANTS, make_state, read_records
from power_writer import filler
from processes import scaled
from recorded_node import RecordedDisk

MODES = ("wal", "delete", "truncate", "persist")
NORMAL = "normal"  # its commits may be lost, but only the last ones, and whole
CHURN = "churn"
RETENTION = "1MiB"  # of the log, so that its segments are small
STATES = scaled(12, 200)
REPLICA_STATES = scaled(6, 60)
COMMITS = scaled(40, 200)


class PowerWriter(Application):
    """Commits, and records how long the disk's record was when a commit had returned (power_writer.py)."""

    program = "power_writer"
    programs = os.path.dirname(os.path.abspath(__file__))

    def lines(self):
        if not os.path.exists(self.record):
            return []
        with open(self.record, encoding="utf-8") as record:
            return [line.split() for line in record.read().split("\n")[:-1]]

    def acknowledged(self):
        """(row, position) of each commit that returned."""
        return [(int(row), int(position)) for row, position in self.lines()]

    def positions(self):
        return [int(line[-1]) for line in self.lines()]


def configure(node, config=None):
    """Gives the node a configuration file, or changes the one that it has, so that segments of its log are small."""
    path = os.path.join(node.directory, "echofs.yml")
    config = config or {"node": {"id": node.name}, "fuse": {"dir": node.mount}, "data": {"dir": node.data},
                        "http": {"listen": "off"}}
    config["data"]["retention"] = {"size": RETENTION}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # JSON is YAML
    node.arguments = ["--config", path]
    return node


def configure_member(node):
    with open(os.path.join(node.directory, "echofs.yml"), encoding="utf-8") as file:
        return configure(node, json.load(file))


def choose_positions(record, acknowledged, count, chance):
    """Moments of a run: just before and just after a commit returned, or a sync of any kind ended, and any others."""
    ends, syncs = [0], []
    for position, entry in read_records(record):
        if entry[0] == SYNC_END:
            syncs += ends[-1], position
        ends.append(position)
    around = [bound for at in acknowledged for bound in (at, ends[max(0, bisect.bisect_left(ends, at) - 1)])]
    kinds = (around, syncs, ends)
    chosen = {0, ends[-1]}
    for kind in itertools.cycle(kinds):
        if len(chosen) >= min(count, len(ends)):
            return sorted(chosen)
        chosen.add(chance.choice(kind))


class PowerLossStatesTest(members.MembersTest):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("ECHOFS_SEED", random.randrange(1 << 30)))
        print(f"ECHOFS_SEED={self.seed}", flush=True)
        self.chance = random.Random(self.seed)
        self.writers = {}

    def start_writers(self, node, disk):
        os.mkdir(node.path(CHURN))
        for mode in MODES:
            self.writers[mode] = PowerWriter(self, node.path(mode + ".db"), disk.path, mode, "FULL").start()
        self.writers[NORMAL] = PowerWriter(self, node.path(NORMAL + ".db"), disk.path, "wal", "NORMAL").start()
        self.writers[CHURN] = PowerWriter(self, node.path(CHURN), disk.path, CHURN, "FULL").start()

    def expected(self, position):
        """{database: rows at least} of what was acknowledged by then, and the databases that must be gone."""
        there = {mode + ".db": max((row for row, at in self.writers[mode].acknowledged() if at <= position), default=0)
                 for mode in MODES}
        gone = set()
        for what, name, at in self.writers[CHURN].lines():
            name = f"{CHURN}/{name}"
            if int(at) > position:
                continue
            if what == "made":
                there[name] = 3
            else:
                there.pop(name, None)
            if what == "gone":
                gone.add(name)
        return {name: rows for name, rows in there.items() if rows}, gone

    def check_database(self, node, name, rows):
        with contextlib.closing(node.connect(name)) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)], name)
            tables = {table for table, in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            if rows == 0 and not tables:
                return
            found = connection.execute("SELECT id, filler FROM written ORDER BY id").fetchall()
            self.assertGreaterEqual(len(found), rows, f"{name}: acknowledged commits are missing")
            self.assertEqual(found, [(i, filler(i)) for i in range(1, len(found) + 1)], name)
            counted = connection.execute("SELECT sum(value) FROM counter").fetchone()
            self.assertEqual(counted, (3 * len(found),), f"{name}: half a transaction")
        self.assertEqual(read_database(node.connect(name))[0], "ok")

    def check_node(self, node, position):
        """What a node that has started on a state of this position must have."""
        there, gone = self.expected(position)
        databases = node.databases()
        self.assertLessEqual(set(there), set(databases), "databases are missing")
        self.assertEqual({entry["state"] for entry in databases.values()} - {"ok"}, set())
        for name in databases:
            self.check_database(node, name, there.get(name, 0))
        self.assertEqual(gone & set(databases), set(), "deleted databases are back")
        self.assertNotIn("as they are", node.log_text(), "files and log could not be made equal")
        for mode in MODES:
            if mode + ".db" in there:
                node.execute(mode + ".db", "CREATE TABLE IF NOT EXISTS again(x)", "INSERT INTO again VALUES (1)")

    def kill(self, node):
        daemon = node.daemon()
        os.kill(daemon, signal.SIGKILL)
        node.wait_end()
        harness.wait_for(lambda: not harness.thread_states(daemon), "the daemon's end")

    def kill_writers(self):
        """They die with the machine, and before the mount: else they would go on in the directory below it."""
        for writer in self.writers.values():
            writer.assert_alive()
            writer.process.kill()
            writer.process.wait(timeout=harness.WAIT_SECONDS)

    def record_single(self):
        """A run of one node; returns its disk."""
        node = configure(self.node("a"))
        disk = RecordedDisk(node)
        node.start()
        self.start_writers(node, disk)
        harness.wait_all_records(list(self.writers.values()), COMMITS)
        self.kill_writers()
        self.kill(node)
        return disk

    def check_states(self, disk, count, check):
        """Calls check(disk, position, variant, seed) for states of this record."""
        acknowledged = [at for writer in self.writers.values() for at in writer.positions()]
        positions = choose_positions(disk.path, acknowledged, count, self.chance)
        for number, (position, state) in enumerate(disk.states(positions)):
            variant = VARIANTS[number % len(VARIANTS)]
            try:
                check(state, position, variant, self.seed + number)
            except Exception as error:
                error.add_note(f"state {number} of {len(positions)}: {variant}, position {position}")
                raise

    def another_node(self):
        """One with the same name, for states of the first one's disk."""
        directory = os.path.join(self.directory, "state")
        os.mkdir(directory)
        return harness.Node(directory, "a")

    def test_l4_the_log_lets_go_of_nothing_that_the_files_do_not_hold(self):
        """Nobody syncs the WAL (NORMAL, and no checkpoint)."""
        node = self.node("a")
        configure(node)
        disk = RecordedDisk(node)
        node.start()
        connection = node.connect("app.db")
        for pragma in ("journal_mode=wal", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            connection.execute("PRAGMA " + pragma)
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        rows = 0

        def first_index():
            oldest = node.echofs("log", "app.db", "--from", "0000000000000001", "--limit", "1", "--json").stdout
            return json.loads(oldest)["index"] if oldest else 0

        def released():
            nonlocal rows
            rows += 1
            connection.execute("INSERT INTO t(v) VALUES (randomblob(30000))")
            return first_index() > 50

        harness.wait_for(released, "the log to let go of change sets")
        first = first_index()
        self.kill(node)
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        disk.lose_power("synced")
        node.start()
        print(f"{rows} rows, the log began at entry {first}")
        self.assertNotIn("as they are", node.log_text())
        # An entry is at most one row, and a few were not rows.
        self.assertGreaterEqual(node.execute("app.db", "SELECT count(*) FROM t")[0][0], first - 5)
        self.assertEqual(node.stop(), 0)

    def test_single_node(self):
        disk = self.record_single()
        node = configure(self.another_node())
        self.check_states(disk, STATES, lambda *state: self.check_alone(node, *state))

    def check_alone(self, node, state, position, variant, seed):
        make_state(state, node.data, variant, seed)
        disk = RecordedDisk(node)
        node.start()
        self.check_node(node, position)
        self.assertEqual(node.stop(), 0)
        disk.end()
        # The power goes again while the node starts and works.
        again = random.Random(seed).choice([at for at, _ in read_records(disk.path)])
        for _, second in disk.states([again]):
            make_state(second, node.data, "random", seed)
        node.start()
        self.check_node(node, position)
        self.assertEqual(node.stop(), 0)

    def test_replica(self):
        """min-sync-replicas 1: what was acknowledged because the replica had it is there on the replica alone, and the
        replica joins the running primary again."""
        cluster = self.members(count=2, start=False, never="b", min_sync_replicas=1)
        primary, replica = cluster.nodes
        disk = RecordedDisk(configure_member(replica))
        cluster.start()
        cluster.wait_followed(primary)
        self.start_writers(primary, disk)
        harness.wait_all_records(list(self.writers.values()), COMMITS)
        self.writers[CHURN].stop()  # its next commit would not come to an end
        self.kill(replica)
        disk.end()
        for writer in self.writers.values():
            if writer is not self.writers[CHURN]:
                writer.stop()
        alone = configure(self.another_node())

        def check(state, position, variant, seed):
            if any(position >= at for writer in self.writers.values() for at in writer.positions()):
                make_state(state, alone.data, variant, seed)
                alone.start()
                self.check_node(alone, position)
                self.assertEqual(alone.stop(), 0)
            make_state(state, replica.data, variant, seed)
            replica.start()
            cluster.wait_converged()
            self.compare(cluster)
            self.kill(replica)

        self.check_states(disk, REPLICA_STATES, check)
        replica.start()

    def compare(self, cluster):
        """What is read on the nodes, which are at the same position."""
        leader = cluster.leader()
        for name in leader.databases():
            expected = read_database(leader.connect(name))
            self.assertEqual(expected[0], "ok", name)
            for node in cluster.others(leader):
                self.assertEqual(read_database(node.connect(name)), expected, f"{name} on {node.name}")

    def test_primary_with_failover(self):
        cluster = self.members(start=False, min_sync_replicas=1)
        disks = {node.name: RecordedDisk(configure_member(node)) for node in cluster.nodes}
        cluster.start()
        clients = self.clients(cluster, "app.db", "wal", "FULL")
        for number in range(scaled(2, 40)):
            leader = cluster.leader()
            cluster.wait_followed(leader)
            self.client_of(clients, leader).wait_records(20)
            leader.kill()
            new = cluster.leader(among=cluster.others(leader))
            self.client_of(clients, new).wait_records(20)
            disks[leader.name].lose_power(VARIANTS[number % 2], self.seed + number)
            leader.start()
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, "app.db", replicated=True)
        self.compare(cluster)
