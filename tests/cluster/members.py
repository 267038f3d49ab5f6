"""Clusters whose primary a lease decides: nodes with a lease server or etcd, and clients that count what was acknowledged."""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request

import harness
from applications import Application
from harness import ECHOFS, Node
from processes import WAIT_SECONDS, children_of, free_port, is_mounted, thread_states, wait_for

TTL_SECONDS = 2
ETCD = "/usr/bin/etcd"


class LeaseServer:
    """`echofs lease-server`; its data survives stop, kill and start."""

    type = "service"

    def __init__(self, directory, network=None):
        self.directory = os.path.join(directory, "lease")
        os.makedirs(self.directory)
        host = network.addresses["lease"] if network else "127.0.0.1"
        self.endpoint = f"{host}:{free_port()}"
        self.endpoints = [self.endpoint]
        self.prefix = network.prefix("lease") if network else []
        self.options = []
        self.process = None

    def command(self):
        return [ECHOFS, "lease-server", "--listen", self.endpoint, "--data-dir",
                self.directory, *self.options]

    def start(self):
        with open(self.directory + ".log", "ab") as log:
            self.process = subprocess.Popen([*self.prefix, *self.command()], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=WAIT_SECONDS)
        self.process = None

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        code = self.process.wait(timeout=WAIT_SECONDS)
        self.process = None
        assert code == 0, f"the lease service ended with {code}"


class Etcd(LeaseServer):
    """One real etcd, by itself or as a member of an EtcdCluster."""

    type = "etcd"

    def __init__(self, directory, network=None):
        super().__init__(directory, network)
        self.name = "e"
        self.peer = f"http://{self.endpoint.rsplit(':', 1)[0]}:{free_port()}"
        self.cluster = f"{self.name}={self.peer}"
        self.scheme = "http"

    def use_tls(self, files):
        """Clients have to show a certificate."""
        self.scheme = "https"
        self.options += ["--cert-file", files["cert"], "--key-file", files["key"], "--trusted-ca-file", files["ca"],
                         "--client-cert-auth"]

    def command(self):
        client = f"{self.scheme}://{self.endpoint}"
        return [ETCD, "--name", self.name, "--data-dir", self.directory + "/data",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                "--initial-cluster", self.cluster, *self.options]

    def stop(self):
        if self.process is not None:
            self.kill()


class EtcdCluster:
    """Three real etcds, which elect a leader within a second."""

    type = "etcd"

    def __init__(self, directory, network=None):
        assert network is None
        self.process = None  # that of a single lease service
        self.members = [Etcd(os.path.join(directory, f"etcd{i}")) for i in range(3)]
        self.endpoints = [member.endpoint for member in self.members]
        peers = []
        for i, member in enumerate(self.members):
            member.name = f"e{i}"
            member.peer = f"http://127.0.0.1:{free_port()}"
            peers.append(f"{member.name}={member.peer}")
        for member in self.members:
            member.cluster = ",".join(peers)
            member.options = ["--heartbeat-interval", "50", "--election-timeout", "500"]

    def start(self):
        for member in self.members:
            member.start()
        return self

    def status(self, member):
        """What a member knows of itself and of the leader; empty when it does not answer."""
        request = urllib.request.Request(f"http://{member.endpoint}/v3/maintenance/status", b"{}")
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return json.load(response)
        except OSError:
            return {}

    def leader(self):
        """The member that all who run agree upon, once they do."""

        def find():
            running = [member for member in self.members if member.process is not None]
            states = [self.status(member) for member in running]
            leaders = {state.get("leader") for state in states}
            if len(leaders) != 1:
                return None
            return next((member for member, state in zip(running, states)
                         if "leader" in state and state["header"]["member_id"] == state["leader"]), None)

        return wait_for(find, "a leader of etcd")

    def stop(self):
        for member in self.members:
            member.stop()


