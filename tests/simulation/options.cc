#include "tests/simulation/options.h"

#include <fmt/format.h>

#include "tests/simulation/faults.h"

namespace echofs::sim {
namespace {

constexpr std::int64_t kClockPpmMax =
    40'000;  // the lease's margin covers clocks that differ by less than 10%
constexpr std::int64_t kClockStartMax = 1'000'000 * kSecond;

// Each seed leaves some kinds of faults out and has more of others: what always happens together hides things.
std::vector<int> ChooseFaults(Random& random) {
  std::vector<int> weights;
  weights.reserve(static_cast<std::size_t>(FaultKind::kCount));
  for (int i = 0; i < static_cast<int>(FaultKind::kCount); ++i) {
    weights.push_back(random.Chance(300) ? 0 : static_cast<int>(random.Between(1, 10)));
  }
  weights[random.Below(weights.size())] += 5;  // never none
  return weights;
}

}  // namespace

ClusterOptions ChooseOptions(Random& random) {
  ClusterOptions options;
  options.nodes = static_cast<int>(random.Between(3, 5));
  options.min_sync_replicas = static_cast<int>(random.Between(0, 2));
  options.ttl = absl::Milliseconds(random.Pick(std::vector<int>{1000, 2000, 4000}));
  options.ack_timeout = absl::Milliseconds(random.Pick(std::vector<int>{300, 1000, 3000}));
  for (int i = 0; i < options.nodes; ++i) {
    options.candidates.push_back(i < 2 || !random.Chance(200));
  }
  const bool good_clocks = random.Chance(200);
  for (int i = 0; i <= options.nodes; ++i) {
    options.clock_ppm.push_back(good_clocks ? 0 : random.Between(-kClockPpmMax, kClockPpmMax));
    options.clock_start.push_back(random.Between(kSecond, kClockStartMax));
  }
  options.segment_size = random.Pick(std::vector<std::uint64_t>{2 << 10, 16 << 10, 1 << 20});
  options.retention_size = random.Pick(std::vector<std::uint64_t>{4 << 10, 32 << 10, 1 << 20});
  options.call_timeout = random.Pick(std::vector<Moment>{200, 1000, 3000}) * kMillisecond;
  options.commit_interval_max = random.Pick(std::vector<Moment>{20, 100, 400}) * kMillisecond;
  options.waits_per_mille = random.Pick(std::vector<int>{100, 500, 1000});
  options.network.delay_max = random.Pick(std::vector<Moment>{1, 5, 30}) * kMillisecond;
  options.network.long_delay_max = random.Pick(std::vector<Moment>{50, 500, 3000}) * kMillisecond;
  options.network.long_delay_per_mille = random.Pick(std::vector<int>{0, 10, 50});
  options.network.loss_per_mille = random.Pick(std::vector<int>{0, 10, 100});
  options.network.duplicate_per_mille = random.Pick(std::vector<int>{0, 10, 100});
  options.network.break_per_mille = random.Pick(std::vector<int>{0, 1, 5});
  options.wrong_address_per_mille = random.Pick(std::vector<int>{0, 0, 100});
  options.fault_interval_max = random.Pick(std::vector<Moment>{400, 1000, 3000}) * kMillisecond;
  options.fault_weights = ChooseFaults(random);
  options.forced_promotions = random.Chance(50);
  options.faults_end = random.Between(10, 25) * kSecond;
  return options;
}

std::string Describe(const ClusterOptions& options) {
  int candidates = 0;
  for (const bool candidate : options.candidates) candidates += candidate ? 1 : 0;
  return fmt::format(
      "{} nodes ({} candidates), min-sync-replicas {}, ttl {}, ack-timeout {}, faults for {} s",
      options.nodes, candidates, options.min_sync_replicas, absl::FormatDuration(options.ttl),
      absl::FormatDuration(options.ack_timeout), options.faults_end / kSecond);
}

}  // namespace echofs::sim
