#include "replication/grpc_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "echofs/v1/replication.grpc.pb.h"
#include "replication/grpc_status.h"
#include "replication/limits.h"

namespace echofs {
namespace {

class GrpcFollowCall final : public FollowCall {
 public:
  explicit GrpcFollowCall(std::shared_ptr<v1::Replication::Stub> stub)
      : stub_(std::move(stub)), stream_(stub_->Follow(&context_)) {}
  ~GrpcFollowCall() override {
    if (finished_) return;
    context_.TryCancel();
    stream_->Finish();
  }

  bool Read(v1::FollowResponse* response) override { return stream_->Read(response); }
  bool Write(const v1::FollowRequest& request) override { return stream_->Write(request); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish() override {
    finished_ = true;
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  const std::shared_ptr<v1::Replication::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::FollowRequest, v1::FollowResponse>> stream_;
  bool finished_ = false;
};

class GrpcFetchCall final : public FetchCall {
 public:
  GrpcFetchCall(std::shared_ptr<v1::Replication::Stub> stub,
                const v1::FetchDatabaseRequest& request)
      : stub_(std::move(stub)), stream_(stub_->FetchDatabase(&context_, request)) {}
  ~GrpcFetchCall() override {
    if (finished_) return;
    context_.TryCancel();
    stream_->Finish();
  }

  bool Read(v1::FetchDatabaseResponse* response) override { return stream_->Read(response); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish() override {
    finished_ = true;
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  const std::shared_ptr<v1::Replication::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReader<v1::FetchDatabaseResponse>> stream_;
  bool finished_ = false;
};

class GrpcImportCall final : public ImportCall {
 public:
  explicit GrpcImportCall(std::shared_ptr<v1::Replication::Stub> stub)
      : stub_(std::move(stub)), writer_(stub_->ImportDatabase(&context_, &response_)) {}
  ~GrpcImportCall() override {
    if (finished_) return;
    context_.TryCancel();
    writer_->Finish();
  }

  bool Write(const v1::ImportDatabaseRequest& request) override { return writer_->Write(request); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish(v1::ImportDatabaseResponse* response) override {
    finished_ = true;
    writer_->WritesDone();
    absl::Status status = FromGrpcStatus(writer_->Finish());
    *response = response_;
    return status;
  }

 private:
  const std::shared_ptr<v1::Replication::Stub> stub_;
  grpc::ClientContext context_;
  v1::ImportDatabaseResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::ImportDatabaseRequest>> writer_;
  bool finished_ = false;
};

class GrpcPrimaryChannel final : public PrimaryChannel {
 public:
  explicit GrpcPrimaryChannel(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(static_cast<int>(kMessageSizeMax));
    arguments.SetMaxSendMessageSize(static_cast<int>(kMessageSizeMax));
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kKeepaliveInterval));
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kKeepaliveTimeout));
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowSize);
    // The time for one attempt to connect, in spite of its name.
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Milliseconds(kConnectTimeout));
    // Every channel has connections of its own: a new one tries at once, whatever others have seen.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = v1::Replication::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  std::unique_ptr<FollowCall> Follow() override { return std::make_unique<GrpcFollowCall>(stub_); }
  std::unique_ptr<FetchCall> FetchDatabase(const v1::FetchDatabaseRequest& request) override {
    return std::make_unique<GrpcFetchCall>(stub_, request);
  }
  absl::Status RequestHandoff(const v1::RequestHandoffRequest& request) override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoSeconds(kHandoffRequestMax));
    v1::RequestHandoffResponse response;
    return FromGrpcStatus(stub_->RequestHandoff(&context, request, &response));
  }

  absl::Status ListPositions(
      const v1::ListPositionsRequest& request,
      const std::function<absl::Status(const v1::NodeDatabase&)>& visit) override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoSeconds(kListPositionsMax));
    const auto reader = stub_->ListPositions(&context, request);
    v1::NodeDatabase database;
    absl::Status visited;
    while (visited.ok() && reader->Read(&database)) visited = visit(database);
    if (!visited.ok()) context.TryCancel();
    const absl::Status finished = FromGrpcStatus(reader->Finish());
    return visited.ok() ? finished : visited;
  }
  std::unique_ptr<ImportCall> ImportDatabase() override {
    return std::make_unique<GrpcImportCall>(stub_);
  }

 private:
  static int Milliseconds(absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  }

  std::shared_ptr<v1::Replication::Stub> stub_;
};

class GrpcConnectorImpl final : public Connector {
 public:
  std::unique_ptr<PrimaryChannel> Connect(const std::string& address) override {
    return std::make_unique<GrpcPrimaryChannel>(address);
  }
};

}  // namespace

Connector* GrpcConnector() {
  static auto* const connector = new GrpcConnectorImpl;
  return connector;
}

}  // namespace echofs
