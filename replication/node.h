// A node of the cluster: puts log, databases, lease, server, primary and replica together, and
// decides which of the two it is (design section 7).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/apply_queue.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/lease.h"
#include "replication/limits.h"
#include "replication/node_state.h"
#include "replication/orphan_store.h"
#include "replication/primary.h"
#include "replication/storage.h"

namespace echofs {

class GrpcServer;
class Replica;

struct NodeOptions {
  std::string data_directory;  // node.json, orphans/ and tmp/ are in it
  std::string node_id;
  std::string listen;         // grpc.listen, host:port; empty: no server
  std::string advertise;      // grpc.advertise: where others reach this node
  std::string lease_primary;  // lease.primary of the static lease
  std::string version;        // of the program
  absl::Duration maintenance_interval = kMaintenanceInterval;
};

enum class NodeRole { kNone, kPrimary, kReplica };

// "primary", "replica"; empty before Start.
const char* NodeRoleName(NodeRole role);

struct NodeStatus {
  std::string node_id;
  std::string cluster_id;
  NodeRole role = NodeRole::kNone;
  bool ready =
      false;  // primary: serves; replica: has had everything that the primary had at first contact
  Term term;  // of the primary, zero when unknown
  std::string primary_id;  // node id, empty when unknown
  std::string primary_address;
  bool connected = false;  // replica: to its primary
  LogIndex log_first_index;
  LogIndex log_last_index;
  Term log_last_term;
  std::uint64_t log_size_bytes = 0;
  std::uint64_t orphans =
      0;                // change sets of this node that the cluster's history lacks, kept on disk
  RewindStats rewinds;  // replica
  LogIndex applied_index;                      // replica: every entry up to here is applied
  std::optional<std::uint64_t> lag_ms;         // replica: age of its data
  std::string last_error;                      // empty when all is well
  std::vector<DatabaseApplyStatus> databases;  // replica
  std::vector<FollowerStatus> replicas;        // primary
};

// Thread-safe; Start and Stop from one thread, once each.
class Node {
 public:
  // Owns nothing that it is given. `log` and `target` are open and recovered (L5) before Start.
  Node(NodeOptions options, ChangeLog* log, ApplyTarget* target, Storage* storage);
  // Ends everything at once: what Stop would sync is left to recovery.
  ~Node();

  // Takes the role that the lease gives. A primary has opened its term when this returns (R1); a
  // replica follows in the background, whether or not its primary can be reached. Errors are for
  // people.
  absl::Status Start();
  // Ends in order, and makes durable what was received and applied.
  absl::Status Stop();

  NodeStatus status() const ABSL_LOCKS_EXCLUDED(mutex_);
  NodeRole role() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The term that entries of this primary carry; zero on a replica.
  Term term() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What was kept of this node's own entries (R5); null before Start.
  OrphanStore* orphans() { return orphans_.get(); }
  // The most payload that ever waited in memory for being applied, in bytes; 0 on a primary.
  std::uint64_t apply_memory_bytes_max() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Where the server listens, 0 without one.
  int port() const;

 private:
  class Service;

  absl::Status CheckOptions() const;
  absl::Status LoadState();
  absl::Status SaveState(NodeRole role);
  absl::Status BecomePrimary(const LeaseRecord& lease) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status BecomeReplica(const std::string& primary_address) ABSL_LOCKS_EXCLUDED(mutex_);
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<Primary> primary() const ABSL_LOCKS_EXCLUDED(mutex_);
  void MaintenanceLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Maintain() ABSL_LOCKS_EXCLUDED(mutex_);

  const NodeOptions options_;
  ChangeLog* const log_;
  ApplyTarget* const target_;
  Storage* const storage_;
  const std::unique_ptr<Lease> lease_;
  const std::unique_ptr<Service> service_;
  std::unique_ptr<OrphanStore> orphans_;  // set by Start
  std::unique_ptr<GrpcServer> server_;    // touched by Start and Stop alone
  std::thread maintenance_;
  LogIndex synced_files_;  // of the maintenance thread: what SyncAll has made durable

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  NodeRole role_ ABSL_GUARDED_BY(mutex_) = NodeRole::kNone;
  NodeState state_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Primary> primary_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Replica> replica_ ABSL_GUARDED_BY(mutex_);
  std::string primary_address_ ABSL_GUARDED_BY(mutex_);
  std::string maintenance_error_ ABSL_GUARDED_BY(mutex_);
  mutable bool ready_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace echofs
