"""Work on one database, compared with the same work on the disk below."""

import os
import re
import subprocess
import time

import disk_cache
import places
from nodes import Failed
from theme import PlacesTheme

WAL, DELETE = ["--journal", "wal"], ["--journal", "delete"]
RANGE = ["--range", "20", "--rows", "100000"]  # more than SQLite keeps itself: the kernel's cache is read
NORMAL, FULL = ["--synchronous", "normal"], ["--synchronous", "full"]
# Arguments of echofs_workload. What is in braces is a size of sizes.py.
COLD = ["--cold", "1", "--rows", "{cold_rows}", "--count", "{cold_reads}"]
FEW = ["--count", "200"]  # so that the size of the WAL stays what it is
WORKLOADS = {
    "read-wal": ["read", *WAL],
    "read-delete": ["read", *DELETE],
    "range-wal": ["read", *WAL, *RANGE],
    "range-delete": ["read", *DELETE, *RANGE],
    "read-wal-cold": ["read", *WAL, *COLD],
    "read-delete-cold": ["read", *DELETE, *COLD],
    "range-wal-cold": ["read", *WAL, *RANGE, *COLD],
    "range-delete-cold": ["read", *DELETE, *RANGE, *COLD],
    "write-wal-normal": ["write", *WAL, *NORMAL],
    "write-wal-full": ["write", *WAL, *FULL],
    "write-delete-full": ["write", *DELETE, *FULL],
    "write-truncate-normal": ["write", "--journal", "truncate", *NORMAL],
    "mixed-wal": ["mixed", *WAL, *NORMAL],
    "mixed-delete": ["mixed", *DELETE, *NORMAL],
    "bulk-wal": ["bulk", *WAL, *NORMAL, "--megabytes", "{bulk_megabytes}"],
    "bulk-delete": ["bulk", *DELETE, *FULL, "--megabytes", "{bulk_megabytes}"],
    "vacuum-wal": ["vacuum", *WAL, *NORMAL, "--megabytes", "{vacuum_megabytes}"],
    "vacuum-delete": ["vacuum", *DELETE, *FULL, "--megabytes", "{vacuum_megabytes}"],
    "wal-1k": ["write", *WAL, *NORMAL, *FEW, "--wal-pages", "{wal_pages}"],
    "wal-100k": ["write", *WAL, *NORMAL, *FEW, "--wal-pages", "{100_wal_pages}"],
    "wal-500k": ["write", *WAL, *NORMAL, *FEW, "--wal-pages", "{500_wal_pages}"],
}
SPEEDTESTS = {"speedtest1-wal": "wal", "speedtest1-delete": "delete"}
HEAVY = re.compile("bulk|vacuum|wal-100k|wal-500k|speedtest1|cold")
HEAVY_ROUNDS = 3


class Compared(PlacesTheme):
    NAMES = [*WORKLOADS, *SPEEDTESTS]

    def rounds(self, name):
        return min(self.sizes.rounds, HEAVY_ROUNDS) if HEAVY.search(name) else self.sizes.rounds

    @staticmethod
    def why_skipped(name):
        return disk_cache.WHY_NOT if name.endswith("-cold") and not disk_cache.can_be_dropped() else None

    def run(self, name, number):
        measure = self.run_speedtest if name in SPEEDTESTS else self.run_one
        return self.everywhere(number, lambda place: measure(name, place, number))

    def arguments(self, name):
        sizes = {**vars(self.sizes), **{f"{n}_wal_pages": n * self.sizes.wal_pages for n in (100, 500)}}
        return [argument.format(**sizes) for argument in WORKLOADS[name]]

    def run_one(self, name, place, number):
        database = self.new_database()
        kind, *arguments = self.arguments(name)
        if place == "replica" and "--wal-pages" in arguments:
            arguments += ["--replica", os.path.join(self.replica.mount, database)]
        begin, after, used = self.metered(place, database)

        def before():
            if name.endswith("-cold"):
                disk_cache.drop()
            begin()

        result = self.workload(kind, os.path.join(self.mounts[place], database), *arguments, "--seconds",
                               self.sizes.seconds, "--seed", number + 1, before=before, after=after)
        if place == "replica":
            self.wait_until_replicated(database)
        self.remove(self.mounts[place], database)
        return {**result, "used": used}

    def run_speedtest(self, name, place, _number):
        """Its own transactions are not counted: the whole is one."""
        if not os.access(self.options.speedtest1, os.X_OK):
            raise Failed(f"there is no {self.options.speedtest1}; ./dev bench builds it")
        database = self.new_database()
        before, after, used = self.metered(place, database)
        before()
        begin = time.monotonic()
        run = subprocess.run([self.options.speedtest1, "--size", str(self.sizes.speedtest_size), "--journal",
                              SPEEDTESTS[name], os.path.join(self.mounts[place], database)],
                             capture_output=True, text=True, timeout=900)
        seconds = time.monotonic() - begin
        if run.returncode != 0 or "TOTAL" not in run.stdout:
            raise Failed(f"speedtest1 ended with {run.returncode}: {run.stdout[-300:]} {run.stderr.strip()}")
        after()
        self.remove(self.mounts[place], database)
        return {"transactions": 1, "seconds": seconds, "per_second": 1 / seconds, "used": used}

    @staticmethod
    def summarize(name, rounds):
        if re.match("bulk|vacuum|speedtest1", name):
            return places.summarize(rounds, "seconds")
        return places.summarize(rounds, "latency" if name.startswith("wal-") else "rate")

    @staticmethod
    def sentences(summary):
        lines = []
        reads = [name for name in summary if re.fullmatch("(read|range)-(wal|delete)", name)]
        if reads:
            warm = ", ".join(f"{name} {places.requests_text(summary[name], 'primary')}" for name in reads)
            lines.append(f"FUSE requests per warm read transaction (the target is 0): {warm}")
        if "wal-1k" in summary and "wal-500k" in summary:
            small, large = summary["wal-1k"], summary["wal-500k"]
            growth = ", ".join(f"{title} {large[place]['p50_us'] / small[place]['p50_us']:.2f}"
                               for place, title in places.TITLES.items())
            lines.append(f"a one-row commit with 500k pages in the WAL takes so many times what it takes with 1k: {growth}")
        return lines
