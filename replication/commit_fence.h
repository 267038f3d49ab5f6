// The fence at the commit (design R2): until when this node may commit. One node sets it, each commit looks at it.
//
// Times are of the lease clock, CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody sets it. Closed by time
// alone, so a process that was stopped (SIGSTOP, a suspended machine) finds it closed when it goes on, before
// any thread of it has done anything.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"

namespace echofs {

// Nanoseconds since the machine's boot.
inline std::int64_t LeaseClockNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The lease clock as an absl::Time; only differences mean something.
inline absl::Time LeaseClockNow() { return absl::FromUnixNanos(LeaseClockNanoseconds()); }

// Thread-safe.
class CommitFence {
 public:
  // Starts closed.
  CommitFence() = default;

  // Commits are allowed before this moment; InfinitePast closes it, InfiniteFuture opens it for ever.
  void OpenUntil(absl::Time until) {
    std::int64_t nanoseconds = 0;
    if (until == absl::InfiniteFuture()) {
      nanoseconds = std::numeric_limits<std::int64_t>::max();
    } else if (until > absl::UnixEpoch()) {
      nanoseconds = absl::ToUnixNanos(until);
    }
    until_.store(nanoseconds, std::memory_order_release);
  }
  bool open() const { return LeaseClockNanoseconds() < until_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::int64_t> until_{0};
};

}  // namespace echofs
