#include "cmd/admin_grpc.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "cmd/admin_socket.h"
#include "cmd/config.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr int kMessageSizeMax = 256 << 20;  // bytes: tens of thousands of databases

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectToNode(const std::string& data_dir) {
  const std::string path = AdminSocketPath(data_dir);
  const absl::Status probe = ProbeSocket(path);
  if (absl::IsNotFound(probe)) {
    return absl::UnavailableError(
        fmt::format("no echofs is running with the data directory {} ({}); start it with 'echofs "
                    "mount', or name the right "
                    "directory with --data-dir or --config",
                    data_dir, std::string(probe.message())));
  }
  if (absl::IsPermissionDenied(probe)) {
    return absl::PermissionDeniedError(
        fmt::format("may not talk to the node ({}); run this command as the user who runs echofs",
                    std::string(probe.message())));
  }
  ECHOFS_RETURN_IF_ERROR(probe);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageSizeMax);
  return grpc::CreateCustomChannel(GrpcAddress(path), grpc::InsecureChannelCredentials(),
                                   arguments);
}

grpc::Status ToAdminGrpc(const absl::Status& status) {
  const bool kept = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  const absl::StatusCode code = kept ? absl::StatusCode::kFailedPrecondition : status.code();
  return {static_cast<grpc::StatusCode>(code), std::string(status.message())};
}

absl::Status FromAdminGrpc(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return absl::OkStatus();
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::DeadlineExceededError(
          "the node does not answer; its process exists, look at its log to see what it is doing");
    case grpc::StatusCode::UNAVAILABLE:
      return absl::UnavailableError("the node went away during the call; look at its log");
    default:
      return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
  }
}

}  // namespace echofs::cmd
