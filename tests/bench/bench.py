#!/usr/bin/env python3
"""`./dev bench`: what echofs costs, as ratios to the same work on the same disk outside the mount.

Every round runs each workload three times, one after the other and in changing order: on the plain directory
(native), in the mount of a primary without replicas, and in the mount of a primary with one replica attached. All
nodes run all the time; those that are not measured are idle. The figures are medians over the rounds.
Commits in synchronous=FULL that wait for a replica are compared with what disk and network take (commit_cost.py).
Then: how long after its commit a transaction is visible in the replica's mount (visible); the same for the stream
alone, that is until the entry is in the replica's log, applied or not (stream); how long a replica needs after a run
at full speed; how fast a new replica copies a database; and how long nobody can write when the primary changes, by a
handoff and after a SIGKILL, in a cluster of two nodes with a lease server and a client on each (role_changes.py).

Prints a table and writes build/bench.json. Everything else that it makes is removed.
"""

import argparse
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import commit_cost
import role_changes
from nodes import Failed, LeaseServer, Node, free_ports, read_text, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

COMPARED = {
    "read-wal": ["read", "--journal", "wal"],
    "read-delete": ["read", "--journal", "delete"],
    "write-wal-normal": ["write", "--journal", "wal", "--synchronous", "normal"],
    "write-wal-full": ["write", "--journal", "wal", "--synchronous", "full"],
    "write-delete-full": ["write", "--journal", "delete", "--synchronous", "full"],
    "write-truncate-normal": ["write", "--journal", "truncate", "--synchronous", "normal"],
}
OTHERS = [*commit_cost.WORKLOADS, "visible", "stream", "catchup", "first-copy", "handoff", "failover"]
ARRIVALS = {"visible": "visible", "stream": "received"}  # and the name of the figures
PLACES = ["native", "primary", "replica"]


