// What a role change does to a node (RoleHost), in the order that a crash at any point survives. Taking over: the log
// is applied, the databases become a primary's while applications are still kept out, the term is opened and durable,
// the role is durable (in this order: see Term in ids.h), replicas are let in, and only then applications write.
// Stepping down: replicas are sent away, nothing is committed any more, the databases become a replica's, and the role
// is durable; what was committed and is in nobody else's log becomes orphans when the next primary is followed.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/failpoint.h"
#include "replication/node.h"
#include "replication/replica.h"
#include "replication/status_macros.h"

namespace echofs {

void Node::Follow(const echofs::Follow& primary) {
  std::shared_ptr<Replica> replica;
  {
    absl::MutexLock lock(&mutex_);
    replica = replica_;
    // The lease has a new term when who got it by a handoff takes it.
    if (primary_address_ != primary.address || primary_id_ != primary.primary_id) {
      spdlog::info("node {} is a replica of {}{}", options_.node_id,
                   primary.primary_id.empty() ? "" : primary.primary_id + " at ", primary.address);
    }
    primary_address_ = primary.address;
    primary_id_ = primary.primary_id;
  }
  if (replica != nullptr) replica->Follow(primary.address, primary.term);
}

void Node::StopFollowing() {
  std::shared_ptr<Replica> replica;
  {
    absl::MutexLock lock(&mutex_);
    replica = replica_;
    if (!primary_id_.empty()) {
      spdlog::info("node {} follows {} no longer, its log ends at entry {}", options_.node_id,
                   primary_id_, log_->last_index().value);
    }
    primary_address_.clear();
    primary_id_.clear();
  }
  if (replica != nullptr) replica->StopFollowing();
}

absl::Status Node::TakeOver(Term term) {
  if (const auto replica = this->replica()) {
    ECHOFS_RETURN_IF_ERROR(WaitApplied(*replica));
    replica->Stop();
    absl::MutexLock lock(&mutex_);
    replica_ = nullptr;
  }
  Failpoint("takeover.become_primary.before");
  ECHOFS_RETURN_IF_ERROR(target_->BecomePrimary(term));
  Failpoint("takeover.become_primary.after");
  target_leads_ = true;
  writers_stopped_ = true;
  ECHOFS_ASSIGN_OR_RETURN(PrimaryIdentity identity, MakeIdentity(term));
  ECHOFS_RETURN_IF_ERROR(OpenTerm(term));
  Failpoint("takeover.open_term.after");
  ECHOFS_RETURN_IF_ERROR(SaveRole(NodeRole::kPrimary));
  Failpoint("takeover.save_role.after");
  auto primary = std::make_shared<Primary>(std::move(identity), log_, target_, [this] {
    if (driver_ != nullptr) driver_->FollowersChanged();
  });
  {
    absl::MutexLock lock(&mutex_);
    primary_ = std::move(primary);
    primary_address_ = options_.advertise;
    primary_id_ = options_.node_id;
    role_ = NodeRole::kPrimary;
    role_error_.clear();
  }
  ECHOFS_RETURN_IF_ERROR(target_->ResumeWriters());
  Failpoint("takeover.resume.after");
  writers_stopped_ = false;
  spdlog::info("node {} is the primary, term {} from entry {} on", options_.node_id, term.value,
               log_->last_index().value);
  return absl::OkStatus();
}

absl::Status Node::WaitApplied(Replica& replica) {
  const absl::Time deadline = absl::Now() + kTakeOverMax;
  while (true) {
    absl::Status applied =
        replica.WaitApplied(std::min(deadline, absl::Now() + kStopCheckInterval));
    if (applied.ok() || absl::Now() >= deadline) return applied;
    if (stopping()) return absl::CancelledError("this node is stopping");
  }
}

absl::Status Node::SaveRole(NodeRole role) {
  return SaveState([role](NodeState& state) { state.last_role = NodeRoleName(role); });
}

absl::Status Node::JoinCluster(const std::string& cluster_id) {
  ECHOFS_RETURN_IF_ERROR(
      SaveState([&cluster_id](NodeState& state) { state.cluster_id = cluster_id; }));
  if (options_.lease != nullptr) options_.lease->SetCluster(cluster_id);
  return absl::OkStatus();
}

absl::Status Node::SaveState(const std::function<void(NodeState&)>& change) {
  absl::MutexLock saving(&saving_);
  NodeState state;
  {
    absl::MutexLock lock(&mutex_);
    state_.node_id = options_.node_id;
    state_.boot_id = CurrentBootId();
    change(state_);
    state = state_;
  }
  return SaveNodeState(*storage_, options_.data_directory, state);
}

absl::StatusOr<PrimaryIdentity> Node::MakeIdentity(Term term) {
  PrimaryIdentity identity;
  {
    absl::MutexLock lock(&mutex_);
    identity.cluster_id = state_.cluster_id;
  }
  if (identity.cluster_id.empty()) {
    // The lease's, where a person has made a node without data the primary of a cluster that there was.
    if (driver_ != nullptr) identity.cluster_id = driver_->status().lease.cluster_id;
    if (identity.cluster_id.empty()) {
      ECHOFS_ASSIGN_OR_RETURN(identity.cluster_id, NewClusterId());
      spdlog::info("this is the first primary of a new cluster, {}", identity.cluster_id);
    }
    // Before the term is opened: a log without a cluster's id beside it would be nobody's.
    ECHOFS_RETURN_IF_ERROR(JoinCluster(identity.cluster_id));
  }
  identity.node_id = options_.node_id;
  identity.address = options_.advertise;
  identity.version = options_.version;
  identity.term = term;
  identity.synchronous = options_.acks != nullptr;
  return identity;
}

// R1: the first entry of a primary opens its term. Durable before anything else of the term is made.
absl::Status Node::OpenTerm(Term term) {
  LogEntry entry;
  entry.kind = EntryKind::kOpenTerm;
  entry.term = term;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex index, log_->Append(entry, ByteView()));
  return log_->Sync(index);
}

