// The lease service (`echofs lease-server`): LeaseService of lease.proto over gRPC, for any number of clusters, with
// its state in one SQLite database. It may be killed at any moment; see lease_clusters.h.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "replication/grpc_security.h"

namespace echofs {

// Thread-safe.
class LeaseServer {
 public:
  // Listens on `listen` ("host:port"; port 0 takes any free one). `store_path`: the database, made when missing.
  // Errors are for people; an address that cannot be had is FailedPrecondition.
  static absl::StatusOr<std::unique_ptr<LeaseServer>> Start(
      const std::string& listen, const std::string& store_path,
      std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None());
  virtual ~LeaseServer() = default;

  virtual int port() const = 0;
  // Ends the calls that go on, and stops listening. Also done at destruction.
  virtual void Stop() = 0;
};

}  // namespace echofs
