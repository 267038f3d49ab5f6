#include "replication/etcd_lease.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "etcd/rpc.pb.h"
#include "replication/boot_time.h"
#include "replication/etcd_connection.h"
#include "replication/etcd_layout.h"
#include "replication/lease_table.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

namespace pb = etcdserverpb;

// How often a change of the holder's own is tried again that another of its own changes got in the way of.
constexpr int kConflictRetries = 5;

class EtcdLease final : public Lease {
 public:
  EtcdLease(const std::vector<std::string>& endpoints, const std::string& key,
            std::shared_ptr<GrpcSecurity> security)
      : key_(key), etcd_(endpoints, std::move(security)), layout_(key) {}

  void SetCluster(const std::string& cluster_id) override ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    cluster_id_ = cluster_id;
  }

  absl::StatusOr<LeaseState> Read() override {
    ECHOFS_ASSIGN_OR_RETURN(EtcdView view, ReadAll());
    return std::move(view.state);
  }
  absl::StatusOr<LeaseState> WaitForChange(std::uint64_t version, absl::Duration timeout) override;
  void Cancel() override { etcd_.Cancel(); }
  absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id, const std::string& address,
                                      std::uint64_t revision,
                                      const std::vector<std::string>& in_sync,
                                      absl::Duration ttl) override;
  absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id,
                                    absl::Duration ttl) override;
  absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                        std::uint64_t revision,
                                        const std::vector<std::string>& in_sync) override;
  absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                       const std::string& target_id,
                                       const std::string& target_address,
                                       absl::Duration ttl) override;
  absl::Status Release(Term term, const std::string& node_id) override;
  absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Withdraw(const std::string& node_id) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Announced {
    std::int64_t etcd_lease = 0;
    absl::Duration ttl;
  };

  // InvalidArgument when the lease is another cluster's.
  absl::StatusOr<EtcdView> ReadAll() ABSL_LOCKS_EXCLUDED(mutex_);
  std::string cluster_id() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return cluster_id_;
  }
  // Binds the lease to this node's cluster unless it is bound, or this node has none.
  absl::Status Bind(const EtcdView& view);
  // The view, if `node_id` holds the lease with `term` in it; else FailedPrecondition.
  absl::StatusOr<EtcdView> ReadAsHolder(Term term, const std::string& node_id);
  // Makes `record` the record and gives the lease to its primary, if all is as in `view`.
  absl::StatusOr<LeaseRecord> Give(const EtcdView& view, LeaseRecord record, absl::Duration ttl);
  // Attaches the holder to a new etcd lease, which lasts for `ttl`; false when the holder changed meanwhile.
  absl::StatusOr<bool> Reattach(const EtcdView& view, absl::Duration ttl);
  absl::StatusOr<std::int64_t> LeaseOfNode(const std::string& node_id, absl::Duration ttl)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckRoomForNode(const std::string& node_id);

  const std::string key_;
  EtcdConnection etcd_;
  const EtcdLayout layout_;
  absl::Mutex mutex_;
  std::string cluster_id_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Announced> announced_ ABSL_GUARDED_BY(mutex_);  // by this process
};

absl::Status NotHolder(Term term, const std::string& node_id, const LeaseState& state) {
  return absl::FailedPreconditionError(
      fmt::format("node {} does not hold the lease with term {}: {}", node_id, term.value,
                  DescribeLease(state.record, state.held)));
}

absl::StatusOr<EtcdView> EtcdLease::ReadAll() {
  pb::RangeRequest request;
  layout_.SetReadAll(&request);
  pb::RangeResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Range(request, &response));
  ECHOFS_ASSIGN_OR_RETURN(EtcdView view, layout_.Parse(response));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseCluster(key_, view.state.cluster_id, cluster_id()));
  return view;
}

absl::Status EtcdLease::Bind(const EtcdView& view) {
  const std::string own = cluster_id();
  if (own.empty() || !view.state.cluster_id.empty()) return absl::OkStatus();
  pb::TxnRequest request;
  layout_.PutCluster(own, &request);
  pb::TxnResponse response;
  // When another was quicker, the next call tells.
  return etcd_.Txn(request, EtcdConnection::kRepeat, &response);
}

absl::StatusOr<EtcdView> EtcdLease::ReadAsHolder(Term term, const std::string& node_id) {
  ECHOFS_ASSIGN_OR_RETURN(EtcdView view, ReadAll());
  if (!view.IsHolder(term, node_id)) return NotHolder(term, node_id, view.state);
  return view;
}

absl::StatusOr<LeaseState> EtcdLease::WaitForChange(std::uint64_t version, absl::Duration timeout) {
  const absl::Duration deadline = BootTime() + std::min(timeout, kLeaseWaitMax);
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(EtcdView view, ReadAll());
    const absl::Duration rest = deadline - BootTime();
    const bool over = view.state.version != version || rest <= absl::ZeroDuration();
    // Also when it is over: it may have been cancelled.
    ECHOFS_RETURN_IF_ERROR(etcd_.CheckNotCancelled());
    if (over) return std::move(view.state);
    const absl::StatusOr<bool> changed = etcd_.WaitForEvent(
        layout_.prefix(), EtcdLayout::EndOf(layout_.prefix()), view.store_revision, rest);
    ECHOFS_RETURN_IF_ERROR(changed.status());
  }
}

