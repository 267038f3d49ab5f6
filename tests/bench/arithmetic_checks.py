"""The arithmetic of the bench's summaries, on made-up results; for bench_test.py."""

import sys

import places
import plot
from commit_cost import CommitCost
from compared import Compared
from copies import FirstCopy
from many_databases import ManyDatabases
from role_changes import RoleChanges


def check(condition, what):
    if not condition:
        sys.exit(f"bench_test: {what}")


def near(value, expected, tolerance=1e-6):
    return abs(value - expected) <= tolerance * max(1, abs(expected))


def equal(what, value, expected):
    check(near(value, expected), f"{what} is {value}, not {expected}")


def use(cpu_seconds, megabytes, **requests):
    return {"cpu_seconds": cpu_seconds, "rss_bytes": megabytes * 1e6, "open_files": 9, "requests": requests}


def result(transactions, seconds, p50, used=()):
    return {"transactions": transactions, "seconds": seconds, "per_second": transactions / seconds,
            "latency_us": {"p50": p50, "p99": 10 * p50}, "used": list(used)}


def made_up_rounds():
    """Three, in which the ratio of the medians is not the median of the ratios."""
    return [{"native": result(native, 1, 1e6 / native),
             "primary": result(primary, 1, 2e6 / primary, [use(0.5, 20, write=3 * primary, read=1)]),
             "replica": result(50, 1, 40, [use(0.1, 30), use(0.2, megabytes)])}
            for native, primary, megabytes in ((100, 90, 40), (200, 100, 60), (150, 200, 50))]


def check_places():
    rate = places.summarize(made_up_rounds(), "rate")
    equal("the median of native", rate["native"]["per_second"], 150)
    equal("the ratio of each round's own native run", rate["ratio_primary"], 0.9)
    equal("the ratio with a replica", rate["ratio_replica"], 1 / 3)
    equal("p99", rate["primary"]["p99_us"], 10 * 2e6 / 100)
    node = rate["primary"]["used"]["node"]
    equal("CPU a transaction", node["cpu_us_per_transaction"], 5000)
    equal("writes a transaction", node["requests_per_transaction"]["write"], 3)
    equal("reads a transaction", node["requests_per_transaction"]["read"], 0.01)
    equal("memory of the replica", rate["replica"]["used"]["replica"]["rss_bytes"], 50e6)
    check("used" not in rate["native"], "native has no daemon")
    equal("the ratio of latencies", places.summarize(made_up_rounds(), "latency")["ratio_primary"], 0.45)
    check(places.requests_text(rate, "primary") == "write 3, read 0.01", places.requests_text(rate, "primary"))
    node["requests_per_transaction"] = {"forget": 0.0009}
    check(places.requests_text(rate, "primary") == "0", "less than one in a thousand transactions is none")
    check([row[:6] for row in places.speed_table({"made-up": rate}).rows]
          == [["made-up", "150 /s", "100 /s", "0.90", "50 /s", "0.33"]], "the row of the table")


def check_growth():
    entry = {place: {"p50_us": 10} for place in places.PLACES}
    large = {place: {"p50_us": 10 * (1 + i)} for i, place in enumerate(places.PLACES)}
    lines = Compared.sentences({"wal-1k": entry, "wal-500k": large})
    check(lines[0].endswith("native 1.00, primary 2.00, with replica 3.00"), lines)


def check_others():
    changes = RoleChanges.summarize("handoff", [[0.001 * n for n in range(200, 0, -1)]])
    equal("p50 of handoffs", changes["p50_ms"], 100.5)
    equal("p99 of handoffs", changes["p99_ms"], 198)
    equal("the longest handoff", changes["max_ms"], 200)
    copies = FirstCopy.summarize("first-copy", [{"bytes": 100e6, "seconds": seconds, "native_seconds": 1}
                                                for seconds in (4, 2, 5)])
    equal("the speed of a copy", copies["megabytes_per_second"], 25)
    equal("its ratio", copies["ratio"], 0.25)
    rest = ManyDatabases.summarize_rest([{"databases": 7, "wanted": 7, "seconds": 10, "nodes": {
        name: use(0.2, 20) for name in ("alone", "leader", "replica")}}])
    equal("CPU at rest", rest["nodes"]["leader"]["cpu_percent"], 2)
    times = {"sync_us": {"p50": 100}, "paired_sync_us": {"p50": 150}, "round_trip_us": {"p50": 10}}
    commit = CommitCost.summarize("replicated-wal", [{"probe": times, **{place: {"latency_us": {"p50": us}}
                                  for place, us in (("native", 100), ("asynchronous", 200), ("synchronous", 400))}}])
    equal("the ratio to native of a commit that waits", commit["ratio_native"], 0.25)
    # Its local sync is replaced by a round trip with two syncs at once.
    equal("what is expected of it", commit["expected_us"], 200 + (10 + 150) - 100)


def check_plot():
    """Bars are as long as their ratios, up to the end of the axis."""
    svg = plot.svg({"slow": {"ratio_primary": 0.5, "ratio_replica": 9}, "apart": {"seconds": 3}})
    scale = (plot.WIDTH - plot.LEFT - plot.RIGHT) / plot.END
    for width in (0.5 * scale, plot.END * scale):
        check(f'width="{width:.1f}" height="{plot.BAR}"' in svg, f"no bar is {width:.1f} long")
    check("apart" not in svg, "what has no ratio is not drawn")


def main():
    check_places()
    check_growth()
    check_others()
    check_plot()
