// Two nodes in one process, each with a real mount, that change roles when they are told to: drives the role
// changes of DatabaseSet (design R4) as a cluster will, without lease and network.
//
//   role_nodes DIRECTORY PRIMARY    nodes DIRECTORY/a and DIRECTORY/b, each with mnt/ and data/; PRIMARY is "a" or "b"
//
// Reads commands from stdin, a line each, and answers each with a line: "handoff MS" (writers get so many
// milliseconds to finish) says "ok MS", how long writers were kept out; "handoff MS PID" kills that process, a writer which
// did not finish, in the middle of it; "state" says the position of every database
// on both nodes; "split MS" changes the roles without the entries since "pause", which only the old primary has then;
// "rejoin" lets that one follow the new one over a socket, as a node does, and says "ok" and how many databases were
// taken back, with how many pages, and how many change sets are kept as orphans; "end" unmounts. A failure ends the process with exit code 1. For root.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cmd/fuse_mount.h"
#include "fs/database_set.h"
#include "fs/file_system.h"
#include "fs/mount.h"
#include "replication/change_log.h"
#include "replication/grpc_client.h"
#include "replication/grpc_server.h"
#include "replication/orphan_store.h"
#include "replication/primary.h"
#include "replication/replica.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

void Check(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  spdlog::error("{}: {}", what, status.ToString());
  std::_Exit(1);
}

template <class T>
T Value(absl::StatusOr<T> value, const std::string& what) {
  Check(value.status(), what);
  return *std::move(value);
}

class TestNode {
 public:
  TestNode(const std::string& directory, bool primary)
      : directory_(directory), mount_(MountAt(directory + "/mnt")) {
    log_ = Value(ChangeLog::Open(directory + "/data/log", {}), "log");
    fs::DatabaseSetOptions options;
    options.storage = PosixStorage();
    options.log = log_.get();
    options.root = directory + "/data/files";
    options.positions_file = directory + "/data/applied";
    options.temporary_directory = directory + "/data/tmp";
    std::filesystem::create_directories(options.temporary_directory);
    options.read_only = !primary;
    options.was_replica = std::filesystem::exists(ReplicaMark());
    databases_ = Value(fs::DatabaseSet::Open(options), "databases");
    SaveRole();
    if (primary) OpenTerm(NextLeaseTerm(log_->last_term()));
    fs::ControlSource control;
    control.primary_name = [] { return std::string(); };
    control.lag_ms = [] { return 0; };
    files_ =
        std::make_unique<fs::FileSystem>(options.root, databases_.get(), PosixStorage(), control);
    fs::MountOptions mount;
    mount.fuse_descriptor = mount_.fd.Release();
    mount.mount_point = mount_.ref.mount_point;
    session_ = Value(fs::Mount::Start(mount, files_.get()), "mount");
    Check(databases_->Start(session_->page_cache(), mount_.ref.mount_point), "start");
  }

  ~TestNode() {
    databases_->Stop();
    Check(cmd::Unmount(mount_.ref), "unmount");
    session_->Stop();
  }

  void OpenTerm(Term term) {
    LogEntry entry;
    entry.kind = EntryKind::kOpenTerm;
    entry.term = term;
    Value(log_->Append(entry, {}), "term");
    databases_->SetTerm(term);
  }

  // As node.json does: the role that the files were left with.
  void SaveRole() const {
    if (databases_->read_only()) {
      Value(PosixStorage()->Open(ReplicaMark(), {.create = true}), "mark");
    } else {
      std::filesystem::remove(ReplicaMark());
    }
  }

  std::string State() const {
    std::string text;
    for (const fs::DatabaseState& state : databases_->States()) {
      text += fmt::format(" {}={}/{:016x}", state.position.name, state.position.txid.value,
                          state.position.digest);
    }
    return text;
  }

  const std::string& directory() const { return directory_; }
  ChangeLog& log() { return *log_; }
  fs::DatabaseSet& databases() { return *databases_; }

 private:
  static cmd::FuseMount MountAt(const std::string& directory) {
    std::filesystem::create_directories(directory);
    const std::string point = Value(cmd::PrepareMountDirectory(directory), "mount directory");
    return Value(cmd::MountFuse(point, true), "mount");
  }
  std::string ReplicaMark() const { return directory_ + "/data/replica"; }

