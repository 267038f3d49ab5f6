// The composition of a node. Order of the start: data directory, log, recovery of the databases; then on a
// primary first the term, so that no commit can come before it, and on a replica first the mount, since the
// databases' locks are taken through it. The main thread only waits for signals: see DaemonFunction.
#include "cmd/daemon.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "cmd/admin_server.h"
#include "cmd/daemon_status.h"
#include "cmd/daemon_tools.h"
#include "cmd/data_directory.h"
#include "cmd/http_endpoints.h"
#include "cmd/http_server.h"
#include "cmd/import_process.h"
#include "cmd/version.h"
#include "fs/database_set.h"
#include "fs/file_system.h"
#include "fs/mount.h"
#include "replication/change_log.h"
#include "replication/failpoint.h"
#include "replication/grpc_security.h"
#include "replication/lease_factory.h"
#include "replication/node.h"
#include "replication/node_state.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

class Daemon {
 public:
  explicit Daemon(const DaemonContext& context)
      : context_(context),
        config_(context.config),
        endpoints_(config_, &metrics_, &fuse_metrics_) {}

  absl::Status Start();
  // Waits for SIGTERM or SIGINT, or for the end of the mount by other means.
  void Wait();
  void Stop();

 private:
  absl::Status OpenData();
  absl::Status StartHttp();
  absl::Status MakeLease();
  absl::Status StartMount();
  void LogStarted();
  void LogRole(const echofs::NodeStatus& status) const;
  fs::ControlSource ControlSourceOfNode();

  const DaemonContext& context_;
  const Config& config_;
  Metrics metrics_;
  fs::FuseMetrics fuse_metrics_;
  std::optional<DataDirectory> directory_;
  std::unique_ptr<ChangeLog> log_;
  std::uint64_t segment_size_ = 0;          // bytes
  std::shared_ptr<GrpcSecurity> security_;  // of grpc.listen, and of calls to other nodes
  std::unique_ptr<Lease> lease_;
  CommitFence fence_;
  std::unique_ptr<CommitAcks> acks_;  // with min-sync-replicas
  std::unique_ptr<fs::DatabaseSet> databases_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<fs::FileSystem> file_system_;
  std::unique_ptr<fs::Mount> mount_;
  std::unique_ptr<DaemonStatus> status_;
  std::unique_ptr<DaemonTools> tools_;
  std::unique_ptr<AdminServer> admin_;
  bool ready_logged_ = false;
  HttpEndpoints endpoints_;
  std::unique_ptr<HttpServer> http_;  // null when http.listen is off
  std::thread mount_watch_;           // turns the mount's end into a SIGTERM
};

constexpr std::uint64_t kSegmentSizeMin = 64 << 10;  // bytes
constexpr timespec kReadyPoll = {0, 200'000'000};

// Backing files, locks and segments are all open files.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status Daemon::OpenData() {
  NodeState state;
  absl::StatusOr<NodeState> loaded = LoadNodeState(*PosixStorage(), directory_->path());
  if (loaded.ok()) {
    state = *std::move(loaded);
  } else if (!absl::IsNotFound(loaded.status())) {
    return loaded.status();
  }
  ChangeLogOptions log_options;
  log_options.retention_size = config_.data.retention_size;
  log_options.retention_age = config_.data.retention_age;
  // Whole segments are removed, so they are small beside what is to be kept.
  log_options.segment_size =
      std::clamp(config_.data.retention_size / 16, kSegmentSizeMin, log_options.segment_size);
  segment_size_ = log_options.segment_size;
  ECHOFS_ASSIGN_OR_RETURN(log_, ChangeLog::Open(directory_->log(), log_options));

  fs::DatabaseSetOptions options;
  options.storage = PosixStorage();
  options.log = log_.get();
  options.root = directory_->files();
  options.mount_point = context_.mount_point;
  options.positions_file = directory_->applied();
  options.temporary_directory = directory_->temporary();
  options.read_only = !config_.IsPrimary();
  if (config_.lease.type != LeaseType::kStatic) options.fence = &fence_;
  if (config_.replication.min_sync_replicas > 0) {
    acks_ = std::make_unique<CommitAcks>(config_.replication.ack_timeout, &metrics_);
    options.acks = acks_.get();
    options.acknowledge_always = config_.replication.sync_always;
  }
  if (config_.replication.reader_timeout > absl::ZeroDuration()) {
    options.reader_timeout = config_.replication.reader_timeout;
  }
  options.metrics = &metrics_;
  options.was_replica = state.last_role == "replica";
  options.machine_crashed = !state.boot_id.empty() && state.boot_id != CurrentBootId();
  ECHOFS_ASSIGN_OR_RETURN(databases_, fs::DatabaseSet::Open(options));
  return absl::OkStatus();
}

