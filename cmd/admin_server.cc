#include "cmd/admin_server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "cmd/admin_grpc.h"
#include "cmd/admin_orphans.h"
#include "cmd/admin_socket.h"
#include "cmd/tools_service.h"
#include "cmd/version.h"
#include "echofs/v1/admin.grpc.pb.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::chrono::milliseconds kShutdownGrace{200};

void Fill(const DatabaseInfo& from, v1::DatabaseStatus* to) {
  to->set_name(from.name);
  to->set_txid(from.txid.value);
  to->set_digest(from.digest);
  to->set_pages(from.pages);
  to->set_page_size(from.page_size);
  to->set_journal_mode(from.journal_mode);
  to->set_state(from.state);
  to->set_applied_index(from.applied_index.value);
  to->set_blocked_by_pid(from.blocked_by_pid);
  to->set_blocked_for_ms(from.blocked_for_ms);
  to->set_copy_pages_done(from.copy_pages_done);
  to->set_copy_pages(from.copy_pages);
  to->set_detail(from.detail);
}

void Fill(const ReplicaInfo& from, v1::ReplicaStatus* to) {
  to->set_node(from.node);
  to->set_address(from.address);
  to->set_acked_index(from.acked_index.value);
  to->set_lag_ms(from.lag_ms);
  to->set_in_sync(from.in_sync);
}

void Fill(const NodeInfo& from, v1::ClusterNode* to) {
  to->set_node(from.node);
  to->set_address(from.address);
  to->set_candidate(from.candidate);
  to->set_primary(from.primary);
  to->set_in_sync(from.in_sync);
  to->set_log_index(from.log_index.value);
  to->set_log_term(from.log_term.value);
  if (from.lag_ms) to->set_lag_ms(*from.lag_ms);
}

void Fill(const NodeStatus& from, v1::GetStatusResponse* to) {
  to->set_node(from.node);
  to->set_role(from.role);
  to->set_ready(from.ready);
  to->set_term(from.term.value);
  to->set_primary(from.primary);
  to->set_log_index(from.log_index.value);
  to->set_log_term(from.log_term.value);
  for (const std::string& node : from.in_sync) to->add_in_sync(node);
  for (const DatabaseInfo& database : from.databases) Fill(database, to->add_databases());
  for (const ReplicaInfo& replica : from.replicas) Fill(replica, to->add_replicas());
  for (const NodeInfo& node : from.nodes) Fill(node, to->add_nodes());
  to->set_version(Version());
  to->set_cluster_id(from.cluster_id);
  to->set_last_error(from.last_error);
  to->set_log_first_index(from.log_first_index.value);
  to->set_log_size_bytes(from.log_size_bytes);
  to->set_pid(static_cast<std::uint64_t>(::getpid()));
  to->set_orphans(from.orphans);
  to->set_rewound_databases(from.rewinds.databases);
  to->set_rewound_pages(from.rewinds.pages);
  to->set_rewound_bytes(from.rewinds.bytes);
  to->set_http(from.http);
}

void Fill(const ChangeSetSummary& from, v1::ChangeSetInfo* to) {
  to->set_index(from.index.value);
  to->set_term(from.term.value);
  to->set_txid(from.txid.value);
  to->set_kind(from.kind);
  to->set_timestamp_ms(from.timestamp_ms);
  to->set_pages(from.pages);
  to->set_bytes(from.bytes);
  to->set_page_count(from.page_count);
  to->set_digest(from.digest);
}

grpc::Status Answer(const absl::StatusOr<PrimaryInfo>& primary, v1::PrimaryChanged* response) {
  if (!primary.ok()) return ToAdminGrpc(primary.status());
  response->set_primary(primary->node);
  response->set_term(primary->term.value);
  return grpc::Status::OK;
}

