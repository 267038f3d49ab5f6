#include "replication/grpc_server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "echofs/v1/replication.grpc.pb.h"
#include "replication/grpc_status.h"
#include "replication/limits.h"
#include "replication/listen_check.h"

namespace echofs {
namespace {

class GrpcFollowStream final : public FollowServerStream {
 public:
  using Stream = grpc::ServerReaderWriter<v1::FollowResponse, v1::FollowRequest>;
  GrpcFollowStream(grpc::ServerContext* context, Stream* stream)
      : context_(context), stream_(stream) {}

  bool Read(v1::FollowRequest* request) override { return stream_->Read(request); }
  bool Write(const v1::FollowResponse& response) override { return stream_->Write(response); }
  void Cancel() override { context_->TryCancel(); }
  bool cancelled() const override { return context_->IsCancelled(); }

 private:
  grpc::ServerContext* const context_;
  Stream* const stream_;
};

class GrpcFetchStream final : public FetchServerStream {
 public:
  using Stream = grpc::ServerWriter<v1::FetchDatabaseResponse>;
  GrpcFetchStream(grpc::ServerContext* context, Stream* stream)
      : context_(context), stream_(stream) {}

  bool Write(const v1::FetchDatabaseResponse& response) override {
    return stream_->Write(response);
  }
  void Cancel() override { context_->TryCancel(); }
  bool cancelled() const override { return context_->IsCancelled(); }

 private:
  grpc::ServerContext* const context_;
  Stream* const stream_;
};

class GrpcReplicationService final : public v1::Replication::Service {
 public:
  explicit GrpcReplicationService(ReplicationService* service) : service_(service) {}

  grpc::Status Follow(grpc::ServerContext* context, GrpcFollowStream::Stream* stream) override {
    GrpcFollowStream adapter(context, stream);
    return ToGrpcStatus(service_->Follow(adapter));
  }
  grpc::Status FetchDatabase(grpc::ServerContext* context, const v1::FetchDatabaseRequest* request,
                             GrpcFetchStream::Stream* stream) override {
    GrpcFetchStream adapter(context, stream);
    return ToGrpcStatus(service_->FetchDatabase(*request, adapter));
  }
  grpc::Status RequestHandoff(grpc::ServerContext*, const v1::RequestHandoffRequest* request,
                              v1::RequestHandoffResponse*) override {
    return ToGrpcStatus(service_->RequestHandoff(*request));
  }

 private:
  ReplicationService* const service_;
};

class GrpcServerImpl final : public GrpcServer {
 public:
  explicit GrpcServerImpl(ReplicationService* service) : service_(service) {}
  ~GrpcServerImpl() override { Stop(); }

  absl::Status Listen(const std::string& address) {
    if (const std::string why = WhyNotListening(address, "grpc.listen"); !why.empty()) {
      return absl::FailedPreconditionError(fmt::format("cannot listen on {}: {}", address, why));
    }
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(static_cast<int>(kMessageSizeMax));
    builder.SetMaxSendMessageSize(static_cast<int>(kMessageSizeMax));
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kKeepaliveInterval));
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kKeepaliveTimeout));
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               Milliseconds(kKeepaliveInterval) / 2);
    // Otherwise a second node could share the port, and each would get some of the calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ != nullptr && port_ != 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        fmt::format("cannot listen on {}: gRPC refused it, see its message above", address));
  }

  int port() const override { return port_; }

  void Stop() override {
    if (server_ == nullptr || stopped_) return;
    stopped_ = true;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

 private:
  static int Milliseconds(absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  }

  GrpcReplicationService service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const std::string& address,
                                                              ReplicationService* service) {
  auto server = std::make_unique<GrpcServerImpl>(service);
  if (absl::Status status = server->Listen(address); !status.ok()) return status;
  return server;
}

}  // namespace echofs
