// What a node counts about itself: plain counters and histograms that cost a relaxed atomic add for each event, take no
// lock and know no format. cmd/ shows them (/metrics).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace echofs {

// Thread-safe. Only grows.
class Counter {
 public:
  void Add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Upper bounds of the buckets in microseconds, ascending; above the last one is one bucket more.
inline constexpr std::array<std::int64_t, 21> kDurationBounds = {
    10,      25,        50,        100,       250,        500,        1'000,
    2'500,   5'000,     10'000,    25'000,    50'000,     100'000,    250'000,
    500'000, 1'000'000, 2'500'000, 5'000'000, 10'000'000, 30'000'000, 60'000'000};

// How long something took, many times. Thread-safe. A reader may see the parts of one observation at different
// moments.
class DurationHistogram {
 public:
  // A negative duration, as clocks that differ give it, counts as zero, more than a day as a day.
  void Observe(absl::Duration duration);

  // Observations in each bucket alone, the last one without a bound.
  std::array<std::uint64_t, kDurationBounds.size() + 1> counts() const;
  absl::Duration sum() const;

 private:
  std::array<Counter, kDurationBounds.size() + 1> buckets_;
  Counter nanoseconds_;
};

// Of one node since its start.
struct Metrics {
  DurationHistogram commit;  // primary: from the capture of a commit until it is in the log
  DurationHistogram
      sync_wait;  // primary: commits that wait for the nodes in sync, until they are acknowledged
  Counter sync_wait_failures;  // those that were not
  DurationHistogram apply;     // replica: to apply one entry
  DurationHistogram
      visible_lag;  // replica: from the time in an entry, by the primary's clock, until it is applied
  Counter apply_pauses;  // replica: moments without apply so that a WAL can restart (A3)
  Counter
      digest_mismatches;  // replica: databases stopped because an entry led to another digest (A6)
  Counter copies;         // replica: databases that were copied whole
};

// For parts that nobody asks for metrics: counts, and is never shown.
Metrics* UnobservedMetrics();

}  // namespace echofs