class Service final : public v1::Admin::Service {
 public:
  explicit Service(AdminSource* source) : source_(source) {}

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::GetStatusResponse* response) override {
    Fill(source_->Status(), response);
    return grpc::Status::OK;
  }

  grpc::Status ListDatabases(grpc::ServerContext*, const v1::ListDatabasesRequest* request,
                             v1::ListDatabasesResponse* response) override {
    if (request->local()) {
      for (const std::string& file : source_->LocalFiles()) response->add_local_files(file);
    } else {
      for (const DatabaseInfo& database : source_->Databases()) {
        Fill(database, response->add_databases());
      }
    }
    return grpc::Status::OK;
  }

  grpc::Status ListChangeSets(grpc::ServerContext*, const v1::ListChangeSetsRequest* request,
                              grpc::ServerWriter<v1::ChangeSetInfo>* writer) override {
    const ChangeSetRange range = {{request->from_txid()}, request->limit()};
    return ToAdminGrpc(
        source_->ChangeSets(request->database(), range, [writer](const ChangeSetSummary& summary) {
          v1::ChangeSetInfo info;
          Fill(summary, &info);
          return writer->Write(info);  // false when the client has gone
        }));
  }

  grpc::Status Handoff(grpc::ServerContext*, const v1::HandoffRequest* request,
                       v1::PrimaryChanged* response) override {
    return Answer(source_->Handoff(request->to()), response);
  }

  grpc::Status Promote(grpc::ServerContext*, const v1::PromoteRequest* request,
                       v1::PrimaryChanged* response) override {
    return Answer(source_->Promote(request->force()), response);
  }

  grpc::Status ListOrphans(grpc::ServerContext*, const v1::ListOrphansRequest*,
                           grpc::ServerWriter<v1::OrphanSetInfo>* writer) override {
    return ToAdminGrpc(SendOrphanList(*source_->Orphans(), [writer](const v1::OrphanSetInfo& info) {
      return writer->Write(info);
    }));
  }

  grpc::Status ExportOrphans(grpc::ServerContext*, const v1::ExportOrphansRequest* request,
                             grpc::ServerWriter<v1::OrphanPiece>* writer) override {
    return ToAdminGrpc(
        SendOrphans(*source_->Orphans(), request->id(),
                    [writer](const v1::OrphanPiece& piece) { return writer->Write(piece); }));
  }

  grpc::Status DiscardOrphans(grpc::ServerContext*, const v1::DiscardOrphansRequest* request,
                              v1::DiscardOrphansResponse* response) override {
    const absl::StatusOr<std::uint64_t> discarded =
        cmd::DiscardOrphans(*source_->Orphans(), request->id(), request->all());
    if (discarded.ok()) response->set_sets(*discarded);
    return ToAdminGrpc(discarded.status());
  }

 private:
  AdminSource* const source_;
};

absl::Status Failure(const std::string& what, const std::string& path) {
  return absl::InternalError(fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}

}  // namespace

struct AdminServer::State {
  State(AdminSource* source, ToolsSource* tools_source, std::string path)
      : service(source), socket_path(std::move(path)) {
    if (tools_source != nullptr) tools = MakeToolsService(tools_source);
  }

  Service service;
  std::unique_ptr<grpc::Service> tools;
  const std::string socket_path;
  std::unique_ptr<grpc::Server> server;
};

// The socket is made inside a directory that nobody else can enter, gets its mode there, and is
// moved to its place: at no moment is it open to others. The process's umask is not touched, for
// other threads create files.
absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const std::string& socket_path,
                                                                AdminSource* source,
                                                                ToolsSource* tools) {
  const absl::Status probe = ProbeSocket(socket_path);
  if (probe.ok()) {
    return absl::AlreadyExistsError(fmt::format(
        "another echofs is running with this data directory: it listens on {}", socket_path));
  }
  if (!absl::IsNotFound(probe)) return probe;

  // Shorter than the socket's own name, so that it fits whenever that does.
  const std::string directory = socket_path.substr(0, socket_path.rfind('/')) + "/.admin";
  const std::string made_path = directory + "/s";
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return Failure("create", directory);
  if (::chmod(directory.c_str(), 0700) != 0) return Failure("change the mode of", directory);

  auto state = std::make_unique<State>(source, tools, socket_path);
  grpc::ServerBuilder builder;
  int bound = 0;
  builder.AddListeningPort(GrpcAddress(made_path), grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(&state->service);
  if (state->tools) builder.RegisterService(state->tools.get());
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 1);
  state->server = builder.BuildAndStart();
  if (!state->server || bound == 0) {
    return absl::InternalError(fmt::format("cannot listen on the unix socket {}", made_path));
  }
  if (::chmod(made_path.c_str(), 0600) != 0) return Failure("change the mode of", made_path);
  if (::rename(made_path.c_str(), socket_path.c_str()) != 0) return Failure("create", socket_path);
  ::rmdir(directory.c_str());
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(state)));
}

AdminServer::AdminServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

AdminServer::~AdminServer() {
  ::unlink(state_->socket_path.c_str());
  state_->server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  state_->server->Wait();
}

}  // namespace echofs::cmd
