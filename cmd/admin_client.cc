#include "cmd/admin_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "cmd/admin_grpc.h"
#include "echofs/v1/admin.grpc.pb.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

// A node that works answers in milliseconds.
constexpr std::chrono::seconds kAnswerLimit{10};
constexpr std::chrono::minutes kListLimit{10};
// Longer than a node takes at most for a change of the primary with the usual lease.ttl: it waits a
// minute for the old primary, and half a minute for itself.
constexpr std::chrono::seconds kRoleChangeLimit{150};

DatabaseInfo Read(const v1::DatabaseStatus& from) {
  return {.name = from.name(),
          .txid = {from.txid()},
          .digest = from.digest(),
          .pages = from.pages(),
          .page_size = from.page_size(),
          .journal_mode = from.journal_mode(),
          .state = from.state(),
          .applied_index = {from.applied_index()},
          .blocked_by_pid = from.blocked_by_pid(),
          .blocked_for_ms = from.blocked_for_ms(),
          .copy_pages_done = from.copy_pages_done(),
          .copy_pages = from.copy_pages(),
          .detail = from.detail()};
}

ReplicaInfo Read(const v1::ReplicaStatus& from) {
  return {.node = from.node(),
          .address = from.address(),
          .acked_index = {from.acked_index()},
          .lag_ms = from.lag_ms(),
          .in_sync = from.in_sync()};
}

NodeInfo Read(const v1::ClusterNode& from) {
  NodeInfo info = {.node = from.node(),
                   .address = from.address(),
                   .candidate = from.candidate(),
                   .primary = from.primary(),
                   .in_sync = from.in_sync(),
                   .log_index = {from.log_index()},
                   .log_term = {from.log_term()},
                   .lag_ms = std::nullopt};
  if (from.has_lag_ms()) info.lag_ms = from.lag_ms();
  return info;
}

NodeStatus Read(const v1::GetStatusResponse& from) {
  NodeStatus status;
  status.node = from.node();
  status.role = from.role();
  status.ready = from.ready();
  status.term = {from.term()};
  status.primary = from.primary();
  status.log_index = {from.log_index()};
  status.log_term = {from.log_term()};
  status.in_sync.assign(from.in_sync().begin(), from.in_sync().end());
  for (const v1::DatabaseStatus& database : from.databases()) {
    status.databases.push_back(Read(database));
  }
  for (const v1::ReplicaStatus& replica : from.replicas()) status.replicas.push_back(Read(replica));
  for (const v1::ClusterNode& node : from.nodes()) status.nodes.push_back(Read(node));
  status.cluster_id = from.cluster_id();
  status.last_error = from.last_error();
  status.log_first_index = {from.log_first_index()};
  status.log_size_bytes = from.log_size_bytes();
  status.version = from.version();
  status.pid = from.pid();
  status.orphans = from.orphans();
  status.rewinds = {from.rewound_databases(), from.rewound_pages(), from.rewound_bytes()};
  status.http = from.http();
  return status;
}

ChangeSetSummary Read(const v1::ChangeSetInfo& from) {
  return {.index = {from.index()},
          .term = {from.term()},
          .txid = {from.txid()},
          .kind = from.kind(),
          .timestamp_ms = from.timestamp_ms(),
          .pages = from.pages(),
          .bytes = from.bytes(),
          .page_count = from.page_count(),
          .digest = from.digest()};
}

OrphanInfo Read(const v1::OrphanSetInfo& from) {
  OrphanInfo info;
  info.id = from.id();
  info.common = {from.common_known(), {from.common_index()}, {}};
  info.first = {from.first_index()};
  info.last = {from.last_index()};
  info.term = {from.term()};
  info.primary = from.primary();
  info.primary_term = {from.primary_term()};
  info.kept_ms = from.kept_ms();
  info.change_sets = from.change_sets();
  info.bytes = from.bytes();
  info.damage = from.damage();
  for (const v1::OrphanSetInfo::Database& database : from.databases()) {
    info.databases[database.name()] = database.change_sets();
  }
  return info;
}

void SetLimit(std::chrono::seconds limit, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + limit);
}

absl::StatusOr<PrimaryInfo> Changed(const grpc::Status& status, const v1::PrimaryChanged& changed) {
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(
        fmt::format("the change of the primary did not end within {} s; it may still come to pass, "
                    "'echofs status' shows who is the primary",
                    kRoleChangeLimit.count()));
  }
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(status));
  return PrimaryInfo{changed.primary(), {changed.term()}};
}

}  // namespace

