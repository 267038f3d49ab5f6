"""When a transaction has arrived on the replica: in its mount (visible), in its log, applied or not (stream), and
after a run at full speed (catchup)."""

import os
import statistics

from theme import PairTheme

FIGURES = {"visible": "visible", "stream": "received"}  # what echofs_workload calls them
median = statistics.median


class Arrivals(PairTheme):
    NAMES = [*FIGURES, "catchup"]

    def run(self, name, _number):
        arguments = [] if name == "catchup" else ["--rate", self.sizes.rate]
        if name == "stream":
            arguments += ["--log", os.path.join(self.replica.data, "log")]
        database = self.new_database()
        result = self.workload(name, os.path.join(self.leader.mount, database), "--replica",
                               os.path.join(self.replica.mount, database), "--seconds", self.sizes.seconds,
                               *arguments)
        self.wait_until_replicated(database)
        self.remove(self.leader.mount, database)
        return result

    @staticmethod
    def summarize(name, rounds):
        if name == "catchup":
            return {key: median([r[key] for r in rounds]) for key in ("per_second", "behind", "catchup_ms")}
        what = FIGURES[name]
        return {"per_second": median([r["per_second"] for r in rounds]),
                **{f"{p}_us": median([r[what + "_us"][p] for r in rounds]) for p in ("p50", "p99", "max")},
                **{f"{p}_from_call_us": median([r[what + "_from_call_us"][p] for r in rounds])
                   for p in ("p50", "p99")}}

    @staticmethod
    def sentences(summary):
        lines = []
        for name, where in (("visible", "visible in the replica's mount"), ("stream", "in the replica's log")):
            if name in summary:
                v = summary[name]
                lines.append(f"{name}: {where} after COMMIT returned, at {v['per_second']:.0f} commits/s: p50 "
                             f"{v['p50_us']:.0f} us, p99 {v['p99_us']:.0f} us (after COMMIT was called: "
                             f"{v['p50_from_call_us']:.0f}, {v['p99_from_call_us']:.0f})")
        if "catchup" in summary:
            c = summary["catchup"]
            lines.append(f"catchup: after a run at full speed ({c['per_second']:.0f} commits/s, WAL NORMAL) the replica "
                         f"is {c['behind']:.0f} transactions behind and has them after {c['catchup_ms']:.1f} ms")
        return lines
