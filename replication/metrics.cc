#include "replication/metrics.h"

#include <algorithm>

namespace echofs {
namespace {

// Times of entries come from other nodes: one that makes no sense shall not spoil the sum.
constexpr absl::Duration kDurationMax = absl::Hours(24);

}  // namespace

void DurationHistogram::Observe(absl::Duration duration) {
  const std::int64_t nanoseconds =
      absl::ToInt64Nanoseconds(std::clamp(duration, absl::ZeroDuration(), kDurationMax));
  const auto* const bound = std::lower_bound(
      kDurationBounds.begin(), kDurationBounds.end(), nanoseconds,
      [](std::int64_t microseconds, std::int64_t value) { return microseconds * 1000 < value; });
  buckets_[static_cast<std::size_t>(bound - kDurationBounds.begin())].Add();
  nanoseconds_.Add(static_cast<std::uint64_t>(nanoseconds));
}

std::array<std::uint64_t, kDurationBounds.size() + 1> DurationHistogram::counts() const {
  std::array<std::uint64_t, kDurationBounds.size() + 1> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = buckets_[i].value();
  return counts;
}

absl::Duration DurationHistogram::sum() const {
  return absl::Nanoseconds(static_cast<std::int64_t>(nanoseconds_.value()));
}

Metrics* UnobservedMetrics() {
  static Metrics metrics;
  return &metrics;
}

}  // namespace echofs
