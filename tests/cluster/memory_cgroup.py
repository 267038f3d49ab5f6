"""A memory cgroup of a test's own, version 1 or 2, whose page cache the test can have reclaimed."""

import contextlib
import os
import signal
import unittest

import harness

SQUEEZED = 1 << 20  # bytes; no process fits into it, so everything that can be reclaimed is


def memory_hierarchies():
    """Where the memory controller is mounted, with the name of the file that sets a group's limit."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind, options = line.split()[:4]
            if kind == "cgroup2":
                yield point, "memory.high"
            elif kind == "cgroup" and "memory" in options.split(","):
                yield point, "memory.limit_in_bytes"


class MemoryCgroup:
    """Skips the test where none can be made. Removed at the end of the test, after its processes."""

    def __init__(self, test):
        for point, limit in memory_hierarchies():
            self.path = os.path.join(point, f"echofs-test-{os.getpid()}")
            self.limit = limit
            with contextlib.suppress(OSError):
                os.mkdir(self.path)
                if os.path.exists(os.path.join(self.path, limit)):
                    test.addCleanup(self.remove)
                    return
                os.rmdir(self.path)  # the controller is not on in this hierarchy
        raise unittest.SkipTest("no memory cgroup can be made here")

    def remove(self):
        for pid in self.processes():  # after a failure
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        harness.wait_for(lambda: not self.processes(), "the cgroup to be empty")
        os.rmdir(self.path)

    def processes(self):
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as file:
            return file.read().split()

    def prefix(self):
        """What to put before a command that is to run in it."""
        return ["sh", "-c", f"echo $$ > {self.path}/cgroup.procs && exec \"$@\"", "sh"]

    def set_limit(self, value):
        with open(os.path.join(self.path, self.limit), "w", encoding="ascii") as file:
            file.write(value)

    def page_cache(self):
        """In bytes, mapped pages too."""
        with open(os.path.join(self.path, "memory.stat"), encoding="ascii") as file:
            sizes = dict(line.split() for line in file)
        return int(sizes["file"] if "file" in sizes else sizes["cache"])

    def squeeze(self):
        """Has the kernel reclaim what it can of the group's page cache; returns how many bytes went."""
        before = self.page_cache()
        with contextlib.suppress(OSError):  # version 1: "busy", after all was tried
            self.set_limit(str(SQUEEZED))
        after = self.page_cache()
        self.set_limit("max" if self.limit == "memory.high" else "-1")
        return max(0, before - after)
