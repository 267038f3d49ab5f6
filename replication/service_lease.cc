#include "replication/service_lease.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "echofs/v1/lease.grpc.pb.h"
#include "replication/endpoint_channels.h"
#include "replication/grpc_status.h"
#include "replication/lease_wire.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

using Stub = v1::LeaseService::Stub;

class ServiceLease final : public Lease {
 public:
  ServiceLease(const std::vector<std::string>& endpoints, std::string key,
               std::shared_ptr<GrpcSecurity> security)
      : key_(std::move(key)), channels_(endpoints, std::move(security)) {}

  void SetCluster(const std::string& cluster_id) override {
    absl::MutexLock lock(&mutex_);
    cluster_id_ = cluster_id;
  }
  absl::StatusOr<LeaseState> Read() override {
    v1::LeaseReadRequest request;
    return Ask<LeaseState, v1::LeaseState>(request, &Stub::Read, kRepeat);
  }

  absl::StatusOr<LeaseState> WaitForChange(std::uint64_t version, absl::Duration timeout) override;
  void Cancel() override;

  absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id, const std::string& address,
                                      std::uint64_t revision,
                                      const std::vector<std::string>& in_sync,
                                      absl::Duration ttl) override {
    v1::LeaseAcquireRequest request;
    request.set_node_id(node_id);
    request.set_address(address);
    request.set_revision(revision);
    request.mutable_in_sync()->Assign(in_sync.begin(), in_sync.end());
    request.set_ttl_ms(ToMilliseconds(ttl));
    return Ask<LeaseRecord, v1::LeaseRecord>(request, &Stub::Acquire, kOnce);
  }

  absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id,
                                    absl::Duration ttl) override {
    v1::LeaseRenewRequest request;
    request.set_term(term.value);
    request.set_node_id(node_id);
    request.set_ttl_ms(ToMilliseconds(ttl));
    return Ask<LeaseRecord, v1::LeaseRecord>(request, &Stub::Renew, kRepeat);
  }

  absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                        std::uint64_t revision,
                                        const std::vector<std::string>& in_sync) override {
    v1::LeaseSetInSyncRequest request;
    request.set_term(term.value);
    request.set_node_id(node_id);
    request.set_revision(revision);
    request.mutable_in_sync()->Assign(in_sync.begin(), in_sync.end());
    return Ask<LeaseRecord, v1::LeaseRecord>(request, &Stub::SetInSync, kRepeat);
  }

  absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                       const std::string& target_id,
                                       const std::string& target_address,
                                       absl::Duration ttl) override {
    v1::LeaseTransferRequest request;
    request.set_term(term.value);
    request.set_node_id(node_id);
    request.set_target_id(target_id);
    request.set_target_address(target_address);
    request.set_ttl_ms(ToMilliseconds(ttl));
    return Ask<LeaseRecord, v1::LeaseRecord>(request, &Stub::Transfer, kOnce);
  }

  absl::Status Release(Term term, const std::string& node_id) override {
    v1::LeaseReleaseRequest request;
    request.set_term(term.value);
    request.set_node_id(node_id);
    v1::LeaseReleaseResponse reply;
    return Call(request, &reply, &Stub::Release, kRepeat);
  }

  absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl) override {
    v1::LeaseAnnounceRequest request;
    ToMessage(node, request.mutable_node());
    request.set_ttl_ms(ToMilliseconds(ttl));
    v1::LeaseAnnounceResponse reply;
    return Call(request, &reply, &Stub::Announce, kRepeat);
  }

  absl::Status Withdraw(const std::string& node_id) override {
    v1::LeaseWithdrawRequest request;
    request.set_node_id(node_id);
    v1::LeaseWithdrawResponse reply;
    return Call(request, &reply, &Stub::Withdraw, kRepeat);
  }

 private:
  // A call whose effect is not known must not be repeated when its repetition would be refused: "nothing was changed"
  // would be a lie.
  enum Policy { kOnce, kRepeat };

  template <class Request>
  void SetScope(Request* request) const ABSL_LOCKS_EXCLUDED(mutex_) {
    request->mutable_scope()->set_protocol_version(kLeaseProtocolVersion);
    request->mutable_scope()->set_key(key_);
    absl::MutexLock lock(&mutex_);
    request->mutable_scope()->set_cluster_id(cluster_id_);
  }

  template <class Request, class Reply>
  absl::Status Call(Request& request, Reply* reply,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                    Policy policy);
  template <class Value, class Reply, class Request>
  absl::StatusOr<Value> Ask(Request& request,
                            grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                         Reply*),
                            Policy policy) {
    Reply reply;
    ECHOFS_RETURN_IF_ERROR(Call(request, &reply, method, policy));
    return FromMessage(reply);
  }

  const std::string key_;
  EndpointChannels channels_;
  mutable absl::Mutex mutex_;
  std::string cluster_id_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* waiting_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of WaitForChange
};

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

