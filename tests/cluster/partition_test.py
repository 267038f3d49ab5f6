"""Three nodes and a lease server on hosts of a private network that is cut in places (design section 7)."""

import members
import network
from processes import wait_for

NAME = "app.db"


@network.needs_namespaces
class PartitionTest(members.MembersTest):
    def cut_cluster(self):
        hosts = network.Network(["a", "b", "c", "lease"])
        self.addCleanup(hosts.remove)
        cluster = self.members(network=hosts)
        leader = cluster.leader()
        clients = self.clients(cluster, NAME)
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(20)
        return hosts, cluster, leader, clients

    def finish(self, hosts, cluster, clients):
        """After all is well again: one history, in which only what was orphaned is missing."""
        hosts.heal()
        leader = cluster.leader()
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(20)
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)

    def test_r2_primary_cut_off_from_everybody(self):
        hosts, cluster, leader, clients = self.cut_cluster()
        others = cluster.others(leader)
        hosts.cut(leader.name, [node.name for node in others] + ["lease"])
        new = cluster.leader(among=others)
        self.client_of(clients, new).wait_records(20)
        wait_for(lambda: leader.role() != "primary", "the old primary to step down")
        self.finish(hosts, cluster, clients)

    def test_r2_primary_cut_off_from_the_lease(self):
        hosts, cluster, leader, clients = self.cut_cluster()
        hosts.cut(leader.name, ["lease"])
        new = cluster.leader(among=cluster.others(leader))
        self.client_of(clients, new).wait_records(20)
        self.finish(hosts, cluster, clients)

    def test_primary_cut_off_from_its_replicas_stays_primary(self):
        hosts, cluster, leader, clients = self.cut_cluster()
        term = leader.status()["term"]
        hosts.cut(leader.name, [node.name for node in cluster.others(leader)])
        self.client_of(clients, leader).wait_records(200)
        self.assertEqual(leader.role(), "primary")
        self.assertEqual(leader.status()["term"], term)
        self.finish(hosts, cluster, clients)
