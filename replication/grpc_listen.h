// Starts a gRPC server of this program: limits, keepalive, and errors for people. Of the servers' .cc files alone, since
// it needs gRPC's headers.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace echofs {

struct ListeningServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

// `setting`: what a person corrects when it cannot listen, such as "grpc.listen". Does not own `service`.
absl::StatusOr<ListeningServer> ListenWithGrpc(const std::string& address,
                                               const std::string& setting, grpc::Service* service);

}  // namespace echofs
