"""What the daemon of a node uses: processor, memory, open files, and the requests that the kernel makes of its mount."""

import os
import re
import time
import urllib.request

from nodes import read_text

REQUESTS = re.compile(r'^echofs_fuse_requests_total\{operation="(\w+)"\} (\d+)', re.MULTILINE)


class Meter:
    def __init__(self, node):
        self.pid = node.daemon()
        self.metrics = f"http://{node.state()['http']}/metrics"

    def cpu_seconds(self):
        # The clock of another process's processor time, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_bytes(self):
        return int(re.search(r"VmRSS:\s+(\d+) kB", read_text(f"/proc/{self.pid}/status")).group(1)) * 1024

    def requests(self):
        """How many of each kind since the start."""
        with urllib.request.urlopen(self.metrics, timeout=30) as answer:
            return {kind: int(count) for kind, count in REQUESTS.findall(answer.read().decode())}

    def begin(self):
        """What is asked for last is what a run changes first: the question costs processor time itself."""
        self.requests_before = self.requests()
        self.cpu_before = self.cpu_seconds()

    def end(self):
        """Used since begin()."""
        cpu = self.cpu_seconds() - self.cpu_before
        return {"cpu_seconds": cpu, "rss_bytes": self.rss_bytes(),
                "open_files": len(os.listdir(f"/proc/{self.pid}/fd")),
                "requests": {kind: count - self.requests_before.get(kind, 0)
                             for kind, count in self.requests().items()
                             if count != self.requests_before.get(kind, 0)}}
