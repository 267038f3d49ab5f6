#include "replication/lag_meter.h"

#include <algorithm>

#include "replication/limits.h"

namespace echofs {

void LagMeter::Heartbeat(std::int64_t primary_time_ms, LogIndex last_index, std::int64_t now_ms) {
  const std::int64_t difference = now_ms - primary_time_ms;
  clock_difference_ms_ =
      clock_difference_ms_ ? std::min(*clock_difference_ms_, difference) : difference;
  last_heartbeat_ms_ = now_ms;
  if (ahead_.size() >= kHeartbeatsRememberedMax) ahead_.pop_back();
  ahead_.push_back({last_index, primary_time_ms});
}

std::optional<std::uint64_t> LagMeter::LagMs(LogIndex applied, LogIndex received,
                                             std::int64_t now_ms) {
  while (!ahead_.empty() && ahead_.front().index <= applied) {
    current_as_of_ms_ = ahead_.front().primary_time_ms;
    ahead_.pop_front();
  }
  if (!current_as_of_ms_) return std::nullopt;
  const bool fresh =
      now_ms - last_heartbeat_ms_ <= 2 * absl::ToInt64Milliseconds(kHeartbeatInterval);
  if (ahead_.empty() && applied >= received && fresh) return 0;
  const std::int64_t primary_now_ms = now_ms - *clock_difference_ms_;
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, primary_now_ms - *current_as_of_ms_));
}

}  // namespace echofs
