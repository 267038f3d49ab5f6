"""Test files of SQLite's suite, each run once on the plain disk and once in the mount.

What counts is the difference: a case that fails inside and passes outside, a file that ends early,
hangs or runs fewer cases only inside. Cases that cannot pass by design are in expected.txt, each
with its reason.
"""

import concurrent.futures
import fnmatch
import os
import re
import time

import commands
import harness

# Not in veryquick, because they take long there: they simulate crashes and faults themselves.
CRASH_FILES = ["crash*.test", "walcrash*.test", "walfault*.test"]

SUMMARY = re.compile(r"^(\d+) errors out of (\d+) tests", re.MULTILINE)
FAILURES = re.compile(r"^!Failures on these tests:(.*)$", re.MULTILINE)
FAILED_CASE = re.compile(r"^! (\S+) (?:expected|got|error|timeout)", re.MULTILINE)
CASE = re.compile(r"^(\S+)\.\.\.", re.MULTILINE)
COMPLAINTS_MAX = 30  # lines of a test file that are shown when it fails


class Outcome:
    """What one test file did in one place."""

    def __init__(self, finished):
        self.finished = finished
        summary = SUMMARY.search(finished.output)
        self.complete = summary is not None
        self.cases = int(summary.group(2)) if summary else len(CASE.findall(finished.output))
        failures = FAILURES.search(finished.output)
        # Of a file that did not come to its end there is no list.
        self.failed = set(failures.group(1).split() if failures
                          else FAILED_CASE.findall(finished.output))

    def ending(self):
        if self.finished.timed_out:
            return "hung"
        if not self.complete:
            return f"ended early, exit code {self.finished.code}"
        return "complete"

    def complaints(self):
        """The lines that say what went wrong, not too many."""
        lines = self.finished.output.splitlines()
        if not self.complete:
            return lines[-COMPLAINTS_MAX:]
        return [line for line in lines if line.startswith(("! ", "Error: "))][:COMPLAINTS_MAX]


def list_files(options, directory, permutation, patterns=("*",)):
    """Names of a permutation's test files that match. testfixture needs a directory to write to."""
    done = harness.run([*commands.as_user(), options.fixture, options.list_script,
                        os.path.join(options.source, "test"), permutation], cwd=directory)
    names = [line[5:] for line in done.stdout.splitlines() if line.startswith("FILE ")]
    return [name for name in names
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


class TestFiles:
    def __init__(self, options, plain, cluster, convergence, expectations):
        self.options = options
        self.plain = plain
        self.cluster = cluster
        self.convergence = convergence
        self.expectations = expectations
        self.done = []  # names of files
        self.differences = []
        self.expected = 0
        self.cases = {"outside": 0, "inside": 0}
        self.failed = {"outside": 0, "inside": 0}

    def run(self, files):
        for number, name in enumerate(files, 1):
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                outside = pool.submit(self.run_at, name, self.plain, "outside")
                inside = pool.submit(self.run_at, name, self.cluster.primary.mount, "inside")
                problems = self.compare(name, outside.result(), inside.result())
            problems += self.convergence.check(name)
            self.remove(name)
            self.done.append(name)
            self.differences += [f"{name}: {problem}" for problem in problems]
            print(f"[{number}/{len(files)}] {name}: {outside.result().cases} outside, "
                  f"{inside.result().cases} inside, {time.monotonic() - start:.1f} s: "
                  f"{'; '.join(problems) or 'ok'}", flush=True)
            if problems:
                print("\n".join(f"    {line}" for line in inside.result().complaints()), flush=True)

    def run_at(self, name, root, place):
        directory = os.path.join(root, name)
        commands.make_directory(directory)
        log_path = os.path.join(self.options.logs, f"{name}.{place}")
        if os.path.exists(log_path):
            os.unlink(log_path)
        # By way of permutations.test: loops over injected faults are as short as in veryquick.
        permutations = os.path.join(self.options.source, "test/permutations.test")
        command = [self.options.fixture, permutations, "veryquick", name]
        outcome = Outcome(commands.run_as_user(command, directory, log_path, self.options.seconds))
        self.cases[place] += outcome.cases
        self.failed[place] += len(outcome.failed)
        return outcome

    def compare(self, name, outside, inside):
        """Differences that are not expected, as text."""
        found = [(case, f"{case} fails inside only")
                 for case in sorted(inside.failed - outside.failed)]
        if inside.ending() != outside.ending():
            found.append(("ending", f"{inside.ending()} inside, {outside.ending()} outside"))
        elif inside.complete and inside.cases < outside.cases:
            found.append(("count", f"{outside.cases - inside.cases} cases fewer inside"))
        unexpected = [text for case, text in found if not self.expectations.covers(name, case)]
        self.expected += len(found) - len(unexpected)
        return unexpected

    def remove(self, name):
        commands.remove(os.path.join(self.plain, name))
        commands.remove(os.path.join(self.cluster.primary.mount, name))

    def report(self):
        print(f"cases run: {self.cases['outside']} outside, {self.cases['inside']} inside")
        print(f"cases failed: {self.failed['outside']} outside, {self.failed['inside']} inside")
        print(f"differences that are expected (tests/suite/expected.txt): {self.expected}")
