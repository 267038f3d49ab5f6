#include "replication/endpoint_channels.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const GrpcSecurity& security) {
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMessageSizeMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(kMessageSizeMax));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(kKeepaliveInterval));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(kKeepaliveTimeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, milliseconds(kReconnectDelayMin));
  // The time for one attempt to connect, in spite of its name.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, milliseconds(kLeaseCallTimeout));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, milliseconds(kLeaseReconnectDelayMax));
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, security.channel_credentials(), arguments);
}

// Of a channel whose attempt to connect has just failed: a call fails at once then, and its error has the reason. No server
// knows the method, should it be reached after all.
grpc::Status WhyNotConnected(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoMilliseconds(kReconnectDelayMin));
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const auto call = stub.PrepareUnaryCall(&context, "/echofs/none", grpc::ByteBuffer(), &queue);
  grpc::ByteBuffer reply;
  grpc::Status status;
  void* tag = nullptr;
  bool ok = false;
  call->StartCall();
  call->Finish(&reply, &status, nullptr);
  queue.Next(&tag, &ok);
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) return status;
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "there is no connection to it");
}

}  // namespace

EndpointChannels::EndpointChannels(const std::vector<std::string>& endpoints,
                                   std::shared_ptr<GrpcSecurity> security)
    : security_(std::move(security)) {
  ECHOFS_CHECK(!endpoints.empty());
  for (const std::string& address : endpoints) {
    endpoints_.push_back({address, MakeChannel(address, *security_)});
  }
}

EndpointChannels::~EndpointChannels() = default;

const EndpointChannels::Endpoint& EndpointChannels::current() const {
  absl::MutexLock lock(&mutex_);
  return endpoints_[current_];
}

grpc::Status EndpointChannels::Connect(const Endpoint& endpoint) const {
  const auto deadline =
      std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kLeaseConnectTimeout);
  grpc::Channel& channel = *endpoint.channel;
  grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
  bool tried = false;
  while (state != GRPC_CHANNEL_READY) {
    // A failure that is seen first is that of an earlier attempt.
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE && tried) {
      return WhyNotConnected(endpoint.channel);
    }
    tried |= state == GRPC_CHANNEL_CONNECTING;
    if (!channel.WaitForStateChange(state, deadline)) {
      if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) return WhyNotConnected(endpoint.channel);
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "a connection to it takes too long");
    }
    state = channel.GetState(true);
  }
  return grpc::Status::OK;
}

void EndpointChannels::MoveOn(const Endpoint& failed) {
  absl::MutexLock lock(&mutex_);
  if (&endpoints_[current_] == &failed) current_ = (current_ + 1) % endpoints_.size();
}

bool IsEndpointFailure(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace echofs
