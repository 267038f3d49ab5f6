#include "replication/lease_factory.h"

#include <fmt/format.h>

#include "replication/etcd_lease.h"
#include "replication/limits.h"
#include "replication/service_lease.h"
#include "replication/static_lease.h"

namespace echofs {

const char* LeaseTypeName(LeaseType type) {
  switch (type) {
    case LeaseType::kStatic:
      return "static";
    case LeaseType::kService:
      return "service";
    case LeaseType::kEtcd:
      return "etcd";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Lease>> MakeLease(const LeaseOptions& options) {
  if (options.type == LeaseType::kStatic) {
    return std::make_unique<StaticLease>(options.primary, options.node_id, options.advertise,
                                         options.last_term);
  }
  if (options.endpoints.empty() || options.endpoints.size() > kLeaseEndpointsMax) {
    return absl::InvalidArgumentError(fmt::format("lease.type {} needs 1 to {} lease.endpoints",
                                                  LeaseTypeName(options.type), kLeaseEndpointsMax));
  }
  if (options.key.empty() || options.key.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("lease.key must have 1 to {} bytes", kIdentitySizeMax));
  }
  return options.type == LeaseType::kService
             ? MakeServiceLease(options.endpoints, options.key, options.security)
             : MakeEtcdLease(options.endpoints, options.key, options.security);
}

}  // namespace echofs
