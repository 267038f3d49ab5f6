// Changes of the primary that a command asks for, at the node that it asks.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cmd/admin_source.h"
#include "replication/node.h"

namespace echofs::cmd {

// Both are called from any thread and wait, up to about a minute, for the end of the change. Errors
// are the node's, for people.

// Makes `to` the primary in the place of `node`, empty: the best replica. When the lease has gone
// over, waits until the new primary takes this node as its replica, but only seconds: it may have
// much to apply before. The name is empty when this node does not know it by then.
absl::StatusOr<PrimaryInfo> HandOff(Node& node, const std::string& to);

// Makes `node` the primary. On a primary does nothing, with any lease.
absl::StatusOr<PrimaryInfo> PromoteNode(Node& node, bool force);

}  // namespace echofs::cmd
