// Starts a gRPC server of this program: limits, keepalive, and errors for people. Of the servers' .cc files alone, since
// it needs gRPC's headers.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "replication/grpc_security.h"

namespace echofs {

struct ListeningServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

// `setting`: what a person corrects when it cannot listen, such as "grpc.listen". Does not own `service`, which asks
// `security` about its callers.
absl::StatusOr<ListeningServer> ListenWithGrpc(const std::string& address,
                                               const std::string& setting,
                                               const GrpcSecurity& security,
                                               grpc::Service* service);

}  // namespace echofs
