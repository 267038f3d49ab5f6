#include "cmd/role_change.h"

#include <fmt/format.h>

#include "absl/time/clock.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr absl::Duration kSuccessorMax = absl::Seconds(5);
constexpr absl::Duration kSuccessorPoll = absl::Milliseconds(5);

// `before`: the state in which this node still led.
echofs::NodeStatus WaitForSuccessor(const Node& node, const echofs::NodeStatus& before) {
  const absl::Time deadline = absl::Now() + kSuccessorMax;
  while (true) {
    echofs::NodeStatus now = node.status();
    const bool follows = now.role != NodeRole::kPrimary && now.term > before.term && now.connected;
    if (follows || absl::Now() >= deadline) return now;
    absl::SleepFor(kSuccessorPoll);
  }
}

}  // namespace

absl::StatusOr<PrimaryInfo> HandOff(Node& node, const std::string& to) {
  const echofs::NodeStatus before = node.status();
  absl::Status done = node.Handoff(to);
  if (!done.ok()) {
    if (before.role == NodeRole::kPrimary || before.primary_id.empty()) return done;
    return absl::Status(done.code(), fmt::format("{} (the primary is {})",
                                                 std::string(done.message()), before.primary_id));
  }
  const echofs::NodeStatus after = WaitForSuccessor(node, before);
  return PrimaryInfo{after.primary_id, after.term};
}

absl::StatusOr<PrimaryInfo> PromoteNode(Node& node, bool force) {
  if (node.role() != NodeRole::kPrimary) ECHOFS_RETURN_IF_ERROR(node.Promote(force));
  const echofs::NodeStatus after = node.status();
  if (after.role == NodeRole::kPrimary) return PrimaryInfo{after.node_id, after.term};
  return absl::FailedPreconditionError(
      fmt::format("this node became the primary, and has lost the lease since{}{}",
                  after.primary_id.empty() ? "" : " to ", after.primary_id));
}

}  // namespace echofs::cmd