  const std::string directory_;
  cmd::FuseMount mount_;
  std::unique_ptr<ChangeLog> log_;
  std::unique_ptr<fs::DatabaseSet> databases_;
  std::unique_ptr<fs::FileSystem> files_;
  std::unique_ptr<fs::Mount> session_;
};

// Replicates: one entry after the other, into the replica's log and files.
void ApplyEntry(TestNode& replica, const LogEntry& entry,
                const std::vector<std::uint8_t>& payload) {
  if (entry.kind == EntryKind::kOpenTerm) return;
  while (true) {
    ViewSource source(payload);
    const ApplyOutcome outcome = Value(replica.databases().Apply(entry, source), "apply");
    if (outcome.kind == ApplyOutcome::Kind::kApplied) break;
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// Returns when it has ended, and its locks with it.
void Kill(pid_t process) {
  kill(process, SIGKILL);
  const std::string path = fmt::format("/proc/{}/stat", process);
  while (true) {
    std::ifstream file(path);
    std::string text;
    if (!std::getline(file, text) || text.find(") Z ") != std::string::npos) return;
    absl::SleepFor(absl::Milliseconds(1));
  }
}

constexpr int kTurn =
    50;  // entries, so that a primary at full speed does not hold up everything else

void Follow(TestNode& primary, TestNode& replica,
            int entries_max = std::numeric_limits<int>::max()) {
  const auto reader = primary.log().Read(replica.log().last_index().Next());
  for (int i = 0; i < entries_max; ++i) {
    const std::optional<LogEntry> entry = Value(reader->Next(), "next entry");
    if (!entry) return;
    std::vector<std::uint8_t> payload(entry->payload_size);
    Check(ReadExactly(*reader->Payload(), payload), "payload");
    Value(replica.log().Append(*entry, payload), "append");
    ApplyEntry(replica, *entry, payload);
    Check(replica.databases().EndTurn(entry->database), "end of turn");
  }
}

// As the apply queue does when nothing is to be applied.
void JoinAll(TestNode& replica) {
  for (const DatabasePosition& position : replica.log().Positions()) {
    if (!position.dropped) Value(replica.databases().Join(position.name), "join");
  }
}

// The server's side of a node that stays the primary.
class PrimaryService final : public ReplicationService {
 public:
  explicit PrimaryService(Primary* primary) : primary_(primary) {}
  absl::Status Follow(FollowServerStream& stream) override { return primary_->Follow(stream); }
  absl::Status FetchDatabase(const v1::FetchDatabaseRequest& request,
                             FetchServerStream& stream) override {
    return primary_->FetchDatabase(request, stream);
  }
  absl::Status RequestHandoff(const v1::RequestHandoffRequest&) override {
    return absl::FailedPreconditionError("roles change by command here");
  }
  absl::Status ListPositions(const v1::ListPositionsRequest&,
                             const std::function<bool(const v1::NodeDatabase&)>&) override {
    return absl::UnimplementedError("nobody asks for positions here");
  }
  absl::Status ImportDatabase(ImportServerStream&, v1::ImportDatabaseResponse*) override {
    return absl::UnimplementedError("nothing is imported here");
  }

 private:
  Primary* const primary_;
};

class Cluster {
 public:
  Cluster(const std::string& directory, const std::string& primary)
      : a_(directory + "/a", primary == "a"), b_(directory + "/b", primary != "a") {
    primary_ = primary == "a" ? &a_ : &b_;
    replica_ = primary == "a" ? &b_ : &a_;
    follower_ = std::thread([this] { FollowLoop(); });
  }

  ~Cluster() {
    stop_ = true;
    follower_.join();
  }

  // Says how long writers were kept out. `victim`: a process to kill when the time for writers is over; 0: none.
  absl::Duration Handoff(absl::Duration patience, pid_t victim) {
    absl::MutexLock lock(&mutex_);
    const absl::Time start = absl::Now();
    Check(primary_->databases().StopWriters(start + patience), "stopping writers");
    const absl::Time stopped = absl::Now();
    if (victim != 0) Kill(victim);
    Follow(*primary_, *replica_);
    SwapRoles();
    return absl::Now() - stopped;
  }

  void Pause() {
    absl::MutexLock lock(&mutex_);
    following_ = false;
  }

  void Split(absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    Check(primary_->databases().StopWriters(absl::Now() + patience), "stopping writers");
    SwapRoles();
  }

  std::string Rejoin() {
    absl::MutexLock lock(&mutex_);
    PrimaryIdentity identity;
    identity.cluster_id = "test";
    identity.node_id = "new";
    identity.term = primary_->log().last_term();
    source_ = std::make_unique<Primary>(identity, &primary_->log(), &primary_->databases(), [] {});
    service_ = std::make_unique<PrimaryService>(source_.get());
    server_ = Value(GrpcServer::Start("127.0.0.1:0", service_.get()), "server");
    orphans_ = Value(OrphanStore::Open(PosixStorage(), replica_->directory() + "/data/orphans"),
                     "orphans");
    ReplicaOptions options;
    options.node_id = "old";
    options.cluster_id = "test";
    options.temporary_directory = replica_->directory() + "/data/copies";
    options.storage = PosixStorage();
    options.orphans = orphans_.get();
    options.connector = GrpcConnector();
    joined_ = std::make_unique<Replica>(options, &replica_->log(), &replica_->databases());
    Check(joined_->Start(), "replica");
    joined_->Follow("127.0.0.1:" + std::to_string(server_->port()), identity.term);
    while (!joined_->status().caught_up) absl::SleepFor(absl::Milliseconds(1));
    const RewindStats rewinds = joined_->status().rewinds;
    return fmt::format("{} {} {}", rewinds.databases, rewinds.pages, orphans_->change_sets());
  }

  std::string State() {
    absl::MutexLock lock(&mutex_);
    if (joined_ == nullptr) {
      Follow(*primary_, *replica_);
    } else {
      while (joined_->status().applied_index < primary_->log().last_index()) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    return "a" + a_.State() + " b" + b_.State();
  }

 private:
  void SwapRoles() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Term term = NextLeaseTerm(primary_->log().last_term());
    Check(replica_->databases().BecomePrimary(term), "becoming the primary");
    Check(primary_->databases().BecomeReplica(), "becoming a replica");
    std::swap(primary_, replica_);
    primary_->OpenTerm(term);
    primary_->SaveRole();
    replica_->SaveRole();
    Check(primary_->databases().ResumeWriters(), "resuming writers");
  }

  void FollowLoop() {
    while (!stop_) {
      {
        absl::MutexLock lock(&mutex_);
        if (following_) {
          Follow(*primary_, *replica_, kTurn);
          JoinAll(*replica_);
        }
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  TestNode a_;
  TestNode b_;
  absl::Mutex mutex_;  // one role change, or one turn of following, at a time
  TestNode* primary_ = nullptr;
  TestNode* replica_ = nullptr;
  bool following_ = true;
  std::atomic<bool> stop_{false};
  std::thread follower_;
  // Since Rejoin.
  std::unique_ptr<Primary> source_;
  std::unique_ptr<PrimaryService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<OrphanStore> orphans_;
  std::unique_ptr<Replica> joined_;
};

int Run(const std::string& directory, const std::string& primary) {
  Cluster cluster(directory, primary);
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line) && line != "end") {
    std::istringstream words(line);
    std::string command;
    int milliseconds = 0;
    pid_t victim = 0;
    words >> command >> milliseconds >> victim;
    if (command == "handoff") {
      const absl::Duration out = cluster.Handoff(absl::Milliseconds(milliseconds), victim);
      std::cout << "ok " << absl::ToInt64Milliseconds(out) << std::endl;
    } else if (command == "pause") {
      cluster.Pause();
      std::cout << "ok" << std::endl;
    } else if (command == "split") {
      cluster.Split(absl::Milliseconds(milliseconds));
      std::cout << "ok" << std::endl;
    } else if (command == "rejoin") {
      std::cout << "ok " << cluster.Rejoin() << std::endl;
    } else if (command == "state") {
      std::cout << cluster.State() << std::endl;
    }
  }
  return 0;
}

}  // namespace
}  // namespace echofs

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("nodes"));
  return echofs::Run(argv[1], argv[2]);
}
