"""A whole cluster with a lease is stopped or killed and started again, is joined by a node, and shows itself."""

import os
import signal

import harness
import members
from processes import thread_states, wait_for

NAME = "app.db"


class WholeClusterTest(members.MembersTest):
    def loaded(self, mode="wal", **options):
        cluster = self.members(**options)
        clients = self.clients(cluster, NAME, mode)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(50)
        return cluster, clients

    def write_again(self, cluster, clients):
        leader = cluster.leader()
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(20)
        for client in clients:
            client.stop()

    def test_r5_stopped_at_rest_and_started_in_another_order(self):
        cluster, clients = self.loaded()
        for client in clients:
            client.stop()
        cluster.wait_converged()
        for node in cluster.nodes:
            self.assertEqual(node.stop(), 0)
        # The first to be stopped leads first, and has not seen the terms of the others.
        for node in cluster.nodes:
            node.start()
            cluster.leader()
        cluster.wait_followed(cluster.leader())
        self.check_all_kept(cluster, clients, NAME)
        for node in cluster.running():
            self.assertEqual(node.status()["orphans"], 0)

    def test_r4_stopped_under_load_and_started_with_the_last_one_first(self):
        cluster, clients = self.loaded()
        stopped = []
        while cluster.running():
            leader = cluster.leader()
            cluster.wait_followed(leader)
            own = self.client_of(clients, leader)
            own.wait_records(20)
            said = own.log_text()
            stopped.append(leader)
            self.assertEqual(leader.stop(), 0)
            own.wait_gone(said)
        print("stopped:", *(node.name for node in stopped))
        for node in reversed(stopped):
            node.start()
        self.write_again(cluster, clients)
        self.check_all_kept(cluster, clients, NAME)

    def kill_all(self, mode):
        cluster, clients = self.loaded(mode)
        for _ in range(harness.scaled(2, 20)):
            for node in cluster.nodes:
                node.kill()
            for node in reversed(cluster.nodes):
                node.start(wait=False)
            for node in cluster.nodes:
                node.wait_ready()
            leader = cluster.leader()
            cluster.wait_followed(leader)
            self.client_of(clients, leader).wait_records(20)
        self.write_again(cluster, clients)
        self.check_acknowledged(cluster, clients, NAME)

    def test_d4_all_killed_at_once_in_wal_mode(self):
        self.kill_all("wal")

    def test_d4_all_killed_at_once_in_delete_mode(self):
        self.kill_all("delete")

    def test_r4_primary_whose_mount_goes_away_ends_and_another_leads(self):
        cluster, clients = self.loaded()
        leader = cluster.leader()
        others = cluster.others(leader)
        daemon = leader.daemon()
        said = self.client_of(clients, leader).log_text()
        # Its guardian is killed, so the mount ends; the daemon lives, and ends orderly.
        os.kill(leader.guardian, signal.SIGKILL)
        leader.wait_end()
        self.client_of(clients, cluster.leader(among=others)).wait_records(20)
        wait_for(lambda: not thread_states(daemon), "the daemon to end")
        self.assertNotIn("Trying again", leader.log_text())
        self.client_of(clients, leader).wait_gone(said)
        leader.start()
        self.write_again(cluster, clients)
        self.check_acknowledged(cluster, clients, NAME)

    def test_empty_node_joins_under_load_and_becomes_the_primary(self):
        cluster, clients = self.loaded(count=2)
        node = cluster.add().start()
        leader = cluster.leader()
        cluster.wait_followed(leader)
        clients.append(members.Client(self, node.path(NAME), node.name).start())
        leader.echofs("handoff", "--to", node.name)
        self.assertEqual(cluster.leader(), node)
        self.write_again(cluster, clients)
        for client in clients:
            self.assertEqual(client.log_text(), "")
        self.check_all_kept(cluster, clients, NAME)

    def test_status_shows_the_cluster(self):
        cluster, clients = self.loaded(never="c")
        leader = cluster.leader()
        names = [node.name for node in cluster.nodes]
        wait_for(lambda: sorted(leader.status()["in_sync"]) == names,
                 lambda: f"all to be in sync: {leader.status()}")
        for client in clients:
            client.stop()
        cluster.wait_converged()
        for node in cluster.nodes:
            def complete(node=node):
                status = node.status()
                shown = {entry["node"]: entry for entry in status["nodes"]}
                return (status["primary"] == leader.name and sorted(shown) == names
                        and sorted(status["in_sync"]) == names
                        and all(entry["in_sync"] for entry in shown.values())
                        and all(entry["log"]["index"] == status["log"]["index"] for entry in shown.values()))

            wait_for(complete, lambda node=node: f"{node.name} to know all: {node.status()}")
            status = node.status()
            for entry in status["nodes"]:
                other = cluster.node(entry["node"])
                self.assertEqual(entry["primary"], other is leader)
                self.assertEqual(entry["candidate"], other.name != "c")
                self.assertEqual(entry["address"], other.address)
                self.assertEqual("lag_ms" in entry, node is leader and other is not leader)
                self.assertEqual(entry.get("lag_ms", 0), 0)
            self.check_text(node.echofs("status").stdout, cluster, leader)

    def check_text(self, text, cluster, leader):
        lines = text.split("\n")
        self.assertIn(f"primary   {leader.name}, term {leader.status()['term']}", lines)
        heading = next(i for i, line in enumerate(lines) if line.startswith("NODE "))
        rows = [line.split() for line in lines[heading + 1:heading + 4]]
        for node, row in zip(cluster.nodes, rows):
            self.assertEqual(row[:3], [node.name, "primary" if node is leader else "replica", node.address])
            self.assertEqual(row[-2:], ["no" if node.name == "c" else "yes", "yes"])
        self.assertNotIn("error", text)
