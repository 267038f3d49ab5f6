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

// Thread-safe. A file that may become a database has one of these too.
class Database {
 public:
  // On a primary `capture` is set, on a replica it is null.
  Database(std::string name, std::shared_ptr<DatabaseCapture> capture)
      : name_(std::move(name)), capture_(std::move(capture)) {}

  const std::string& name() const { return name_; }
  // The primary's side; null on a replica.
  DatabaseCapture* capture() const { return capture_.get(); }
  const std::shared_ptr<DatabaseCapture>& shared_capture() const { return capture_; }
  // The replica's side; null on a primary, and on a replica for a file that is no database.
  std::shared_ptr<ReplicaDatabase> replica() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return replica_;
  }
  void SetReplica(std::shared_ptr<ReplicaDatabase> replica) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    replica_ = std::move(replica);
  }
  bool IsDatabase() const { return capture_ ? capture_->is_database() : replica() != nullptr; }

  // The main file was removed: files that still point here look for the database anew.
  bool removed() const { return removed_.load(std::memory_order_acquire); }
  void SetRemoved() { removed_.store(true, std::memory_order_release); }

 private:
  const std::string name_;
  const std::shared_ptr<DatabaseCapture> capture_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<ReplicaDatabase> replica_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> removed_{false};
};

}  // namespace echofs::fs
