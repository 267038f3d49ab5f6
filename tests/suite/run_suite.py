"""SQLite's own test suite inside a mounted primary with a replica, compared with the same outside the mount.

Every test file runs in a process and a directory of its own, as an ordinary user (the suite refuses root), once on the
plain disk and once in the mount. Afterwards the replica must stand where the primary stands. What counts is
the difference: a case that fails inside and passes outside, a file that ends early or hangs only inside. Cases
that cannot pass by design are in expected.txt, each with its reason.

Exit code: 0 without a difference that is not expected, 1 otherwise. `./dev sqlite-suite` builds what this needs.
"""

import argparse
import concurrent.futures
import contextlib
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "cluster"))
import harness  # noqa: E402  (the path above)

SUMMARY = re.compile(r"^(\d+) errors out of (\d+) tests", re.MULTILINE)
FAILURES = re.compile(r"^!Failures on these tests:(.*)$", re.MULTILINE)
FAILED_CASE = re.compile(r"^! (\S+) (?:expected|got|error|timeout)", re.MULTILINE)
CASE = re.compile(r"^(\S+)\.\.\.", re.MULTILINE)
OUTPUT_SIZE_MAX = 64 << 20  # bytes of a file's output that are kept
COMMAND_SECONDS = 120
CONVERGE_SECONDS = int(os.environ.get("ECHOFS_SUITE_CONVERGE_SECONDS", "60"))


class Outcome:
    """What one test file did in one place."""

    def __init__(self, output, code, timed_out):
        self.output = output
        self.code = code
        self.timed_out = timed_out
        summary = SUMMARY.search(output)
        self.complete = summary is not None
        self.cases = int(summary.group(2)) if summary else len(CASE.findall(output))
        failures = FAILURES.search(output)
        # Of a file that did not come to its end there is no list.
        self.failed = set(failures.group(1).split() if failures else FAILED_CASE.findall(output))

    def ending(self):
        if self.timed_out:
            return "hung"
        if not self.complete:
            return f"ended early, exit code {self.code}"
        return "complete"


