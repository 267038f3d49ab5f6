// The calls of etcd's v3 API that the lease needs, with deadlines, and with the next endpoint when one fails.
//
// Errors: Unavailable when etcd cannot be asked or cannot do it now (no leader, no space); PermissionDenied when it
// wants a user. Nothing else: an answer that says no is no error here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/endpoint_channels.h"

namespace etcdserverpb {
class RangeRequest;
class RangeResponse;
class TxnRequest;
class TxnResponse;
}  // namespace etcdserverpb

namespace echofs {

// Thread-safe. Calls take some seconds at most.
class EtcdConnection {
 public:
  // Whether a call may be sent again when its effect is not known.
  enum Policy { kOnce, kRepeat };

  // Of `security` TLS is used, not the token.
  EtcdConnection(const std::vector<std::string>& endpoints, std::shared_ptr<GrpcSecurity> security)
      : channels_(endpoints, std::move(security)) {}

  absl::Status Range(const etcdserverpb::RangeRequest& request,
                     etcdserverpb::RangeResponse* response);
  absl::Status Txn(const etcdserverpb::TxnRequest& request, Policy policy,
                   etcdserverpb::TxnResponse* response);

  // A new etcd lease of `ttl`, in whole seconds, rounded up; etcd may give more. Its id.
  absl::StatusOr<std::int64_t> Grant(absl::Duration ttl);
  // Ends an etcd lease and with it its keys. When it fails, the lease ends by itself.
  void Revoke(std::int64_t lease);
  // The seconds that the etcd lease has from now on; 0 when it is over.
  absl::StatusOr<std::int64_t> KeepAlive(std::int64_t lease);
  // KeepAlive, then Range, by one leader of etcd that was it all the time. A leader that is replaced and does not know
  // it yet would accept a KeepAlive of which the new one does not hear; it cannot answer the Range. That nobody took
  // over in between is seen by etcd's raft term, which is the same in both answers: the one of KeepAlive has that from
  // before.
  absl::StatusOr<std::int64_t> KeepAliveAndRange(std::int64_t lease,
                                                 const etcdserverpb::RangeRequest& request,
                                                 etcdserverpb::RangeResponse* response);

  // Waits until a key in [key, range_end) changes after `revision`, or may have changed, at most for `timeout`. False
  // after that. Cancelled after Cancel.
  absl::StatusOr<bool> WaitForEvent(const std::string& key, const std::string& range_end,
                                    std::int64_t revision, absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckNotCancelled() ABSL_LOCKS_EXCLUDED(mutex_);
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  EndpointChannels channels_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* watching_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace echofs
