// The lease that configuration gives for ever: no failover. The node whose grpc.advertise equals
// lease.primary is the primary; with no lease.primary this node is a single primary.
#pragma once

#include <string>

#include "replication/lease.h"

namespace echofs {

class StaticLease final : public Lease {
 public:
  // `primary`: lease.primary; `advertise`: this node's grpc.advertise. Both may be empty.
  StaticLease(std::string primary, std::string advertise);

  absl::StatusOr<std::optional<LeaseRecord>> Current() override;
  // The term is the last one of the node's log plus one (R1): nobody else ever opens terms.
  absl::StatusOr<LeaseRecord> Acquire(const LeaseRequest& request) override;

 private:
  const std::string primary_;
  const std::string advertise_;
};

}  // namespace echofs
