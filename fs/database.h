// One database of this node, whatever the node's role: what the mount finds behind a file.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fs/database_capture.h"
#include "fs/replica_database.h"

namespace echofs::fs {

// Thread-safe. A file that may become a database has one of these too. During a role change both sides may be set.
class Database {
 public:
  // On a primary `capture` is set, on a replica it is null. `replicated`: on a replica, the log has it. The mount serves
  // applications before the replica's side is there and has the locks, and it may go for a moment when they are not to be
  // had: nobody else may change the files then either, for nothing takes it into the log.
  Database(std::string name, std::shared_ptr<DatabaseCapture> capture, bool replicated = false)
      : name_(std::move(name)), replicated_(replicated), capture_(std::move(capture)) {}

  const std::string& name() const { return name_; }
  // The primary's side; null on a replica. Takes what applications write.
  std::shared_ptr<DatabaseCapture> capture() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return capture_;
  }
  void SetCapture(std::shared_ptr<DatabaseCapture> capture) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    capture_ = std::move(capture);
  }
  // The replica's side; null on a primary, and on a replica for a file that is no database.
  std::shared_ptr<ReplicaDatabase> replica() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return replica_;
  }
  void SetReplica(std::shared_ptr<ReplicaDatabase> replica) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    replica_ = std::move(replica);
  }
  // The database goes on under new files, and readers that have these open are to fail (design A5,
  // ReplicaDatabase::ReadersAreOverdue).
  bool retired() const { return retired_.load(std::memory_order_acquire); }
  void SetRetired() { retired_.store(true, std::memory_order_release); }
  bool IsDatabase() const {
    if (const auto captured = capture()) return captured->is_database();
    return replicated_ || replica() != nullptr;
  }

  // The main file was removed: files that still point here look for the database anew.
  bool removed() const { return removed_.load(std::memory_order_acquire); }
  void SetRemoved() { removed_.store(true, std::memory_order_release); }

 private:
  const std::string name_;
  const bool replicated_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<DatabaseCapture> capture_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<ReplicaDatabase> replica_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> removed_{false};
  std::atomic<bool> retired_{false};
};

}  // namespace echofs::fs
