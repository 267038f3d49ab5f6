// Speed of replication between two nodes on loopback. Hidden: run with the argument "[perf]".
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/time/clock.h"
#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

TEST_CASE("speed of replication", "[.][perf]") {
  TestNode a("a");
  TestNode b("b");
  a.KeepLog();
  b.KeepLog();
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  std::uint8_t n = 0;
  const auto commit = [&] {
    return a.store().Commit(a.log(), a.node().term(), "x.db", 4096, 2,
                            {{1, PageStore::Page(4096, ++n)}, {2, PageStore::Page(4096, n)}});
  };
  commit();
  REQUIRE(Converges(a, b));

  std::vector<double> latencies_us;
  for (int i = 0; i < 2000; ++i) {
    const absl::Time begin = absl::Now();
    const LogIndex index = commit();
    while (b.store().AppliedPosition("x.db")->index < index) {
    }
    latencies_us.push_back(absl::ToDoubleMicroseconds(absl::Now() - begin));
  }
  std::sort(latencies_us.begin(), latencies_us.end());
  std::puts(fmt::format("commit to applied: median {:.0f} us, 99 % {:.0f} us", latencies_us[1000],
                        latencies_us[1980])
                .c_str());

  constexpr int kTransactions = 50'000;
  const absl::Time begin = absl::Now();
  LogIndex last;
  for (int i = 0; i < kTransactions; ++i) last = commit();
  const double committed_s = absl::ToDoubleSeconds(absl::Now() - begin);
  while (b.store().AppliedPosition("x.db")->index < last) absl::SleepFor(absl::Milliseconds(1));
  const double applied_s = absl::ToDoubleSeconds(absl::Now() - begin);
  std::puts(fmt::format("{} two-page transactions: committed in {:.2f} s, applied in {:.2f} s",
                        kTransactions, committed_s, applied_s)
                .c_str());
}

}  // namespace
}  // namespace echofs
