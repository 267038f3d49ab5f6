"""Nodes and clusters of real echofs processes on loopback, for the cluster tests.

run_test.py, which starts every test in a process of its own, ends what is left of them.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import unittest

# Tests use what is in these by this module's name.
from applications import Reader, RingReader, RingWriter, Writer, wait_all_records
from database_content import read_database
from processes import (COMMAND_SECONDS, NOBODY, WAIT_SECONDS, as_nobody, children_of, free_port, is_mounted,
                       needs_root, process_name, run, scaled, thread_states, wait_for)

ECHOFS = os.environ["ECHOFS"]


def failed(test):
    """Whether something in the test has failed up to now; also true in a cleanup, where unittest's own flag is not."""
    result = test._outcome.result
    return any(getattr(case, "test_case", case) is test for case, _ in [*result.failures, *result.errors])


class Node:
    """One `echofs mount`. Its directories live as long as the test; it may be started again."""

    def __init__(self, directory, name, port=None, primary_port=None, prefix=(), arguments=(), http="off"):
        self.name = name
        self.port = port
        self.directory = os.path.join(directory, name)
        self.mount = os.path.join(self.directory, "mnt")
        self.data = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "echofs.log")
        os.makedirs(self.mount)
        os.makedirs(self.data)
        self.prefix = list(prefix)  # a program that starts echofs, such as setpriv
        self.program = ECHOFS
        self.command = []  # what stands behind "--"
        self.arguments = ["--node-id", name, "--fuse-dir", self.mount, "--data-dir", self.data,
                          "--http-listen", http]
        if port is not None:
            address = f"127.0.0.1:{port}"
            self.arguments += ["--grpc-listen", address, "--grpc-advertise", address,
                               "--lease-primary", f"127.0.0.1:{primary_port}"]
        self.arguments += arguments
        self.process = None
        self.started_at = 0  # size of the log at the last start
        self.kill_moment = contextlib.nullcontext  # what to kill it within (recorded_node.py)

    def path(self, name):
        return os.path.join(self.mount, name)

    def mkdirs(self, name):
        os.makedirs(self.path(name), exist_ok=True)

    def lose_data(self):
        shutil.rmtree(self.data)
        os.mkdir(self.data)

    def start(self, wait=True):
        assert self.process is None, f"{self.name} runs already"
        command = [*self.prefix, self.program, "mount", *self.arguments]
        if self.command:
            command += ["--", *self.command]
        with open(self.log_path, "ab") as log:
            self.started_at = log.tell()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def clear_mount_point(self):
        """Removes what applications left in the bare directory: a connection that was open when the mount went away
        makes its -shm there anew."""
        assert not is_mounted(self.mount), f"{self.mount} is mounted"
        for name in os.listdir(self.mount):
            os.remove(self.path(name))

    def wait_ready(self):
        def ready():
            code = self.process.poll()
            if code is not None:
                raise AssertionError(f"{self.name} ended with {code}: {self.log_text()}")
            status = self.status()
            return status is not None and status["ready"]

        wait_for(ready, f"{self.name} to be ready")

    def wait_end(self, seconds=WAIT_SECONDS):
        """Exit code of a node that ends by itself."""
        code = self.process.wait(timeout=seconds)
        self.process = None
        return code

    def stop(self, seconds=WAIT_SECONDS):
        """Orderly, with SIGTERM. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait_end(seconds)
        assert not is_mounted(self.mount), f"{self.mount} is still mounted"
        return code

    @property
    def guardian(self):
        return self.process.pid

    def daemon(self):
        """Process id of the daemon, the guardian's child of the same name."""
        name = process_name(self.guardian)
        found = [pid for pid in children_of(self.guardian) if process_name(pid) == name]
        assert len(found) == 1, f"{self.name}: daemons {found}"
        return found[0]

    def reset_memory_peak(self):
        """From now on memory("VmHWM") is about the time after this."""
        with open(f"/proc/{self.daemon()}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")

    def memory(self, field):
        """A size in the daemon's /proc/PID/status in bytes: VmRSS now, VmHWM at its peak."""
        with open(f"/proc/{self.daemon()}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} in /proc/{self.daemon()}/status")

    def io(self):
        """What the daemon has read and written up to now: /proc/PID/io."""
        with open(f"/proc/{self.daemon()}/io", encoding="utf-8") as file:
            return {name: int(value) for name, value in (line.split(":") for line in file)}

    def echofs(self, *arguments, check=True):
        """Runs a command of echofs on this node."""
        return run([ECHOFS, *arguments, "--data-dir", self.data], check=check)

    def status(self):
        """What `status --json` says, or None while nobody answers."""
        done = self.echofs("status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def databases(self):
        return {entry["name"]: entry for entry in self.status()["databases"]}

    def log_text(self):
        """What the node has logged since its last start."""
        with open(self.log_path, "rb") as log:
            log.seek(self.started_at)
            return log.read().decode(errors="replace")

    def connect(self, name, **options):
        options.setdefault("timeout", 60)
        options.setdefault("isolation_level", None)
        return sqlite3.connect(self.path(name), **options)

    def execute(self, name, *statements):
        """Runs statements on one connection; returns all rows of the last one."""
        with contextlib.closing(self.connect(name)) as connection:
            rows = []
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            return rows

    def fill(self, name, mode="wal", page_size=4096, rows=2000):
        """Makes a database with a table t(id INTEGER PRIMARY KEY, x), 1000 random bytes a row."""
        self.execute(name, f"PRAGMA page_size={page_size}", f"PRAGMA journal_mode={mode}",
                     "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                     f"LIMIT {rows}) INSERT INTO t SELECT i, randomblob(1000) FROM n")

    def journal_mode(self, name):
        return self.execute(name, "PRAGMA journal_mode")[0][0]


class Cluster:
    """A primary and replicas. Nothing is started until asked for."""

    def __init__(self, directory, replicas=1, **options):
        self.directory = directory
        self.options = options
        port = free_port()
        self.primary = Node(directory, "a", port, port, **self.options)
        self.replicas = []
        for _ in range(replicas):
            self.add_replica()

    def add_replica(self):
        name = "bcdefgh"[len(self.replicas)]
        self.replicas.append(Node(self.directory, name, free_port(), self.primary.port,
                                  **self.options))
        return self.replicas[-1]

    @property
    def replica(self):
        return self.replicas[0]

    @property
    def nodes(self):
        return [self.primary, *self.replicas]

    def start(self):
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        return self

    def stop(self):
        """Replicas first. All must end orderly."""
        codes = {}
        for node in reversed(self.nodes):
            if node.process is not None:
                codes[node.name] = node.stop()
        assert not any(codes.values()), f"exit codes {codes}"

    def wait_positions(self, seconds=WAIT_SECONDS):
        """Until all nodes stand at the same position in the log and in every database."""
        last = {}

        def same():
            for node in self.nodes:
                last[node.name] = node.status()
            if None in last.values():
                return False
            positions = []
            for status in last.values():
                positions.append((status["log"]["index"], {
                    entry["name"]: (entry["txid"], entry["digest"], entry["applied_index"],
                                    entry["pages"], entry["page_size"], entry["state"])
                    for entry in status["databases"]}))
            return all(position == positions[0] for position in positions)

        wait_for(same, lambda: "the nodes to converge: " + json.dumps(last, indent=1), seconds)
        return last[self.primary.name]

    def wait_for_databases(self, names):
        """Until these are there, on all nodes, whatever their positions."""
        for node in self.nodes:
            wait_for(lambda node=node: set(names) <= set(node.databases()),
                     f"{sorted(names)} on {node.name}")

    def wait_converged(self, seconds=WAIT_SECONDS):
        """As wait_positions, and then sound databases with the same dbhash are read on all nodes.

        For a cluster in which nobody writes at the moment. Returns the names of the databases.
        """
        status = self.wait_positions(seconds)
        names = [entry["name"] for entry in status["databases"]]
        for name in names:
            expected = read_database(self.primary.connect(name))
            assert expected[0] == "ok", f"{name} on {self.primary.name}: {expected[0]}"
            for node in self.replicas:
                found = read_database(node.connect(name))
                assert found[0] == "ok", f"{name} on {node.name}: {found[0]}"
                assert found == expected, f"{name} differs on {node.name}"
        return names


class ClusterTest(unittest.TestCase):
    """Base of the tests: a directory that run_test.py removes, and clusters that end orderly."""

    maxDiff = 2000

    def setUp(self):
        self.directory = os.environ["ECHOFS_TEST_DIR"]
        self.applications = []

    def cluster(self, replicas=1, start=True, **options):
        cluster = Cluster(self.directory, replicas, **options)
        if start:
            cluster.start()
        self.addCleanup(self._stop, cluster)
        return cluster

    def _stop(self, cluster):
        # After a failure run_test.py ends what is left; an orderly stop would only take time.
        if not failed(self):
            cluster.stop()

    def node(self, name, **options):
        """A node on its own."""
        return Node(self.directory, name, **options)

    def spawn(self, command, **options):
        """Starts a program that is killed at the end of the test."""
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(command, **options)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait(timeout=WAIT_SECONDS)

        self.addCleanup(end)
        return process

    def writer(self, path, mode, synchronous="NORMAL", pause=0):
        return Writer(self, path, mode, synchronous, pause)

    def reader(self, path):
        return Reader(self, path)
