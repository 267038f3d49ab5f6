#include "replication/grpc_server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "echofs/v1/replication.grpc.pb.h"
#include "replication/grpc_listen.h"
#include "replication/grpc_status.h"
#include "replication/status_macros.h"

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

class GrpcImportStream final : public ImportServerStream {
 public:
  using Stream = grpc::ServerReader<v1::ImportDatabaseRequest>;
  GrpcImportStream(grpc::ServerContext* context, Stream* stream)
      : context_(context), stream_(stream) {}

  bool Read(v1::ImportDatabaseRequest* request) override { return stream_->Read(request); }
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
  grpc::Status ListPositions(grpc::ServerContext*, const v1::ListPositionsRequest* request,
                             grpc::ServerWriter<v1::NodeDatabase>* writer) override {
    return ToGrpcStatus(service_->ListPositions(
        *request, [writer](const v1::NodeDatabase& database) { return writer->Write(database); }));
  }
  grpc::Status ImportDatabase(grpc::ServerContext* context, GrpcImportStream::Stream* stream,
                              v1::ImportDatabaseResponse* response) override {
    GrpcImportStream adapter(context, stream);
    return ToGrpcStatus(service_->ImportDatabase(adapter, response));
  }

 private:
  ReplicationService* const service_;
};

class GrpcServerImpl final : public GrpcServer {
 public:
  explicit GrpcServerImpl(ReplicationService* service) : service_(service) {}
  ~GrpcServerImpl() override { Stop(); }

  absl::Status Listen(const std::string& address) {
    ECHOFS_ASSIGN_OR_RETURN(listening_, ListenWithGrpc(address, "grpc.listen", &service_));
    return absl::OkStatus();
  }

  int port() const override { return listening_.port; }

  void Stop() override {
    if (listening_.server == nullptr || stopped_) return;
    stopped_ = true;
    listening_.server->Shutdown(std::chrono::system_clock::now());
    listening_.server->Wait();
  }

 private:
  GrpcReplicationService service_;
  ListeningServer listening_;
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
