#include "replication/node.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/grpc_client.h"
#include "replication/grpc_server.h"
#include "replication/replica.h"
#include "replication/static_lease.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

// A static lease has no end; any will do.
constexpr absl::Duration kStaticLeaseTtl = absl::Seconds(10);

absl::Status StaticLeaseHasNoFailover() {
  return absl::FailedPreconditionError(
      "the lease is static: the configuration alone says who is primary (lease.primary). For "
      "failover and handoff set "
      "lease.type to etcd or service on all nodes");
}

}  // namespace

const char* NodeRoleName(NodeRole role) {
  switch (role) {
    case NodeRole::kNone:
      return "";
    case NodeRole::kPrimary:
      return "primary";
    case NodeRole::kReplica:
      return "replica";
    case NodeRole::kCandidate:
      return "candidate";
  }
  return "";
}

// Serves whatever role the node has at the moment.
class Node::Service final : public ReplicationService {
 public:
  explicit Service(Node* node) : node_(node) {}

  absl::Status Follow(FollowServerStream& stream) override {
    const std::shared_ptr<Primary> primary = node_->primary();
    return primary != nullptr ? primary->Follow(stream) : NotPrimary();
  }
  absl::Status FetchDatabase(const v1::FetchDatabaseRequest& request,
                             FetchServerStream& stream) override {
    const std::shared_ptr<Primary> primary = node_->primary();
    return primary != nullptr ? primary->FetchDatabase(request, stream) : NotPrimary();
  }
  absl::Status RequestHandoff(const v1::RequestHandoffRequest& request) override {
    if (node_->primary() == nullptr) return NotPrimary();
    ECHOFS_RETURN_IF_ERROR(node_->CheckCluster(request.cluster_id()));
    if (request.target().empty() || request.target().size() > kIdentitySizeMax) {
      return absl::InvalidArgumentError("the request names no node");
    }
    return node_->Handoff(request.target());
  }
  absl::Status ListPositions(const v1::ListPositionsRequest& request,
                             const std::function<bool(const v1::NodeDatabase&)>& write) override {
    return node_->ListPositions(request, write);
  }
  absl::Status ImportDatabase(ImportServerStream& stream,
                              v1::ImportDatabaseResponse* response) override {
    return node_->primary() != nullptr ? node_->ImportDatabase(stream, response) : NotPrimary();
  }

 private:
  absl::Status NotPrimary() const {
    const NodeStatus status = node_->status();
    return absl::UnavailableError(
        fmt::format("node {} is not the primary{}", status.node_id,
                    status.primary_address.empty() ? "" : ", that is " + status.primary_address));
  }

  Node* const node_;
};

Node::Node(NodeOptions options, ChangeLog* log, ApplyTarget* target, Storage* storage)
    : options_(std::move(options)),
      log_(log),
      target_(target),
      storage_(storage),
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
  ECHOFS_RETURN_IF_ERROR(options_.lease == nullptr ? StartWithStaticLease() : StartWithLease());
  maintenance_ = std::thread([this] { MaintenanceLoop(); });
  return absl::OkStatus();
}

absl::Status Node::StartWithStaticLease() {
  StaticLease lease(options_.lease_primary, options_.node_id, options_.advertise,
                    log_->last_term());
  ECHOFS_ASSIGN_OR_RETURN(const LeaseState state, lease.Read());
  const absl::StatusOr<LeaseRecord> acquired =
      lease.Acquire(options_.node_id, options_.advertise, state.record.revision, {options_.node_id},
                    kStaticLeaseTtl);
  if (acquired.ok()) {
    if (options_.fence != nullptr) options_.fence->OpenUntil(absl::InfiniteFuture());
    return TakeOver(acquired->term);
  }
  if (!absl::IsFailedPrecondition(acquired.status())) return acquired.status();
  ECHOFS_RETURN_IF_ERROR(StartReplica());
  Follow({Term{}, "", state.record.primary_address});
  return absl::OkStatus();
}

absl::Status Node::StartWithLease() {
  ECHOFS_RETURN_IF_ERROR(StartReplica());
  RoleOptions options;
  options.node_id = options_.node_id;
  options.address = options_.advertise;
  options.candidate = options_.candidate;
  options.ttl = options_.lease_ttl;
  options.min_sync_replicas = options_.min_sync_replicas;
  options.ack_timeout = options_.ack_timeout;
  driver_ = std::make_unique<RoleDriver>(options, options_.lease, options_.fence, options_.acks,
                                         static_cast<RoleEnvironment*>(this),
                                         static_cast<RoleHost*>(this));
  driver_->Start();
  return absl::OkStatus();
}

void Node::WaitSettled() {
  if (driver_ != nullptr && !driver_->WaitSettled(absl::Now() + kSettledMax)) {
    spdlog::warn("it is not known yet who is primary: going on as a replica");
  }
}

absl::Status Node::CheckOptions() const {
  if (options_.node_id.empty()) return absl::InvalidArgumentError("node.id is empty");
  if (options_.node_id.size() > kIdentitySizeMax || options_.advertise.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("node.id and grpc.advertise may have at most {} bytes", kIdentitySizeMax));
  }
  ECHOFS_CHECK(options_.lease == nullptr || options_.fence != nullptr);
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

