"""Nodes with many databases: at rest, with a commit to each every second, and one opened at a time."""

import contextlib
import os
import resource
import shutil
import sqlite3
import statistics
import time

import disk_cache
import places
from meter import Meter
from table import Table
from theme import PlacesTheme

SETTLE_SECONDS = 2
FILES_EACH = 9  # that a replica has open for each database; a primary fewer
FILES_BESIDE = 500
RESTING = {"alone": "primary", "leader": "primary with replica", "replica": "its replica"}
median = statistics.median


class ManyDatabases(PlacesTheme):
    """`FACTOR` times as many as sizes.py says, in the native directory and on each node: DIRECTORY/0.db and so on."""

    FACTOR = 1

    def start(self):
        super().start()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.count = min(self.FACTOR * self.sizes.databases, (limit - FILES_BESIDE) // FILES_EACH)
        template = os.path.join(self.directory, "template.db")
        with contextlib.closing(sqlite3.connect(template)) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
            connection.execute("INSERT INTO t(v) VALUES (randomblob(100))")
            connection.commit()
        for directory in self.mounts.values():
            for number in range(self.count):
                self.progress(f"{self.count} databases: {number}")
                shutil.copyfile(template, os.path.join(directory, f"{number}.db"))
        for number in range(self.count):
            self.wait_until_replicated(f"{number}.db")

    def rest(self):
        """What each node uses while nobody asks it for anything."""
        time.sleep(min(SETTLE_SECONDS, self.sizes.rest_seconds))
        meters = {name: Meter(getattr(self, name)) for name in RESTING}
        for meter in meters.values():
            meter.begin()
        begin = time.monotonic()
        time.sleep(self.sizes.rest_seconds)
        seconds = time.monotonic() - begin
        return {"databases": self.count, "wanted": self.FACTOR * self.sizes.databases, "seconds": seconds,
                "nodes": {name: meter.end() for name, meter in meters.items()}}

    @staticmethod
    def summarize_rest(rounds):
        return {"databases": rounds[0]["databases"], "wanted": rounds[0]["wanted"],
                "nodes": {name: {"cpu_percent": median([100 * r["nodes"][name]["cpu_seconds"] / r["seconds"]
                                                        for r in rounds]),
                                 "rss_bytes": median([r["nodes"][name]["rss_bytes"] for r in rounds]),
                                 "open_files": median([r["nodes"][name]["open_files"] for r in rounds])}
                          for name in RESTING}}


class FewerDatabases(ManyDatabases):
    NAMES = ["rest-1k", "commit-1k"]

    def rounds(self, name):
        return 1 if name == "rest-1k" else min(self.sizes.rounds, 3)

    def run(self, name, number):
        return self.rest() if name == "rest-1k" else self.everywhere(number, self.commit)

    def commit(self, place):
        begin, end, used = self.metered(place, f"{self.count - 1}.db")
        # Each database has its turn at least twice.
        seconds = max(2, 5 * self.sizes.seconds)
        result = self.workload("paced", self.mounts[place], "--databases", self.count, "--seconds", seconds,
                               before=begin, after=end)
        return {**result, "used": used}

    @staticmethod
    def summarize(name, rounds):
        if name == "rest-1k":
            return ManyDatabases.summarize_rest(rounds)
        summary = places.summarize(rounds, "latency")
        for place in places.PLACES:
            summary[place]["late_p99_us"] = median([r[place]["late_us"]["p99"] for r in rounds])
            for node in range(len(rounds[0][place]["used"])):
                use = summary[place]["used"][["node", "replica"][node]]
                use["cpu_percent"] = median([100 * r[place]["used"][node]["cpu_seconds"] / r[place]["seconds"]
                                             for r in rounds])
        return summary

    @staticmethod
    def tables(summary):
        rows = [[name, str(entry["databases"]), f"{use['cpu_percent']:.2f}", f"{use['rss_bytes'] / 1e6:.0f}",
                 f"{use['open_files']:.0f}", title]
                for name, entry in summary.items() if name.startswith("rest-")
                for node, title in RESTING.items() for use in [entry["nodes"][node]]]
        return [Table("At rest", ["workload", "databases", "CPU %", "RSS MB", "open files", "node"], rows)]

    @staticmethod
    def sentences(summary):
        if "commit-1k" not in summary:
            return []
        lines = []
        for place, title in places.TITLES.items():
            entry = summary["commit-1k"][place]
            line = (f"commit-1k, {title}: {entry['per_second']:.0f} commits/s, COMMIT p50 {entry['p50_us']:.0f} us, p99 "
                    f"{entry['p99_us']:.0f} us, begun late by {entry['late_p99_us']:.0f} us (p99)")
            for node, use in entry.get("used", {}).items():
                line += (f"; {'daemon' if node == 'node' else 'daemon of the replica'}: CPU {use['cpu_percent']:.1f}%, "
                         f"RSS {use['rss_bytes'] / 1e6:.0f} MB")
            lines.append(line)
        return lines


class MostDatabases(ManyDatabases):
    NAMES = ["rest-10k", "open-10k", "open-10k-cold"]
    FACTOR = 10

    @staticmethod
    def why_skipped(name):
        return disk_cache.WHY_NOT if name.endswith("-cold") and not disk_cache.can_be_dropped() else None

    def rounds(self, name):
        return 1 if name == "rest-10k" else self.sizes.rounds

    def run(self, name, number):
        if name == "rest-10k":
            return self.rest()
        return self.everywhere(number, lambda place: self.open(place, number, name.endswith("-cold")))

    def open(self, place, number, cold):
        begin, end, used = self.metered(place)

        def before():
            if cold:
                disk_cache.drop()
            begin()

        result = self.workload("open", self.mounts[place], "--databases", self.count, "--count", self.sizes.opened,
                               "--seed", number + 1, before=before, after=end)
        return {**result, "used": used}

    @staticmethod
    def sentences(summary):
        rest = summary.get("rest-10k")
        if rest is None or rest["databases"] == rest["wanted"]:
            return []
        return [f"rest-10k, open-10k: with {rest['databases']} databases; {rest['wanted']} do not fit under this machine's "
                f"limit of open files (ulimit -Hn), for a replica opens {FILES_EACH} for each"]

    @staticmethod
    def summarize(name, rounds):
        return ManyDatabases.summarize_rest(rounds) if name == "rest-10k" else places.summarize(rounds, "latency")
