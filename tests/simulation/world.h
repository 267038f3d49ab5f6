// What everything in a simulated run shares: time, chance, the network, the nodes, the lease service, the judge.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/network.h"
#include "tests/simulation/options.h"
#include "tests/simulation/random.h"
#include "tests/simulation/scheduler.h"

namespace echofs::sim {

class Judge;
class LeaseService;
class SimNode;

// What happened, so that one sees that faults do happen.
struct Counts {
  std::uint64_t steps = 0;
  std::uint64_t commits = 0;
  std::uint64_t acknowledged = 0;  // told to a client that had waited (D1)
  std::uint64_t refused = 0;       // commits that found the fence closed
  std::uint64_t tenures = 0;
  std::uint64_t handoffs = 0;  // transfers that took effect
  std::uint64_t crashes = 0;
  std::uint64_t power_losses = 0;
  std::uint64_t pauses = 0;
  std::uint64_t cuts = 0;
  std::uint64_t lease_restarts = 0;
  std::uint64_t disks_full = 0;
  std::uint64_t rewinds = 0;
  std::uint64_t bases = 0;
  std::uint64_t copies = 0;
  std::uint64_t orphans = 0;    // change sets
  std::uint64_t recovered = 0;  // commits that a former primary found after a power loss

  void Add(const Counts& other);
};

// A clock that is too fast or too slow, and began at another time.
class SimClock {
 public:
  SimClock(std::int64_t start, std::int64_t ppm) : start_(start), ppm_(ppm) {}
  // What it shows at `moment`, in nanoseconds.
  std::int64_t At(Moment moment) const { return start_ + moment + moment * ppm_ / 1'000'000; }
  absl::Time TimeAt(Moment moment) const { return absl::FromUnixNanos(At(moment)); }
  // The first moment at which it shows `time` or more.
  Moment MomentOf(std::int64_t time) const;

 private:
  std::int64_t start_;
  std::int64_t ppm_;
};

struct World {
  explicit World(std::uint64_t seed);
  ~World();

  Random random;
  Scheduler scheduler;
  Network network;
  ClusterOptions options;
  Counts counts;
  std::vector<std::unique_ptr<SimNode>> nodes;
  std::unique_ptr<LeaseService> lease;
  std::unique_ptr<Judge> judge;
  bool faults_over = false;
  bool quiet = false;  // clients have ended: the nodes are to become equal
  bool trace = false;
  std::string failure;       // the first thing that was wrong
  std::uint64_t digest = 0;  // of the run: the same for the same seed

  Endpoint lease_endpoint() const { return options.nodes; }
  void Fail(std::string what);
  bool failed() const { return !failure.empty(); }
  void Mix(std::uint64_t value) {
    digest = (digest ^ value) * 0x9fb21c651e98df25ull + (digest >> 29);
  }
  template <class... Args>
  void Trace(fmt::format_string<Args...> format, Args&&... args) {
    if (trace) Print(fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  void Print(const std::string& line) const;
};

}  // namespace echofs::sim