void Node::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  // First who changes roles.
  if (driver_ != nullptr) driver_->Stop();
  if (const auto primary = this->primary()) primary->Stop();
  if (server_ != nullptr) server_->Stop();
  if (const auto replica = this->replica()) replica->Stop();
  if (maintenance_.joinable()) maintenance_.join();
}

absl::Status Node::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  if (driver_ != nullptr) driver_->Resign(absl::Now() + kResignMax);
  Shutdown();
  ECHOFS_RETURN_IF_ERROR(target_->SyncAll());
  return log_->Sync(log_->last_index());
}

absl::Status Node::Handoff(const std::string& target) {
  return driver_ != nullptr ? driver_->Handoff(target) : StaticLeaseHasNoFailover();
}

absl::Status Node::Promote(bool force) {
  if (driver_ == nullptr) return StaticLeaseHasNoFailover();
  const absl::Time deadline = absl::Now() + options_.lease_ttl + kTakeOverMax;
  std::string asked;  // the node that hands off to this one
  bool standing = false;
  absl::Duration wait = absl::ZeroDuration();
  while (!driver_->WaitLeading(std::min(deadline, absl::Now() + wait))) {
    wait = kStopCheckInterval;
    if (stopping()) return absl::CancelledError("this node is stopping");
    const RoleStatus role = driver_->status();
    const bool begun = standing || !asked.empty();
    if (!begun && (!role.lease_known || !role.lease_error.empty())) {
      return absl::UnavailableError(
          fmt::format("the lease service cannot be asked: {}", role.lease_error));
    }
    const LeaseRecord& record = role.lease.record;
    if (role.lease.held && record.primary_id != options_.node_id) {
      // Also one that was quicker than this node.
      if (record.primary_id != asked) ECHOFS_RETURN_IF_ERROR(RequestHandoff(record));
      asked = record.primary_id;
    } else if (!begun) {
      ECHOFS_RETURN_IF_ERROR(driver_->Promote(force));
      standing = true;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          "this node did not become the primary in time; `echofs status` and its log say why");
    }
  }
  return absl::OkStatus();
}

absl::Status Node::RequestHandoff(const LeaseRecord& record) const {
  v1::RequestHandoffRequest request;
  request.set_cluster_id(status().cluster_id);
  request.set_target(options_.node_id);
  const absl::Status asked =
      GrpcConnector()->Connect(record.primary_address)->RequestHandoff(request);
  if (asked.ok()) return asked;
  return absl::Status(asked.code(), fmt::format("{}, the primary, did not hand off: {}",
                                                record.primary_id, std::string(asked.message())));
}

std::shared_ptr<Primary> Node::primary() const {
  absl::MutexLock lock(&mutex_);
  return primary_;
}

std::shared_ptr<Replica> Node::replica() const {
  absl::MutexLock lock(&mutex_);
  return replica_;
}

bool Node::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
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
    status.primary_id = primary_id_;
    status.last_error = role_error_.empty() ? maintenance_error_ : role_error_;
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
    if (driver_ == nullptr) status.primary_id = of_replica.primary_id;
    status.connected = of_replica.connected;
    status.applied_index = of_replica.applied_index;
    status.lag_ms = of_replica.lag_ms;
    status.rewinds = of_replica.rewinds;
    status.databases = std::move(of_replica.databases);
    if (!of_replica.last_error.empty()) status.last_error = std::move(of_replica.last_error);
  }
  if (driver_ != nullptr) DescribeCluster(&status);
  absl::MutexLock lock(&mutex_);
  if (caught_up) ready_ = true;
  status.ready = ready_;
  return status;
}

void Node::DescribeCluster(NodeStatus* status) const {
  const RoleStatus role = driver_->status();
  const LeaseRecord& record = role.lease.record;
  status->in_sync = record.in_sync;
  status->lease_reachable = role.lease_known && role.lease_error.empty();
  status->lease_valid_for = role.valid_for;
  status->lease_age = role.age;
  if (status->role == NodeRole::kReplica &&
      (role.state == RoleState::kStanding || role.state == RoleState::kAcquiring ||
       role.state == RoleState::kTakingOver) &&
      role.ineligible_reason.empty()) {
    status->role = NodeRole::kCandidate;
  }
  if (status->term == Term{}) status->term = record.term;
  if (!role.lease_error.empty()) {
    status->last_error = fmt::format("the lease service cannot be asked: {}", role.lease_error);
  }
  for (const NodeAnnouncement& announcement : role.lease.nodes) {
    ClusterNode node;
    node.node_id = announcement.node_id;
    node.address = announcement.address;
    node.candidate = announcement.candidate;
    node.primary = role.lease.held && announcement.node_id == record.primary_id;
    node.in_sync = std::find(record.in_sync.begin(), record.in_sync.end(), node.node_id) !=
                   record.in_sync.end();
    node.position = announcement.position;
    if (node.node_id == options_.node_id) node.position = position();
    for (const FollowerStatus& follower : status->replicas) {
      if (follower.node != node.node_id) continue;
      node.lag_ms = follower.lag_ms;
      node.position = {log_->last_term(), follower.acked_index};
    }
    status->nodes.push_back(std::move(node));
  }
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
    if (absl::Now() < next && log_->size_bytes() < size + options_.maintenance_growth) continue;
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
