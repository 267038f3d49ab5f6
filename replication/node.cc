#include "replication/node.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/grpc_client.h"
#include "replication/grpc_server.h"
#include "replication/replica.h"
#include "replication/static_lease.h"
#include "replication/status_macros.h"

namespace echofs {

const char* NodeRoleName(NodeRole role) {
  switch (role) {
    case NodeRole::kNone:
      return "";
    case NodeRole::kPrimary:
      return "primary";
    case NodeRole::kReplica:
      return "replica";
  }
  return "";
}

// Serves whatever role the node has at the moment.
class Node::Service final : public ReplicationService {
 public:
  explicit Service(const Node* node) : node_(node) {}

  absl::Status Follow(FollowServerStream& stream) override {
    const std::shared_ptr<Primary> primary = node_->primary();
    return primary != nullptr ? primary->Follow(stream) : NotPrimary();
  }
  absl::Status FetchDatabase(const v1::FetchDatabaseRequest& request,
                             FetchServerStream& stream) override {
    const std::shared_ptr<Primary> primary = node_->primary();
    return primary != nullptr ? primary->FetchDatabase(request, stream) : NotPrimary();
  }

 private:
  absl::Status NotPrimary() const {
    const NodeStatus status = node_->status();
    return absl::UnavailableError(
        fmt::format("node {} is not the primary{}", status.node_id,
                    status.primary_address.empty() ? "" : ", that is " + status.primary_address));
  }

  const Node* const node_;
};

Node::Node(NodeOptions options, ChangeLog* log, ApplyTarget* target, Storage* storage)
    : options_(std::move(options)),
      log_(log),
      target_(target),
      storage_(storage),
      lease_(std::make_unique<StaticLease>(options_.lease_primary, options_.advertise)),
      service_(std::make_unique<Service>(this)) {}

Node::~Node() { Shutdown(); }

absl::Status Node::Start() {
  ECHOFS_RETURN_IF_ERROR(CheckOptions());
  ECHOFS_RETURN_IF_ERROR(LoadState());
  ECHOFS_ASSIGN_OR_RETURN(orphans_,
                          OrphanStore::Open(storage_, options_.data_directory + "/orphans"));
  // The server first: a port that cannot be had shall not cost a term.
  if (!options_.listen.empty()) {
    ECHOFS_ASSIGN_OR_RETURN(server_, GrpcServer::Start(options_.listen, service_.get()));
  }
  const absl::StatusOr<LeaseRecord> acquired = lease_->Acquire(
      {options_.node_id, options_.advertise, log_->last_term(), log_->last_index()});
  if (acquired.ok()) {
    ECHOFS_RETURN_IF_ERROR(BecomePrimary(*acquired));
  } else if (absl::IsFailedPrecondition(acquired.status())) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LeaseRecord> current, lease_->Current());
    if (!current) return acquired.status();
    ECHOFS_RETURN_IF_ERROR(BecomeReplica(current->primary_address));
  } else {
    return acquired.status();
  }
  maintenance_ = std::thread([this] { MaintenanceLoop(); });
  return absl::OkStatus();
}

absl::Status Node::CheckOptions() const {
  if (options_.node_id.empty()) return absl::InvalidArgumentError("node.id is empty");
  if (options_.node_id.size() > kIdentitySizeMax || options_.advertise.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("node.id and grpc.advertise may have at most {} bytes", kIdentitySizeMax));
  }
  return absl::OkStatus();
}

absl::Status Node::LoadState() {
  absl::StatusOr<NodeState> state = LoadNodeState(*storage_, options_.data_directory);
  if (!state.ok() && !absl::IsNotFound(state.status())) return state.status();
  absl::MutexLock lock(&mutex_);
  if (state.ok()) state_ = *std::move(state);
  if (!state_.node_id.empty() && state_.node_id != options_.node_id) {
    spdlog::warn("this node was called {} and is now called {}", state_.node_id, options_.node_id);
  }
  return absl::OkStatus();
}

absl::Status Node::SaveState(NodeRole role) {
  absl::MutexLock lock(&mutex_);
  state_.node_id = options_.node_id;
  state_.last_role = NodeRoleName(role);
  state_.boot_id = CurrentBootId();
  return SaveNodeState(*storage_, options_.data_directory, state_);
}

absl::Status Node::BecomePrimary(const LeaseRecord& lease) {
  PrimaryIdentity identity;
  {
    absl::MutexLock lock(&mutex_);
    if (state_.cluster_id.empty()) {
      ECHOFS_ASSIGN_OR_RETURN(state_.cluster_id, NewClusterId());
      spdlog::info("this is the first primary of a new cluster, {}", state_.cluster_id);
    }
    identity.cluster_id = state_.cluster_id;
  }
  ECHOFS_RETURN_IF_ERROR(SaveState(NodeRole::kPrimary));
  // R1: the first entry of a primary opens its term.
  LogEntry entry;
  entry.kind = EntryKind::kOpenTerm;
  entry.term = lease.term;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex index, log_->Append(entry, ByteView()));
  ECHOFS_RETURN_IF_ERROR(log_->Sync(index));

  identity.node_id = options_.node_id;
  identity.address = options_.advertise;
  identity.version = options_.version;
  identity.term = lease.term;
  spdlog::info("node {} is the primary, term {} from entry {} on", options_.node_id,
               lease.term.value, index.value);
  absl::MutexLock lock(&mutex_);
  primary_ = std::make_shared<Primary>(std::move(identity), log_, target_);
  primary_address_ = options_.advertise;
  role_ = NodeRole::kPrimary;
  return absl::OkStatus();
}

