"""The daemon is killed at each of its failpoints (`echofs failpoints`), before and after each durable step.

A node under test is started with one point armed and brought there (failpoint_table.py says how); a point that is not
reached is a failure. Then it is started again, and must become ready by itself; the nodes must converge to equal, sound
databases that have every acknowledged commit and everything that was in the history before; and what the history lacks
must be kept as orphans. A cluster goes on from one point to the next, as it does in life.
"""

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import time

import failpoint_table
import harness
import members
from failpoint_load import Churn, Load

VARIABLE = "ECHOFS_FAILPOINT"


def orphans_of(nodes):
    """How many change sets of each database the nodes keep as orphans."""
    found = {}
    for node in nodes:
        for kept in json.loads(node.echofs("orphans", "list", "--json").stdout):
            for name, count in kept["databases"].items():
                found[name] = found.get(name, 0) + count
    return found


def start_armed(node, name, hit):
    """Returns when the node is ready, or was killed on the way there."""
    node.clear_mount_point()
    node.prefix = ["env", f"{VARIABLE}={name}:{hit}"]
    node.start(wait=False)
    node.prefix = []
    harness.wait_for(lambda: not pending(node) or (node.status() or {}).get("ready"), f"{node.name} to be ready")


def pending(node):
    """Whether the node may still come to its failpoint: its processes run."""
    return node.process.poll() is None


def start_again(node):
    node.clear_mount_point()
    node.start()


def killed_at(node, name, step=lambda: time.sleep(0.005)):
    """Repeats a step until the point has killed the node."""
    end = time.monotonic() + harness.WAIT_SECONDS
    while pending(node):
        assert time.monotonic() < end, f"{name} was not reached on {node.name}: {node.log_text()[-2000:]}"
        step()
    node.wait_end()
    assert f"failpoint {name}: killing" in node.log_text(), f"{node.name} ended by itself: {node.log_text()[-2000:]}"


class PointsTest(harness.ClusterTest):
    def for_each_point(self, kill_and_check):
        """Up to the first failure, for that leaves the cluster in a state of its own."""
        test = self.id().split(".", 1)[1]
        points = failpoint_table.points_of(test)
        self.assertTrue(points, test)
        for name, step, hit in points:
            with self.subTest(f"{name}:{hit}"):
                begin = time.monotonic()
                kill_and_check(name, step, hit)
                print(f"{name}:{hit} {time.monotonic() - begin:.1f} s", flush=True)
            if harness.failed(self):
                return


class StaticTest(PointsTest):
    """A primary and a replica that the configuration names."""

    databases = {"wal.db": ("wal", "FULL", True), "delete.db": ("delete", "FULL", True),
                 "truncate.db": ("truncate", "FULL", True), "persist.db": ("persist", "FULL", True)}

    def begin(self, **options):
        self.nodes = self.cluster(**options)
        self.churn = Churn(self, self.nodes.primary)
        self.load = Load(self, self.databases, [self.nodes.primary])
        self.load.create(self.nodes.primary)
        self.nodes.wait_converged()

    def kill_at(self, node, name, step, hit, writers=None):
        """With writers of all databases, unless some are named."""
        start_armed(node, name, hit)
        with self.load.running(writers):
            killed_at(node, name, lambda: self.take_step(step))

    def take_step(self, step):
        self.load.tend()
        self.churn(step)

    def check(self):
        self.nodes.wait_converged()
        self.assertEqual(orphans_of(self.nodes.nodes), {})
        self.load.check(self.nodes.nodes, {})

    def run_points(self, node):
        def kill_and_check(name, step, hit):
            node.stop()
            self.kill_at(node, name, step, hit)
            start_again(node)
            self.check()

        self.for_each_point(kill_and_check)


class TableTest(harness.ClusterTest):
    def test_every_failpoint_has_a_test(self):
        tests = {f"{case.__name__}.{method}" for case in globals().values()
                 if isinstance(case, type) and issubclass(case, PointsTest)
                 for method in dir(case) if method.startswith("test_")}
        names = failpoint_table.names()
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            area = failpoint_table.area_of(name)
            self.assertIsNotNone(area, f"{name} is in no entry of failpoint_table.TABLE")
            self.assertIn(area.test, tests, name)
        for start in failpoint_table.TABLE:
            self.assertTrue(any(name.startswith(start) for name in names), f"no failpoint starts with {start}")

    def test_an_unknown_name_is_an_error(self):
        for text, why in (("no.such.point", "there is no failpoint of this name"), ("log.sync.before:0", "number above 0")):
            node = self.node("n" + str(len(text)), prefix=["env", f"{VARIABLE}={text}"])
            node.start(wait=False)
            self.assertEqual(node.wait_end(), 1)
            self.assertIn(why, node.log_text())


