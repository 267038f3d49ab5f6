// The lease as `echofs lease-server` keeps it, over gRPC. Several endpoints are several ways to one server; they are
// tried in turn.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "replication/grpc_security.h"
#include "replication/lease.h"

namespace echofs {

// `endpoints`: "host:port", at least one; `key`: lease.key. Does not wait: a server that cannot be reached shows in the
// first call. Calls that can be repeated without harm are, on the next endpoint; Acquire and Transfer are not.
std::unique_ptr<Lease> MakeServiceLease(
    const std::vector<std::string>& endpoints, const std::string& key,
    std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None());

}  // namespace echofs
