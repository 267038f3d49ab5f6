"""SQLite's test programs that are not written in Tcl, in the mount: mptester, kvtest, threadtest3.

Each run has a directory of its own. It must end without an error, and both nodes must then have the
same sound databases.
"""

import fnmatch
import os
import re
import time

import commands

ERRORS = re.compile(r"(\d+) errors out of (\d+) tests")
# SQLite sees that there is a journal, another process commits and removes it, SQLite cannot open it. It expects that
# (hasHotJournal in pager.c) and only says it in its log; mptester counts what is said there as errors.
JOURNAL_RACE = re.compile(r"ERROR: \(errcode=14\) (?:cannot open file at line \d+ of |"
                          r"os_unix\.c:\d+: \(2\) open\(\S*-journal\))")
# Per connection; WAL belongs to the database.
ROLLBACK_MODES = ["DELETE", "TRUNCATE", "PERSIST"]
MPTEST_SCRIPTS = ["multiwrite01.test", "crash01.test"]
# They change the page size, which is not possible in WAL mode.
MPTEST_CONFIG_SCRIPTS = ["config01.test", "config02.test"]
MPTEST_FILES = [*MPTEST_SCRIPTS, *MPTEST_CONFIG_SCRIPTS, "crash02.subtest"]
THREADTEST3 = ["walthread1", "walthread2", "walthread3", "walthread4", "walthread5",
               "cgt_pager_1", "dynamic_triggers", "checkpoint_starvation_1",
               "checkpoint_starvation_2", "create_drop_index_1", "lookaside1", "vacuum1", "stress1",
               "stress2", "shared1"]


def mptest_script(text, mode):
    """A script whose clients use a journal mode: --journalmode is for the first connection only.

    config01 then sets modes of its own. MEMORY and OFF are refused in the mount (C6): TRUNCATE and
    DELETE stand for them.
    """
    if mode == "WAL":
        return text
    text = text.replace("journal_mode=MEMORY", "journal_mode=TRUNCATE")
    text = text.replace("journal_mode=OFF", "journal_mode=DELETE")
    return re.sub(r"^(--task .*)$", rf"\1\n  PRAGMA journal_mode={mode};\n  --reset", text,
                  flags=re.MULTILINE)


def is_journal_race(output):
    """Whether that race is all that mptester counts."""
    counted = sum(int(errors) for errors, _ in ERRORS.findall(output))
    return 0 < counted == len(JOURNAL_RACE.findall(output))


class Programs:
    def __init__(self, options, cluster, convergence):
        self.options = options
        self.cluster = cluster
        self.convergence = convergence
        self.patterns = (options.programs or "*").split()
        self.runs = 0
        self.tests = 0
        self.differences = []

    def run(self):
        for mode in [*ROLLBACK_MODES, "WAL"]:
            for script in MPTEST_SCRIPTS + (MPTEST_CONFIG_SCRIPTS if mode != "WAL" else []):
                self.run_one(f"mptester-{script}-{mode}", self.mptester, script, mode)
            self.run_one(f"kvtest-{mode}", self.kvtest, mode)
        if self.options.long:
            for test in THREADTEST3:
                self.run_one(f"threadtest3-{test}", self.threadtest3, test)

    def program(self, name):
        return os.path.join(self.options.programs_dir, name)

    def mptester(self, directory, script, mode):
        for name in MPTEST_FILES:
            path = os.path.join(self.options.source, "mptest", name)
            with open(path, encoding="utf-8") as source:
                text = mptest_script(source.read(), mode)
            with open(os.path.join(directory, name), "w", encoding="utf-8") as copy:
                copy.write(text)
        command = [self.program("mptester"), "mptest.db", script, "--journalmode", mode]
        return [[*command, "--repeat", "3" if self.options.long else "1"]]

    def kvtest(self, _, mode):
        kvtest = self.program("kvtest")
        count = "20000" if self.options.long else "2000"
        update = [kvtest, "run", "kv.db", "--count", count, "--update", "--jmode", mode.lower()]
        init = [kvtest, "init", "kv.db", "--count", count]
        return [[*init, "--size", "10000", "--variance", "5000"],
                [*update, "--nosync", "--random"],
                [*update, "--multitrans", "--fsync", "--integrity-check"],
                [kvtest, "run", "kv.db", "--count", count, "--random", "--mmap", "100000000"],
                [kvtest, "run", "kv.db", "--count", count, "--desc", "--blob-api"],
                [kvtest, "stat", "kv.db", "--vacuum"],
                [kvtest, "export", "kv.db", "files"]]

    def threadtest3(self, _, test):
        return [[self.program("threadtest3"), test]]

    def run_one(self, name, prepare, *arguments):
        """`prepare` gets a directory and `arguments`, and returns the commands to run there."""
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns):
            return
        start = time.monotonic()
        directory = os.path.join(self.cluster.primary.mount, name)
        log_path = os.path.join(self.options.logs, name)
        commands.make_directory(directory)
        if os.path.exists(log_path):
            os.unlink(log_path)
        problems, tests = [], 0
        for command in prepare(directory, *arguments):
            finished = commands.run_as_user(command, directory, log_path, self.options.seconds)
            tests += sum(int(count) for _, count in ERRORS.findall(finished.output))
            if finished.timed_out or finished.code != 0 and not is_journal_race(finished.output):
                ending = "hung" if finished.timed_out else f"ended with {finished.code}"
                problems.append(f"{' '.join(command)} {ending}: {finished.output[-1000:]}")
                break
        problems += self.convergence.check(name)
        if not problems:
            try:
                self.cluster.wait_converged()
            except AssertionError as error:
                problems.append(str(error))
        commands.remove(directory)
        self.runs += 1
        self.tests += tests
        self.differences += [f"{name}: {problem}" for problem in problems]
        print(f"{name}: {tests} tests, {time.monotonic() - start:.1f} s: "
              f"{'; '.join(problems) or 'ok'}", flush=True)

    def report(self):
        print(f"runs of mptester, kvtest and threadtest3 inside: {self.runs}, "
              f"with {self.tests} counted tests")
