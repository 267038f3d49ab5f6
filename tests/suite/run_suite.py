"""SQLite's own test suite inside a mounted primary with a replica, and outside for comparison.

Everything runs in a directory of its own, as an ordinary user: the suite refuses root, so root
starts it as nobody. After each test file or program the replica must stand where the primary
stands. The parts are in test_files.py and programs.py.

Exit code: 0 without a difference that is not expected, 1 otherwise. `./dev sqlite-suite` builds
what this needs.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "cluster"))
# The path above is needed for these.
import commands  # noqa: E402
import convergence  # noqa: E402
import expectations  # noqa: E402
import harness  # noqa: E402
import programs  # noqa: E402
import test_files  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--directory", required=True, help="what build_programs.sh has made")
    parser.add_argument("--logs", help="what the tests say goes here; default: DIRECTORY/logs")
    parser.add_argument("--tests", metavar="PATTERNS",
                        help='only these test files, such as "wal*.test journal*.test"')
    parser.add_argument("--permutation", metavar="NAME",
                        help="only test files of this permutation, such as veryquick")
    parser.add_argument("--from", dest="first", default="", metavar="NAME",
                        help="leaves out the test files before this one")
    parser.add_argument("--programs", nargs="?", const="*", metavar="PATTERNS",
                        help="only mptester and kvtest, or of them what matches")
    parser.add_argument("--long", action="store_true",
                        help="threadtest3 too, and more rounds of the other programs")
    parser.add_argument("--seconds", type=int, default=300,
                        help="after so much silence a test counts as hung")
    return parser.parse_args()


@contextlib.contextmanager
def temporary_directory():
    """One that other users may enter."""
    directory = tempfile.mkdtemp(prefix="echofs-suite-")
    os.chmod(directory, 0o755)
    try:
        yield directory
    finally:
        commands.shell("rm", "-rf", "--one-file-system", directory)


def place_of_programs(options, directory):
    """Where the user who runs the tests can reach programs and source: a copy if need be."""
    made = os.path.realpath(options.directory)
    probe = os.path.join(made, "programs", "testfixture")
    if harness.run([*commands.as_user(), "test", "-x", probe], check=False).returncode == 0:
        return made
    copy = os.path.join(directory, "suite")
    for part in ("programs", "source/test", "source/ext", "source/mptest"):
        shutil.copytree(os.path.join(made, part), os.path.join(copy, part), symlinks=True)
    return copy


def choose_files(options, directory):
    if options.programs:
        return []
    if options.tests or options.permutation:
        files = test_files.list_files(options, directory, options.permutation or "full",
                                      (options.tests or "*").split())
    else:
        files = test_files.list_files(options, directory, "veryquick")
        crash = test_files.list_files(options, directory, "full", test_files.CRASH_FILES)
        files += [name for name in crash if name not in files]
    files = [name for name in files if name >= options.first]
    if not files:
        sys.exit("no test file matches")
    return files


class Suite:
    def __init__(self, options, directory):
        self.options = options
        place = place_of_programs(options, directory)
        options.programs_dir = os.path.join(place, "programs")
        options.fixture = os.path.join(options.programs_dir, "testfixture")
        options.source = os.path.join(place, "source")
        options.list_script = shutil.copy(os.path.join(HERE, "list_files.test"), directory)
        self.plain = os.path.join(directory, "plain")
        commands.make_directory(self.plain)
        self.chosen = choose_files(options, self.plain)
        self.cluster = harness.Cluster(directory, replicas=1)
        self.convergence = convergence.Convergence(self.cluster)
        self.expectations = expectations.Expectations()
        self.files = test_files.TestFiles(options, self.plain, self.cluster, self.convergence,
                                          self.expectations)
        self.programs = programs.Programs(options, self.cluster, self.convergence)

    def run(self):
        self.cluster.start()
        self.files.run(self.chosen)
        if not (self.options.tests or self.options.permutation):
            self.programs.run()
            if self.programs.runs == 0:
                sys.exit("no program matches")
        self.cluster.stop()

    def differences(self):
        return self.files.differences + self.programs.differences

    def stop(self):
        for node in self.cluster.nodes:
            if node.process is not None:
                node.process.send_signal(signal.SIGTERM)
                node.process.wait(timeout=harness.WAIT_SECONDS)
            if os.path.exists(node.log_path):
                shutil.copy(node.log_path, os.path.join(self.options.logs, f"node-{node.name}.log"))

    def report(self, seconds):
        self.files.report()
        self.programs.report()
        print(f"the replica had the same digest for {self.convergence.databases} databases")
        unused = self.expectations.unused(self.files.done)
        print(f"lines of expected.txt that nothing needed: {len(unused)}")
        for line in unused:
            print(f"  {line}")
        print(f"it took {seconds / 60:.1f} minutes")
        print(f"differences: {len(self.differences())}")
        for difference in self.differences():
            print(f"  {difference}")


def main():
    options = parse_arguments()
    # So that nodes are stopped and the counts so far are printed when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options.logs = os.path.abspath(options.logs or os.path.join(options.directory, "logs"))
    os.makedirs(options.logs, exist_ok=True)
    start = time.monotonic()
    with temporary_directory() as directory:
        suite = Suite(options, directory)
        try:
            suite.run()
        finally:
            suite.stop()
            suite.report(time.monotonic() - start)
    sys.exit(1 if suite.differences() else 0)


if __name__ == "__main__":
    main()
