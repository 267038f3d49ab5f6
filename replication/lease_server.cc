#include "replication/lease_server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>
#include <vector>

#include "echofs/v1/lease.grpc.pb.h"
#include "replication/grpc_listen.h"
#include "replication/grpc_status.h"
#include "replication/lease_clusters.h"
#include "replication/lease_wire.h"
#include "replication/limited_log.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

using Context = grpc::ServerContext;

absl::Status CheckScope(const v1::LeaseScope& scope) {
  if (scope.cluster_id().size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError("the request has an oversized cluster id");
  }
  if (scope.protocol_version() == kLeaseProtocolVersion) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "the node speaks version {} of the protocol and the lease server version {}: run the same "
      "echofs on both",
      scope.protocol_version(), kLeaseProtocolVersion));
}

std::vector<std::string> Nodes(const google::protobuf::RepeatedPtrField<std::string>& nodes) {
  return {nodes.begin(), nodes.end()};
}

class GrpcLeaseService final : public v1::LeaseService::Service {
 public:
  GrpcLeaseService(LeaseClusters* clusters, std::shared_ptr<GrpcSecurity> security)
      : clusters_(clusters), security_(std::move(security)) {}

  const GrpcSecurity& security() const { return *security_; }

  grpc::Status Read(Context* context, const v1::LeaseReadRequest* request,
                    v1::LeaseState* reply) override {
    return Answer(*context, *request, reply, [](LeaseTable& table, absl::Duration now) {
      return absl::StatusOr<LeaseState>(table.Read(now));
    });
  }
  grpc::Status WaitForChange(Context* context, const v1::LeaseWaitRequest* request,
                             v1::LeaseState* reply) override {
    if (absl::Status bad = Check(*context, *request); !bad.ok()) return ToGrpcStatus(bad);
    const absl::StatusOr<LeaseState> state = clusters_->WaitForChange(
        request->scope().key(), request->version(), FromMilliseconds(request->timeout_ms()),
        [context] { return context->IsCancelled(); });
    if (state.ok()) ToMessage(*state, reply);
    return ToGrpcStatus(state.status());
  }
  grpc::Status Acquire(Context* context, const v1::LeaseAcquireRequest* request,
                       v1::LeaseRecord* reply) override {
    return Answer(*context, *request, reply, [request](LeaseTable& table, absl::Duration now) {
      return table.Acquire(request->node_id(), request->address(), request->revision(),
                           Nodes(request->in_sync()), FromMilliseconds(request->ttl_ms()), now);
    });
  }
  grpc::Status Renew(Context* context, const v1::LeaseRenewRequest* request,
                     v1::LeaseRecord* reply) override {
    return Answer(*context, *request, reply, [request](LeaseTable& table, absl::Duration now) {
      absl::StatusOr<LeaseRecord> renewed = table.Renew({request->term()}, request->node_id(),
                                                        FromMilliseconds(request->ttl_ms()), now);
      if (renewed.ok()) table.Bind(request->scope().cluster_id());
      return renewed;
    });
  }
  grpc::Status SetInSync(Context* context, const v1::LeaseSetInSyncRequest* request,
                         v1::LeaseRecord* reply) override {
    return Answer(*context, *request, reply, [request](LeaseTable& table, absl::Duration now) {
      return table.SetInSync({request->term()}, request->node_id(), request->revision(),
                             Nodes(request->in_sync()), now);
    });
  }
  grpc::Status Transfer(Context* context, const v1::LeaseTransferRequest* request,
                        v1::LeaseRecord* reply) override {
    return Answer(*context, *request, reply, [request](LeaseTable& table, absl::Duration now) {
      return table.Transfer({request->term()}, request->node_id(), request->target_id(),
                            request->target_address(), FromMilliseconds(request->ttl_ms()), now);
    });
  }
  grpc::Status Release(Context* context, const v1::LeaseReleaseRequest* request,
                       v1::LeaseReleaseResponse*) override {
    return Do(*context, *request, [request](LeaseTable& table, absl::Duration now) {
      return table.Release({request->term()}, request->node_id(), now);
    });
  }
  grpc::Status Announce(Context* context, const v1::LeaseAnnounceRequest* request,
                        v1::LeaseAnnounceResponse*) override {
    return Do(*context, *request, [request](LeaseTable& table, absl::Duration now) {
      return table.Announce(FromMessage(request->node()), FromMilliseconds(request->ttl_ms()), now);
    });
  }
  grpc::Status Withdraw(Context* context, const v1::LeaseWithdrawRequest* request,
                        v1::LeaseWithdrawResponse*) override {
    return Do(*context, *request, [request](LeaseTable& table, absl::Duration now) {
      return table.Withdraw(request->node_id(), now);
    });
  }

