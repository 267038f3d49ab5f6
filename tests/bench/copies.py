"""How fast a new replica gets its first copy of a database, of random content, from a primary whose log does not
reach back to the database's begin."""

import os
import re
import shutil
import statistics
import time

from nodes import wait_for
from theme import Theme

DATABASE = "copy.db"
ROUNDS = 3


class FirstCopy(Theme):
    NAMES = ["first-copy"]

    def rounds(self, _name):
        return min(self.sizes.rounds, ROUNDS)

    def start(self):
        self.source = self.start_node("source", config="data: { retention: { age: 1s, size: 1MiB } }\n")
        self.source.wait_until_ready()
        self.workload("fill", os.path.join(self.source.mount, DATABASE), "--megabytes", self.sizes.copy_megabytes)

        def log_is_cut():
            kept = re.search(r"kept from index (\d+)", self.source.status())
            return kept is not None and int(kept.group(1)) > 1

        wait_for("the log to let go of old segments", log_is_cut, 0.5)

    def run(self, _name, number):
        native_seconds = self.copy_natively(os.path.join(self.source.data, "files", DATABASE))
        replica = self.start_node(f"copy{number}", self.source)
        wait_for("the mount of a new replica", lambda: os.path.ismount(replica.mount), 0.001)
        begin = time.monotonic()
        wait_for("the copy", lambda: replica.position(DATABASE) == self.source.position(DATABASE), 0.002)
        seconds = time.monotonic() - begin
        replica.stop()
        self.nodes.remove(replica)
        shutil.rmtree(os.path.dirname(replica.data))
        return {"bytes": os.path.getsize(os.path.join(self.source.mount, DATABASE)), "seconds": seconds,
                "native_seconds": native_seconds}

    def copy_natively(self, path):
        copy = os.path.join(self.native, "copy")
        begin = time.monotonic()
        with open(path, "rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        seconds = time.monotonic() - begin
        os.remove(copy)
        return seconds

    @staticmethod
    def summarize(_name, rounds):
        speeds = [r["bytes"] / r["seconds"] / 1e6 for r in rounds]
        native = [r["bytes"] / r["native_seconds"] / 1e6 for r in rounds]
        return {"megabytes": rounds[0]["bytes"] / 1e6, "megabytes_per_second": statistics.median(speeds),
                "native_megabytes_per_second": statistics.median(native),
                "ratio": statistics.median([speed / n for speed, n in zip(speeds, native)])}

    @staticmethod
    def sentences(summary):
        f = summary.get("first-copy")
        return [] if f is None else [
            f"first-copy: {f['megabytes']:.0f} MB at {f['megabytes_per_second']:.0f} MB/s (copying the file and syncing "
            f"it: {f['native_megabytes_per_second']:.0f} MB/s; ratio {f['ratio']:.2f})"]
