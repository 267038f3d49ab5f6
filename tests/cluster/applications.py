"""Processes that work in a mount, for the cluster tests (harness.py): readers and writers of databases."""

import contextlib
import os
import signal
import sys

from processes import WAIT_SECONDS, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))


class Application:
    """A process that works in a mount until it is stopped; what it did is in the lines of a file."""

    program = None
    programs = HERE  # the directory that it is in

    def __init__(self, test, path, *options):
        self.test = test
        self.path = path
        base = f"{test.directory}/{self.program}-{len(test.applications)}"
        test.applications.append(self)
        self.record = base + ".record"
        self.log = base + ".log"
        self.options = options
        self.prefix = []  # a command that starts the program
        self.process = None
        self.counted = (0, 0)  # bytes of the record that were counted, and the lines in them

    def start(self):
        with open(self.log, "ab") as log:
            self.process = self.test.spawn(
                [*self.prefix, sys.executable, os.path.join(self.programs, self.program + ".py"), self.path, self.record,
                 *self.options], stdout=log, stderr=log)
        return self

    def records(self):
        if not os.path.exists(self.record):
            return []
        with open(self.record, encoding="utf-8") as record:
            return [int(line) for line in record.read().split("\n")[:-1]]

    def record_count(self):
        """len(records()), at a cost that does not grow with what is there."""
        size, lines = self.counted
        with contextlib.suppress(FileNotFoundError), open(self.record, "rb") as record:
            record.seek(size)
            new = record.read()
            self.counted = (size + len(new), lines + new.count(b"\n"))
        return self.counted[1]

    def wait_records(self, count, seconds=WAIT_SECONDS):
        """Until there are `count` more than now."""
        wait_all_records([self], count, seconds)

    def assert_alive(self):
        assert self.process.poll() is None, f"{self.program} ended early: {self.log_text()}"

    def log_text(self):
        with open(self.log, encoding="utf-8") as log:
            return log.read()

    def stop(self):
        """Ends it after what it is doing; it must have survived until now."""
        self.assert_alive()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=WAIT_SECONDS)
        assert code == 0, f"{self.program} ended with {code}: {self.log_text()}"


def wait_all_records(applications, count, seconds=WAIT_SECONDS):
    """Until each of them has `count` records more than now. All are waited for at once."""
    targets = {application: application.record_count() + count for application in applications}

    def missing():
        found = []
        for application, target in targets.items():
            application.assert_alive()
            if application.record_count() < target:
                found.append(application)
        return found

    def explain():
        return f"{count} more records of each application. Those that have too few: " + "; ".join(
            f"{application.program} {application.path} lacks {targets[application] - application.record_count()} "
            f"and says: {application.log_text()!r}" for application in missing())

    wait_for(lambda: not missing(), explain, seconds)


class Reader(Application):
    """Reads the table `written` as fast as it can (reader.py)."""

    program = "reader"

    def wait_reads(self, count):
        self.wait_records(count)


class Writer(Application):
    """Commits to the table `written` of a database, as fast as it can or with a pause in seconds (writer.py)."""

    program = "writer"

    def __init__(self, test, path, mode, synchronous="NORMAL", pause=0):
        super().__init__(test, path, mode, synchronous, str(pause))

    def wait_commits(self, count):
        """Until `count` more commits than now have returned."""
        self.wait_records(count)

    def check(self, node, name):
        """Every commit that returned is in the database, with the right content (invariant D4)."""
        committed = self.records()
        # An id that was lost would be given again.
        assert committed == sorted(set(committed)), "an id was committed twice"
        with contextlib.closing(node.connect(name)) as connection:
            rows = dict(connection.execute("SELECT id, length(filler) FROM written"))
        missing = [i for i in committed if i not in rows]
        assert not missing, f"{len(missing)} committed rows are missing, first {missing[:5]}"
        wrong = [i for i, size in rows.items() if size != 100 + i * 7919 % 4000]
        assert not wrong, f"rows {wrong[:5]} have wrong content"


class RingReader(Application):
    """Checks in each transaction what must hold in every state, and survives no error (ring.py)."""

    program = "ring"

    def __init__(self, test, path, *options):
        super().__init__(test, path, "read", *options)


class RingWriter(Application):
    """Changes what RingReader checks, as fast as it can. With a journal mode it makes the tables first."""

    program = "ring"

    def __init__(self, test, path, *mode):
        super().__init__(test, path, "write", *mode)
