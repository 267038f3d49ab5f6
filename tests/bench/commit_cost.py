"""What COMMIT costs in synchronous=FULL when it waits for a replica on the same machine (design D1, D2), for bench.py.

The entry is sent when the transaction is written, before the application asks for the sync that it then waits for. So
a commit that waits should take the time of one that does not, with its sync replaced by the longer of two: the local
sync, and a round trip with the replica's sync. Here both syncs go to one disk at the same time, so that is what they
are measured as.
"""

import os
import statistics

from nodes import LeaseServer
from table import Table
from theme import PairTheme

WORKLOADS = {"replicated-wal": "wal", "replicated-delete": "delete"}
TTL_SECONDS = 10
# native, on a primary with a replica and min-sync-replicas 0, and 1
PLACES = ["native", "asynchronous", "synchronous"]


def expected_us(asynchronous, probe):
    sync, paired, round_trip = (probe[name + "_us"]["p50"] for name in ("sync", "paired_sync", "round_trip"))
    # Measured apart, one sync alone can seem to take longer than two at once.
    return asynchronous + max(0, max(paired, round_trip + paired) - sync)


class CommitCost(PairTheme):
    NAMES = list(WORKLOADS)

    def start(self):
        self.lease = LeaseServer(self.options.echofs, self.directory)
        for name, candidate in (("waiting", True), ("waited-for", False)):
            self.start_clustered_node(name, self.lease, TTL_SECONDS, candidate, "replication: { min-sync-replicas: 1 }\n")
        self.waiting = self.nodes[0]
        super().start()
        # The first commit waits until the replica has found its primary.
        database = self.new_database()
        self.workload("write", os.path.join(self.waiting.mount, database), "--synchronous", "full", "--count", 10)
        self.remove(self.waiting.mount, database)

    def stop(self):
        super().stop()
        self.lease.stop()

    def run(self, name, number):
        """The places in changing order, and what the machine takes in the same round."""
        directories = {"native": self.native, "asynchronous": self.leader.mount, "synchronous": self.waiting.mount}
        results = {"probe": self.workload("probe", self.native, "--seconds", self.sizes.seconds / 3)}
        for place in PLACES[number % 3:] + PLACES[:number % 3]:
            database = self.new_database()
            results[place] = self.workload("write", os.path.join(directories[place], database), "--journal",
                                           WORKLOADS[name], "--synchronous", "full", "--seconds", self.sizes.seconds)
            self.remove(directories[place], database)
        return results

    @staticmethod
    def summarize(_name, rounds):
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

    @staticmethod
    def tables(summary):
        rows = []
        for name in WORKLOADS:
            if name in summary:
                s = summary[name]
                rows.append([name, *(f"{s[key + '_us']:.0f}" for key in (*PLACES, "expected")),
                             *(f"{s['ratio_' + key]:.2f}" for key in ("native", "asynchronous", "expected")),
                             f"{s['sync_us']:.0f}, {s['paired_sync_us']:.0f}, {s['round_trip_us']:.0f}"])
        return [Table("COMMIT in FULL that waits for a replica, us (p50)",
                      ["workload", "native", "no wait", "replicated", "expected", "ratio to native", "to no wait",
                       "to expected", "one sync, two at once, round trip"], rows)]
