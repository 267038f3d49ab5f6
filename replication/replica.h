// The replica's side of replication: applies what the log has, follows the primary that it is told to, copies, and
// connects again for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "replication/apply_queue.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/lag_meter.h"
#include "replication/metrics.h"
#include "replication/orphan_store.h"
#include "replication/replica_stream.h"
#include "replication/storage.h"
#include "replication/transport.h"

namespace echofs {

struct ReplicaOptions {
  std::string node_id;
  std::string address;                     // grpc.advertise of this node
  std::string version;                     // of the program
  std::string cluster_id;                  // empty: joins the primary's cluster
  std::string temporary_directory;         // for copies; emptied at Start
  Storage* storage = nullptr;              // not owned
  OrphanStore* orphans = nullptr;          // not owned
  Connector* connector = nullptr;          // not owned
  Metrics* metrics = UnobservedMetrics();  // not owned
  // Stores the id of the cluster that this node joins, durably. Called once, before anything is
  // received.
  std::function<absl::Status(const std::string& cluster_id)> join_cluster;
};

struct ReplicaStatus {
  bool connected = false;
  // Everything is applied that the primary had when it was reached last, and no copy is
  // outstanding.
  bool caught_up = false;
  std::string cluster_id;
  std::string primary_id;               // node id, empty before the first contact
  Term term;                            // of the primary, zero before the first contact
  LogIndex applied_index;               // every entry up to here is applied
  std::optional<std::uint64_t> lag_ms;  // age of the data; nothing before the first contact
  std::string last_error;  // why it is not connected, or what is wrong; empty when all is well
  RewindStats rewinds;     // since Start
  std::vector<DatabaseApplyStatus> databases;
};

// Thread-safe. Start and Stop once each, from one thread.
class Replica {
 public:
  // Owns neither log nor target.
  Replica(ReplicaOptions options, ChangeLog* log, ApplyTarget* target);
  // Stops.
  ~Replica();

  // Fails only for what is wrong on this node; the primary need not be there.
  absl::Status Start();
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // Follows the primary at this address (host:port) from now on, leaving any other; not one of a lower term (R1).
  void Follow(const std::string& address, Term term) ABSL_LOCKS_EXCLUDED(mutex_);
  // Follows nobody. When it returns, nothing is appended to the log any more, and nothing acknowledged; what the log
  // has is still being applied.
  void StopFollowing() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until all that is in the log is applied, and no copy is outstanding; after StopFollowing. DeadlineExceeded
  // names a database that is not complete.
  absl::Status WaitApplied(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // Fetches a database from the primary again; see ApplyQueue::Refetch.
  absl::Status Refetch(const std::string& name, const std::string& reason) {
    return queue_.Refetch(name, reason);
  }

  ReplicaStatus status() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The first entry of the log that applying still needs.
  LogIndex needed_index() const { return queue_.needed_index(); }
  // The most payload that ever waited in memory for being applied, in bytes.
  std::uint64_t memory_bytes_max() const { return queue_.memory_bytes_max(); }

 private:
  absl::Status EmptyTemporaryDirectory();
  void FollowLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status FollowOnce(const std::string& address) ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitBeforeReconnect(std::uint64_t change, absl::Duration wait)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OnHello(const v1::Hello& hello, const std::shared_ptr<PrimaryChannel>& channel)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void OnHeartbeat(const v1::Heartbeat& heartbeat) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnProgress() ABSL_LOCKS_EXCLUDED(mutex_);
  void DescribeError(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CopyLoop(int number) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<CompletedCopy> Copy(CopyTask& task, const std::string& path)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Null when the task is cancelled or the replica stops.
  std::shared_ptr<PrimaryChannel> WaitForChannel(const CopyTask& task) ABSL_LOCKS_EXCLUDED(mutex_);

  const ReplicaOptions options_;
  ChangeLog* const log_;
  ApplyTarget* const databases_;
  ApplyQueue queue_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string primary_address_ ABSL_GUARDED_BY(mutex_);  // empty: follows nobody
  Term lowest_term_ ABSL_GUARDED_BY(mutex_);             // that a primary may have
  std::uint64_t address_changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool following_ ABSL_GUARDED_BY(mutex_) = false;  // FollowOnce runs
  std::string cluster_id_ ABSL_GUARDED_BY(mutex_);
  ReplicaStream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;          // while FollowOnce runs
  std::shared_ptr<PrimaryChannel> channel_ ABSL_GUARDED_BY(mutex_);  // while connected
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;  // the last attempt got as far as a good Hello
  bool matched_ ABSL_GUARDED_BY(mutex_) = false;  // our log was made a part of a primary's history
  LogIndex target_ ABSL_GUARDED_BY(mutex_);  // end of the primary's log when it was reached last
  std::string primary_id_ ABSL_GUARDED_BY(mutex_);
  Term term_ ABSL_GUARDED_BY(mutex_);
  std::string last_error_ ABSL_GUARDED_BY(mutex_);
  mutable LagMeter lag_ ABSL_GUARDED_BY(mutex_);

  std::vector<std::thread> threads_;  // touched by Start and Stop alone
};

}  // namespace echofs