 private:
  template <class Request>
  absl::Status Check(const Context& context, const Request& request) {
    ECHOFS_RETURN_IF_ERROR(security_->CheckCaller(context));
    ECHOFS_RETURN_IF_ERROR(CheckScope(request.scope()));
    const std::string& cluster_id = request.scope().cluster_id();
    if (cluster_id.empty()) return absl::OkStatus();
    const std::string& key = request.scope().key();
    absl::Status fits = clusters_->Call(key, [&](LeaseTable& table, absl::Duration) {
      return table.CheckCluster(key, cluster_id);
    });
    if (absl::IsInvalidArgument(fits)) {
      refusals_.Warn(cluster_id, fmt::format("refused a call from {}: {}", context.peer(),
                                             std::string(fits.message())));
    }
    return fits;
  }
  template <class Request, class Function>
  grpc::Status Do(const Context& context, const Request& request, const Function& function) {
    if (absl::Status bad = Check(context, request); !bad.ok()) return ToGrpcStatus(bad);
    return ToGrpcStatus(clusters_->Call(request.scope().key(), function));
  }
  template <class Request, class Reply, class Function>
  grpc::Status Answer(const Context& context, const Request& request, Reply* reply,
                      const Function& function) {
    if (absl::Status bad = Check(context, request); !bad.ok()) return ToGrpcStatus(bad);
    const auto result = clusters_->Call(request.scope().key(), function);
    if (result.ok()) ToMessage(*result, reply);
    return ToGrpcStatus(result.status());
  }

  LeaseClusters* const clusters_;
  const std::shared_ptr<GrpcSecurity> security_;
  LimitedLog refusals_;
};

class LeaseServerImpl final : public LeaseServer {
 public:
  LeaseServerImpl(std::unique_ptr<LeaseClusters> clusters, std::shared_ptr<GrpcSecurity> security)
      : clusters_(std::move(clusters)), service_(clusters_.get(), std::move(security)) {}
  ~LeaseServerImpl() override { Stop(); }

  absl::Status Listen(const std::string& address) {
    ECHOFS_ASSIGN_OR_RETURN(listening_,
                            ListenWithGrpc(address, "--listen", service_.security(), &service_));
    return absl::OkStatus();
  }

  int port() const override { return listening_.port; }

  void Stop() override {
    if (listening_.server == nullptr) return;
    clusters_->Stop();
    listening_.server->Shutdown(std::chrono::system_clock::now());
    listening_.server->Wait();
  }

 private:
  const std::unique_ptr<LeaseClusters> clusters_;
  GrpcLeaseService service_;
  ListeningServer listening_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LeaseServer>> LeaseServer::Start(
    const std::string& listen, const std::string& store_path,
    std::shared_ptr<GrpcSecurity> security) {
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<LeaseClusters> clusters, LeaseClusters::Open(store_path));
  auto server = std::make_unique<LeaseServerImpl>(std::move(clusters), std::move(security));
  ECHOFS_RETURN_IF_ERROR(server->Listen(listen));
  return server;
}

}  // namespace echofs
