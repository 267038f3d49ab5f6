#include "replication/static_lease.h"

#include <fmt/format.h>

#include <utility>

namespace echofs {

StaticLease::StaticLease(std::string primary, std::string advertise)
    : primary_(std::move(primary)), advertise_(std::move(advertise)) {}

absl::StatusOr<std::optional<LeaseRecord>> StaticLease::Current() {
  if (primary_.empty()) return std::nullopt;
  LeaseRecord record;
  record.primary_address = primary_;
  return record;
}

absl::StatusOr<LeaseRecord> StaticLease::Acquire(const LeaseRequest& request) {
  if (!primary_.empty() && primary_ != advertise_) {
    return absl::FailedPreconditionError(
        fmt::format("the configuration names {} as primary (lease.primary), and this node is {} "
                    "(grpc.advertise)",
                    primary_, advertise_.empty() ? "without an address" : advertise_));
  }
  LeaseRecord record;
  record.term = request.last_term.Next();
  record.primary_id = request.node_id;
  record.primary_address = request.address;
  record.in_sync = {request.node_id};
  return record;
}

}  // namespace echofs
