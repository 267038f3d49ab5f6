#!/usr/bin/env python3
"""One tiny round of bench.py: it succeeds, cleans up, and every figure of its JSON is there and positive.

usage: bench_test.py ECHOFS WORKLOAD
"""

import json
import os
import subprocess
import sys
import tempfile

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.py")
COMPARED = ["read-wal", "read-delete", "write-wal-normal", "write-wal-full", "write-delete-full",
            "write-truncate-normal"]


def check(condition, what):
    if not condition:
        sys.exit(f"bench_test: {what}")


def main():
    with tempfile.TemporaryDirectory() as directory:
        report_path = os.path.join(directory, "bench.json")
        work = os.path.join(directory, "work")
        os.mkdir(work)
        run = subprocess.run([sys.executable, BENCH, "--rounds", "1", "--seconds", "0.1", "--copy-megabytes", "100",
                              "--handoffs", "2", "--failovers", "1",
                              "--directory", work, "--json", report_path, "--echofs", sys.argv[1], "--workload",
                              sys.argv[2]], capture_output=True, text=True)
        check(run.returncode == 0, f"bench.py failed: {run.stderr}")
        check(not os.listdir(work), f"left behind: {os.listdir(work)}")
        with open(report_path, encoding="utf-8") as file:
            report = json.load(file)
        summary = report["summary"]
        for name in COMPARED:
            for place in ("native", "primary", "replica"):
                for figure in ("per_second", "p50_us", "p99_us"):
                    check(summary[name][place][figure] > 0, f"{name} {place} {figure}")
                check(len(report["raw"][name][place]) == 1, f"{name} {place}: one raw result a round")
            check(summary[name]["ratio_primary"] > 0 and summary[name]["ratio_replica"] > 0, f"{name} ratios")
            check(name in run.stdout, f"{name} is not in the table")
        commit_figures = ["native_us", "asynchronous_us", "synchronous_us", "sync_us", "paired_sync_us", "round_trip_us",
                          "ratio_native", "ratio_asynchronous", "ratio_expected"]
        for name, figures in {"replicated-wal": commit_figures, "replicated-delete": commit_figures,
                              "visible": ["per_second", "p50_from_call_us", "p99_us"],
                              "stream": ["per_second", "p50_from_call_us", "p99_us"],
                              "catchup": ["per_second", "catchup_ms"],
                              "first-copy": ["megabytes", "megabytes_per_second", "ratio"],
                              "handoff": ["handoffs", "p50_ms", "p99_ms", "max_ms"],
                              "failover": ["ttl_seconds", "seconds", "max_seconds"]}.items():
            for figure in figures:
                check(summary[name][figure] > 0, f"{name} {figure}")
    print("ok")


if __name__ == "__main__":
    main()
