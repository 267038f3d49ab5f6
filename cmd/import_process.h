// The primary's part of an import that another node has sent: `echofs import` as a process of its own, for the daemon must
// never touch its own mount.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "replication/node.h"

namespace echofs::cmd {

// Waits for its end; kills it when `cancelled` says so, which leaves nothing half done. `data_dir` is this node's.
absl::StatusOr<DatabasePosition> RunImport(const std::string& data_dir,
                                           const ReceivedImport& import,
                                           const std::function<bool()>& cancelled);

}  // namespace echofs::cmd
