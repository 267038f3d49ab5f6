// Warnings that somebody else can cause as often as he likes, said once in a while.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace echofs {

// Thread-safe.
class LimitedLog {
 public:
  // Logs `message` as a warning, unless that was done for the same key within kLimitedLogInterval; then counts it, and
  // the next one tells how many were left out. Remembers kLimitedLogKeysMax keys: others share one.
  void Warn(const std::string& key, const std::string& message) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Said {
    absl::Time at = absl::InfinitePast();
    std::uint64_t left_out = 0;
  };
  absl::Mutex mutex_;
  std::map<std::string, Said> said_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs
