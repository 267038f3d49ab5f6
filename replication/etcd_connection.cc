#include "replication/etcd_connection.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>

#include "etcd/rpc.grpc.pb.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

namespace pb = etcdserverpb;
using Endpoint = EndpointChannels::Endpoint;

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

absl::Status Failure(const Endpoint& endpoint, const grpc::Status& status) {
  const auto describe = [&](const std::string& what) {
    return fmt::format("etcd at {}: {}", endpoint.address, what);
  };
  switch (status.error_code()) {
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return absl::PermissionDeniedError(describe(fmt::format(
          "{}. echofs asks without a user: etcd's auth must be off", status.error_message())));
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::UnavailableError(describe("it does not answer in time"));
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnavailableError(describe("no etcd v3 answers there; correct lease.endpoints"));
    default:
      return absl::UnavailableError(describe(status.error_message()));
  }
}

// Runs `call(endpoint, context)` on one endpoint after the other until one does not fail.
template <class Function>
absl::Status Try(EndpointChannels* channels, EtcdConnection::Policy policy, const Function& call) {
  absl::Status result;
  // Once more than there are endpoints: the first failure may only tell of a connection that broke long ago.
  for (std::size_t i = 0; i < channels->size() + 1; ++i) {
    const Endpoint& endpoint = channels->current();
    grpc::Status status = channels->Connect(endpoint);
    const bool sent = status.ok();
    if (sent) status = call(endpoint);
    if (status.ok()) return absl::OkStatus();
    result = Failure(endpoint, status);
    if (!absl::IsUnavailable(result)) return result;
    channels->MoveOn(endpoint);
    if (sent && policy == EtcdConnection::kOnce) return result;
  }
  return result;
}

grpc::Status CallRange(const Endpoint& endpoint, const pb::RangeRequest& request,
                       pb::RangeResponse* response) {
  grpc::ClientContext context;
  SetDeadline(kLeaseCallTimeout, &context);
  return pb::KV::Stub(endpoint.channel).Range(&context, request, response);
}

grpc::Status CallKeepAlive(const Endpoint& endpoint, std::int64_t lease,
                           pb::LeaseKeepAliveResponse* response) {
  grpc::ClientContext context;
  SetDeadline(kLeaseCallTimeout, &context);
  pb::Lease::Stub stub(endpoint.channel);
  const auto stream = stub.LeaseKeepAlive(&context);
  pb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  stream->Write(request);
  stream->WritesDone();
  const bool answered = stream->Read(response);
  if (answered) context.TryCancel();
  const grpc::Status status = stream->Finish();
  if (answered) return grpc::Status::OK;
  return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "it ended the call") : status;
}

}  // namespace

absl::Status EtcdConnection::Range(const pb::RangeRequest& request, pb::RangeResponse* response) {
  return Try(&channels_, kRepeat,
             [&](const Endpoint& endpoint) { return CallRange(endpoint, request, response); });
}

absl::Status EtcdConnection::Txn(const pb::TxnRequest& request, Policy policy,
                                 pb::TxnResponse* response) {
  return Try(&channels_, policy, [&](const Endpoint& endpoint) {
    grpc::ClientContext context;
    SetDeadline(kLeaseCallTimeout, &context);
    return pb::KV::Stub(endpoint.channel).Txn(&context, request, response);
  });
}

absl::StatusOr<std::int64_t> EtcdConnection::Grant(absl::Duration ttl) {
  pb::LeaseGrantRequest request;
  request.set_ttl(absl::ToInt64Seconds(absl::Ceil(ttl, absl::Seconds(1))));
  pb::LeaseGrantResponse response;
  ECHOFS_RETURN_IF_ERROR(Try(&channels_, kRepeat, [&](const Endpoint& endpoint) {
    grpc::ClientContext context;
    SetDeadline(kLeaseCallTimeout, &context);
    return pb::Lease::Stub(endpoint.channel).LeaseGrant(&context, request, &response);
  }));
  if (response.id() != 0 && response.ttl() >= request.ttl()) return response.id();
  return absl::UnavailableError(
      fmt::format("etcd gave no lease of {} s: {}", request.ttl(), response.error()));
}

void EtcdConnection::Revoke(std::int64_t lease) {
  pb::LeaseRevokeRequest request;
  request.set_id(lease);
  const Endpoint& endpoint = channels_.current();
  grpc::ClientContext context;
  SetDeadline(kLeaseCallTimeout, &context);
  pb::LeaseRevokeResponse response;
  pb::Lease::Stub(endpoint.channel).LeaseRevoke(&context, request, &response);
}

absl::StatusOr<std::int64_t> EtcdConnection::KeepAlive(std::int64_t lease) {
  pb::LeaseKeepAliveResponse response;
  ECHOFS_RETURN_IF_ERROR(Try(&channels_, kRepeat, [&](const Endpoint& endpoint) {
    return CallKeepAlive(endpoint, lease, &response);
  }));
  return response.ttl();
}

absl::StatusOr<std::int64_t> EtcdConnection::KeepAliveAndRange(std::int64_t lease,
                                                               const pb::RangeRequest& request,
                                                               pb::RangeResponse* response) {
  pb::LeaseKeepAliveResponse kept;
  ECHOFS_RETURN_IF_ERROR(Try(&channels_, kRepeat, [&](const Endpoint& endpoint) {
    if (grpc::Status status = CallKeepAlive(endpoint, lease, &kept); !status.ok()) return status;
    if (grpc::Status status = CallRange(endpoint, request, response); !status.ok()) return status;
    if (kept.header().raft_term() == response->header().raft_term()) return grpc::Status::OK;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "its leader changes");
  }));
  return kept.ttl();
}

absl::Status EtcdConnection::CheckNotCancelled() {
  absl::MutexLock lock(&mutex_);
  return cancelled_ ? absl::CancelledError("the lease is not watched any more") : absl::OkStatus();
}

absl::StatusOr<bool> EtcdConnection::WaitForEvent(const std::string& key,
                                                  const std::string& range_end,
                                                  std::int64_t revision, absl::Duration timeout) {
  const Endpoint& endpoint = channels_.current();
  if (const grpc::Status status = channels_.Connect(endpoint); !status.ok()) {
    channels_.MoveOn(endpoint);
    return Failure(endpoint, status);
  }
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  // A member that is cut off from the others says so instead of being silent.
  context.AddMetadata("hasleader", "true");
  ECHOFS_RETURN_IF_ERROR(CheckNotCancelled());
  {
    absl::MutexLock lock(&mutex_);
    watching_ = &context;
    if (cancelled_) context.TryCancel();
  }
  pb::Watch::Stub stub(endpoint.channel);
  const auto stream = stub.Watch(&context);
  pb::WatchRequest request;
  request.mutable_create_request()->set_key(key);
  request.mutable_create_request()->set_range_end(range_end);
  request.mutable_create_request()->set_start_revision(revision + 1);
  stream->Write(request);
  pb::WatchResponse response;
  bool changed = false;
  // Of what is compacted, events are not to be had: it has to be read anew.
  while (!changed && !response.canceled() && stream->Read(&response)) {
    changed = response.events_size() > 0 || response.compact_revision() > 0;
  }
  // Not a call that ended by itself: the reason for that would be lost.
  if (changed || response.canceled()) context.TryCancel();
  grpc::Status status = stream->Finish();
  if (response.canceled()) {
    status = grpc::Status(grpc::StatusCode::UNAVAILABLE,
                          "it ended the watch: " + response.cancel_reason());
  }
  {
    absl::MutexLock lock(&mutex_);
    watching_ = nullptr;
  }
  ECHOFS_RETURN_IF_ERROR(CheckNotCancelled());
  if (changed) return true;
  // The member knows the deadline too, and says so in this way when it is the quicker one.
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
      status.error_message() == "context deadline exceeded") {
    return false;
  }
  channels_.MoveOn(endpoint);
  return Failure(endpoint, status);
}

void EtcdConnection::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (watching_ != nullptr) watching_->TryCancel();
}

}  // namespace echofs
