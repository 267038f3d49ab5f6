// What a node remembers about itself between starts: `node.json` in its data directory.
//
//     {"format_version": 1, "cluster_id": "32 hex digits or empty", "node_id": "a",
//      "last_role": "primary", "boot_id": "the machine's boot at the node's last start"}
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/storage.h"

namespace echofs {

inline constexpr int kNodeStateFormatVersion = 1;

struct NodeState {
  std::string cluster_id;  // 128 random bits in hex, made by the cluster's first primary; empty
                           // before joining
  std::string node_id;
  std::string last_role;  // "primary" or "replica"; empty before the first start
  std::string boot_id;    // of the boot in which the node was last started; see CurrentBootId

  friend bool operator==(const NodeState&, const NodeState&) = default;
};

// Reads DIR/node.json. NotFound when there is none yet; FailedPrecondition when a newer version of
// echofs wrote it; DataLoss when it cannot be understood. Messages name the file and say what to
// do.
absl::StatusOr<NodeState> LoadNodeState(Storage& storage, const std::string& data_directory);

// Replaces DIR/node.json in one step; durable when it returns. One thread at a time.
absl::Status SaveNodeState(Storage& storage, const std::string& data_directory,
                           const NodeState& state);

// 128 random bits from the kernel in hex.
absl::StatusOr<std::string> NewClusterId();

// Identifies this boot of the machine. When it differs from NodeState::boot_id, the machine went
// down since the last start and what was not synced may be lost (L5). Empty when the kernel does
// not tell.
std::string CurrentBootId();

}  // namespace echofs
