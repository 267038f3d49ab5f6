#include "replication/static_lease.h"

#include <fmt/format.h>

#include <utility>

#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr absl::Duration kNow = absl::ZeroDuration();

}  // namespace

StaticLease::StaticLease(std::string primary_address, std::string node_id, std::string advertise,
                         Term last_term)
    : primary_address_(std::move(primary_address)),
      node_id_(std::move(node_id)),
      advertise_(std::move(advertise)),
      is_primary_(primary_address_.empty() || primary_address_ == advertise_) {
  LeaseTenure tenure;
  tenure.record.term = last_term;
  absl::MutexLock lock(&mutex_);
  table_.Restore(tenure, kNow);
}

absl::Status StaticLease::CheckIsPrimary() const {
  if (is_primary_) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "the configuration names {} as primary (lease.primary), and this node, {}, is {} "
      "(grpc.advertise)",
      primary_address_, node_id_, advertise_.empty() ? "without an address" : advertise_));
}

LeaseState StaticLease::State() {
  LeaseState state = table_.Read(kNow);
  if (!is_primary_) {
    state.record = LeaseRecord();
    state.record.primary_address = primary_address_;
    state.held = true;
  }
  return state;
}

absl::StatusOr<LeaseState> StaticLease::Read() {
  absl::MutexLock lock(&mutex_);
  return State();
}

absl::StatusOr<LeaseState> StaticLease::WaitForChange(std::uint64_t version,
                                                      absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto changed = [this, version]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_ || table_.version() != version;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&changed), timeout);
  if (cancelled_) return absl::CancelledError("the lease is not watched any more");
  return State();
}

void StaticLease::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
}

absl::StatusOr<LeaseRecord> StaticLease::Acquire(const std::string& node_id,
                                                 const std::string& address, std::uint64_t revision,
                                                 const std::vector<std::string>& in_sync,
                                                 absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckIsPrimary());
  absl::MutexLock lock(&mutex_);
  return table_.Acquire(node_id, address, revision, in_sync, ttl, kNow);
}

absl::StatusOr<LeaseRecord> StaticLease::Renew(Term term, const std::string& node_id,
                                               absl::Duration ttl) {
  ECHOFS_RETURN_IF_ERROR(CheckIsPrimary());
  absl::MutexLock lock(&mutex_);
  return table_.Renew(term, node_id, ttl, kNow);
}

absl::StatusOr<LeaseRecord> StaticLease::SetInSync(Term term, const std::string& node_id,
                                                   std::uint64_t revision,
                                                   const std::vector<std::string>& in_sync) {
  ECHOFS_RETURN_IF_ERROR(CheckIsPrimary());
  absl::MutexLock lock(&mutex_);
  return table_.SetInSync(term, node_id, revision, in_sync, kNow);
}

absl::StatusOr<LeaseRecord> StaticLease::Transfer(Term, const std::string&,
                                                  const std::string& target_id, const std::string&,
                                                  absl::Duration) {
  return absl::UnimplementedError(fmt::format(
      "node {} cannot become primary: lease.type is static, so the configuration decides who is. "
      "Set lease.primary to that node's grpc.advertise on every node and start them again, or use "
      "lease.type service or etcd",
      target_id));
}

absl::Status StaticLease::Release(Term term, const std::string& node_id) {
  absl::MutexLock lock(&mutex_);
  return table_.Release(term, node_id, kNow);
}

absl::Status StaticLease::Announce(const NodeAnnouncement&, absl::Duration) {
  return absl::OkStatus();
}

absl::Status StaticLease::Withdraw(const std::string&) { return absl::OkStatus(); }

}  // namespace echofs
