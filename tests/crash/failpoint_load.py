"""The load of the failpoint tests: applications (failpoint_application.py), and what they were told held against the nodes."""

import contextlib
import os
import signal
import subprocess
import sys

from failpoint_application import filler

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failpoint_application.py")


class Application:
    """The process; it is started again when the mount below it has taken it along."""

    def __init__(self, test, *arguments):
        self.test = test
        self.arguments = arguments
        self.log = os.path.join(test.directory, "applications.log")
        self.process = None

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def tend(self):
        if self.alive():
            return
        if self.process is not None:
            assert self.process.returncode == -signal.SIGBUS, f"{self.arguments} ended with {self.process.returncode}"
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()  # a command that it did not live to read may still be there
            self.process.stdout.close()
        with open(self.log, "ab") as log:
            self.process = self.test.spawn([sys.executable, PROGRAM, *self.arguments], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=log, text=True)

    def send(self, command):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()

    def ask(self, command):
        """Returns when it has answered, or has ended."""
        self.tend()
        self.send(command)
        self.process.stdout.readline()


class Churn:
    def __init__(self, test, node):
        self.application = Application(test, "churn", node.mount)

    def __call__(self, step):
        self.application.ask(step)


class Record:
    """What the writer of one database has tried and been told."""

    def __init__(self, path):
        self.path = path
        self.tried = set()
        self.acknowledged = set()
        self.settled = set()  # rows that all nodes had
        self.read_up_to = 0  # bytes

    def read(self):
        if not os.path.exists(self.path):
            return
        with open(self.path, encoding="utf-8") as file:
            file.seek(self.read_up_to)
            for line in file.readlines():
                what, number = line.split()
                (self.acknowledged if what == "+" else self.tried).add(int(number))
            self.read_up_to = file.tell()


class Load:
    """Writers of databases name: (journal mode, synchronous, whether what COMMIT returned survives every failover)."""

    def __init__(self, test, databases, nodes):
        self.databases = databases
        self.records = {name: Record(os.path.join(test.directory, name + ".record")) for name in databases}
        self.writers = {name: Application(test, "write", self.records[name].path, name, mode, synchronous,
                                          *(node.mount for node in nodes))
                        for name, (mode, synchronous, _) in databases.items()}
        self.names = ()  # of those that run

    def create(self, node):
        for name, (mode, _, _) in self.databases.items():
            node.execute(name, f"PRAGMA journal_mode={mode}",
                         "CREATE TABLE written(id INTEGER PRIMARY KEY, filler TEXT, changes INTEGER)")

    @contextlib.contextmanager
    def running(self, names=None):
        """Writers run, of all databases or of some."""
        self.names = self.databases if names is None else names
        self.tend(first=True)
        yield
        for name in self.names:
            self.writers[name].ask("pause")
        self.names = ()

    def tend(self, first=False):
        for name in self.names:
            writer = self.writers[name]
            if first or not writer.alive():
                writer.tend()
                writer.send("run")

    def check(self, nodes, orphans):
        """The nodes have converged. `orphans`: how many change sets of each database they keep as such."""
        for name, (_, _, promised) in self.databases.items():
            record = self.records[name]
            record.read()
            first = None
            for node in nodes:
                rows = self._read(node, name)
                assert first is None or rows == first, f"{name} differs on {node.name}"
                first = rows
            self._check_rows(name, record, set(first), 0 if promised else orphans.get(name, 0))

    def _check_rows(self, name, record, rows, missing_max):
        lost = record.settled - rows
        assert not lost, f"{name}: {len(lost)} rows that all nodes had are gone, first {sorted(lost)[:5]}"
        missing = record.acknowledged - rows
        assert len(missing) <= missing_max, (f"{name}: {len(missing)} acknowledged commits are missing, "
                                             f"orphans {missing_max}, first {sorted(missing)[:5]}")
        strange = rows - record.tried
        assert not strange, f"{name}: rows that nobody wrote, first {sorted(strange)[:5]}"
        record.settled = rows

    def _read(self, node, name):
        with contextlib.closing(node.connect(name)) as connection:
            connection.execute("BEGIN")
            check = connection.execute("PRAGMA integrity_check").fetchall()
            assert check == [("ok",)], f"{name} on {node.name}: {check}"
            rows = connection.execute("SELECT id, filler, changes FROM written").fetchall()
        wrong = [number for number, text, _ in rows if text != filler(number)]
        assert not wrong, f"{name} on {node.name}: rows {wrong[:5]} have wrong content"
        return {number: changes for number, _, changes in rows}