def run_file(command, directory, log_path, seconds):
    """One test file to its end, or until it is silent for `seconds`. What it says is left in `log_path`."""
    with open(log_path, "wb") as log:
        process = subprocess.Popen([*harness.as_nobody(), *command], cwd=directory,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        # A machine may be slow: what hangs is what says nothing more.
        size, since = 0, time.monotonic()
        while process.poll() is None and time.monotonic() - since < seconds:
            if os.path.getsize(log_path) != size:
                size, since = os.path.getsize(log_path), time.monotonic()
            time.sleep(0.02)
        code = process.poll()
        timed_out = code is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # helpers that the file has left, too
        if timed_out:
            process.wait(timeout=harness.WAIT_SECONDS)
    with open(log_path, "rb") as log:
        return Outcome(log.read(OUTPUT_SIZE_MAX).decode(errors="replace"), code, timed_out)


def shell(*command):
    """For everything in the mount: a mount that hangs must not hang this process."""
    return harness.run(list(command), seconds=COMMAND_SECONDS)


def make_directory(directory):
    shell("install", "-d", "-o", str(harness.NOBODY), "-g", str(harness.NOBODY), directory)


class Expectations:
    """Cases that differ by design: lines `FILE CASE reason`, where CASE may be a pattern."""

    def __init__(self, path):
        self.entries = []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    name, case, reason = line.split(None, 2)
                    self.entries.append((name, case, reason.strip()))

    def reason(self, name, case):
        for file_pattern, case_pattern, reason in self.entries:
            if fnmatch.fnmatchcase(name, file_pattern) and fnmatch.fnmatchcase(case, case_pattern):
                return reason
        return None


class Suite:
    def __init__(self, options, directory, cluster):
        self.options = options
        self.plain = os.path.join(directory, "plain")
        self.cluster = cluster
        self.expectations = Expectations(os.path.join(HERE, "expected.txt"))
        self.differences = []
        self.expected = 0
        self.cases = {"outside": 0, "inside": 0}
        self.failed = {"outside": 0, "inside": 0}
        self.databases = 0

    def run(self, files):
        for number, name in enumerate(files, 1):
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                outside = pool.submit(self.run_at, name, self.plain, "outside")
                inside = pool.submit(self.run_at, name, self.cluster.primary.mount, "inside")
                problems = self.compare(name, outside.result(), inside.result())
            problems += self.check_replica(name)
            self.remove(name)
            self.differences += problems
            verdict = "; ".join(problems) if problems else "ok"
            print(f"[{number}/{len(files)}] {name}: {outside.result().cases} outside, "
                  f"{inside.result().cases} inside, {time.monotonic() - start:.1f} s: {verdict}",
                  flush=True)

    def run_at(self, name, root, place):
        directory = os.path.join(root, name)
        make_directory(directory)
        # By way of permutations.test, which makes loops over injected faults as short as veryquick has them.
        command = [self.options.fixture, os.path.join(self.options.source, "test/permutations.test"),
                   "veryquick", name]
        outcome = run_file(command, directory,
                           os.path.join(self.options.logs, f"{name}.{place}"), self.options.seconds)
        self.cases[place] += outcome.cases
        self.failed[place] += len(outcome.failed)
        return outcome

    def compare(self, name, outside, inside):
        differences = []
        for case in sorted(inside.failed - outside.failed):
            if self.expectations.reason(name, case):
                self.expected += 1
            else:
                differences.append(f"{case} fails inside only")
        if inside.ending() != outside.ending():
            if self.expectations.reason(name, "ending"):
                self.expected += 1
            else:
                differences.append(f"{inside.ending()} inside, {outside.ending()} outside")
        elif inside.complete and inside.cases < outside.cases:
            if self.expectations.reason(name, "count"):
                self.expected += 1
            else:
                differences.append(f"{outside.cases - inside.cases} cases fewer inside")
        return differences

    def check_replica(self, name):
        """Waits until the replica has every database as the primary has it; says which it has not."""
        dead = [node for node in self.cluster.nodes if node.process.poll() is not None]
        if dead:
            for node in dead:
                node.process = None
                node.start()
            return [f"node {node.name} died in {name}, and was started again" for node in dead]
        end = time.monotonic() + CONVERGE_SECONDS
        while True:
            positions = [self.positions(node) for node in self.cluster.nodes]
            if positions[0] is not None and positions[0] == positions[1]:
                self.databases += len(positions[0][1])
                return []
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        if None in positions:
            return ["a node does not answer"]
        primary, replica = positions
        return [f"{database} is not the same on the replica: {primary[1].get(database)}, "
                f"{replica[1].get(database)}"
                for database in sorted(primary[1].keys() | replica[1].keys())
                if primary[1].get(database) != replica[1].get(database)] or [
                    f"the replica's log is not the same after {name}"]

    @staticmethod
    def positions(node):
        status = node.status()
        if status is None:
            return None
        return status["log"]["index"], {
            entry["name"]: (entry["txid"], entry["digest"], entry["pages"], entry["page_size"],
                            entry["state"])
            for entry in status["databases"]}

    def remove(self, name):
        shell("rm", "-rf", os.path.join(self.plain, name))
        shell("rm", "-rf", os.path.join(self.cluster.primary.mount, name))

    def report(self):
        print(f"cases run: {self.cases['outside']} outside, {self.cases['inside']} inside")
        print(f"cases failed: {self.failed['outside']} outside, {self.failed['inside']} inside")
        print(f"the replica had the same digest for {self.databases} databases")
        print(f"differences that are expected (tests/suite/expected.txt): {self.expected}")
        print(f"differences: {len(self.differences)}")
        for difference in self.differences:
            print(f"  {difference}")


def list_files(options, directory):
    """Names of the test files that the options select. testfixture needs a directory to write to."""
    if options.tests:
        permutation, patterns = "full", options.tests.split()
    else:
        permutation, patterns = options.permutation, ["*"]
    done = harness.run([*harness.as_nobody(), options.fixture, os.path.join(HERE, "list_files.test"),
                        os.path.join(options.source, "test"), permutation], cwd=directory)
    names = [line[5:] for line in done.stdout.splitlines() if line.startswith("FILE ")]
    return [name for name in names
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--fixture", required=True, help="the testfixture program")
    parser.add_argument("--source", required=True, help="SQLite's source tree")
    parser.add_argument("--logs", required=True, help="directory for what the test files say")
    parser.add_argument("--tests", help='patterns of test files, such as "wal*.test journal*.test"')
    parser.add_argument("--permutation", default="veryquick", help="what to run without --tests")
    parser.add_argument("--seconds", type=int, default=300,
                        help="after so much silence a test file counts as hung")
    return parser.parse_args()


def main():
    options = parse_arguments()
    # So that nodes are stopped and the counts so far are printed when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if os.geteuid() != 0:
        sys.exit("run_suite.py must be started by root, to mount for other users")
    os.makedirs(options.logs, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="echofs-suite-")
    os.chmod(directory, 0o755)
    plain = os.path.join(directory, "plain")
    make_directory(plain)
    files = list_files(options, plain)
    if not files:
        sys.exit("no test file matches")
    cluster = harness.Cluster(directory, replicas=1)
    suite = Suite(options, directory, cluster)
    try:
        cluster.start()
        suite.run(files)
        cluster.stop()
    finally:
        for node in cluster.nodes:
            if node.process is not None:
                node.process.send_signal(signal.SIGTERM)
                node.process.wait(timeout=harness.WAIT_SECONDS)
            shutil.copy(node.log_path, os.path.join(options.logs, f"node-{node.name}.log"))
        suite.report()
        shell("rm", "-rf", "--one-file-system", directory)
    sys.exit(1 if suite.differences else 0)


if __name__ == "__main__":
    main()