class Bench:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.nodes = []
        self.changes = None
        self.lease = None
        self.database_number = 0
        self.native = os.path.join(directory, "native")
        os.makedirs(self.native)

    def start(self, name, port, primary_port, config=""):
        node = Node(self.options.echofs, self.directory, name, port, primary_port, config)
        self.nodes.append(node)
        return node

    def stop(self):
        if self.changes is not None:
            self.changes.stop()
        for node in reversed(self.nodes):
            node.stop()
        if self.lease is not None:
            self.lease.stop()

    def workload(self, *arguments):
        run = subprocess.run([self.options.workload, *map(str, arguments)], capture_output=True, text=True,
                             timeout=600)
        if run.returncode != 0:
            raise Failed(f"workload {' '.join(map(str, arguments))}: {run.stderr.strip()}")
        return json.loads(run.stdout)

    def new_database(self):
        self.database_number += 1
        return f"bench{self.database_number}.db"

    def remove(self, directory, database):
        for suffix in ("-journal", "-wal", "-shm", ""):
            try:
                os.remove(os.path.join(directory, database + suffix))
            except FileNotFoundError:
                pass

    def wait_until_replicated(self, database):
        wait_for(f"the replica to have {database}",
                 lambda: self.replica.position(database) == self.leader.position(database) != "")

    def start_nodes(self, waiting):
        """With `waiting`, also a primary whose commits wait for its replica."""
        ports = free_ports(5)
        self.alone = self.start("alone", ports[0], ports[0])
        self.leader = self.start("leader", ports[1], ports[1])
        self.replica = self.start("replica", ports[2], ports[1])
        if waiting:
            self.lease = LeaseServer(self.options.echofs, os.path.join(self.directory, "waiting-lease"))
            self.waiting, _ = (self.start(name, port, None, self.lease.config(commit_cost.TTL_SECONDS, candidate)
                                          + "replication: { min-sync-replicas: 1 }\n")
                               for name, port, candidate in (("waiting", ports[3], True), ("waited-for", ports[4], False)))
        for node in self.nodes:
            node.wait_until_ready()

    def run_compared(self, name, place):
        directory = {"native": self.native, "primary": self.alone.mount, "replica": self.leader.mount}[place]
        database = self.new_database()
        kind, *arguments = COMPARED[name]
        result = self.workload(kind, os.path.join(directory, database), *arguments, "--seconds",
                               self.options.seconds)
        if place == "replica":
            self.wait_until_replicated(database)
        self.remove(directory, database)
        return result

    def run_commit_cost(self, name, number):
        """The places in changing order, and what the machine takes in the same round."""
        directories = {"native": self.native, "asynchronous": self.leader.mount, "synchronous": self.waiting.mount}
        places = commit_cost.PLACES[number % 3:] + commit_cost.PLACES[:number % 3]
        results = {"probe": self.workload("probe", self.native, "--seconds", self.options.seconds / 3)}
        for place in places:
            database = self.new_database()
            results[place] = self.workload("write", os.path.join(directories[place], database), "--journal",
                                           commit_cost.WORKLOADS[name], "--synchronous", "full", "--seconds",
                                           self.options.seconds)
            self.remove(directories[place], database)
        return results

    def run_pair(self, name, *arguments):
        database = self.new_database()
        result = self.workload(name, os.path.join(self.leader.mount, database), "--replica",
                               os.path.join(self.replica.mount, database), "--seconds", self.options.seconds,
                               *arguments)
        self.wait_until_replicated(database)
        self.remove(self.leader.mount, database)
        return result

    def first_copies(self, rounds):
        """A log that does not reach back to the database's begin, and new replicas that need a copy."""
        megabytes = self.options.copy_megabytes
        port = free_ports(1)[0]
        source = self.start("source", port, port, "data: { retention: { age: 1s, size: 1MiB } }\n")
        source.wait_until_ready()
        database = "copy.db"
        path = os.path.join(source.mount, database)
        self.workload("fill", path, "--megabytes", megabytes)

        def log_is_cut():
            kept = re.search(r"kept from index (\d+)", source.status())
            return kept is not None and int(kept.group(1)) > 1

        wait_for("the log to let go of old segments", log_is_cut, 0.5)
        size = os.path.getsize(path)
        results = []
        for number in range(rounds):
            self.progress(f"round {number + 1}: first-copy")
            native = self.copy_natively(os.path.join(source.data, "files", database))
            replica = self.start(f"copy{number}", free_ports(1)[0], port)
            wait_for("the mount of a new replica", lambda: os.path.ismount(replica.mount), 0.001)
            begin = time.monotonic()
            wait_for("the copy", lambda: replica.position(database) == source.position(database), 0.002)
            seconds = time.monotonic() - begin
            results.append({"bytes": size, "seconds": seconds, "native_seconds": native})
            replica.stop()
            self.nodes.remove(replica)
            shutil.rmtree(os.path.dirname(replica.data))
        return results

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

    def role_changes(self, chosen):
        if not chosen:
            return {}
        # Those that were measured would take part of the machine.
        self.stop()
        self.changes = role_changes.RoleChanges(self.options.echofs, os.path.join(self.directory, "lease"),
                                                self.progress)
        self.nodes += self.changes.nodes
        self.changes.start()
        return {name: self.changes.handoffs(self.options.handoffs) if name == "handoff"
                else self.changes.failovers(self.options.failovers) for name in chosen}

    def progress(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def run(self):
        chosen = [name for name in [*COMPARED, *OTHERS] if re.search(self.options.only, name)]
        if not chosen:
            raise Failed(f"no workload matches {self.options.only}: {' '.join([*COMPARED, *OTHERS])}")
        self.start_nodes(waiting=any(name in commit_cost.WORKLOADS for name in chosen))
        results = {name: {place: [] for place in PLACES} for name in chosen if name in COMPARED}
        results.update({name: [] for name in chosen if name not in COMPARED})
        for number in range(self.options.rounds):
            places = PLACES[number % 3:] + PLACES[:number % 3]
            for name in chosen:
                self.progress(f"round {number + 1}: {name}")
                if name in COMPARED:
                    for place in places:
                        results[name][place].append(self.run_compared(name, place))
                elif name in commit_cost.WORKLOADS:
                    results[name].append(self.run_commit_cost(name, number))
                elif name == "visible":
                    results[name].append(self.run_pair("visible", "--rate", self.options.rate))
                elif name == "stream":
                    results[name].append(self.run_pair("stream", "--rate", self.options.rate, "--log",
                                                       os.path.join(self.replica.data, "log")))
                elif name == "catchup":
                    results[name].append(self.run_pair("catchup"))
        if "first-copy" in chosen:
            results["first-copy"] = self.first_copies(min(self.options.rounds, 3))
        results.update(self.role_changes([name for name in ("handoff", "failover") if name in chosen]))
        self.progress("")
        return results


def median(values):
    return statistics.median(values)


def summarize(results):
    """Medians and ratios of the raw results of all rounds."""
    summary = {}
    for name, result in results.items():
        if name in COMPARED:
            entry = {}
            for place in PLACES:
                entry[place] = {
                    "per_second": median([r["per_second"] for r in result[place]]),
                    "p50_us": median([r["latency_us"]["p50"] for r in result[place]]),
                    "p99_us": median([r["latency_us"]["p99"] for r in result[place]]),
                }
            for place in PLACES[1:]:
                # Of each round's own native run: what disturbs both drops out.
                entry["ratio_" + place] = median(
                    [r["per_second"] / n["per_second"] for r, n in zip(result[place], result["native"])])
            summary[name] = entry
        elif name in commit_cost.WORKLOADS:
            summary[name] = commit_cost.summarize(result)
        elif name in ARRIVALS:
            what = ARRIVALS[name]
            summary[name] = {
                "per_second": median([r["per_second"] for r in result]),
                **{f"{p}_us": median([r[what + "_us"][p] for r in result]) for p in ("p50", "p99", "max")},
                **{f"{p}_from_call_us": median([r[what + "_from_call_us"][p] for r in result])
                   for p in ("p50", "p99")},
            }
        elif name == "catchup":
            summary[name] = {key: median([r[key] for r in result])
                             for key in ("per_second", "behind", "catchup_ms")}
        elif name == "handoff":
            pauses = sorted(1000 * seconds for seconds in result)
            summary[name] = {"handoffs": len(pauses), "p50_ms": median(pauses),
                             "p99_ms": pauses[math.ceil(0.99 * len(pauses)) - 1], "max_ms": pauses[-1]}
        elif name == "failover":
            summary[name] = {"ttl_seconds": role_changes.TTL_SECONDS, "seconds": median(result),
                             "max_seconds": max(result)}
        else:
            speeds = [r["bytes"] / r["seconds"] / 1e6 for r in result]
            native = [r["bytes"] / r["native_seconds"] / 1e6 for r in result]
            summary[name] = {"megabytes": result[0]["bytes"] / 1e6, "megabytes_per_second": median(speeds),
                             "native_megabytes_per_second": median(native),
                             "ratio": median([s / n for s, n in zip(speeds, native)])}
    return summary


def table(summary):
    lines = []
    compared = [name for name in summary if name in COMPARED]
    if compared:
        lines.append(f"{'transactions a second':24}{'native':>10}{'primary':>10}{'ratio':>7}"
                     f"{'+replica':>10}{'ratio':>7}   p50/p99 us native, with replica")
    for name in compared:
        entry = summary[name]
        cells = [entry[place] for place in PLACES]
        latency = ", ".join(f"{c['p50_us']:.0f}/{c['p99_us']:.0f}" for c in (cells[0], cells[2]))
        lines.append(f"{name:24}{cells[0]['per_second']:10.0f}{cells[1]['per_second']:10.0f}"
                     f"{entry['ratio_primary']:7.2f}{cells[2]['per_second']:10.0f}"
                     f"{entry['ratio_replica']:7.2f}   {latency}")
    if any(name in commit_cost.WORKLOADS for name in summary):
        lines += commit_cost.table(summary)
    for name, where in (("visible", "visible in the replica's mount"), ("stream", "in the replica's log")):
        if name in summary:
            v = summary[name]
            lines.append(f"{where} after COMMIT returned, at {v['per_second']:.0f} commits/s: p50 "
                         f"{v['p50_us']:.0f} us, p99 {v['p99_us']:.0f} us (after COMMIT was called: "
                         f"{v['p50_from_call_us']:.0f}, {v['p99_from_call_us']:.0f})")
    if "catchup" in summary:
        c = summary["catchup"]
        lines.append(f"after a run at full speed ({c['per_second']:.0f} commits/s, WAL NORMAL): the replica is "
                     f"{c['behind']:.0f} transactions behind and has them after {c['catchup_ms']:.1f} ms")
    if "first-copy" in summary:
        f = summary["first-copy"]
        lines.append(f"first copy of {f['megabytes']:.0f} MB: {f['megabytes_per_second']:.0f} MB/s (copying the file "
                     f"and syncing it: {f['native_megabytes_per_second']:.0f} MB/s)")
    if "handoff" in summary:
        h = summary["handoff"]
        lines.append(f"handoff: nobody can write for {h['p50_ms']:.0f} ms (p50), {h['p99_ms']:.0f} ms (p99), at most "
                     f"{h['max_ms']:.0f} ms, of {h['handoffs']}")
    if "failover" in summary:
        f = summary["failover"]
        ttl = f["ttl_seconds"]
        lines.append(f"first commit after SIGKILL of the primary: after TTL {f['seconds'] - ttl:+.2f} s, at most TTL "
                     f"{f['max_seconds'] - ttl:+.2f} s, with a TTL of {ttl} s")
    return "\n".join(lines)


def machine():
    model = re.search(r"model name\s*: (.*)", read_text("/proc/cpuinfo"))
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "cpu": model.group(1) if model else "",
            "load": os.getloadavg()[0]}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of each run (default: 1)")
    parser.add_argument("--only", default="", metavar="REGEX", help=f"of {' '.join([*COMPARED, *OTHERS])}")
    parser.add_argument("--rate", type=float, default=1000, help="commits a second in 'visible' (default: 1000)")
    parser.add_argument("--copy-megabytes", type=int, default=200,
                        help="size of the database in 'first-copy', at least 100 (default: 200)")
    parser.add_argument("--handoffs", type=int, default=30, help="default: 30")
    parser.add_argument("--failovers", type=int, default=5, help="default: 5")
    parser.add_argument("--directory", default=os.path.join(ROOT, "build"),
                        help="on the disk to measure (default: build)")
    parser.add_argument("--json", default=os.path.join(ROOT, "build", "bench.json"))
    parser.add_argument("--echofs", default=os.path.join(ROOT, "build/release/cmd/echofs"))
    parser.add_argument("--workload", default=os.path.join(ROOT, "build/release/tests/bench/echofs_workload"))
    return parser.parse_args()


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix="bench-", dir=options.directory)
    bench = Bench(options, directory)
    report = {"machine": machine(), "rounds": options.rounds, "seconds": options.seconds}
    try:
        report["raw"] = bench.run()
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    finally:
        bench.stop()
        if not any(os.path.ismount(node.mount) for node in bench.nodes):
            shutil.rmtree(directory)
    report["summary"] = summarize(report["raw"])
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    print(table(report["summary"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