class PrimaryTest(StaticTest):
    def test_rollback_journals(self):
        """In each of the journal modes by itself."""
        self.begin()

        def kill_and_check(name, modes, hit):
            for mode in modes.split():
                self.nodes.primary.stop()
                self.kill_at(self.nodes.primary, name, "load", hit, [mode + ".db"])
                start_again(self.nodes.primary)
                self.check()

        self.for_each_point(kill_and_check)

    def test_wal(self):
        self.begin()
        self.run_points(self.nodes.primary)

    def test_log(self):
        """Also on the replica, whose log is the same."""
        self.begin()
        for node in self.nodes.nodes:
            self.run_points(node)


class ReplicaTest(StaticTest):
    def test_apply(self):
        self.begin()
        self.run_points(self.nodes.replica)

    def test_checkpoint(self):
        self.begin()
        self.run_points(self.nodes.replica)

    def take_step(self, step):
        if step == "end":
            self.end(self.nodes.replica)
        else:
            super().take_step(step)

    def end(self, replica):
        """Orderly, when it has applied something."""
        before = replica.databases()["wal.db"]["applied_index"]
        harness.wait_for(lambda: replica.databases()["wal.db"]["applied_index"] > before, "an entry to be applied")
        replica.process.send_signal(signal.SIGTERM)
        harness.wait_for(lambda: not pending(replica), "the replica to end")


class RecoveryTest(StaticTest):
    """Killed at a point, and then once more while it recovers from that."""

    def test_recovery(self):
        self.begin()
        self.churn("attached")  # so that the next one makes no tables

        def kill_and_check(name, prior, hit):
            first, step = prior.split()
            first, first_hit = first.split(":")
            node = self.nodes.replica if first.startswith("apply.") else self.nodes.primary
            node.stop()
            self.kill_at(node, first, step, first_hit, None if step == "load" else [])
            start_armed(node, name, hit)
            killed_at(node, name)
            start_again(node)
            self.check()

        self.for_each_point(kill_and_check)


class SegmentTest(StaticTest):
    """A log whose first segment is gone, and a node that has nothing, or nothing any more."""

    databases = {"wal.db": ("wal", "FULL", True), "delete.db": ("delete", "FULL", True)}

    def test_segments_and_copies(self):
        path = os.path.join(self.directory, "echofs.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"data": {"retention": {"size": "1MiB"}}}, file)
        self.begin(arguments=["--config", path])

        def kill_and_check(name, how, hit):
            victim, step = how.split()
            node = self.nodes.primary if victim == "primary" else self.nodes.replica
            node.stop()
            if victim == "empty":
                node.lose_data()
            self.kill_at(node, name, step, hit)
            start_again(node)
            self.check()

        self.for_each_point(kill_and_check)


class RewindTest(PointsTest):
    """A former primary whose log has entries that the history lacks goes back to it; then the roles are swapped."""

    ORPHANS = 3  # transactions of each database

    def test_rewind(self):
        cluster = self.cluster()
        kept = {node.name: 0 for node in cluster.nodes}
        for mode in ("wal", "delete"):
            cluster.primary.fill(mode + ".db", mode=mode, rows=400)
        cluster.wait_converged()
        numbers = itertools.count()

        def kill_and_check(name, _, hit):
            old, number = cluster.primary, next(numbers)
            self.diverge(cluster, number)
            kept[old.name] += 2 * self.ORPHANS
            start_armed(old, name, hit)
            killed_at(old, name)
            start_again(old)
            self.assertEqual(sorted(cluster.wait_converged()), ["delete.db", "wal.db"])
            for node in cluster.nodes:
                self.assertEqual(node.status()["orphans"], kept[node.name])
                for mode in ("wal", "delete"):
                    self.assertEqual(node.execute(mode + ".db", "SELECT count(*) FROM t WHERE x = 'orphan'"), [(0,)])
                    self.assertEqual(node.execute(mode + ".db", "SELECT x FROM t WHERE id = 5"), [(number,)])

        self.for_each_point(kill_and_check)

    def diverge(self, cluster, number):
        """The replica becomes the primary without what the primary, which is stopped, has committed last."""
        old, new = cluster.primary, cluster.replica
        new.stop()
        for mode in ("wal", "delete"):
            for row in range(self.ORPHANS):
                old.execute(mode + ".db", f"UPDATE t SET x = 'orphan' WHERE id = {20 + 100 * row}")
        old.stop()
        cluster.primary, cluster.replicas = new, [old]
        for node in cluster.nodes:
            node.arguments[node.arguments.index("--lease-primary") + 1] = f"127.0.0.1:{new.port}"
        new.start()
        for mode in ("wal", "delete"):
            new.execute(mode + ".db", f"UPDATE t SET x = {number} WHERE id = 5")


class LeasedTest(PointsTest, members.MembersTest):
    """Nodes whose primary a lease decides, and commits that wait for a replica; those of normal.db do not wait."""

    def begin(self, count=2, **options):
        self.nodes = self.members(count=count, min_sync_replicas=1, ack_timeout=1, **options)
        self.load = Load(self, {"wal.db": ("wal", "FULL", True), "delete.db": ("delete", "FULL", True),
                                "normal.db": ("wal", "NORMAL", False)}, self.nodes.nodes)
        self.load.create(self.nodes.leader())
        self.settle()

    def settle(self):
        """All nodes run and are in sync; returns the primary."""
        self.start_all()
        self.nodes.wait_converged()
        leader = self.nodes.leader()
        self.nodes.wait_followed(leader)
        harness.wait_for(lambda: len(leader.status()["in_sync"]) == len(self.nodes.nodes), "all nodes to be in sync")
        return leader

    def start_all(self):
        for node in self.nodes.nodes:
            if node.process is None:
                node.start(wait=False)

    def read_all(self, leader):
        """A commit that failed for want of acknowledgements, or of the lease, is undone by the next connection."""
        for name in self.load.databases:
            leader.execute(name, "SELECT count(*) FROM written")

    def check(self):
        self.start_all()
        # Until it is undone the database cannot be copied either. The role may change meanwhile.
        with contextlib.suppress(sqlite3.OperationalError):
            self.read_all(self.nodes.leader())
        self.read_all(self.settle())
        self.settle()
        self.load.check(self.nodes.nodes, orphans_of(self.nodes.nodes))

    def arm(self, name, hit):
        """A replica is started with the point armed. Returns it and the primary."""
        leader = self.nodes.leader()
        node = next(node for node in self.nodes.others(leader) if node.name in "ab")
        node.stop()
        start_armed(node, name, hit)
        return node, self.settle()

    def hand_off(self, source, target):
        """Whatever comes of it."""
        if source.process is not None and pending(source) and pending(target):
            source.echofs("handoff", "--to", target.name, check=False)

    def lead_before(self, node, leader, times):
        """The node has been the primary so often when this returns, unless its point was reached."""
        for _ in range(times):
            for source, target in ((leader, node), (node, leader)):
                self.hand_off(source, target)
                harness.wait_for(lambda target=target: not pending(node) or target.role() == "primary",
                                 f"{target.name} to lead")

    def step_of(self, how, node, leader, hit):
        """What is done again and again until the point is reached."""
        wait = lambda: time.sleep(0.005)
        if how == "lead":
            self.hand_off(leader, node)
            return wait
        if how == "failover":
            self.lead_before(node, leader, hit - 1)
            if pending(node):
                os.kill(leader.daemon(), signal.SIGKILL)
                leader.wait_end()
            return wait
        if how == "release":
            self.hand_off(leader, node)
            leader.kill()
            # Or it would be handed off to.
            harness.wait_for(lambda: f"replica {leader.name} disconnected" in node.log_text(), "the replica's end")
            node.process.send_signal(signal.SIGTERM)
            return wait
        # give, take: the lease goes to and fro.
        return lambda: (self.hand_off(leader, node), self.hand_off(node, leader))

    def kill_at(self, name, how, hit):
        node, leader = self.arm(name, hit)
        with self.load.running():
            step = self.step_of(how, node, leader, hit)
            killed_at(node, name, lambda: (self.load.tend(), step()))
        self.check()

    def run_points(self):
        self.begin()
        self.for_each_point(lambda name, ways, hit: [self.kill_at(name, how, hit) for how in ways.split()])


class LeaseTest(LeasedTest):
    def test_lease(self):
        self.run_points()


class StepdownTest(LeasedTest):
    def test_stepdown(self):
        self.run_points()


class TakeoverTest(LeasedTest):
    def test_takeover(self):
        """By a handoff, and after a failure."""
        self.run_points()


class InSyncTest(LeasedTest):
    def test_in_sync(self):
        """First a silent replica is taken out of the in-sync set, then it is taken in again."""
        self.begin(count=3, never="c")
        third = self.nodes.node("c")

        def kill_and_check(name, _, hit):
            node, leader = self.arm(name, hit)
            self.hand_off(leader, node)
            with self.load.running():
                third.kill()
                if hit == 2:
                    harness.wait_for(lambda: not pending(node) or "c" not in self.in_sync(node), "c to be taken out")
                    third.start(wait=False)
                killed_at(node, name, self.load.tend)
            self.check()

        self.for_each_point(kill_and_check)

    def in_sync(self, node):
        return (node.status() or {"in_sync": ["c"]})["in_sync"]
