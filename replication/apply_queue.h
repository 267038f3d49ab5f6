// Applies the log's entries to the local databases (design A5): in order for each database,
// independent between databases.
//
// A small pool of workers takes one database at a time and applies what waits for it. One that an
// application blocks is put aside and tried again by a timer, without holding a worker. One whose
// files do not follow the history, or whose digest comes out wrong (A6), waits for a copy of the
// whole database, and its entries stay in the log meanwhile. Payloads wait in memory up to
// kApplyQueueSizeMax in total; beyond that the entries are read back from the log.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/apply_entry.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/copy_task.h"
#include "replication/log_rewind.h"
#include "replication/metrics.h"

namespace echofs {

enum class DatabaseState {
  kOk,
  kCopying,  // a whole copy is on its way, or wanted
  kBlocked,  // an application holds a lock that the next step needs
  kStopped,  // the files cannot be written; tried again with growing delay
};

// "ok", "copying", "blocked", "stopped".
const char* DatabaseStateName(DatabaseState state);

struct DatabaseApplyStatus {
  std::string name;
  DatabaseState state = DatabaseState::kOk;
  std::string detail;                 // why the state is not kOk
  int blocked_by_pid = 0;             // with kBlocked, 0 when unknown
  absl::Duration blocked_for;         // with kBlocked
  std::uint64_t copy_pages_done = 0;  // with kCopying
  std::uint64_t copy_pages = 0;
  LogIndex applied_index;  // of the last entry in its files
};

// Databases that were taken back to the cluster's history by some of their pages (R5).
struct RewindStats {
  std::uint64_t databases = 0;
  std::uint64_t pages = 0;  // fetched from the primary for that
  std::uint64_t bytes = 0;  // of those pages
};

// Thread-safe. Enqueue and Rebase come from one thread, the one that appends to the log.
class ApplyQueue {
 public:
  // Owns none of them. `on_progress` is called after a worker has done something, without locks held.
  ApplyQueue(ChangeLog* log, ApplyTarget* target, Metrics* metrics,
             std::function<void()> on_progress);
  // Stops.
  ~ApplyQueue();

  // Compares every database with the log, queues what is missing, starts the workers.
  absl::Status Start() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the workers and the copies. What was not applied is found again at the next Start.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // An entry that was just committed to the log. Without a payload it is read back from there.
  void Enqueue(const LogEntry& entry, std::optional<std::vector<std::uint8_t>> payload)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The log loses entries: stops all work, calls `cut`, which cuts it or starts it anew, and starts from
  // what the log then says. Databases that it does not know are dropped; those that were ahead of it are
  // taken back by the plans of `cut`, or copied. After an error of `cut` all goes on from the log as it is.
  absl::Status Rebase(const std::function<absl::StatusOr<LogCut>()>& cut)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits for a database that wants a copy; null when the queue stops. For the threads that copy:
  // each task has to come back by FinishCopy.
  std::shared_ptr<CopyTask> NextCopy() ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishCopy(const std::shared_ptr<CopyTask>& task, absl::StatusOr<CompletedCopy> result)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Wants a copy of the whole database from the primary, whatever its files hold; until it is installed the state is
  // kCopying. NotFound when there is no local copy.
  absl::Status Refetch(const std::string& name, const std::string& reason)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Every entry up to here is in the files of its database.
  LogIndex applied_index() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The first entry of the log that this node still needs for applying.
  LogIndex needed_index() const ABSL_LOCKS_EXCLUDED(mutex_);
  // True when some database waits for a whole copy.
  bool copying() const ABSL_LOCKS_EXCLUDED(mutex_);
  // By name.
  std::vector<DatabaseApplyStatus> Databases() const ABSL_LOCKS_EXCLUDED(mutex_);
  RewindStats rewinds() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The most that ever waited in memory, in bytes.
  std::uint64_t memory_bytes_max() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Database;
  enum class Turn {
    kIdle,   // nothing to do until something is queued
    kAgain,  // more to do
    kLater,  // to be tried again at Database::retry_at
  };
  using Due = std::set<std::pair<absl::Time, Database*>>;

  // apply_queue.cc: what waits, and for whom.
  void Worker() ABSL_LOCKS_EXCLUDED(mutex_);
  Database& Find(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Schedule(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ScheduleDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdatePending(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Load(RewindPlans plans) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LoadDatabase(Database& database, const DatabasePosition* logged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Decides whether the database can be taken back by its plan, to where the log stands after a cut.
  bool PrepareRewind(Database& database, const DatabasePosition& logged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The plans that were not carried out yet, with those of the cut.
  RewindPlans MergePlans(LogCut cut) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // apply_queue_steps.cc: one database's turn. The mutex is released during the work itself.
  Turn RunDatabase(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn NextStep(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn ApplyFromMemory(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn ApplyFromLog(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ApplyEntry, with its duration in the metrics.
  EntryOutcome ApplyMeasured(const LocalPosition& position, const LogEntry& entry,
                             ByteSource& payload);
  Turn ApplyDrop(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn Join(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<ApplyOutcome> Install(const CompletedCopy& copy) ABSL_LOCKS_EXCLUDED(mutex_);
  Turn InstallCopy(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn Settle(Database& database, const LogEntry& entry, const EntryOutcome& outcome)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn Blocked(Database& database, int pid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn Later(Database& database, absl::Duration delay) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turn Failed(Database& database, const std::string& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Succeeded(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WantCopy(Database& database, const std::string& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WantDrop(Database& database, Txid txid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetMemory(Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ChangeLog* const log_;
  ApplyTarget* const target_;
  Metrics* const metrics_;
  const std::function<void()> on_progress_;
  // Set while workers should come to an end soon; looked at within long scans of the log.
  std::atomic<bool> interrupt_ = false;

  mutable absl::Mutex mutex_;
  absl::CondVar work_;       // ready_, due_, stopping_ or paused_ changed
  absl::CondVar copy_work_;  // copies_due_, stopping_ or paused_ changed
  absl::CondVar idle_;       // running_ or copying_ fell
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;         // workers inside RunDatabase
  int copies_running_ ABSL_GUARDED_BY(mutex_) = 0;  // tasks that have not come back
  std::map<std::string, std::unique_ptr<Database>> databases_ ABSL_GUARDED_BY(mutex_);
  std::deque<Database*> ready_ ABSL_GUARDED_BY(mutex_);
  Due due_ ABSL_GUARDED_BY(mutex_);         // to be scheduled again
  Due copies_due_ ABSL_GUARDED_BY(mutex_);  // that want a copy
  // First entry that is not in the files, of each database that has one; and the end of what was
  // queued.
  std::multiset<LogIndex> pending_ ABSL_GUARDED_BY(mutex_);
  LogIndex received_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t memory_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t memory_bytes_max_ ABSL_GUARDED_BY(mutex_) = 0;
  RewindStats rewinds_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_;  // touched by Start and Stop alone
};

}  // namespace echofs
