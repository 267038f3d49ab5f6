// What the services on the commands' socket have in common, at both ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grpc {
class Channel;
class Status;
}  // namespace grpc

namespace echofs::cmd {

// To the node whose data directory this is. Unavailable when none is running there. Errors are for people.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectToNode(const std::string& data_dir);

// Two codes are kept for what gRPC itself says: that a node does not answer, or went away.
grpc::Status ToAdminGrpc(const absl::Status& status);
absl::Status FromAdminGrpc(const grpc::Status& status);

}  // namespace echofs::cmd
