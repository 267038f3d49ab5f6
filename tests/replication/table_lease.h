// A lease service in the test's own process: the real rules (LeaseTable) on the real clock, which can be made
// unreachable for some nodes.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/boot_time.h"
#include "replication/lease.h"
#include "replication/lease_table.h"

namespace echofs {

// Thread-safe.
class TableLeaseService {
 public:
  // The lease as one node reaches it. Must not outlive the service.
  std::unique_ptr<Lease> ForNode(const std::string& node_id);
  // From now on calls of this node fail with Unavailable, or work again.
  void SetReachable(const std::string& node_id, bool reachable) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (reachable) {
      unreachable_.erase(node_id);
    } else {
      unreachable_.insert(node_id);
    }
  }
  LeaseState State() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return table_.Read(Now());
  }

 private:
  friend class TableLease;
  static absl::Duration Now() { return BootTime(); }

  absl::Mutex mutex_;
  LeaseTable table_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> unreachable_ ABSL_GUARDED_BY(mutex_);
};

class TableLease final : public Lease {
 public:
  TableLease(TableLeaseService* service, std::string node_id)
      : service_(service), node_id_(std::move(node_id)) {}

  absl::StatusOr<LeaseState> Read() override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Read(service_->Now());
  }
  absl::StatusOr<LeaseState> WaitForChange(std::uint64_t version, absl::Duration timeout) override {
    absl::MutexLock lock(&service_->mutex_);
    const absl::Time deadline = absl::Now() + timeout;
    while (true) {
      if (cancelled_) return absl::CancelledError("cancelled");
      if (absl::Status status = Check(); !status.ok()) return status;
      LeaseState state = service_->table_.Read(service_->Now());
      if (state.version != version || absl::Now() >= deadline) return state;
      const absl::Duration left = service_->table_.NextExpiry() - service_->Now();
      const auto changed = [this, version]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
        return cancelled_ || service_->table_.version() != version || !Check().ok();
      };
      service_->mutex_.AwaitWithTimeout(absl::Condition(&changed),
                                        std::min(left, deadline - absl::Now()));
    }
  }
  void Cancel() override {
    absl::MutexLock lock(&service_->mutex_);
    cancelled_ = true;
  }
  absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id, const std::string& address,
                                      std::uint64_t revision,
                                      const std::vector<std::string>& in_sync,
                                      absl::Duration ttl) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Acquire(node_id, address, revision, in_sync, ttl, service_->Now());
  }
  absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id,
                                    absl::Duration ttl) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Renew(term, node_id, ttl, service_->Now());
  }
  absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                        std::uint64_t revision,
                                        const std::vector<std::string>& in_sync) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.SetInSync(term, node_id, revision, in_sync, service_->Now());
  }
  absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                       const std::string& target_id,
                                       const std::string& target_address,
                                       absl::Duration ttl) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Transfer(term, node_id, target_id, target_address, ttl,
                                     service_->Now());
  }
  absl::Status Release(Term term, const std::string& node_id) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Release(term, node_id, service_->Now());
  }
  absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Announce(node, ttl, service_->Now());
  }
  absl::Status Withdraw(const std::string& node_id) override {
    absl::MutexLock lock(&service_->mutex_);
    if (absl::Status status = Check(); !status.ok()) return status;
    return service_->table_.Withdraw(node_id, service_->Now());
  }

 private:
  absl::Status Check() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
    return service_->unreachable_.count(node_id_) == 0
               ? absl::OkStatus()
               : absl::UnavailableError("the network is cut");
  }

  TableLeaseService* const service_;
  const std::string node_id_;
  bool cancelled_ = false;  // under the service's mutex
};

inline std::unique_ptr<Lease> TableLeaseService::ForNode(const std::string& node_id) {
  return std::make_unique<TableLease>(this, node_id);
}

}  // namespace echofs