class Member(Node):
    """A node that a configuration file describes."""

    def __init__(self, directory, name, lease, host="127.0.0.1", prefix=(), candidate=True,
                 min_sync_replicas=0, ttl=TTL_SECONDS, ack_timeout=5, http="off", settings=None):
        super().__init__(directory, name, prefix=prefix)
        self.address = f"{host}:{free_port()}"
        config = {
            "node": {"id": name},
            "fuse": {"dir": self.mount},
            "data": {"dir": self.data},
            "grpc": {"listen": self.address, "advertise": self.address},
            "lease": {"type": lease.type, "endpoints": lease.endpoints, "ttl": f"{ttl}s",
                      "candidate": candidate},
            "replication": {"min-sync-replicas": min_sync_replicas, "ack-timeout": f"{ack_timeout}s"},
            "http": {"listen": http},
        }
        for section, keys in (settings or {}).items():
            config[section].update(keys)
        path = os.path.join(self.directory, "echofs.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)  # JSON is YAML
        self.arguments = ["--config", path]

    def start(self, wait=True):
        if not is_mounted(self.mount):
            self.clear_mount_point()
        return super().start(wait)

    def role(self):
        status = self.status() if self.process is not None else None
        return status["role"] if status else None

    def kill(self, number=signal.SIGKILL):
        """Guardian and daemon, as the end of the machine would."""
        daemons = children_of(self.guardian)
        helpers = [pid for daemon in daemons for pid in children_of(daemon)]
        with self.kill_moment():
            for pid in [*daemons, self.guardian]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            self.process.wait(timeout=WAIT_SECONDS)
        self.process = None
        # It ends the mount, which it knows by a number that the kernel gives to the next one too.
        wait_for(lambda: not any(map(thread_states, helpers)), "the helper to end")
        subprocess.run(["umount", "-l", self.mount], check=False, stderr=subprocess.DEVNULL)

    def signal_daemon(self, number):
        os.kill(self.daemon(), number)


class Members:
    """A lease service and nodes a, b, c..., of which those in `never` are no candidates."""

    def __init__(self, directory, lease, count=3, network=None, never="", **options):
        self.directory = directory
        self.lease = lease
        self.network = network
        self.never = never
        self.options = options
        self.nodes = []
        for _ in range(count):
            self.add()

    def add(self):
        """One more node, not started."""
        name = "abcdefgh"[len(self.nodes)]
        options = dict(self.options, candidate=name not in self.never)
        if self.network:
            options.update(host=self.network.addresses[name], prefix=self.network.prefix(name))
        self.nodes.append(Member(self.directory, name, self.lease, **options))
        return self.nodes[-1]

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def start(self):
        self.lease.start()
        for node in self.nodes:
            node.start(wait=False)
        for node in self.running():
            node.wait_ready()
        return self

    def running(self):
        return [node for node in self.nodes if node.process is not None]

    def leader(self, among=None):
        """Waits until one of the running nodes is the primary and serves."""

        def find():
            return next((node for node in (among or self.running()) if node.role() == "primary"), None)

        return wait_for(find, "a primary", WAIT_SECONDS * 2)

    def others(self, node):
        return [other for other in self.running() if other is not node]

    def wait_followed(self, leader):
        """Until all other running nodes follow this one and have acknowledged its whole log."""
        wait_for(lambda: self.is_followed(leader), lambda: f"the others to follow {leader.name}: "
                 + json.dumps(leader.status(), indent=1))

    def is_followed(self, leader):
        names = {node.name for node in self.others(leader)}
        status = leader.status()
        if status is None:
            return False
        acked = {replica["node"] for replica in status["replicas"]
                 if replica["acked_index"] == status["log"]["index"]}
        known = {node["node"] for node in status["nodes"]}
        return names <= acked and names <= known

    def followed_leader(self):
        """Waits until all other running nodes follow one of them. One that was paused takes itself for the primary for a
        moment when it goes on."""
        return wait_for(lambda: next((node for node in self.running() if self.is_followed(node)), None),
                        "a primary that all follow")

    def wait_converged(self):
        """Until all running nodes have the same log and databases; returns the primary's status."""
        leader = self.leader()
        last = {}

        def same():
            for node in self.running():
                last[node.name] = node.status()
            if None in last.values():
                return False
            positions = [(status["log"]["index"], status["log"]["term"], {
                entry["name"]: (entry["txid"], entry["digest"], entry["applied_index"], entry["state"])
                for entry in status["databases"]}) for status in last.values()]
            return all(position == positions[0] for position in positions)

        wait_for(same, lambda: "the nodes to converge: " + json.dumps(last, indent=1),
                 WAIT_SECONDS * 4)
        return last[leader.name]

    def stop(self):
        codes = {node.name: node.stop() for node in reversed(self.running())}
        self.lease.stop()
        assert not any(codes.values()), f"exit codes {codes}"


class Client(Application):
    """Commits on one node whenever that is the primary (client.py)."""

    program = "client"

    def acknowledged(self):
        """(number, time in seconds) of each commit that returned OK."""
        if not os.path.exists(self.record):
            return []
        with open(self.record, encoding="utf-8") as record:
            lines = record.read().split("\n")[:-1]
        return [(int(number), float(when)) for number, when in (line.split() for line in lines)]

    def records(self):
        return [number for number, _ in self.acknowledged()]

    def wait_gone(self, said):
        """Until its connection has ended with the mount; `said` is log_text() of before."""
        wait_for(lambda: "unable to open" in self.log_text()[len(said):], "the mount to go away")


class MembersTest(harness.ClusterTest):
    """Base of the tests with a lease."""

    def members(self, lease=LeaseServer, count=3, start=True, network=None, **options):
        members = Members(self.directory, lease(self.directory, network), count, network, **options)
        self.addCleanup(self._stop_members, members)
        if start:
            members.start()
        return members

    def _stop_members(self, members):
        if not harness.failed(self):
            members.stop()
        elif members.lease.process is not None:
            members.lease.kill()

    def clients(self, members, name, mode="wal", synchronous="NORMAL", each=1):
        """Makes the database, and starts so many clients on each node."""
        leader = members.leader()
        leader.mkdirs(os.path.dirname(name))
        leader.execute(
            name, f"PRAGMA journal_mode={mode}",
            "CREATE TABLE acked(client TEXT, number INTEGER, PRIMARY KEY(client, number))",
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) "
            "INSERT INTO account SELECT i, 1000 FROM n")
        for node in members.others(leader):
            wait_for(lambda node=node: os.path.exists(node.path(name)), f"{name} on {node.name}")
        return [Client(self, node.path(name), node.name + "*" * number, synchronous).start()
                for number in range(each) for node in members.running()]

    def client_of(self, clients, node):
        return next(client for client in clients if client.options[0] == node.name)

    def clients_of(self, clients, node):
        """All of them on this node."""
        return [client for client in clients if client.options[0].rstrip("*") == node.name]

    def check_acknowledged(self, members, clients, name, replicated=False):
        """Equal, sound databases on all nodes. Of what clients were told nothing is missing, but, unless commits
        were `replicated` before they returned (D4), as many as the nodes keep as orphans of this database; returns
        their number."""
        members.wait_converged()
        orphans = sum(kept["databases"].get(name, 0) for node in members.running()
                      for kept in json.loads(node.echofs("orphans", "list", "--json").stdout))
        told = {(client.options[0], number) for client in clients for number in client.records()}
        for node in members.running():
            with contextlib.closing(node.connect(name)) as connection:
                self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
                self.assertEqual(connection.execute("SELECT sum(balance) FROM account").fetchone()[0],
                                 100_000)
                rows = set(connection.execute("SELECT client, number FROM acked"))
            missing = told - rows
            self.assertLessEqual(len(missing), 0 if replicated else orphans, f"acknowledged commits are missing on "
                                 f"{node.name}, orphans {orphans}, first {sorted(missing)[:5]}")
        print(f"{name}: {len(told)} commits were acknowledged, {len(missing)} of them became orphans")
        return orphans

    def check_all_kept(self, members, clients, name):
        """check_acknowledged where nothing may have become an orphan."""
        self.assertEqual(self.check_acknowledged(members, clients, name), 0)


def pause(clients, since):
    """The longest time in seconds without any acknowledged commit after the moment `since`."""
    times = sorted(when for client in clients for _, when in client.acknowledged() if when >= since)
    return max((after - before for before, after in zip([since, *times], times)), default=None)