absl::Status Node::BecomeReplica(const std::string& primary_address) {
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
  ECHOFS_RETURN_IF_ERROR(SaveState(NodeRole::kReplica));
  options.node_id = options_.node_id;
  options.address = options_.advertise;
  options.version = options_.version;
  options.primary_address = primary_address;
  options.temporary_directory = options_.data_directory + "/tmp";
  options.storage = storage_;
  options.connector = GrpcConnector();
  options.orphans = orphans_.get();
  options.join_cluster = [this](const std::string& cluster_id) {
    {
      absl::MutexLock lock(&mutex_);
      state_.cluster_id = cluster_id;
    }
    return SaveState(NodeRole::kReplica);
  };
  spdlog::info("node {} is a replica of {}", options_.node_id, primary_address);
  auto replica = std::make_shared<Replica>(std::move(options), log_, target_);
  {
    absl::MutexLock lock(&mutex_);
    replica_ = replica;
    primary_address_ = primary_address;
    role_ = NodeRole::kReplica;
  }
  return replica->Start();
}

void Node::Shutdown() {
  std::shared_ptr<Primary> primary;
  std::shared_ptr<Replica> replica;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    primary = primary_;
    replica = replica_;
  }
  if (primary != nullptr) primary->Stop();
  if (server_ != nullptr) server_->Stop();
  if (replica != nullptr) replica->Stop();
  if (maintenance_.joinable()) maintenance_.join();
}

absl::Status Node::Stop() {
  Shutdown();
  ECHOFS_RETURN_IF_ERROR(target_->SyncAll());
  return log_->Sync(log_->last_index());
}

std::shared_ptr<Primary> Node::primary() const {
  absl::MutexLock lock(&mutex_);
  return primary_;
}

NodeRole Node::role() const {
  absl::MutexLock lock(&mutex_);
  return role_;
}

Term Node::term() const {
  absl::MutexLock lock(&mutex_);
  return primary_ != nullptr ? primary_->term() : Term{};
}

std::uint64_t Node::apply_memory_bytes_max() const {
  absl::MutexLock lock(&mutex_);
  return replica_ != nullptr ? replica_->memory_bytes_max() : 0;
}

int Node::port() const { return server_ != nullptr ? server_->port() : 0; }

NodeStatus Node::status() const {
  NodeStatus status;
  std::shared_ptr<Primary> primary;
  std::shared_ptr<Replica> replica;
  {
    absl::MutexLock lock(&mutex_);
    primary = primary_;
    replica = replica_;
    status.cluster_id = state_.cluster_id;
    status.role = role_;
    status.primary_address = primary_address_;
    status.last_error = maintenance_error_;
  }
  status.node_id = options_.node_id;
  status.log_first_index = log_->first_index();
  status.log_last_index = log_->last_index();
  status.log_last_term = log_->last_term();
  status.log_size_bytes = log_->size_bytes();
  if (orphans_ != nullptr) status.orphans = orphans_->change_sets();
  bool caught_up = false;
  if (primary != nullptr) {
    caught_up = true;
    status.term = primary->term();
    status.primary_id = options_.node_id;
    status.applied_index = status.log_last_index;
    status.replicas = primary->Followers();
  }
  if (replica != nullptr) {
    ReplicaStatus of_replica = replica->status();
    caught_up = of_replica.caught_up;
    status.term = of_replica.term;
    status.primary_id = of_replica.primary_id;
    status.connected = of_replica.connected;
    status.applied_index = of_replica.applied_index;
    status.lag_ms = of_replica.lag_ms;
    status.rewinds = of_replica.rewinds;
    status.databases = std::move(of_replica.databases);
    if (!of_replica.last_error.empty()) status.last_error = std::move(of_replica.last_error);
  }
  absl::MutexLock lock(&mutex_);
  if (caught_up) ready_ = true;
  status.ready = ready_;
  return status;
}

void Node::MaintenanceLoop() {
  absl::Time next = absl::Now() + options_.maintenance_interval;
  std::uint64_t size = log_->size_bytes();
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const absl::Duration tick = std::min(kMaintenanceTick, options_.maintenance_interval);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), tick)) return;
    }
    if (absl::Now() < next && log_->size_bytes() < size + kMaintenanceLogGrowth) continue;
    const absl::Status status = Maintain();
    next = absl::Now() + options_.maintenance_interval;
    size = log_->size_bytes();
    absl::MutexLock lock(&mutex_);
    if (!status.ok() && maintenance_error_ != status.message()) {
      spdlog::error("cannot release old log segments, trying again: {}",
                    std::string(status.message()));
    }
    maintenance_error_ = std::string(status.message());
  }
}

// L4: what the files hold durably need not be in the log any more, as far as this node is
// concerned.
absl::Status Node::Maintain() {
  std::shared_ptr<Replica> replica;
  {
    absl::MutexLock lock(&mutex_);
    replica = replica_;
  }
  // Taken before the sync: what is applied during it may not be durable.
  const LogIndex needed = replica != nullptr ? replica->needed_index() : log_->last_index().Next();
  if (needed != synced_files_) {
    ECHOFS_RETURN_IF_ERROR(target_->SyncAll());
    synced_files_ = needed;
  }
  return log_->Retain(needed);
}

}  // namespace echofs
