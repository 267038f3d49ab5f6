#!/usr/bin/python3
"""Runs one test of the cluster or the crash suite, and clears up behind it whatever happens.

    run_test.py --list [DIRECTORY]               names of all tests, FILE::CLASS.METHOD a line
    run_test.py FILE::CLASS.METHOD [DIRECTORY]   runs one; ECHOFS is the path of the echofs program

The tests are those of DIRECTORY, by default the one of this file; they can import the modules here.

The test runs in a child process. This one never touches a mount, so nothing that hangs there can
hang it, and it is the subreaper of everything that the test starts, so that it can find it all.
What the test leaves behind, a process, a mount or a process that cannot be killed, is a failure.
"""

import ast
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TEST_SECONDS = 3600 if os.environ.get("ECHOFS_LONG") == "1" else 600
PR_SET_CHILD_SUBREAPER = 36


def list_tests(directory):
    for file in sorted(os.listdir(directory)):
        if not file.endswith("_test.py") or file == os.path.basename(__file__):
            continue
        with open(os.path.join(directory, file), encoding="utf-8") as source:
            tree = ast.parse(source.read())
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for name, node in classes.items():
            # Cases that classes of the same file share, in a class that is no test by its name.
            if not name.endswith("Test"):
                continue
            bases = [classes[base.id] for base in node.bases
                     if isinstance(base, ast.Name) and base.id in classes]
            for item in (item for part in (*bases, node) for item in part.body):
                if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
                    yield f"{file[:-3]}::{name}.{item.name}"


def descendants():
    """Processes that came from this one, as {pid: (state, name)}; zombies are not among them."""
    parents = {}
    facts = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        fields = text[text.rindex(")") + 2:].split()
        parents[int(entry)] = int(fields[1])
        facts[int(entry)] = (fields[0], name)
    found = {}
    for pid in parents:
        at = pid
        while at in parents and at != os.getpid():
            at = parents[at]
        if at == os.getpid() and pid != os.getpid() and facts[pid][0] not in "ZX":
            found[pid] = facts[pid]
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def mounts_below(directory):
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        points = [line.split()[4] for line in table]
    return [point for point in points if point.startswith(directory + "/")]


def wait_for_child(child):
    """Its exit status, or None when it took too long."""
    end = time.monotonic() + TEST_SECONDS
    while time.monotonic() < end:
        # Whose parent has died is our child too.
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            time.sleep(0.01)
    return None


def clear_up(directory, patience):
    """Ends processes and mounts that are left after so many seconds. Returns what was there, as lines of text."""
    left = []
    # What ends on its own account gets time for it: helpers of a guardian that was killed.
    end = time.monotonic() + patience
    while time.monotonic() < end and (descendants() or mounts_below(directory)):
        reap()
        time.sleep(0.02)
    left += [f"process {pid} ({name}) in state {state}"
             for pid, (state, name) in descendants().items()]
    left += [f"mount {point}" for point in mounts_below(directory)]
    for pid in descendants():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for point in reversed(mounts_below(directory)):
        for flag in ("-f", "-l"):  # -f aborts the connection, so that nothing hangs in it any more
            subprocess.run(["umount", flag, point], timeout=20, check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and descendants():
        reap()
        time.sleep(0.02)
    left += [f"process {pid} ({name}) CANNOT BE KILLED, state {state}"
             for pid, (state, name) in descendants().items()]
    return left


def print_logs(directory):
    for root, directories, files in os.walk(directory):
        directories[:] = [d for d in directories if d not in ("mnt", "data")]
        for file in sorted(files):
            if not file.endswith(".log"):
                continue
            path = os.path.join(root, file)
            with open(path, encoding="utf-8", errors="replace") as log:
                lines = log.read().splitlines()
            print(f"---- {os.path.relpath(path, directory)}, last {min(len(lines), 60)} lines")
            print("\n".join(lines[-60:]))


def run_in_child(name, tests, directory):
    os.environ["ECHOFS_TEST_DIR"] = directory
    sys.path[:0] = [tests, HERE]
    file, test = name.split("::")
    suite = unittest.defaultTestLoader.loadTestsFromName(f"{file}.{test}")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    return 0 if result.wasSuccessful() else 1


def run(name, tests):
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = os.path.realpath(tempfile.mkdtemp(prefix="cluster-"))
    os.chmod(directory, 0o755)  # some tests run programs as another user
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = run_in_child(name, tests, directory)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = wait_for_child(child)
    left = clear_up(directory, 30 if status == 0 else 1)
    if status is None:
        print(f"the test did not end within {TEST_SECONDS} s")
    for line in left:
        print(f"left behind: {line}")
    failed = status != 0 or bool(left)
    if failed:
        print_logs(directory)
    if not mounts_below(directory):
        if failed and os.environ.get("ECHOFS_TEST_KEEP"):
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)
    return 1 if failed else 0


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    tests = os.path.abspath(sys.argv[2]) if len(sys.argv) == 3 else HERE
    if sys.argv[1] == "--list":
        print("\n".join(list_tests(tests)))
        return 0
    if sys.argv[1] not in list_tests(tests):
        print(__doc__, file=sys.stderr)
        return 2
    return run(sys.argv[1], tests)


if __name__ == "__main__":
    sys.exit(main())
