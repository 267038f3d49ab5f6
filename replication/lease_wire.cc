#include "replication/lease_wire.h"

#include <algorithm>
#include <limits>

#include "echofs/v1/lease.pb.h"

namespace echofs {

void ToMessage(const LeaseRecord& record, v1::LeaseRecord* message) {
  message->set_term(record.term.value);
  message->set_primary_id(record.primary_id);
  message->set_primary_address(record.primary_address);
  message->mutable_in_sync()->Assign(record.in_sync.begin(), record.in_sync.end());
  message->set_revision(record.revision);
}

void ToMessage(const NodeAnnouncement& node, v1::NodeAnnouncement* message) {
  message->set_node_id(node.node_id);
  message->set_address(node.address);
  message->set_candidate(node.candidate);
  message->set_position_term(node.position.term.value);
  message->set_position_index(node.position.index.value);
  message->set_ended_term(node.ended_term.value);
}

void ToMessage(const LeaseState& state, v1::LeaseState* message) {
  ToMessage(state.record, message->mutable_record());
  message->set_held(state.held);
  message->set_version(state.version);
  message->set_cluster_id(state.cluster_id);
  for (const NodeAnnouncement& node : state.nodes) ToMessage(node, message->add_nodes());
}

LeaseRecord FromMessage(const v1::LeaseRecord& message) {
  LeaseRecord record;
  record.term = {message.term()};
  record.primary_id = message.primary_id();
  record.primary_address = message.primary_address();
  record.in_sync.assign(message.in_sync().begin(), message.in_sync().end());
  record.revision = message.revision();
  return record;
}

NodeAnnouncement FromMessage(const v1::NodeAnnouncement& message) {
  NodeAnnouncement node;
  node.node_id = message.node_id();
  node.address = message.address();
  node.candidate = message.candidate();
  node.position = {{message.position_term()}, {message.position_index()}};
  node.ended_term = {message.ended_term()};
  return node;
}

LeaseState FromMessage(const v1::LeaseState& message) {
  LeaseState state;
  state.record = FromMessage(message.record());
  state.held = message.held();
  state.version = message.version();
  state.cluster_id = message.cluster_id();
  for (const v1::NodeAnnouncement& node : message.nodes()) state.nodes.push_back(FromMessage(node));
  return state;
}

std::uint64_t ToMilliseconds(absl::Duration duration) {
  const absl::Duration up = absl::Ceil(duration, absl::Milliseconds(1));
  return static_cast<std::uint64_t>(std::max<std::int64_t>(absl::ToInt64Milliseconds(up), 0));
}

absl::Duration FromMilliseconds(std::uint64_t milliseconds) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  return milliseconds > kMax ? absl::InfiniteDuration()
                             : absl::Milliseconds(static_cast<std::int64_t>(milliseconds));
}

}  // namespace echofs
