#include "replication/limited_log.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/time/clock.h"
#include "replication/limits.h"

namespace echofs {

void LimitedLog::Warn(const std::string& key, const std::string& message) {
  const absl::Time now = absl::Now();
  std::uint64_t left_out = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (said_.size() >= kLimitedLogKeysMax && said_.count(key) == 0) {
      // What was last said long ago makes room.
      for (auto i = said_.begin(); i != said_.end();) {
        const bool old = i->second.at + kLimitedLogInterval < now;
        i = old ? said_.erase(i) : std::next(i);
      }
    }
    Said& said = said_[said_.size() < kLimitedLogKeysMax || said_.count(key) != 0 ? key : ""];
    if (now < said.at + kLimitedLogInterval) {
      ++said.left_out;
      return;
    }
    said.at = now;
    left_out = std::exchange(said.left_out, 0);
  }
  spdlog::warn("{}{}", message,
               left_out == 0 ? "" : fmt::format(" ({} times more since)", left_out));
}

}  // namespace echofs
