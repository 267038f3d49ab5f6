"""min-sync-replicas: 1: what COMMIT returned under synchronous=FULL is on the next primary, whatever happens (D1 to D4)."""

import contextlib
import random
import signal
import sqlite3

import members
import network
from applications import wait_all_records
from processes import scaled, wait_for
from recorded_node import RecordedDisk

NAME = "app.db"


class ReplicatedCommitsTest(members.MembersTest):
    @network.needs_namespaces
    def test_d4_failures_under_four_writers(self):
        """On the primary, two write to a WAL database and two to one in DELETE mode."""
        hosts = network.Network(["a", "b", "c", "lease"])
        self.addCleanup(hosts.remove)
        cluster = self.members(network=hosts, start=False, min_sync_replicas=1)
        cluster.disks = {node.name: RecordedDisk(node) for node in cluster.nodes}
        cluster.start()
        clients = {name: self.clients(cluster, name, mode, "FULL", each=2)
                   for name, mode in (("wal.db", "wal"), ("delete.db", "delete"))}
        everybody = sum(clients.values(), [])
        for number in range(scaled(5, 100)):
            leader = self.wait_commits_on_leader(cluster, everybody)
            self.leave_wal(leader, clients["delete.db"])
            failure = FAILURES[number % len(FAILURES)]
            print(f"{failure.__name__} of {leader.name}", flush=True)
            failure(hosts, cluster, leader)
            self.wait_commits_on_another(cluster, everybody, leader)
            hosts.heal()
            if leader.process is None:
                leader.start(wait=False)
                leader.wait_ready()
            else:
                leader.signal_daemon(signal.SIGCONT)
        for client in everybody:
            client.stop()
        for name, told in clients.items():
            self.check_acknowledged(cluster, told, name, replicated=True)

    def wait_commits_on_leader(self, cluster, clients):
        """Until all clients of the primary have committed. On a busy machine it may lose the lease meanwhile."""
        while True:
            leader = cluster.followed_leader()
            wait = {client: client.record_count() + 10 for client in self.clients_of(clients, leader)}
            if wait_for(lambda: leader.role() != "primary" or all(
                    client.record_count() >= count for client, count in wait.items()) and "all",
                    f"commits of all clients on {leader.name}") == "all":
                return leader

    def leave_wal(self, leader, clients):
        """A replica shelters readers in a WAL from two states with the same change counter, as refused commits make them.
        When it becomes the primary with connections open, the database stays with the WAL until all are closed."""
        if leader.databases()["delete.db"]["journal_mode"] != "wal":
            return
        print("all applications on delete.db are started again: it has a WAL", flush=True)
        for client in clients:
            client.stop()
        with contextlib.closing(leader.connect("delete.db")) as connection:
            self.assertEqual(connection.execute("PRAGMA journal_mode=delete").fetchall(), [("delete",)])
        for client in clients:
            client.start()
        wait_all_records(self.clients_of(clients, leader), 10)

    def wait_commits_on_another(self, cluster, clients, leader):
        """Whichever it is: on a machine that stands still for a moment a new primary, too, can lose its lease."""
        before = {client: client.record_count() for client in clients}

        def commits(node):
            return all(client.record_count() >= before[client] + 10 for client in self.clients_of(clients, node))

        wait_for(lambda: any(map(commits, cluster.others(leader))), f"commits on another node than {leader.name}")

    def test_d3_too_few_replicas_left(self):
        cluster = self.members(count=2, min_sync_replicas=1)
        leader = cluster.leader()
        for mode in ("wal", "delete"):
            with self.subTest(mode=mode):
                self.check_too_few(cluster, leader, mode)

    def check_too_few(self, cluster, leader, mode):
        name = mode + ".db"
        cluster.wait_followed(leader)
        connection = leader.connect(name)
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES (1)")
        other = cluster.others(leader)[0]
        other.kill()
        with self.assertRaises(sqlite3.OperationalError) as raised:
            connection.execute("INSERT INTO t VALUES (2)")
        print(mode, "without replicas:", raised.exception)
        other.start(wait=False)
        other.wait_ready()

        def works_again():
            try:
                connection.execute("INSERT INTO t VALUES (3)")
                return True
            except sqlite3.OperationalError:
                return False

        wait_for(works_again, "commits on the same connection")
        rows = [row[0] for row in connection.execute("SELECT DISTINCT x FROM t ORDER BY x")]
        self.assertIn(rows, ([1, 3], [1, 2, 3]))
        connection.close()
        cluster.wait_converged()

    def test_d1_normal_does_not_wait(self):
        cluster = self.members(count=2, min_sync_replicas=1)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        connection = leader.connect(NAME)
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t(x)")
        connection.execute("PRAGMA synchronous=NORMAL")
        cluster.others(leader)[0].kill()
        connection.execute("INSERT INTO t VALUES (1)")
        self.assertEqual(connection.execute("SELECT count(*) FROM t").fetchone(), (1,))
        connection.close()


def sigkill(_, __, leader):
    leader.kill()


def cut_off_from_the_replicas_and_the_lease(hosts, cluster, leader):
    hosts.cut(leader.name, [node.name for node in cluster.others(leader)] + ["lease"])


def cut_off_from_the_lease(hosts, _, leader):
    hosts.cut(leader.name, ["lease"])


def pause(_, __, leader):
    leader.signal_daemon(signal.SIGSTOP)


def power_loss(_, cluster, leader):
    leader.kill()
    variant, seed = random.choice(("synced", "random")), random.randrange(1 << 30)
    print(f"of what was not synced, what {variant} {seed} leaves is there", flush=True)
    cluster.disks[leader.name].lose_power(variant, seed)


FAILURES = (sigkill, cut_off_from_the_replicas_and_the_lease, cut_off_from_the_lease, pause, power_loss)
