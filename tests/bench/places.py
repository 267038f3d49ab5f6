"""Results of one workload in the three places, put together: medians over the rounds, and ratios to native.

A ratio is a speed: of each round's own native run, so that what disturbs both drops out; 1 is native, more is faster.
"""

import statistics

from table import Table
from theme import PLACES

TITLES = {"native": "native", "primary": "primary", "replica": "with replica"}
FEWEST_REQUESTS = 0.001  # a transaction; less is shown as 0
median = statistics.median


def speed(result, unit):
    return 1 / result["latency_us"]["p50"] if unit == "latency" else result["per_second"]


def summarize_use(results):
    """Of the daemons in one place: `node` that does the work and perhaps its replica."""
    summary = {}
    for node, title in enumerate(["node", "replica"][:len(results[0]["used"])]):
        used = [(result["used"][node], result["transactions"]) for result in results]
        kinds = sorted({kind for use, _ in used for kind in use["requests"]})
        summary[title] = {
            "cpu_seconds": median([use["cpu_seconds"] for use, _ in used]),
            "cpu_us_per_transaction": median([1e6 * use["cpu_seconds"] / count for use, count in used]),
            "rss_bytes": median([use["rss_bytes"] for use, _ in used]),
            "requests_per_transaction": {
                kind: median([use["requests"].get(kind, 0) / count for use, count in used]) for kind in kinds},
        }
    return summary


def summarize(rounds, unit):
    """`rounds`: [{place: result}]; `unit`: rate, seconds or latency (p50), what speed is taken from."""
    summary = {"unit": unit}
    for place in PLACES:
        results = [result[place] for result in rounds]
        entry = {key: median([result[key] for result in results]) for key in ("per_second", "seconds")}
        if "latency_us" in results[0]:
            entry.update({f"{p}_us": median([result["latency_us"][p] for result in results]) for p in ("p50", "p99")})
        if results[0]["used"]:
            entry["used"] = summarize_use(results)
        summary[place] = entry
        if place != "native":
            summary["ratio_" + place] = median([speed(result[place], unit) / speed(result["native"], unit)
                                                for result in rounds])
    return summary


def is_compared(entry):
    return "ratio_primary" in entry


def speed_text(entry, unit):
    if unit == "rate":
        return f"{entry['per_second']:.0f} /s"
    if unit == "seconds":
        return f"{entry['seconds']:.2f} s"
    return f"{entry['p50_us']:.0f} us"


def requests_text(entry, place):
    requests = entry[place]["used"]["node"]["requests_per_transaction"]
    shown = {kind: count for kind, count in requests.items() if count >= FEWEST_REQUESTS}
    if not shown:
        return "0"
    return ", ".join(f"{kind} {count:.3g}" if count < 1000 else f"{kind} {count:.0f}"
                     for kind, count in sorted(shown.items(), key=lambda item: -item[1]))


def speed_table(summary):
    rows = []
    for name, entry in summary.items():
        if is_compared(entry):
            latency = ", ".join(f"{entry[place]['p50_us']:.0f}/{entry[place]['p99_us']:.0f}" for place in PLACES
                                if "p50_us" in entry[place])
            rows.append([name, *(speed_text(entry[place], entry["unit"]) for place in ("native", "primary")),
                         f"{entry['ratio_primary']:.2f}", speed_text(entry["replica"], entry["unit"]),
                         f"{entry['ratio_replica']:.2f}", latency])
    return Table("Speed", ["workload", "native", "primary", "ratio", "with replica", "ratio",
                           "p50/p99 us: native, primary, with replica"], rows)


def use_table(summary):
    rows = []
    for name, entry in summary.items():
        if is_compared(entry):
            uses = [entry["primary"]["used"]["node"], *entry["replica"]["used"].values()]
            rows.append([name, *(f"{use['cpu_us_per_transaction']:.4g}" for use in uses),
                         *(f"{use['rss_bytes'] / 1e6:.0f}" for use in uses), requests_text(entry, "primary")])
    return Table("What the daemons use: of a primary alone, of one with a replica (leading), of its replica",
                 ["workload", "CPU us/tx alone", "leading", "replica", "RSS MB alone", "leading", "replica",
                  "FUSE requests per transaction on the primary"], rows)
