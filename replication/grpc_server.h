// The gRPC server of a node.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "replication/grpc_security.h"
#include "replication/transport.h"

namespace echofs {

// Serves one ReplicationService. Thread-safe.
class GrpcServer {
 public:
  // Listens on `address` ("host:port"; port 0 takes any free one) and serves `service`, which is
  // not owned and must outlive the server. An address that cannot be had is FailedPrecondition with
  // a message for people that names it.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      const std::string& address, ReplicationService* service,
      std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None());
  virtual ~GrpcServer() = default;

  // The port it listens on.
  virtual int port() const = 0;
  // Stops listening, cancels the calls that go on, waits until all have returned. Also done at
  // destruction.
  virtual void Stop() = 0;
};

}  // namespace echofs
