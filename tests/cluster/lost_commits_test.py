"""min-sync-replicas: 0 and synchronous=NORMAL: what a change of primary takes out of the history is exactly what the
old primary then lists as orphans (D4, R5)."""

import contextlib
import glob
import json
import os
import shutil
import signal
import sqlite3

import members
import network
from ltx_file import LtxFile
from processes import scaled, thread_states, wait_for

NAME = "app.db"


class LostCommitsTest(members.MembersTest):
    def check_failures(self, mode):
        self.hosts = network.Network(["a", "b", "c", "lease"])
        self.addCleanup(self.hosts.remove)
        self.cluster = self.members(network=self.hosts)
        self.writers = self.clients(self.cluster, NAME, mode)
        lost = set()
        for number in range(scaled(5, 100)):
            lost |= self.fail_and_rejoin(number)
        for client in self.writers:
            client.stop()
        self.cluster.wait_converged()
        told = {(client.options[0], record) for client in self.writers for record in client.records()}
        for node in self.cluster.running():
            self.assertEqual(told - rows_of(node.connect(NAME)), lost & told, node.name)
        print(f"{mode}: {len(told)} commits were acknowledged; {len(lost)} are orphans, {len(lost & told)} of those "
              "had been acknowledged; none is missing beyond them")
        self.assertTrue(lost & told, "no failure took an acknowledged commit out of the history")

    @network.needs_namespaces
    def test_d4_what_is_lost_is_what_is_kept_as_orphans_in_wal_mode(self):
        self.check_failures("wal")

    @network.needs_namespaces
    def test_d4_what_is_lost_is_what_is_kept_as_orphans_in_delete_mode(self):
        self.check_failures("delete")

    def fail_and_rejoin(self, number):
        """The rows that were lost."""
        leader = self.cluster.followed_leader()
        client = self.client_of(self.writers, leader)
        client.wait_records(20)
        failure = FAILURES[number % len(FAILURES)]
        print(f"{failure.__name__} of {leader.name}", flush=True)
        kept_before = {kept["id"] for kept in orphans_of(leader)}
        failure(self.hosts, self.cluster, leader, client)
        new = self.cluster.leader(among=self.cluster.others(leader))
        before = self.files_at_the_failure(leader, number)
        self.hosts.heal()
        if leader.process is None:
            leader.start(wait=False)
            leader.wait_ready()
        else:
            leader.signal_daemon(signal.SIGCONT)
        self.cluster.wait_followed(new)
        self.client_of(self.writers, new).wait_records(5)
        wait_for(lambda: rows_of(leader.connect(NAME)) >= self.newest(new), f"{leader.name} to follow again")
        kept = [kept for kept in orphans_of(leader) if kept["id"] not in kept_before]
        return self.check_orphans(leader, new, before, kept)

    def newest(self, node):
        """The row that this node's client has committed last, as a set."""
        client = self.client_of(self.writers, node)
        return {(node.name, client.records()[-1])}

    def files_at_the_failure(self, node, number):
        """A copy of the old primary's database, whose writers are no more."""
        if node.process is not None and "T" not in thread_states(node.daemon()):
            wait_for(lambda: node.role() != "primary", "the old primary to step down")
        directory = os.path.join(self.directory, f"failure-{number}")
        source = os.path.join(node.data, "files", NAME)

        def content():
            found = {}
            for suffix in ("", "-journal", "-wal"):
                with contextlib.suppress(FileNotFoundError), open(source + suffix, "rb") as file:
                    found[suffix] = file.read()
            return found

        # Not in the middle of a rollback by an application whose commit was refused.
        files = wait_for(lambda: (lambda first, second: first == second and first)(content(), content()),
                         "the database to be left alone")
        os.makedirs(directory)
        path = os.path.join(directory, NAME)
        for suffix, bytes_ in files.items():
            with open(path + suffix, "wb") as file:
                file.write(bytes_)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=delete").fetchall()
        return path

    def check_orphans(self, old, new, path, kept):
        """The orphans, applied to what the old primary had, make the last state of a history of which `new` lacks one
        row for each orphan, neither more nor less. Returns these rows."""
        orphans = self.exported(old, kept)
        with open(path, "r+b") as file:
            database = bytearray(file.read())
            for orphan in orphans:
                orphan.apply(database)
            file.seek(0)
            file.write(database)
            file.truncate()
        connection = sqlite3.connect(path)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        self.assertEqual(connection.execute("SELECT sum(balance) FROM account").fetchone(), (100_000,))
        lost = rows_of(connection) - rows_of(new.connect(NAME))
        if orphans:
            common = f"{orphans[0].min_txid - 1:016x}"
            history = {entry["txid"]: entry["digest"] for entry in map(json.loads, new.echofs(
                "log", NAME, "--from", common, "--json").stdout.splitlines())}
            digests = [int(history[common], 16), *(orphan.digest for orphan in orphans)]
            # A commit that was refused when it was in the log already, and that the application rolled back, is
            # two orphans: there and back again.
            undone = sum(before == after for before, after in zip(digests, digests[2:]))
            self.assertEqual(len(lost), len(orphans) - 2 * undone)
        else:
            self.assertEqual(lost, set())
        return lost

    def exported(self, node, kept):
        """The change sets of these orphans, in their order."""
        found = []
        for entry in kept:
            target = os.path.join(self.directory, "exported")
            node.echofs("orphans", "export", entry["id"], "--to", target)
            files = [LtxFile(file) for file in glob.glob(f"{target}/{NAME}/*.ltx")]
            shutil.rmtree(target)
            self.assertEqual(entry["databases"], {NAME: len(files)} if files else {})
            found += files
        return sorted(found, key=lambda file: file.min_txid)


def rows_of(connection):
    with contextlib.closing(connection):
        return set(connection.execute("SELECT client, number FROM acked"))


def orphans_of(node):
    return json.loads(node.echofs("orphans", "list", "--json").stdout)


def cut_off_from_the_replicas(hosts, cluster, leader, client):
    """And more is committed, which nobody else has."""
    hosts.cut(leader.name, [node.name for node in cluster.others(leader)])
    client.wait_records(20)


def sigkill(_, __, leader, ___):
    leader.kill()


def cut_off_then_sigkill(hosts, cluster, leader, client):
    cut_off_from_the_replicas(hosts, cluster, leader, client)
    leader.kill()


def cut_off_then_from_the_lease(hosts, cluster, leader, client):
    cut_off_from_the_replicas(hosts, cluster, leader, client)
    hosts.cut(leader.name, ["lease"])


def cut_off_then_pause(hosts, cluster, leader, client):
    cut_off_from_the_replicas(hosts, cluster, leader, client)
    leader.signal_daemon(signal.SIGSTOP)


def pause(_, __, leader, ___):
    leader.signal_daemon(signal.SIGSTOP)


FAILURES = (cut_off_then_sigkill, cut_off_then_from_the_lease, cut_off_then_pause, sigkill, pause)