fs::ControlSource Daemon::ControlSourceOfNode() {
  fs::ControlSource source;
  source.primary_name = [node = node_.get()] {
    const echofs::NodeStatus status = node->status();
    return status.role == NodeRole::kPrimary ? std::string() : status.primary_id;
  };
  source.lag_ms = [node = node_.get()]() -> std::int64_t {
    const echofs::NodeStatus status = node->status();
    if (status.role == NodeRole::kPrimary) return 0;
    return status.lag_ms ? static_cast<std::int64_t>(*status.lag_ms) : -1;
  };
  return source;
}

// Before recovery and the term: a port that cannot be had costs nothing.
absl::Status Daemon::StartHttp() {
  if (config_.http.listen.empty()) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(http_, HttpServer::Listen(config_.http.listen, {}));
  http_->Serve(&endpoints_);
  spdlog::info("HTTP: http://{}/metrics, /health, /info, /events", http_->address());
  return absl::OkStatus();
}

absl::Status Daemon::MakeLease() {
  LeaseOptions options;
  options.type = config_.lease.type;
  options.node_id = config_.node.id;
  options.advertise = config_.grpc.advertise;
  options.endpoints = config_.lease.endpoints;
  options.key = config_.lease.key;
  // One watch of the same files, so that the log says once what happens to them.
  const SecurityOptions security = LeaseSecurity(config_);
  if (security == NodeSecurity(config_)) {
    options.security = security_;
  } else {
    ECHOFS_ASSIGN_OR_RETURN(options.security, GrpcSecurity::Make(security, TlsUse::kClient));
  }
  ECHOFS_ASSIGN_OR_RETURN(lease_, echofs::MakeLease(options));
  return absl::OkStatus();
}

absl::Status Daemon::StartMount() {
  file_system_ = std::make_unique<fs::FileSystem>(directory_->files(), databases_.get(),
                                                  PosixStorage(), ControlSourceOfNode());
  fs::MountOptions options;
  options.fuse_descriptor = context_.fuse_fd;
  options.mount_point = context_.mount_point;
  options.metrics = &fuse_metrics_;
  ECHOFS_ASSIGN_OR_RETURN(mount_, fs::Mount::Start(options, file_system_.get()));
  mount_watch_ = std::thread([this] {
    mount_->WaitUntilEnded();
    ::kill(getpid(), SIGTERM);
  });
  absl::Status started;
  std::thread([this, &started] {
    started = databases_->Start(mount_->page_cache(), context_.mount_point);
  }).join();
  return started;
}

