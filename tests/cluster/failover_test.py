"""Three nodes and a lease: handoff, crash, pause, and a lease service that is away (design section 7)."""

import itertools
import signal
import subprocess
import sys
import time

import harness
import members
from applications import wait_all_records
from processes import WAIT_SECONDS, wait_for

NAME = "app.db"
# An application that commits when it is told to.
TRANSACTION = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO t VALUES ('of a former primary')")
print("in a transaction", flush=True)
sys.stdin.readline()
try:
    connection.execute("COMMIT")
    print("committed", flush=True)
except sqlite3.Error as error:
    print("error:", error, flush=True)
"""


class FailoverCases:
    """What must hold with every backend of the lease."""

    lease = None

    def handoffs(self, modes, rounds):
        """Hands off again and again while clients write on databases of these journal modes."""
        cluster = self.members(self.lease, ttl=10)  # a busy machine is not to take the lease away meanwhile
        clients = {name: self.clients(cluster, name, mode) for name, mode in modes.items()}
        pauses = []
        for _ in range(rounds):
            leader = cluster.leader()
            cluster.wait_followed(leader)
            wait_all_records([self.client_of(some, leader) for some in clients.values()], 20)
            target = cluster.others(leader)[0]
            since = time.monotonic()
            leader.echofs("handoff", "--to", target.name)
            wait_for(lambda target=target: target.role() == "primary", f"{target.name} to lead")
            wait_all_records([self.client_of(some, target) for some in clients.values()], 5)
            pauses += [members.pause(some, since) for some in clients.values()]
        print("pause of writers in ms:", " ".join(f"{p * 1000:.0f}" for p in sorted(pauses)))
        for client in itertools.chain(*clients.values()):
            client.stop()
            # No connection broke: nothing but SQLITE_BUSY was seen.
            self.assertEqual(client.log_text(), "")
        for name, some in clients.items():
            self.check_all_kept(cluster, some, name)

    def test_r4_handoff_in_a_loop_under_load(self):
        self.handoffs({NAME: "wal"}, harness.scaled(10, 200))

    def test_r4_handoff_in_a_loop_under_load_in_delete_mode(self):
        self.handoffs({NAME: "delete"}, harness.scaled(10, 200))

    def test_r4_handoff_in_a_loop_under_load_of_three_databases(self):
        self.handoffs({"a.db": "wal", "b.db": "delete", "c/c.db": "wal"}, harness.scaled(5, 100))

    def kills(self, mode):
        """SIGKILL of whoever is the primary, while clients write."""
        cluster = self.members(self.lease)
        clients = self.clients(cluster, NAME, mode)
        for _ in range(harness.scaled(2, 30)):
            leader = cluster.leader()
            cluster.wait_followed(leader)
            self.client_of(clients, leader).wait_records(20)
            leader.kill()
            killed = time.monotonic()
            other = cluster.leader()
            self.client_of(clients, other).wait_records(1)
            print(f"writes again {members.pause(clients, killed):.2f} s after the last one, TTL "
                  f"{members.TTL_SECONDS} s")
            leader.start(wait=False)
            leader.wait_ready()
            cluster.wait_followed(other)
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)

    def test_r3_sigkill_of_the_primary(self):
        self.kills("wal")

    def test_r3_sigkill_of_the_primary_in_delete_mode(self):
        self.kills("delete")

    def test_r2_primary_paused_past_its_lease(self):
        cluster = self.members(self.lease)
        leader = cluster.leader()
        leader.execute(NAME, "PRAGMA journal_mode=wal", "CREATE TABLE t(x)")
        cluster.wait_followed(leader)
        # A process of its own: descriptors in a mount whose daemon is stopped hold up who is forked beside them.
        application = self.spawn([sys.executable, "-c", TRANSACTION, leader.path(NAME)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(application.stdout.readline(), "in a transaction\n")
        leader.signal_daemon(signal.SIGSTOP)
        others = cluster.others(leader)
        new = cluster.leader(among=others)
        new.execute(NAME, "INSERT INTO t VALUES ('of the new primary')")
        application.stdin.write("commit\n")
        application.stdin.flush()
        leader.signal_daemon(signal.SIGCONT)
        told = application.stdout.readline()
        print("the former primary's application was told:", told.strip())
        self.assertIn("error", told)
        application.wait(timeout=WAIT_SECONDS)
        cluster.wait_converged()
        for node in cluster.running():
            self.assertEqual(node.execute(NAME, "SELECT x FROM t"), [("of the new primary",)])

    def test_r2_lease_service_away_for_less_than_a_ttl(self):
        cluster = self.members(self.lease, ttl=10)  # the service starts within it on a busy machine too
        clients = self.clients(cluster, NAME)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        own = self.client_of(clients, leader)
        own.wait_records(20)
        term = leader.status()["term"]
        cluster.lease.kill()
        own.wait_records(20)
        cluster.lease.start()
        own.wait_records(20)
        self.assertEqual(cluster.leader(), leader)
        self.assertEqual(leader.status()["term"], term)
        for client in clients:
            client.stop()
            self.assertEqual(client.log_text(), "")
        self.check_acknowledged(cluster, clients, NAME)

    def test_r2_lease_service_away_for_more_than_a_ttl(self):
        cluster = self.members(self.lease)
        clients = self.clients(cluster, NAME)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        own = self.client_of(clients, leader)
        own.wait_records(20)
        cluster.lease.kill()
        wait_for(lambda: all(node.role() != "primary" for node in cluster.nodes),
                 "everybody to step down")
        last = len(own.records())
        cluster.lease.start()
        leader = cluster.leader()
        self.client_of(clients, leader).wait_records(20)
        self.assertGreaterEqual(len(own.records()), last)
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)


class ServiceFailoverTest(FailoverCases, members.MembersTest):
    lease = members.LeaseServer


class EtcdFailoverTest(FailoverCases, members.MembersTest):
    lease = members.Etcd


class EtcdLeaderTest(members.MembersTest):
    """A real cluster of etcd, whose leader comes and goes."""

    def test_r6_leader_of_etcd_killed_while_clients_write(self):
        cluster = self.members(members.EtcdCluster, ttl=5)
        clients = self.clients(cluster, NAME)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        term = leader.status()["term"]
        own = self.client_of(clients, leader)
        for _ in range(3):
            etcd = cluster.lease.leader()
            own.wait_records(20)
            etcd.kill()
            cluster.lease.leader()
            own.wait_records(20)
            etcd.start()
            cluster.lease.leader()
        # Longer than the lease would have lasted without etcd.
        end = time.monotonic() + 5
        wait_for(lambda: time.monotonic() > end, "a TTL to pass")
        own.wait_records(20)
        self.assertEqual(leader.status()["term"], term)
        for client in clients:
            client.stop()
            self.assertEqual(client.log_text(), "")
        self.check_all_kept(cluster, clients, NAME)
