#include "fs/control_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace echofs::fs {

std::string PositionText(const DatabasePosition& position) {
  return fmt::format("{:016x}/{:016x}\n", position.txid.value, position.digest);
}

std::string LagText(std::int64_t lag_ms) {
  constexpr std::int64_t kUnknown = std::numeric_limits<std::int32_t>::max();
  return fmt::format("{:+010d}\n", lag_ms < 0 ? kUnknown : std::min(lag_ms, kUnknown));
}

}  // namespace echofs::fs
