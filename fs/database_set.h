// All databases of a node: finds them by name for the mount, recovers them at a start, and is what
// replication sees of them (ApplyTarget).
//
// On a primary every database has a DatabaseCapture, made when one of its files is first opened. On a replica
// every database of the log has a ReplicaDatabase from the start on, so that its locks keep applications from
// writing (A1).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "fs/applied_positions.h"
#include "fs/capture_queue.h"
#include "fs/database.h"
#include "fs/page_cache.h"
#include "fs/recovery.h"
#include "fs/writer_locks.h"
#include "replication/apply_target.h"
#include "replication/commit_acks.h"
#include "replication/commit_fence.h"
#include "replication/metrics.h"

namespace echofs::fs {

struct DatabaseSetOptions {
  Storage* storage = nullptr;  // not owned
  ChangeLog* log = nullptr;    // not owned
  // Where commits wait for other nodes (D1); not owned, null: they do not wait. `acknowledge_always`: also those of
  // applications that do not sync.
  CommitAcks* acks = nullptr;
  bool acknowledge_always = false;
  const CommitFence* fence = nullptr;  // not owned; null: commits need no lease
  std::string root;                    // directory of the backing files
  std::string mount_point;             // absolute; empty when there is none (tests)
  std::string positions_file;          // see applied_positions.h
  std::string temporary_directory;     // on the same file system as `root`
  bool read_only = false;              // this node is a replica
  bool was_replica = false;            // it was one when it last ran
  bool machine_crashed = false;        // the machine went down since, without an orderly stop
  // How long a mode change waits for readers to leave before their connections are made to fail.
  absl::Duration reader_timeout = absl::InfiniteDuration();
  Metrics* metrics = UnobservedMetrics();  // not owned
};

// What status and the list of databases show of one.
struct DatabaseState {
  DatabasePosition position;
  bool wal_mode = false;
};

// Thread-safe.
class DatabaseSet final : public ApplyTarget {
 public:
  // Recovers all databases (design L5).
  static absl::StatusOr<std::unique_ptr<DatabaseSet>> Open(const DatabaseSetOptions& options);
  ~DatabaseSet() override;

  CommitAcks* acks() const { return options_.acks; }
  // All commits on this node are acknowledged, not only those of applications that sync.
  bool acknowledge_always() const { return options_.acknowledge_always; }
  // This node is a replica.
  bool read_only() const { return read_only_.load(std::memory_order_acquire); }
  // Term of the entries that are captured from now on.
  void SetTerm(Term term) { term_.store(term.value, std::memory_order_release); }
  // After the mount has started; `mount_point` is absolute. On a replica takes the locks of all databases.
  absl::Status Start(PageCache* cache, const std::string& mount_point);
  // Before the mount ends: puts what is captured into the log (primary), or gives up the files (replica).
  void Stop();

  // ---- Role changes (database_set_roles.cc), see ApplyTarget ----
  absl::Status StopWriters(absl::Time deadline) override;
  absl::Status ResumeWriters() override;
  absl::Status BecomePrimary(Term term) override;
  absl::Status BecomeReplica() override;

  // ---- For the mount ----
  // Path of the main file that a file belongs to by its name: "a/x.db-wal" -> "a/x.db".
  static std::string MainPath(const std::string& path);
  std::shared_ptr<Database> Find(const std::string& path);
  // The database, or the file that may become one, behind an existing regular file.
  absl::StatusOr<std::shared_ptr<Database>> OpenMain(const std::string& path);
  // The file is gone, or is no database and nobody has it open.
  void Forget(Database& database);
  bool IsDatabase(const std::string& path);
  bool HasDatabaseBelow(const std::string& directory);
  // Says once that a file stays on this node.
  void LogLocalFile(const std::string& path);
  void LogOnce(const std::string& message);

  // ---- For commands ----
  std::vector<DatabaseState> States();
  // Regular files that are no databases and belong to none.
  absl::StatusOr<std::vector<std::string>> LocalFiles();

  // ---- ApplyTarget ----
  absl::StatusOr<DatabasePosition> AppliedPosition(const std::string& database) override;
  std::vector<std::string> LocalDatabases() override;
  absl::StatusOr<ApplyOutcome> Apply(const LogEntry& entry, ByteSource& payload) override;
  absl::StatusOr<ApplyOutcome> Join(const std::string& database) override;
  absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition& position,
                                           const std::string& file) override;
  absl::StatusOr<ApplyOutcome> InstallPages(const DatabasePosition& position,
                                            const std::string& file, const PageSet& pages) override;
  absl::Status ForgetPositions(const std::vector<std::string>& databases) override;
  absl::Status EndTurn(const std::string& database) override;
  absl::StatusOr<PageRun> ReadPages(const std::string& database, PageNumber first,
                                    std::uint32_t count) override;
  absl::Status SyncAll() override;

