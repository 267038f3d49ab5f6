"""What the workloads of one theme share: their nodes, and how they run echofs_workload."""

import json
import os
import subprocess
import tempfile
import threading

from meter import Meter
from nodes import Failed, Node, free_ports, wait_for

PLACES = ["native", "primary", "replica"]  # replica: the mount of a primary that has one
LIMIT_SECONDS = 900  # for one run


def run_workload(command, before=lambda: None, after=lambda: None):
    """The result of echofs_workload. `before` is called when it has prepared everything, `after` when it has measured
    and still has its databases open."""
    with tempfile.TemporaryFile("w+") as errors, \
            subprocess.Popen([*command, "--wait", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                             text=True) as process:
        timer = threading.Timer(LIMIT_SECONDS, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
            if line == "ready\n":
                before()
                process.stdin.write("\n")
                process.stdin.flush()
                line = process.stdout.readline()
                after()
            process.stdin.close()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        errors.seek(0)
        if code != 0 or not line:
            raise Failed(f"{' '.join(command)} ended with {code}: {errors.read().strip()}")
        return json.loads(line)


class Theme:
    """`NAMES` are its workloads. start() starts the nodes; then run() measures one workload in one round, and
    gives a result that JSON can hold; stop() ends everything."""

    NAMES = []

    def __init__(self, options, directory, progress):
        self.options, self.sizes, self.directory, self.progress = options, options.sizes, directory, progress
        self.nodes = []
        self.database_number = 0
        self.native = os.path.join(directory, "native")
        os.makedirs(self.native)

    def start(self):
        raise NotImplementedError

    def run(self, name, number):
        raise NotImplementedError

    def rounds(self, _name):
        """How often the workload is run at most."""
        return self.sizes.rounds

    @staticmethod
    def why_skipped(_name):
        """Why this machine cannot run the workload; None: it can."""
        return None

    @staticmethod
    def summarize(name, rounds):
        """Medians and ratios of the results of run()."""
        raise NotImplementedError

    @staticmethod
    def tables(_summary):
        """Of the theme's own kind; `places` has those of what is compared with native."""
        return []

    @staticmethod
    def sentences(_summary):
        return []

    def stop(self):
        for node in reversed(self.nodes):
            node.stop()

    def start_node(self, name, primary=None, config=""):
        """With a static lease: a replica of `primary`, or a primary itself."""
        port = free_ports(1)[0]
        return self.started(Node(self.options.echofs, self.directory, name, port, primary.port if primary else port,
                                 config))

    def start_clustered_node(self, name, lease, ttl_seconds, candidate=True, config=""):
        return self.started(Node(self.options.echofs, self.directory, name, free_ports(1)[0], None,
                                 lease.config(ttl_seconds, candidate) + config))

    def started(self, node):
        self.nodes.append(node)
        return node

    def workload(self, kind, path, *arguments, **callbacks):
        return run_workload([self.options.workload, kind, path, *map(str, arguments)], **callbacks)

    def new_database(self):
        self.database_number += 1
        return f"bench{self.database_number}.db"

    def remove(self, directory, database):
        for suffix in ("-journal", "-wal", "-shm", ""):
            try:
                os.remove(os.path.join(directory, database + suffix))
            except FileNotFoundError:
                pass


class PairTheme(Theme):
    """With a primary, `leader`, and its `replica`."""

    def start(self):
        self.leader = self.start_node("leader")
        self.replica = self.start_node("replica", self.leader)
        for node in self.nodes:
            node.wait_until_ready()

    def wait_until_replicated(self, database):
        wait_for(f"the replica to have {database}",
                 lambda: self.replica.position(database) == self.leader.position(database) != "")


class PlacesTheme(PairTheme):
    """And with a primary without replicas, `alone`: the same work is done in three places."""

    def start(self):
        self.alone = self.start_node("alone")
        super().start()
        self.mounts = {"native": self.native, "primary": self.alone.mount, "replica": self.leader.mount}
        self.meters = {"native": [], "primary": [Meter(self.alone)],
                       "replica": [Meter(self.leader), Meter(self.replica)]}

    def metered(self, place, replicated=None):
        """(before, after, used): `used` gets what the daemons use between calls of the two. `replicated` is the
        database that the replica has to have by then."""
        used = []

        def before():
            for meter in self.meters[place]:
                meter.begin()

        def after():
            for meter in self.meters[place]:
                if used and replicated is not None:
                    self.wait_until_replicated(replicated)
                used.append(meter.end())

        return before, after, used

    def everywhere(self, number, measure):
        """{place: measure(place)}, beginning with another place in each round."""
        return {place: measure(place) for place in PLACES[number % 3:] + PLACES[:number % 3]}
