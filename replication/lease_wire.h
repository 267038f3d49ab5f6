// The lease's values <-> messages. What comes from the wire is bounded by the size of a message and checked by whoever
// uses it (CheckLeaseNode and so on).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "replication/lease.h"

namespace echofs::v1 {
class LeaseRecord;
class LeaseState;
class NodeAnnouncement;
}  // namespace echofs::v1

namespace echofs {

// Of lease.proto.
inline constexpr std::uint32_t kLeaseProtocolVersion = 1;

void ToMessage(const LeaseRecord& record, v1::LeaseRecord* message);
void ToMessage(const NodeAnnouncement& node, v1::NodeAnnouncement* message);
void ToMessage(const LeaseState& state, v1::LeaseState* message);

LeaseRecord FromMessage(const v1::LeaseRecord& message);
NodeAnnouncement FromMessage(const v1::NodeAnnouncement& message);
LeaseState FromMessage(const v1::LeaseState& message);

// Whole milliseconds, rounded up: what is granted is never less than what was asked for.
std::uint64_t ToMilliseconds(absl::Duration duration);
absl::Duration FromMilliseconds(std::uint64_t milliseconds);

}  // namespace echofs