struct AdminClient::State {
  std::unique_ptr<v1::Admin::Stub> stub;
};

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Connect(const std::string& data_dir) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ConnectToNode(data_dir));
  auto state = std::make_unique<State>();
  state->stub = v1::Admin::NewStub(channel);
  return std::unique_ptr<AdminClient>(new AdminClient(std::move(state)));
}

AdminClient::AdminClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
AdminClient::~AdminClient() = default;

absl::StatusOr<NodeStatus> AdminClient::Status() {
  grpc::ClientContext context;
  SetLimit(kAnswerLimit, &context);
  v1::GetStatusResponse response;
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(state_->stub->GetStatus(&context, {}, &response)));
  return Read(response);
}

absl::StatusOr<std::vector<DatabaseInfo>> AdminClient::Databases() {
  grpc::ClientContext context;
  SetLimit(kAnswerLimit, &context);
  v1::ListDatabasesResponse response;
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(state_->stub->ListDatabases(&context, {}, &response)));
  std::vector<DatabaseInfo> databases;
  databases.reserve(static_cast<std::size_t>(response.databases_size()));
  for (const v1::DatabaseStatus& database : response.databases()) {
    databases.push_back(Read(database));
  }
  return databases;
}

absl::StatusOr<std::vector<std::string>> AdminClient::LocalFiles() {
  grpc::ClientContext context;
  SetLimit(kAnswerLimit, &context);
  v1::ListDatabasesRequest request;
  request.set_local(true);
  v1::ListDatabasesResponse response;
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(state_->stub->ListDatabases(&context, request, &response)));
  return std::vector<std::string>(response.local_files().begin(), response.local_files().end());
}

absl::Status AdminClient::ChangeSets(const std::string& database, const ChangeSetRange& range,
                                     const std::function<void(const ChangeSetSummary&)>& visit) {
  grpc::ClientContext context;
  SetLimit(kListLimit, &context);
  v1::ListChangeSetsRequest request;
  request.set_database(database);
  request.set_from_txid(range.from.value);
  request.set_limit(range.limit);
  const auto reader = state_->stub->ListChangeSets(&context, request);
  v1::ChangeSetInfo info;
  while (reader->Read(&info)) visit(Read(info));
  return FromAdminGrpc(reader->Finish());
}

absl::StatusOr<PrimaryInfo> AdminClient::Handoff(const std::string& to) {
  grpc::ClientContext context;
  SetLimit(kRoleChangeLimit, &context);
  v1::HandoffRequest request;
  request.set_to(to);
  v1::PrimaryChanged changed;
  return Changed(state_->stub->Handoff(&context, request, &changed), changed);
}

absl::StatusOr<PrimaryInfo> AdminClient::Promote(bool force) {
  grpc::ClientContext context;
  SetLimit(kRoleChangeLimit, &context);
  v1::PromoteRequest request;
  request.set_force(force);
  v1::PrimaryChanged changed;
  return Changed(state_->stub->Promote(&context, request, &changed), changed);
}

absl::StatusOr<std::vector<OrphanInfo>> AdminClient::Orphans() {
  grpc::ClientContext context;
  SetLimit(kListLimit, &context);
  const auto reader = state_->stub->ListOrphans(&context, {});
  std::vector<OrphanInfo> list;
  v1::OrphanSetInfo info;
  while (reader->Read(&info)) list.push_back(Read(info));
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(reader->Finish()));
  return list;
}

absl::Status AdminClient::ExportOrphans(
    const std::string& id, const std::function<absl::Status(const OrphanPiece&)>& visit) {
  grpc::ClientContext context;  // without a limit: it may be much, and its progress shows in files
  v1::ExportOrphansRequest request;
  request.set_id(id);
  const auto reader = state_->stub->ExportOrphans(&context, request);
  v1::OrphanPiece message;
  OrphanPiece piece;
  absl::Status visited;
  while (visited.ok() && reader->Read(&message)) {
    piece.begin = message.has_entry();
    if (piece.begin) {
      piece.database = message.entry().database();
      piece.txid = {message.entry().txid()};
      piece.drop = message.entry().drop();
    }
    piece.data = message.data();
    visited = visit(piece);
  }
  if (!visited.ok()) context.TryCancel();
  const absl::Status finished = FromAdminGrpc(reader->Finish());
  return visited.ok() ? finished : visited;
}

absl::StatusOr<std::uint64_t> AdminClient::DiscardOrphans(const std::string& id) {
  grpc::ClientContext context;
  SetLimit(kListLimit, &context);
  v1::DiscardOrphansRequest request;
  request.set_id(id);
  request.set_all(id.empty());
  v1::DiscardOrphansResponse response;
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(state_->stub->DiscardOrphans(&context, request, &response)));
  return response.sets();
}

}  // namespace echofs::cmd
