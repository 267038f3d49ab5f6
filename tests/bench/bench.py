#!/usr/bin/env python3
"""`./dev bench`: what echofs costs, as ratios to the same work on the same disk outside the mount.

Every round runs each workload three times, one after the other and in changing order: on the plain directory
(native), in the mount of a primary without replicas, and in the mount of a primary with one replica attached. Those
nodes that are not measured are idle. The figures are medians over the rounds. Workloads that cannot be compared so
(commits that wait, arrival on a replica, first copy, restart, rest, role changes) have figures of their own.
docs/performance.md says what each of them means.

Prints a table and writes build/bench.json. Everything else that it makes is removed. Ends with 1 when a workload has
failed; the others have their figures all the same.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile

import plot
import report
import sizes
from arrivals import Arrivals
from commit_cost import CommitCost
from compared import Compared
from copies import FirstCopy
from many_databases import FewerDatabases, MostDatabases
from nodes import Failed
from restart import Restart
from role_changes import RoleChanges

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# One after the other, each with nodes of its own.
THEMES = [Compared, CommitCost, Arrivals, FewerDatabases, MostDatabases, FirstCopy, Restart, RoleChanges]
FILES = 1 << 17
NAMES = [name for theme in THEMES for name in theme.NAMES]


class Bench:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.theme = None
        self.started = 0
        self.raw, self.errors, self.skipped = {}, {}, {}

    def progress(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def start(self, theme):
        self.started += 1
        directory = os.path.join(self.directory, f"{theme.__name__}-{self.started}")
        os.mkdir(directory)
        self.theme = theme(self.options, directory, self.progress)
        self.progress(f"{theme.__name__}: starting")
        self.theme.start()

    def stop(self):
        """Ends what runs, and removes its files unless a mount is left. What goes wrong here costs no figures."""
        theme, self.theme = self.theme, None
        if theme is None:
            return
        try:
            theme.stop()
            if any(os.path.ismount(node.mount) for node in theme.nodes):
                raise Failed("a mount is left")
            shutil.rmtree(theme.directory)
        except Exception as failure:  # pylint: disable=broad-exception-caught
            print(f"bench: {theme.directory} is left: {type(failure).__name__}: {failure}", file=sys.stderr)

    def start_for(self, theme, names):
        """Whether the nodes run. After a failure a theme gets new ones: nobody knows what became of the old."""
        try:
            if self.theme is None:
                self.start(theme)
            return True
        except Exception as failure:  # pylint: disable=broad-exception-caught
            for name in names:
                self.failed(name, "starting the nodes", failure)
            return False

    def failed(self, name, where, failure):
        self.stop()
        self.raw.pop(name, None)
        self.errors.setdefault(name, f"{where}: {type(failure).__name__}: {failure}")

    def run_theme(self, theme, names):
        for number in range(self.options.sizes.rounds):
            for name in [name for name in names if name not in self.errors]:
                self.progress(f"round {number + 1}: {name}")
                if not self.start_for(theme, names):
                    return
                try:
                    if number < self.theme.rounds(name):
                        self.raw.setdefault(name, []).append(self.theme.run(name, number))
                except Exception as failure:  # pylint: disable=broad-exception-caught
                    self.failed(name, f"round {number + 1}", failure)

    def run(self, chosen):
        for theme in THEMES:
            names = [name for name in theme.NAMES if name in chosen]
            self.skipped.update({name: theme.why_skipped(name) for name in names if theme.why_skipped(name)})
            self.run_theme(theme, [name for name in names if name not in self.skipped])
            self.stop()
        self.progress("")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help=f"of {' '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: only shows that everything works")
    parser.add_argument("--update", action="store_true",
                        help="keep what the JSON file has of workloads that are not measured now")
    parser.add_argument("--plot", metavar="FILE",
                        help="measure nothing: draw the ratios in the JSON file as SVG")
    parser.add_argument("--markdown", metavar="FILE",
                        help="measure nothing: put the figures in the JSON file into a document, between its marks")
    parser.add_argument("--directory", default=os.path.join(ROOT, "build"),
                        help="on the disk to measure (default: build)")
    parser.add_argument("--json", default=os.path.join(ROOT, "build", "bench.json"), metavar="FILE")
    parser.add_argument("--echofs", default=os.path.join(ROOT, "build/release/cmd/echofs"))
    parser.add_argument("--workload", default=os.path.join(ROOT, "build/release/tests/bench/echofs_workload"))
    parser.add_argument("--speedtest1", default=os.path.join(ROOT, "build/sqlite-suite/programs/speedtest1"))
    sizes.add_options(parser.add_argument_group("sizes"))
    options = parser.parse_args()
    options.sizes = sizes.chosen(options)
    return options


def allow_many_files():
    """Only root, and not everywhere, gets more than the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError as missing:
        raise Failed(f"{path} is not there: run ./dev bench first") from missing


def measure(options):
    """The report of a run."""
    chosen = [name for name in NAMES if re.search(options.only, name)]
    if not chosen:
        raise Failed(f"no workload matches {options.only}: {' '.join(NAMES)}")
    result = {"machine": report.machine(), "quick": options.quick, "sizes": vars(options.sizes)}
    for part in ("raw", "skipped", "errors"):
        before = load(options.json)[part] if options.update else {}
        result[part] = {name: value for name, value in before.items() if name not in chosen}
    directory = tempfile.mkdtemp(prefix="bench-", dir=options.directory)
    bench = Bench(options, directory)
    try:
        bench.run(chosen)
    finally:
        bench.stop()
        if not os.listdir(directory):
            os.rmdir(directory)
    for part in ("raw", "skipped", "errors"):
        result[part].update(getattr(bench, part))
    result["summary"] = report.summarize(result["raw"], THEMES)
    return result


def write(options):
    """What is made of the JSON file."""
    result = load(options.json)
    if options.plot:
        with open(options.plot, "w", encoding="utf-8") as file:
            file.write(plot.svg(result["summary"]))
    if options.markdown:
        with open(options.markdown, encoding="utf-8") as file:
            document = file.read()
        document = report.replace_section(document, report.markdown(result, THEMES))
        with open(options.markdown, "w", encoding="utf-8") as file:
            file.write(document)


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.plot or options.markdown:
            write(options)
            return 0
        allow_many_files()
        result = measure(options)
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(report.text(result, THEMES))
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
