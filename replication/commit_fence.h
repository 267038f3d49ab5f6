// The fence at the commit (design R2): until when this node may commit. One node sets it, each commit looks at it.
//
// Times are of the lease clock (boot_time.h). Closed by time
// alone, so a process that was stopped (SIGSTOP, a suspended machine) finds it closed when it goes on, before
// any thread of it has done anything.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "replication/boot_time.h"

namespace echofs {

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
  bool open() const { return BootNanoseconds() < until_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::int64_t> until_{0};
};

}  // namespace echofs
