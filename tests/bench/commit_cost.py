"""What COMMIT costs in synchronous=FULL when it waits for a replica on the same machine (design D1, D2), for bench.py.

The entry is sent when the transaction is written, before the application asks for the sync that it then waits for. So
a commit that waits should take the time of one that does not, with its sync replaced by the longer of two: the local
sync, and a round trip with the replica's sync. Here both syncs go to one disk at the same time, so that is what they
are measured as.
"""

import statistics

WORKLOADS = {"replicated-wal": "wal", "replicated-delete": "delete"}
# native, on a primary with a replica and min-sync-replicas 0, and 1
TTL_SECONDS = 10
PLACES = ["native", "asynchronous", "synchronous"]


def expected_us(asynchronous, probe):
    sync, paired, round_trip = (probe[name + "_us"]["p50"] for name in ("sync", "paired_sync", "round_trip"))
    # Measured apart, one sync alone can seem to take longer than two at once.
    return asynchronous + max(0, max(paired, round_trip + paired) - sync)


def summarize(rounds):
    """Medians over the rounds, each {place: result of the workload, "probe": result of the probe}."""
    median = statistics.median
    latency = [{place: result[place]["latency_us"]["p50"] for place in PLACES} for result in rounds]
    expected = [expected_us(us["asynchronous"], result["probe"]) for us, result in zip(latency, rounds)]
    summary = {f"{place}_us": median([us[place] for us in latency]) for place in PLACES}
    for name in ("sync", "paired_sync", "round_trip"):
        summary[name + "_us"] = median([result["probe"][name + "_us"]["p50"] for result in rounds])
    summary["expected_us"] = median(expected)
    summary["ratio_native"] = median([us["native"] / us["synchronous"] for us in latency])
    summary["ratio_asynchronous"] = median([us["asynchronous"] / us["synchronous"] for us in latency])
    summary["ratio_expected"] = median([bound / us["synchronous"] for us, bound in zip(latency, expected)])
    return summary


def table(summary):
    lines = [f"{'COMMIT in FULL, us (p50)':24}{'native':>10}{'no wait':>10}{'replicated':>11}{'expected':>10}"
             "   ratio to native, no wait, expected; one sync, two at once, round trip"]
    for name in WORKLOADS:
        if name in summary:
            s = summary[name]
            lines.append(f"{name:24}{s['native_us']:10.0f}{s['asynchronous_us']:10.0f}{s['synchronous_us']:11.0f}"
                         f"{s['expected_us']:10.0f}   {s['ratio_native']:.2f} {s['ratio_asynchronous']:.2f} "
                         f"{s['ratio_expected']:.2f}; {s['sync_us']:.0f} {s['paired_sync_us']:.0f} "
                         f"{s['round_trip_us']:.0f}")
    return lines
