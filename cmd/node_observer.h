// What the HTTP endpoints ask a running node. Plain structs; the daemon implements NodeObserver.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cmd/admin_source.h"
#include "replication/ids.h"

namespace echofs::cmd {

struct NodeObservation {
  NodeStatus status;
  // Replica.
  bool connected = false;               // to its primary
  LogIndex applied_index;               // every entry up to here is applied
  std::optional<std::uint64_t> lag_ms;  // age of its data; nothing before the first contact
  // Primary, not with a static lease; see echofs::NodeStatus.
  std::optional<absl::Duration> lease_valid_for;
  std::optional<absl::Duration> lease_age;
  bool lease_reachable = true;
};

struct RoleObservation {
  std::string role;  // as in NodeStatus
  Term term;
  std::string primary;

  friend bool operator==(const RoleObservation&, const RoleObservation&) = default;
};

// Thread-safe. Calls may wait for locks that are held across I/O.
class NodeObserver {
 public:
  virtual ~NodeObserver() = default;
  virtual NodeObservation Observe() = 0;
  // A part of the above that is cheaper.
  virtual RoleObservation ObserveRole() = 0;
};

}  // namespace echofs::cmd
