// The lease that configuration gives for ever: no failover. The node whose grpc.advertise equals
// lease.primary is the primary; with no lease.primary this node is a single primary.
//
// On that node the lease is free until Acquire, and from then on it is held without an end. On the others it is held by
// somebody of whom only the address is known: the record's term is zero and its primary_id is empty. Nodes do not see
// each other's announcements.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/lease.h"
#include "replication/lease_table.h"

namespace echofs {

class StaticLease final : public Lease {
 public:
  // `primary_address`: lease.primary; `node_id` and `advertise`: node.id and grpc.advertise of this node. Both
  // addresses may be empty. `last_term`: of this node's log; the first term given is the next one (R1), since nobody
  // else ever opens terms.
  StaticLease(std::string primary_address, std::string node_id, std::string advertise,
              Term last_term);

  absl::StatusOr<LeaseState> Read() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<LeaseState> WaitForChange(std::uint64_t version, absl::Duration timeout) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Cancel() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id, const std::string& address,
                                      std::uint64_t revision,
                                      const std::vector<std::string>& in_sync,
                                      absl::Duration ttl) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id,
                                    absl::Duration ttl) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                        std::uint64_t revision,
                                        const std::vector<std::string>& in_sync) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Unimplemented.
  absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                       const std::string& target_id,
                                       const std::string& target_address,
                                       absl::Duration ttl) override;
  absl::Status Release(Term term, const std::string& node_id) override ABSL_LOCKS_EXCLUDED(mutex_);
  // Do nothing.
  absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl) override;
  absl::Status Withdraw(const std::string& node_id) override;

 private:
  // FailedPrecondition when configuration names another node.
  absl::Status CheckIsPrimary() const;
  LeaseState State() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string primary_address_;
  const std::string node_id_;
  const std::string advertise_;
  const bool is_primary_;

  absl::Mutex mutex_;
  LeaseTable table_ ABSL_GUARDED_BY(mutex_);  // its clock stands still; unused on other nodes
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace echofs