absl::StatusOr<LeaseRecord> EtcdLease::Give(const EtcdView& view, LeaseRecord record,
                                            absl::Duration ttl) {
  ECHOFS_ASSIGN_OR_RETURN(const std::int64_t etcd_lease, etcd_.Grant(ttl));
  pb::TxnRequest request;
  layout_.Expect(view, &request);
  layout_.PutRecord(record, &request);
  layout_.PutHolder({record.primary_id, record.primary_address, record.term, etcd_lease}, &request);
  pb::TxnResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Txn(request, EtcdConnection::kOnce, &response));
  if (!response.succeeded()) {
    etcd_.Revoke(etcd_lease);
    return absl::FailedPreconditionError("the lease was changed by another node at this moment");
  }
  if (view.holder.etcd_lease != 0) etcd_.Revoke(view.holder.etcd_lease);
  record.revision = static_cast<std::uint64_t>(response.header().revision());
  return record;
}

absl::StatusOr<LeaseRecord> EtcdLease::Acquire(const std::string& node_id,
                                               const std::string& address, std::uint64_t revision,
                                               const std::vector<std::string>& in_sync,
                                               absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(node_id, address));
  ECHOFS_RETURN_IF_ERROR(CheckInSync(in_sync));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  ECHOFS_ASSIGN_OR_RETURN(const EtcdView view, ReadAll());
  const LeaseState& state = view.state;
  const bool own = view.holder.node_id == node_id && view.holder.address == address;
  if (state.held && !own) {
    return absl::FailedPreconditionError(fmt::format("node {} cannot become primary: {}", node_id,
                                                     DescribeLease(state.record, true)));
  }
  if (state.record.revision != revision) {
    return absl::FailedPreconditionError(
        fmt::format("node {} saw revision {} of the lease, which is at {} by now: {}", node_id,
                    revision, state.record.revision, DescribeLease(state.record, state.held)));
  }
  LeaseRecord record;
  record.term = NextTerm(state);
  record.primary_id = node_id;
  record.primary_address = address;
  record.in_sync = SortedInSync(in_sync);
  return Give(view, std::move(record), ttl);
}

absl::StatusOr<bool> EtcdLease::Reattach(const EtcdView& view, absl::Duration ttl) {
  ECHOFS_ASSIGN_OR_RETURN(const std::int64_t etcd_lease, etcd_.Grant(ttl));
  pb::TxnRequest request;
  layout_.Expect(view, &request);
  EtcdHolder holder = view.holder;
  holder.etcd_lease = etcd_lease;
  layout_.PutHolder(holder, &request);
  pb::TxnResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Txn(request, EtcdConnection::kOnce, &response));
  etcd_.Revoke(response.succeeded() ? view.holder.etcd_lease : etcd_lease);
  return response.succeeded();
}

absl::StatusOr<LeaseRecord> EtcdLease::Renew(Term term, const std::string& node_id,
                                             absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  for (int i = 0; i < kConflictRetries; ++i) {
    ECHOFS_ASSIGN_OR_RETURN(const EtcdView before, ReadAsHolder(term, node_id));
    pb::RangeRequest request;
    layout_.SetReadAll(&request);
    pb::RangeResponse response;
    const std::int64_t etcd_lease = before.holder.etcd_lease;
    ECHOFS_ASSIGN_OR_RETURN(const std::int64_t seconds,
                            etcd_.KeepAliveAndRange(etcd_lease, request, &response));
    ECHOFS_ASSIGN_OR_RETURN(EtcdView after, layout_.Parse(response));
    if (!after.IsHolder(term, node_id)) return NotHolder(term, node_id, after.state);
    if (after.holder.etcd_lease != etcd_lease) continue;
    if (seconds == 0) {
      // The key is about to go.
      after.state.held = false;
      return NotHolder(term, node_id, after.state);
    }
    ECHOFS_RETURN_IF_ERROR(Bind(after));
    if (absl::Seconds(seconds) >= ttl) return std::move(after.state.record);
    ECHOFS_ASSIGN_OR_RETURN(const bool attached, Reattach(after, ttl));
    if (attached) return std::move(after.state.record);
  }
  return absl::UnavailableError("the holder of the lease changes all the time");
}