absl::Status Daemon::Start() {
  ECHOFS_RETURN_IF_ERROR(ArmFailpointFromEnvironment());
  RaiseFileLimit();
  ECHOFS_ASSIGN_OR_RETURN(directory_, DataDirectory::Open(config_.data.dir));
  ECHOFS_RETURN_IF_ERROR(StartHttp());
  ECHOFS_RETURN_IF_ERROR(OpenData());
  NodeOptions options;
  options.data_directory = directory_->path();
  options.node_id = config_.node.id;
  options.listen = config_.grpc.listen;
  options.advertise = config_.grpc.advertise;
  options.lease_primary = config_.lease.primary;
  ECHOFS_ASSIGN_OR_RETURN(security_, GrpcSecurity::Make(NodeSecurity(config_), TlsUse::kNode));
  if (config_.lease.type != LeaseType::kStatic) {
    ECHOFS_RETURN_IF_ERROR(MakeLease());
    options.lease = lease_.get();
    options.fence = &fence_;
    options.acks = acks_.get();
  }
  options.min_sync_replicas = config_.replication.min_sync_replicas;
  options.candidate = config_.lease.candidate;
  options.lease_ttl = config_.lease.ttl;
  options.ack_timeout = config_.replication.ack_timeout;
  options.version = Version();
  options.maintenance_growth = segment_size_;
  options.metrics = &metrics_;
  options.import = [directory = directory_->path()](const ReceivedImport& import,
                                                    const std::function<bool()>& cancelled) {
    return RunImport(directory, import, cancelled);
  };
  options.security = security_;
  node_ = std::make_unique<Node>(options, log_.get(), databases_.get(), PosixStorage());
  if (!databases_->read_only()) ECHOFS_RETURN_IF_ERROR(node_->Start());
  ECHOFS_RETURN_IF_ERROR(StartMount());
  if (databases_->read_only()) ECHOFS_RETURN_IF_ERROR(node_->Start());
  status_ = std::make_unique<DaemonStatus>(node_.get(), log_.get(), databases_.get(),
                                           http_ ? http_->address() : "");
  if (http_) endpoints_.Started(status_.get(), log_.get(), &http_->metrics());
  tools_ = std::make_unique<DaemonTools>(node_.get(), log_.get(), databases_.get(),
                                         context_.mount_point);
  ECHOFS_ASSIGN_OR_RETURN(
      admin_, AdminServer::Start(AdminSocketPath(directory_->path()), status_.get(), tools_.get()));
  node_->WaitSettled();
  context_.ReportReady();
  LogStarted();
  return absl::OkStatus();
}

void Daemon::LogStarted() {
  if (!config_.grpc.listen.empty()) {
    spdlog::info("listens on {}, secured {}", config_.grpc.listen,
                 DescribeSecurity(NodeSecurity(config_)));
  }
  const echofs::NodeStatus status = node_->status();
  LogRole(status);
  ready_logged_ = status.ready;
}

void Daemon::LogRole(const echofs::NodeStatus& status) const {
  spdlog::info("{} is {} as {}{}: {} holds the databases of {}", config_.node.id,
               status.ready ? "ready" : "up", NodeRoleName(status.role),
               status.ready ? "" : ", not ready yet", context_.mount_point, directory_->path());
}

// Until a signal asks for the end. A node that was up before it was ready says here that it is.
void Daemon::Wait() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  while (sigtimedwait(&signals, nullptr, ready_logged_ ? nullptr : &kReadyPoll) < 0) {
    if (ready_logged_) continue;
    const echofs::NodeStatus status = node_->status();
    if (!status.ready) continue;
    LogRole(status);
    ready_logged_ = true;
  }
}

void Daemon::Stop() {
  const auto report = [](const absl::Status& status) {
    if (!status.ok()) spdlog::warn("while stopping: {}", std::string(status.message()));
  };
  endpoints_.Stopping();
  // On another thread: this one must not touch the mount, and the node's databases do. The servers after the
  // node, whose end is that of a handoff for which a command waits.
  std::thread([&] {
    if (node_) report(node_->Stop());
    admin_.reset();
    http_.reset();
    if (databases_) databases_->Stop();
  }).join();
  if (mount_) {
    report(context_.Unmount());
    mount_->Stop();
  }
  if (mount_watch_.joinable()) mount_watch_.join();
  mount_.reset();
  if (log_) report(log_->Sync(log_->last_index()));
}

}  // namespace

int RunDaemon(const DaemonContext& context) {
  // Debian's Abseil looks for deadlocks under one global lock, at every lock of every mutex. The tests of
  // the parts have that; here it would cost up to a tenth of the processor time.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  Daemon daemon(context);
  const absl::Status started = daemon.Start();
  if (started.ok()) {
    daemon.Wait();
    spdlog::info("stopping");
  } else {
    spdlog::error("{}", std::string(started.message()));
  }
  daemon.Stop();
  return started.ok() ? 0 : 1;
}

}  // namespace echofs::cmd