absl::Status Node::StopWriters(absl::Duration patience) {
  Failpoint("stepdown.stop_writers.before");
  ECHOFS_RETURN_IF_ERROR(target_->StopWriters(absl::Now() + patience));
  Failpoint("stepdown.stop_writers.after");
  writers_stopped_ = true;
  return absl::OkStatus();
}

void Node::ResumeWriters() {
  const absl::Status resumed = target_->ResumeWriters();
  writers_stopped_ = false;
  if (!resumed.ok())
    spdlog::error("applications cannot write again: {}", std::string(resumed.message()));
}

void Node::StepDown(const std::string& reason) {
  spdlog::info("node {} is not the primary any more: {}", options_.node_id, reason);
  while (true) {
    const absl::Status status = TryStepDown();
    absl::MutexLock lock(&mutex_);
    role_error_ = std::string(status.message());
    if (status.ok()) return;
    // When its mount is gone, say. The next start recovers as after a crash.
    if (ending_) {
      spdlog::warn("this node ends without having become a replica: {}", role_error_);
      return;
    }
    spdlog::error("cannot become a replica yet, nothing is committed meanwhile: {}. Trying again",
                  role_error_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kStepDownRetry)) return;
  }
}

absl::Status Node::TryStepDown() {
  std::shared_ptr<Primary> primary;
  {
    absl::MutexLock lock(&mutex_);
    primary = std::move(primary_);
    primary_ = nullptr;
    primary_address_.clear();
    primary_id_.clear();
    role_ = NodeRole::kReplica;
  }
  if (primary != nullptr) primary->Stop();
  if (target_leads_) {
    if (!writers_stopped_) ECHOFS_RETURN_IF_ERROR(StopWriters(absl::ZeroDuration()));
    ECHOFS_RETURN_IF_ERROR(target_->BecomeReplica());
    Failpoint("stepdown.become_replica.after");
    target_leads_ = false;
    writers_stopped_ = false;
  }
  if (replica() == nullptr) ECHOFS_RETURN_IF_ERROR(StartReplica());
  Failpoint("stepdown.replica.after");
  return absl::OkStatus();
}

absl::Status Node::StartReplica() {
  ReplicaOptions options;
  {
    absl::MutexLock lock(&mutex_);
    options.cluster_id = state_.cluster_id;
  }
  if (options.cluster_id.empty() && log_->last_index().value > 0) {
    return absl::FailedPreconditionError(fmt::format(
        "{0}/node.json is missing, so it is not known to which cluster the log beside it belongs. "
        "Restore that file, or move {0} away to let this node join anew and copy every database",
        options_.data_directory));
  }
  ECHOFS_RETURN_IF_ERROR(SaveRole(NodeRole::kReplica));
  options.node_id = options_.node_id;
  options.address = options_.advertise;
  options.version = options_.version;
  options.metrics = options_.metrics;
  options.temporary_directory = options_.data_directory + "/tmp";
  options.storage = storage_;
  options.connector = connector_.get();
  options.orphans = orphans_.get();
  options.join_cluster = [this](const std::string& cluster_id) { return JoinCluster(cluster_id); };
  auto replica = std::make_shared<Replica>(std::move(options), log_, target_);
  {
    absl::MutexLock lock(&mutex_);
    replica_ = replica;
    role_ = NodeRole::kReplica;
  }
  return replica->Start();
}

// ---- RoleEnvironment ----

LogPosition Node::position() const {
  // The term first: of a log that grows meanwhile, less is said rather than more. What was recovered comes after all
  // of the term that was led, and not before what other nodes have of that.
  const Term term = LeaseTermOf(log_->last_term());
  return {term, log_->last_index()};
}

// What a commit waits for here is others: on this node it is durable before it waits, in a synced WAL or in the synced
// log (design D1, C4).
LogIndex Node::synced_index() const { return log_->last_index(); }

std::vector<FollowerProgress> Node::followers() const {
  std::vector<FollowerProgress> progress;
  const std::shared_ptr<Primary> primary = this->primary();
  if (primary == nullptr) return progress;
  for (const FollowerStatus& follower : primary->Followers()) {
    progress.push_back({follower.node, follower.address, follower.connected, follower.acked_index,
                        absl::Milliseconds(follower.lag_ms)});
  }
  return progress;
}

}  // namespace echofs
