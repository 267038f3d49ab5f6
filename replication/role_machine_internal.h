// Constants and small helpers that the files of the role machine share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace echofs::role {

// Part of the TTL that a holder does not use (2. in role_machine.h).
inline constexpr int kMarginDivisor = 10;
inline constexpr int kRenewalsPerTtl = 3;
// Handoff: for a target that is far behind; then, with writers stopped, for those and for the last entries.
inline constexpr absl::Duration kCatchUpMax = absl::Seconds(30);
inline constexpr absl::Duration kStopWritersMax = absl::Seconds(5);
inline constexpr absl::Duration kDrainMax = absl::Seconds(5);
// A target that is so close is not waited for before writers are stopped.
inline constexpr std::uint64_t kHandoffLagMax = 1000;  // entries
inline constexpr const char* kRanOut = "the lease could not be renewed in time";

inline bool Contains(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// Between attempts of a call that failed.
inline absl::Duration RetryDelay(absl::Duration ttl) {
  return std::min(ttl / 10, absl::Milliseconds(500));
}

// How long an election waits for the last word of nodes that are not ahead.
inline absl::Duration Settle(absl::Duration ttl) {
  return std::clamp(ttl / 8, absl::Milliseconds(50), absl::Seconds(1));
}

}  // namespace echofs::role
