// The files that are not on disk: .primary, <db>-pos, .lag (design section 11), as LiteFS clients know them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "fs/file_tree.h"
#include "replication/change_log.h"

namespace echofs::fs {

inline constexpr std::string_view kPrimaryFileName = ".primary";
inline constexpr std::string_view kLagFileName = ".lag";
inline constexpr std::string_view kPositionSuffix = "-pos";

// What the control files tell; called from any thread, must not block.
struct ControlSource {
  // Name of the primary while this node is a replica that knows it; empty otherwise.
  std::function<std::string()> primary_name;
  // Milliseconds that this node is behind the primary; 0 on the primary, negative when it is not known.
  std::function<std::int64_t()> lag_ms;
};

// "%016x/%016x\n": TXID and digest.
std::string PositionText(const DatabasePosition& position);
// Sign and nine digits of milliseconds, and a newline: always 11 bytes. Unknown is the largest int32.
std::string LagText(std::int64_t lag_ms);

}  // namespace echofs::fs
