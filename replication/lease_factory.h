// From configuration to a lease.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replication/grpc_security.h"
#include "replication/lease.h"

namespace echofs {

enum class LeaseType { kStatic, kService, kEtcd };

// "static", "service", "etcd".
const char* LeaseTypeName(LeaseType type);

struct LeaseOptions {
  LeaseType type = LeaseType::kStatic;
  std::string node_id;
  std::string advertise;                                          // grpc.advertise of this node
  std::string primary;                                            // static: lease.primary
  Term last_term;                                                 // static: of this node's log
  std::vector<std::string> endpoints;                             // service, etcd: host:port
  std::string key;                                                // service, etcd: lease.key
  std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None();  // service, etcd
};

// Does not wait for the backend. InvalidArgument when the options do not fit together.
absl::StatusOr<std::unique_ptr<Lease>> MakeLease(const LeaseOptions& options);

}  // namespace echofs