absl::StatusOr<LeaseRecord> EtcdLease::SetInSync(Term term, const std::string& node_id,
                                                 std::uint64_t revision,
                                                 const std::vector<std::string>& in_sync) {
  ECHOFS_RETURN_IF_ERROR(CheckInSync(in_sync));
  for (int i = 0; i < kConflictRetries; ++i) {
    ECHOFS_ASSIGN_OR_RETURN(EtcdView view, ReadAsHolder(term, node_id));
    LeaseRecord record = view.state.record;
    record.in_sync = SortedInSync(in_sync);
    if (record == view.state.record) return record;
    if (record.revision != revision) {
      return absl::FailedPreconditionError(
          fmt::format("node {} saw revision {} of the lease, which is at {} by now", node_id,
                      revision, record.revision));
    }
    pb::TxnRequest request;
    layout_.Expect(view, &request);
    layout_.PutRecord(record, &request);
    pb::TxnResponse response;
    // Sent again after it had its effect, it does nothing, and the next round finds what was asked for.
    ECHOFS_RETURN_IF_ERROR(etcd_.Txn(request, EtcdConnection::kRepeat, &response));
    if (!response.succeeded()) continue;
    record.revision = static_cast<std::uint64_t>(response.header().revision());
    return record;
  }
  return absl::UnavailableError("the lease changes all the time");
}

absl::StatusOr<LeaseRecord> EtcdLease::Transfer(Term term, const std::string& node_id,
                                                const std::string& target_id,
                                                const std::string& target_address,
                                                absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(target_id, target_address));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  ECHOFS_ASSIGN_OR_RETURN(const EtcdView view, ReadAsHolder(term, node_id));
  LeaseRecord record = view.state.record;
  record.term = NextLeaseTerm(term);
  record.primary_id = target_id;
  record.primary_address = target_address;
  return Give(view, std::move(record), ttl);
}

absl::Status EtcdLease::Release(Term term, const std::string& node_id) {
  ECHOFS_ASSIGN_OR_RETURN(const EtcdView view, ReadAll());
  if (!view.IsHolder(term, node_id)) return absl::OkStatus();
  pb::TxnRequest request;
  // Not the record's revision: a change of the in-sync set must not keep the lease.
  layout_.ExpectHolder(view, &request);
  layout_.RemoveHolder(&request);
  pb::TxnResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Txn(request, EtcdConnection::kRepeat, &response));
  if (response.succeeded()) etcd_.Revoke(view.holder.etcd_lease);
  return absl::OkStatus();
}

absl::Status EtcdLease::CheckRoomForNode(const std::string& node_id) {
  pb::RangeRequest request;
  request.set_key(layout_.nodes_prefix());
  request.set_range_end(EtcdLayout::EndOf(layout_.nodes_prefix()));
  request.set_count_only(true);
  pb::RangeResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Range(request, &response));
  if (response.count() < static_cast<std::int64_t>(kLeaseNodesMax)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} nodes are announced already, and a cluster may not have more: give node {} "
                  "another lease.key if it belongs to another cluster",
                  response.count(), node_id));
}

absl::StatusOr<std::int64_t> EtcdLease::LeaseOfNode(const std::string& node_id,
                                                    absl::Duration ttl) {
  Announced announced;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = announced_.find(node_id); found != announced_.end()) {
      announced = found->second;
    }
  }
  if (announced.etcd_lease != 0 && announced.ttl == ttl) {
    ECHOFS_ASSIGN_OR_RETURN(const std::int64_t seconds, etcd_.KeepAlive(announced.etcd_lease));
    if (seconds > 0) return announced.etcd_lease;
  }
  ECHOFS_RETURN_IF_ERROR(CheckRoomForNode(node_id));
  ECHOFS_ASSIGN_OR_RETURN(const std::int64_t granted, etcd_.Grant(ttl));
  absl::MutexLock lock(&mutex_);
  announced_[node_id] = {granted, ttl};
  return granted;
}

absl::Status EtcdLease::Announce(const NodeAnnouncement& node, absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckAnnouncement(node));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  if (!cluster_id().empty()) ECHOFS_RETURN_IF_ERROR(ReadAll().status());
  ECHOFS_ASSIGN_OR_RETURN(const std::int64_t etcd_lease, LeaseOfNode(node.node_id, ttl));
  pb::TxnRequest request;
  layout_.PutNode(node, etcd_lease, &request);
  pb::TxnResponse response;
  return etcd_.Txn(request, EtcdConnection::kRepeat, &response);
}

absl::Status EtcdLease::Withdraw(const std::string& node_id) {
  std::int64_t etcd_lease = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = announced_.find(node_id); found != announced_.end()) {
      etcd_lease = found->second.etcd_lease;
      announced_.erase(found);
    }
  }
  pb::TxnRequest request;
  layout_.RemoveNode(node_id, &request);
  pb::TxnResponse response;
  ECHOFS_RETURN_IF_ERROR(etcd_.Txn(request, EtcdConnection::kRepeat, &response));
  if (etcd_lease != 0) etcd_.Revoke(etcd_lease);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Lease> MakeEtcdLease(const std::vector<std::string>& endpoints,
                                     const std::string& key,
                                     std::shared_ptr<GrpcSecurity> security) {
  return std::make_unique<EtcdLease>(endpoints, key, std::move(security));
}

}  // namespace echofs
