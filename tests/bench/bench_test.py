#!/usr/bin/env python3
"""bench.py with small sizes: it succeeds, cleans up, and every figure is there and positive, in the table, the JSON, the
document and the picture; a workload that fails leaves the others theirs. The arithmetic is checked on made-up results.
No time is asserted.

usage: bench_test.py ECHOFS WORKLOAD SPEEDTEST1
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import arithmetic_checks  # pylint: disable=wrong-import-position
import report  # pylint: disable=wrong-import-position
from arithmetic_checks import check, near  # pylint: disable=wrong-import-position

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.py")
# Of each kind at least one.
COMPARED = ["read-wal", "range-wal", "range-delete-cold", "write-delete-full", "mixed-wal", "bulk-wal", "wal-1k",
            "wal-500k", "speedtest1-wal", "commit-1k", "open-10k"]
WITHOUT_LATENCY = ["bulk-wal", "speedtest1-wal"]
COMMIT = ["native_us", "asynchronous_us", "synchronous_us", "sync_us", "paired_sync_us", "round_trip_us", "ratio_native",
          "ratio_asynchronous", "ratio_expected"]
OTHERS = {"replicated-wal": COMMIT, "visible": ["per_second", "p50_from_call_us", "p99_us"],
          "stream": ["per_second", "p50_from_call_us", "p99_us"], "catchup": ["per_second", "catchup_ms"],
          "rest-1k": ["databases"], "first-copy": ["megabytes", "megabytes_per_second", "ratio"],
          "restart-crash": ["gigabytes", "seconds"], "handoff": ["handoffs", "p50_ms", "p99_ms", "max_ms"]}
KINDS = ("read", "getattr", "lookup", "open", "write")


def bench(directory, only, *arguments, speedtest1=sys.argv[-1]):
    """Exit code, output and report of a quick run, which must leave nothing behind."""
    work = os.path.join(directory, "work")
    os.makedirs(work, exist_ok=True)
    path = os.path.join(directory, "bench.json")
    run = subprocess.run([sys.executable, BENCH, "--quick", "--only", f"^({'|'.join(only)})$", "--directory", work,
                          "--json", path, "--echofs", sys.argv[1], "--workload", sys.argv[2], "--speedtest1", speedtest1,
                          *arguments], capture_output=True, text=True)
    check(not os.listdir(work), f"left behind: {os.listdir(work)}; {run.stderr}")
    check(not run.stderr, f"said: {run.stderr}")
    with open(path, encoding="utf-8") as file:
        return run.returncode, run.stdout, json.load(file)


def check_compared(name, entry):
    for place in ("native", "primary", "replica"):
        figures = ["per_second", "seconds"] + ([] if name in WITHOUT_LATENCY else ["p50_us", "p99_us"])
        for figure in figures:
            check(entry[place][figure] > 0, f"{name} {place} {figure}")
        nodes = {"native": [], "primary": ["node"], "replica": ["node", "replica"]}[place]
        check(list(entry[place].get("used", {})) == nodes, f"{name} {place}: what daemons used")
        for node in nodes:
            check(entry[place]["used"][node]["rss_bytes"] > 1 << 20, f"{name} {place} {node}: memory")
    check(entry["ratio_primary"] > 0 and entry["ratio_replica"] > 0, f"{name} ratios")


def check_run(directory):
    code, output, result = bench(directory, [*COMPARED, *OTHERS])
    check(code == 0, f"bench.py failed: {output}")
    summary, skipped = result["summary"], result["skipped"]
    check(all(name.endswith("-cold") for name in skipped), f"skipped: {skipped}")
    check(sorted([*summary, *skipped]) == sorted([*COMPARED, *OTHERS]), f"the summary has {list(summary)}")
    check(sorted(result["raw"]) == sorted(summary), "raw results of each workload")
    for name in summary:
        check(len(result["raw"][name]) == 1, f"{name}: one raw result a round")
        check(re.search(rf"^{name}\b", output, re.MULTILINE), f"{name} is not in the table: {output}")
    for name in COMPARED:
        if name not in skipped:
            check_compared(name, summary[name])
    for name, figures in OTHERS.items():
        for figure in figures:
            check(summary[name][figure] > 0, f"{name} {figure}")
    for name in ("read-wal", "range-wal"):
        requests = summary[name]["primary"]["used"]["node"]["requests_per_transaction"]
        check(sum(requests.get(kind, 0) for kind in KINDS) < 0.01, f"{name}: warm reads ask the daemon: {requests}")
    writes = summary["write-delete-full"]["primary"]["used"]["node"]["requests_per_transaction"]
    check(writes["write"] > 3 and near(writes["unlink"], 1, 0.1), f"requests of a commit in DELETE: {writes}")
    return summary


def check_products(directory, summary):
    """The picture and the document that are made of the JSON file."""
    picture, document = os.path.join(directory, "ratios.svg"), os.path.join(directory, "document.md")
    with open(document, "w", encoding="utf-8") as file:
        file.write(f"before\n\n{report.BEGIN}\nold figures\n{report.END}\n\nafter\n")
    for _ in range(2):  # the second time in place of the first
        subprocess.run([sys.executable, BENCH, "--json", os.path.join(directory, "bench.json"), "--plot", picture,
                        "--markdown", document], check=True)
    with open(document, encoding="utf-8") as file:
        text = file.read()
    check(text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "old figures" not in text, text)
    drawn = [element.text for element in xml.etree.ElementTree.parse(picture).getroot().iter()]
    for name, entry in summary.items():
        check(len(re.findall(rf"^(?:\| |- ){name}\b", text, re.MULTILINE)) >= 1, f"{name} is not in the document")
        if "ratio_primary" in entry:
            check(name in drawn and f"{entry['ratio_primary']:.2f}" in drawn, f"{name} is not in the picture")


def check_failure(directory):
    """And --update keeps the figures of before."""
    missing = os.path.join(directory, "no-speedtest1")
    code, output, result = bench(directory, ["speedtest1-wal", "wal-1k"], "--update", speedtest1=missing)
    check(code == 1, "a failed workload is no success")
    check(missing in result["errors"]["speedtest1-wal"] and "speedtest1-wal" not in result["summary"], result["errors"])
    check(re.search(rf"^speedtest1-wal: FAILED: .*{missing}", output, re.MULTILINE), output)
    check_compared("wal-1k", result["summary"]["wal-1k"])
    check_compared("mixed-wal", result["summary"]["mixed-wal"])


def main():
    arithmetic_checks.main()
    with tempfile.TemporaryDirectory() as directory:
        summary = check_run(directory)
        check_products(directory, summary)
        check_failure(directory)
    print("ok")


if __name__ == "__main__":
    main()
