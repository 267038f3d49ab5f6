#include "replication/grpc_listen.h"

#include <fmt/format.h>

#include "replication/limits.h"
#include "replication/listen_check.h"

namespace echofs {
namespace {

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

}  // namespace

absl::StatusOr<ListeningServer> ListenWithGrpc(const std::string& address,
                                               const std::string& setting,
                                               const GrpcSecurity& security,
                                               grpc::Service* service) {
  if (const std::string why = WhyNotListening(address, setting); !why.empty()) {
    return absl::FailedPreconditionError(fmt::format("cannot listen on {}: {}", address, why));
  }
  ListeningServer listening;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(kMessageSizeMax));
  builder.SetMaxSendMessageSize(static_cast<int>(kMessageSizeMax));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kKeepaliveInterval));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kKeepaliveTimeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(kKeepaliveInterval) / 2);
  // Otherwise a second process could share the port, and each would get some of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Callers that say nothing, and ever more of them, shall not take what others need.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(kHandshakeTimeout));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kConnectionCallsMax);
  builder.SetResourceQuota(grpc::ResourceQuota("server").SetMaxThreads(kServerThreadsMax));
  builder.AddListeningPort(address, security.server_credentials(), &listening.port);
  builder.RegisterService(service);
  listening.server = builder.BuildAndStart();
  if (listening.server != nullptr && listening.port != 0) return listening;
  return absl::FailedPreconditionError(
      fmt::format("cannot listen on {}: gRPC refused it, see its message above", address));
}

}  // namespace echofs
