"""Changes of the primary that somebody asks for: promote, run --promote, handoff, and SIGTERM of the primary (R4)."""

import os

import harness
import members
from processes import run, wait_for

NAME = "app.db"


class PlannedChangeTest(members.MembersTest):
    def loaded(self, **options):
        """A cluster on whose primary a client commits."""
        cluster = self.members(**options)
        clients = self.clients(cluster, NAME)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(20)
        return cluster, leader, clients

    def finish(self, cluster, clients):
        """No client saw an error, and nothing is missing."""
        for client in clients:
            client.stop()
            self.assertEqual(client.log_text(), "")
        self.check_all_kept(cluster, clients, NAME)

    def fails(self, node, *arguments):
        """What a command that must fail says."""
        done = node.echofs(*arguments, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        return done.stderr

    def test_r4_promote_on_a_replica(self):
        cluster, leader, clients = self.loaded()
        node = cluster.others(leader)[0]
        first = node.echofs("promote").stdout
        said = f"{node.name} is the primary now, term {node.status()['term']}\n"
        self.assertEqual(first, said)
        self.client_of(clients, node).wait_records(20)
        # There is nothing more to do.
        self.assertEqual(node.echofs("promote").stdout, said)
        self.assertEqual(node.echofs("promote", "--force").stdout, said)
        wait_for(lambda: leader.status()["primary"] == node.name, "the former primary to follow")
        self.finish(cluster, clients)

    def test_r3_promote_when_the_primary_is_lost(self):
        cluster, leader, clients = self.loaded()
        node = cluster.others(leader)[-1]
        leader.kill()
        # It may be refused until the lease has run out, and then at most be a handoff.
        refusals = set()

        def promoted():
            done = node.echofs("promote", check=False)
            if done.returncode != 0:
                self.assertEqual(done.stdout, "")
                refusals.add(done.stderr)
            return done.returncode == 0

        wait_for(promoted, lambda: f"{node.name} to be promoted: {refusals}")
        print("refusals:", *refusals)
        self.assertTrue(any(f"{leader.name}, the primary, did not hand off" in text for text in refusals),
                        refusals)
        self.assertEqual(node.role(), "primary")
        self.client_of(clients, node).wait_records(20)
        leader.start()
        cluster.wait_followed(node)
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)

    def test_nodes_that_are_no_candidates_are_not_promoted(self):
        cluster, leader, clients = self.loaded(count=2, never="b")
        self.assertEqual(leader.name, "a")
        node = cluster.node("b")
        self.assertIn("a, the primary, did not hand off: b is not a candidate", self.fails(node, "promote"))
        leader.kill()
        wait_for(lambda: not node.status()["primary"], "the lease to run out")
        for options in ([], ["--force"]):
            self.assertIn("not a candidate", self.fails(node, "promote", *options))
        self.assertEqual(node.role(), "replica")
        leader.start()
        self.assertEqual(cluster.leader(), leader)
        cluster.wait_followed(leader)
        for client in clients:
            client.stop()
        self.check_all_kept(cluster, clients, NAME)

    def test_promote_without_the_lease_service_says_so(self):
        cluster, leader, clients = self.loaded(count=2)
        cluster.lease.kill()
        node = cluster.others(leader)[0]
        wait_for(lambda: "lease service cannot be asked" in node.echofs("status").stdout, "the node to notice")
        self.assertIn("the lease service cannot be asked", self.fails(node, "promote"))
        cluster.lease.start()
        wait_for(lambda: node.echofs("promote", check=False).returncode == 0, "the node to be promoted")
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)

    def test_r4_run_promote_under_load(self):
        cluster, leader, clients = self.loaded()
        node = cluster.others(leader)[0]
        script = os.path.join(self.directory, "migrate.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f"sqlite3 -cmd '.timeout 60000' {node.path(NAME)} "
                       "'CREATE TABLE migrated(x); INSERT INTO migrated VALUES (1)' && exit 7\n")
        done = run([harness.ECHOFS, "run", "--promote", "--data-dir", node.data, "--", "sh", script],
                   check=False)
        self.assertEqual((done.returncode, done.stdout), (7, ""), done.stderr)
        self.assertIn(f"{node.name} is the primary now", done.stderr)
        self.client_of(clients, node).wait_records(20)
        self.finish(cluster, clients)
        for other in cluster.running():
            self.assertEqual(other.execute(NAME, "SELECT x FROM migrated"), [(1,)])

    def test_r4_handoffs_that_are_refused_leave_writers_working(self):
        cluster, leader, clients = self.loaded(never="bc")
        replica = cluster.node("b")
        term = leader.status()["term"]
        own = self.client_of(clients, leader)
        for arguments, reason in ((["--to", "b"], "b is not a candidate"),
                                  (["--to", "nobody"], "nobody is not connected to this primary"),
                                  (["--to", "a"], "a is the primary already"),
                                  ([], "not a candidate")):
            self.assertIn(reason, self.fails(leader, "handoff", *arguments))
            own.wait_records(20)
        self.assertIn("this node is not the primary (the primary is a)", self.fails(replica, "handoff"))
        own.wait_records(20)
        for node in cluster.others(leader):
            self.client_of(clients, node).stop()
            self.assertEqual(node.stop(), 0)
        self.assertIn("no replica is connected", self.fails(leader, "handoff"))
        own.wait_records(20)
        self.assertEqual(leader.status()["term"], term)
        for node in cluster.nodes:
            if node is not leader:
                node.start()
        own.stop()
        self.assertEqual(own.log_text(), "")
        self.check_all_kept(cluster, clients, NAME)

    def test_r4_sigterm_of_the_primary_hands_off(self):
        self.run_sigterms(harness.scaled(3, 30), never="")

    def test_r4_sigterm_hands_off_only_to_candidates(self):
        self.run_sigterms(harness.scaled(3, 30), never="b")

    def run_sigterms(self, rounds, never):
        cluster, leader, clients = self.loaded(never=never)
        led = []
        for _ in range(rounds):
            leader = cluster.leader()
            led.append(leader.name)
            cluster.wait_followed(leader)
            own = self.client_of(clients, leader)
            own.wait_records(20)
            said, term = own.log_text(), leader.status()["term"]
            others = cluster.others(leader)
            leader.process.terminate()
            wait_for(lambda own=own, said=said: own.log_text() != said, "the mount to go away")
            # Before that the client's connection saw SQLITE_BUSY at most, until another node had the lease.
            self.assertGreater(max(node.status()["term"] for node in others), term)
            self.assertEqual(leader.wait_end(), 0)
            own.wait_gone(said)
            new = cluster.leader(among=others)
            self.client_of(clients, new).wait_records(20)
            leader.start()
            cluster.wait_followed(new)
        print("led:", *led)
        self.assertFalse(set(led) & set(never))
        for client in clients:
            client.stop()
            if client.options[0] not in led:
                self.assertEqual(client.log_text(), "")
        self.check_all_kept(cluster, clients, NAME)