 private:
  DatabaseSet(const DatabaseSetOptions& options, std::unique_ptr<AppliedPositions> positions);

  RecoveryContext Recovery() const;
  absl::Status RecoverPrimary();
  absl::Status AlignWithLog(const DatabasePosition& position, JournalFate fate);
  absl::Status RecoverPrimaryDatabase(const DatabasePosition& position);
  absl::Status VerifyAfterCrash(std::shared_ptr<Database> database);
  absl::StatusOr<bool> MakeFromLog(const DatabasePosition& position);
  absl::Status RecoverReplica();
  absl::Status FinishDrop(const std::string& name);
  absl::Status RecoverReplicaDatabase(const DatabasePosition& position);
  absl::Status AlignReplicaWithLog(const DatabasePosition& position, JournalFate fate);
  absl::Status JoinAtStart(const std::string& name, const DatabasePosition& position);
  absl::Status GiveUpReplica(const DatabasePosition& position);
  absl::Status SyncCaptured();
  absl::Status FinishAsPrimary();
  absl::Status FinishAsReplica();
  absl::Status AppendDrop(const DatabasePosition& position);
  std::vector<std::shared_ptr<Database>> All();
  DatabasePosition LoggedPosition(const std::string& database);
  // Position that the log gives for an applied entry; NotFound when it does not reach back.
  absl::StatusOr<DatabasePosition> PositionAt(const std::string& database, LogIndex index);

  absl::StatusOr<std::shared_ptr<DatabaseCapture>> NewCapture(const std::string& path,
                                                              const DatabasePosition& position);
  // Makes the database a replica's, with locks that are held already, if any. Unavailable with
  // *blocked_by_pid when an application is in the way; then nothing has changed.
  absl::Status AttachReplica(Database& database, const DatabasePosition& position,
                             WriterLocks locks, int* blocked_by_pid);
  absl::StatusOr<std::vector<std::shared_ptr<Database>>> LoggedDatabases();
  absl::StatusOr<bool> StopWriter(Database& database, WriterLocks* locks);
  absl::StatusOr<bool> EndHotJournal(Database& database, WriterLocks* locks);
  absl::Status BecomePrimary(Database& database);
  absl::Status BecomeReplica(Database& database);
  absl::StatusOr<std::shared_ptr<ReplicaDatabase>> OpenReplica(const std::string& name,
                                                               const DatabasePosition& position,
                                                               int* blocked_by_pid);
  // Null with *blocked filled in when an application is in the way.
  absl::StatusOr<std::shared_ptr<ReplicaDatabase>> FindOrOpenReplica(const std::string& name,
                                                                     ApplyOutcome* blocked);
  std::shared_ptr<ReplicaDatabase> FindReplica(const std::string& name);
  // One step of applying, on the database as it is or, when readers are overdue, on new files.
  using ApplyStep = std::function<absl::StatusOr<ApplyOutcome>(ReplicaDatabase&)>;
  absl::StatusOr<ApplyOutcome> RunStep(const std::string& name, const ApplyStep& step);
  absl::StatusOr<ApplyOutcome> ReplaceUnderReaders(const std::string& name, const ApplyStep& step);

  const DatabaseSetOptions options_;
  ReplicaDatabaseOptions replica_options_;
  std::atomic<bool> read_only_;
  std::atomic<bool> recovering_{true};  // until Open is done: what is captured was committed before
  // Databases get a capture: on a primary, and while Open recovers the files of a former primary.
  std::atomic<bool> captures_{false};
  std::atomic<bool> writers_stopped_{false};  // new captures are fenced
  // Held between StopWriters and the end of the role change, by the thread that makes it.
  std::map<std::string, WriterLocks> writer_locks_;
  const std::unique_ptr<AppliedPositions> positions_;
  // By database, on a primary: in which of its terms, and up to which entry, SyncAll has made its files durable. Of the
  // thread that calls it.
  std::map<std::string, std::pair<std::uint64_t, LogIndex>> synced_captures_;
  std::atomic<std::uint64_t> term_{1};
  CaptureQueue queue_;
  PageCache* cache_ = nullptr;  // set by Start
  std::string mount_point_;

  absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Database>> databases_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> said_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs::fs