absl::Status Failure(const EndpointChannels::Endpoint& endpoint, const grpc::Status& status) {
  if (!IsEndpointFailure(status)) return FromGrpcStatus(status);
  return absl::UnavailableError(fmt::format(
      "the lease server at {} cannot be asked: {}", endpoint.address,
      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? "it does not answer in time"
                                                                 : status.error_message()));
}

template <class Request, class Reply>
absl::Status ServiceLease::Call(Request& request, Reply* reply,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Reply*),
                                Policy policy) {
  SetScope(&request);
  absl::Status result;
  // Once more than there are endpoints: the first failure may only tell of a connection that broke long ago.
  for (std::size_t i = 0; i < channels_.size() + 1; ++i) {
    const EndpointChannels::Endpoint& endpoint = channels_.current();
    grpc::Status status = channels_.Connect(endpoint);
    const bool sent = status.ok();
    if (sent) {
      Stub stub(endpoint.channel);
      grpc::ClientContext context;
      channels_.security().Authorize(&context);
      SetDeadline(kLeaseCallTimeout, &context);
      status = (stub.*method)(&context, request, reply);
      if (status.ok()) return absl::OkStatus();
    }
    result = Failure(endpoint, status);
    if (!absl::IsUnavailable(result)) return result;
    channels_.MoveOn(endpoint);
    if (sent && policy == kOnce) return result;
  }
  return result;
}

absl::StatusOr<LeaseState> ServiceLease::WaitForChange(std::uint64_t version,
                                                       absl::Duration timeout) {
  timeout = std::clamp(timeout, absl::ZeroDuration(), kLeaseWaitMax);
  v1::LeaseWaitRequest request;
  SetScope(&request);
  request.set_version(version);
  request.set_timeout_ms(ToMilliseconds(timeout));
  const EndpointChannels::Endpoint& endpoint = channels_.current();
  if (const grpc::Status status = channels_.Connect(endpoint); !status.ok()) {
    channels_.MoveOn(endpoint);
    return Failure(endpoint, status);
  }
  Stub stub(endpoint.channel);
  grpc::ClientContext context;
  channels_.security().Authorize(&context);
  SetDeadline(timeout + kLeaseCallTimeout, &context);
  const absl::Status cancelled = absl::CancelledError("the lease is not watched any more");
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return cancelled;
    waiting_ = &context;
  }
  v1::LeaseState reply;
  const grpc::Status status = stub.WaitForChange(&context, request, &reply);
  {
    absl::MutexLock lock(&mutex_);
    waiting_ = nullptr;
    if (cancelled_) return cancelled;
  }
  if (status.ok()) return FromMessage(reply);
  if (IsEndpointFailure(status)) channels_.MoveOn(endpoint);
  return Failure(endpoint, status);
}

void ServiceLease::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (waiting_ != nullptr) waiting_->TryCancel();
}

}  // namespace

std::unique_ptr<Lease> MakeServiceLease(const std::vector<std::string>& endpoints,
                                        const std::string& key,
                                        std::shared_ptr<GrpcSecurity> security) {
  return std::make_unique<ServiceLease>(endpoints, key, std::move(security));
}

}  // namespace echofs
