"""How long nobody can write when the primary of a cluster changes, for bench.py: as its applications see it."""

import math
import os
import signal
import statistics
import subprocess
import sys
import time

from nodes import Failed, LeaseServer, wait_for
from theme import Theme

TTL_SECONDS = 2
DATABASE = "app.db"
WRITER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "role_change_writer.py")


class Writer:
    """An application on one node that commits whenever it can (role_change_writer.py)."""

    def __init__(self, node):
        self.record = os.path.join(os.path.dirname(node.data), "commits")
        self.process = subprocess.Popen([sys.executable, WRITER, os.path.join(node.mount, DATABASE), self.record])

    def commits(self):
        """When each commit was acknowledged, CLOCK_MONOTONIC in seconds."""
        if self.process.poll() is not None:
            raise Failed("the writer has ended")
        try:
            with open(self.record, encoding="ascii") as record:
                return [float(line) for line in record.read().split("\n")[:-1]]
        except FileNotFoundError:
            return []

    def wait_commits(self, since, count):
        """The moments of the first `count` commits after `since`."""
        wait_for("commits", lambda: len([t for t in self.commits() if t > since]) >= count)
        return [t for t in self.commits() if t > since][:count]

    def stop(self):
        self.process.kill()
        self.process.wait()


class RoleChanges(Theme):
    """Two nodes, a lease server, and a writer on each node."""

    NAMES = ["handoff", "failover"]

    def start(self):
        self.writers = []
        self.lease = LeaseServer(self.options.echofs, self.directory)
        for name in "ab":
            self.start_clustered_node(name, self.lease, TTL_SECONDS)
        for node in self.nodes:
            node.wait_until_ready()
        leader = self.leader()
        subprocess.run(["sqlite3", os.path.join(leader.mount, DATABASE),
                        "PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, v)"],
                       check=True, stdout=subprocess.DEVNULL)
        for node in self.nodes:
            path = os.path.join(node.mount, DATABASE)
            wait_for("the database", lambda path=path: os.path.exists(path))
            self.writers.append(Writer(node))

    def stop(self):
        for writer in self.writers:
            writer.stop()
        super().stop()
        self.lease.stop()

    def rounds(self, _name):
        return 1

    def run(self, name, _number):
        return self.handoffs(self.sizes.handoffs) if name == "handoff" else self.failovers(self.sizes.failovers)

    def leader(self):
        found = []
        wait_for("a primary", lambda: found.extend(
            node for node in self.nodes if node.state().get("role") == "primary") or found)
        return found[0]

    def settled(self):
        """(primary, replica), once the one takes commits and the other has the log but for the last entries."""
        begin = time.monotonic()
        found = []

        def settled():
            for node, other in (self.nodes, self.nodes[::-1]):
                state = node.state()
                followed = any(replica["acked_index"] + 100 > state["log"]["index"]
                               for replica in state.get("replicas", []))
                if state.get("role") == "primary" and followed:
                    found[:] = [node, other]
                    return sum(t > begin for t in self.writer(node).commits()) >= 20
            return False

        wait_for("a primary that is followed", settled)
        return found

    def writer(self, node):
        return self.writers[self.nodes.index(node)]

    def handoffs(self, count):
        """Seconds from the last commit on the old primary to the first on the new one, of each handoff."""
        pauses = []
        for number in range(count):
            self.progress(f"handoff {number + 1}")
            old, new = self.settled()
            begin = time.monotonic()
            done = subprocess.run([self.options.echofs, "handoff", "--data-dir", old.data], capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"handoff: {done.stderr}")
            first = self.writer(new).wait_commits(begin, 1)[0]
            pauses.append(first - max(t for t in self.writer(old).commits() if t < first))
        return pauses

    def failovers(self, count):
        """Seconds from SIGKILL of the primary to the first commit on the other node, of each."""
        pauses = []
        for number in range(count):
            self.progress(f"failover {number + 1}")
            old, new = self.settled()
            daemon = old.daemon()
            begin = time.monotonic()
            os.kill(daemon, signal.SIGKILL)
            pauses.append(self.writer(new).wait_commits(begin, 1)[0] - begin)
            old.process.wait()
            old.start()
            old.wait_until_ready()
        return pauses

    @staticmethod
    def summarize(name, rounds):
        pauses = sorted(seconds for result in rounds for seconds in result)
        if name == "handoff":
            return {"handoffs": len(pauses), "p50_ms": 1000 * statistics.median(pauses),
                    "p99_ms": 1000 * pauses[math.ceil(0.99 * len(pauses)) - 1], "max_ms": 1000 * pauses[-1]}
        return {"ttl_seconds": TTL_SECONDS, "seconds": statistics.median(pauses), "max_seconds": pauses[-1]}

    @staticmethod
    def sentences(summary):
        lines = []
        if "handoff" in summary:
            h = summary["handoff"]
            lines.append(f"handoff: nobody can write for {h['p50_ms']:.0f} ms (p50), {h['p99_ms']:.0f} ms (p99), at most "
                         f"{h['max_ms']:.0f} ms, of {h['handoffs']}")
        if "failover" in summary:
            f = summary["failover"]
            ttl = f["ttl_seconds"]
            lines.append(f"failover: first commit after SIGKILL of the primary: after TTL {f['seconds'] - ttl:+.2f} s, at "
                         f"most TTL {f['max_seconds'] - ttl:+.2f} s, with a TTL of {ttl} s")
        return lines
