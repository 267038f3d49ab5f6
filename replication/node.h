// A node of the cluster: puts log, databases, lease, server, primary and replica together, and changes its role as its
// role machine says (design section 7). With a static lease the role is the one that the configuration gives.
#pragma once

#include <atomic>
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
#include "absl/time/time.h"
#include "replication/apply_queue.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/commit_fence.h"
#include "replication/lease.h"
#include "replication/limits.h"
#include "replication/metrics.h"
#include "replication/node_state.h"
#include "replication/orphan_store.h"
#include "replication/primary.h"
#include "replication/role_driver.h"
#include "replication/storage.h"
#include "replication/transport.h"

namespace echofs {

class GrpcServer;
class Replica;

// A database's file that another node has sent.
struct ReceivedImport {
  std::string database;
  std::string file;      // belongs to the caller
  bool replace = false;  // also when there is a database of this name
};
// Commits it as a change set of this primary; returns the position afterwards. Ends soon when `cancelled` says so.
using ImportFunction = std::function<absl::StatusOr<DatabasePosition>(
    const ReceivedImport& import, const std::function<bool()>& cancelled)>;

// One database on another node, beside the history that this node has of it.
struct NodeComparison {
  std::string node;
  std::string address;
  std::string error;     // why it cannot be compared; empty when it was
  std::string database;  // empty when the node cannot be asked
  Txid txid;             // of what its files hold
  std::uint64_t digest = 0;
  std::uint64_t expected_digest = 0;  // at this TXID
  std::string state;                  // "ok", "copying", "blocked", "stopped"
};

struct NodeOptions {
  std::string data_directory;  // node.json, orphans/ and tmp/ are in it
  std::string node_id;
  std::string listen;         // grpc.listen, host:port; empty: no server
  std::string advertise;      // grpc.advertise: where others reach this node
  std::string lease_primary;  // lease.primary of the static lease
  std::string version;        // of the program
  // Who is primary; null: the static lease of lease_primary. Not owned.
  Lease* lease = nullptr;
  bool candidate = true;  // lease.candidate
  absl::Duration lease_ttl = absl::Seconds(10);
  int min_sync_replicas = 0;
  absl::Duration ack_timeout = absl::Seconds(5);
  // Closed while this node may not commit; null when nobody asks. Not owned.
  CommitFence* fence = nullptr;
  // Where commits wait for the nodes in sync; null when they do not. Not owned.
  CommitAcks* acks = nullptr;
  Metrics* metrics = UnobservedMetrics();  // not owned
  ImportFunction import;  // what a primary does with a file that it is sent; empty: it refuses
  absl::Duration maintenance_interval = kMaintenanceInterval;
  std::uint64_t maintenance_growth = kMaintenanceLogGrowth;  // bytes
};

// A candidate is a replica that stands for primary, with nobody to follow.
enum class NodeRole { kNone, kPrimary, kReplica, kCandidate };

// "primary", "replica", "candidate"; empty before Start.
const char* NodeRoleName(NodeRole role);

// A node of the cluster as the lease service knows it.
struct ClusterNode {
  std::string node_id;
  std::string address;
  bool candidate = false;
  bool primary = false;
  bool in_sync = false;
  LogPosition
      position;  // as it was announced, seconds ago; for the primary's replicas: acknowledged
  std::optional<std::uint64_t> lag_ms;  // as the primary knows it
};

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
  LogIndex applied_index;               // replica: every entry up to here is applied
  std::optional<std::uint64_t> lag_ms;  // replica: age of its data
  // False while the lease service cannot be asked.
  bool lease_reachable = true;
  // Primary, not with a static lease: how long it may still commit without another renewal, and how long ago it
  // sent the last one.
  std::optional<absl::Duration> lease_valid_for;
  std::optional<absl::Duration> lease_age;
  std::string last_error;                      // empty when all is well
  std::vector<DatabaseApplyStatus> databases;  // replica
  std::vector<FollowerStatus> replicas;        // primary
  std::vector<std::string> in_sync;            // of the lease record
  std::vector<ClusterNode> nodes;              // empty with a static lease
};

// Thread-safe; Start and Stop from one thread, once each.
class Node final : private RoleHost, private RoleEnvironment {
 public:
  // Owns nothing that it is given. `log` and `target` are open and recovered (L5) before Start.
  Node(NodeOptions options, ChangeLog* log, ApplyTarget* target, Storage* storage);
  // Ends everything at once: what Stop would sync is left to recovery.
  ~Node() override;

  // Takes the role that the lease gives. With a static lease a primary has opened its term when this returns (R1); a
  // replica follows in the background, whether or not its primary can be reached. With another lease the node begins
  // as a replica, and changes its role in the background. Errors are for people.
  absl::Status Start();
  // Waits some seconds at most until it is known who is primary.
  void WaitSettled();
  // Ends in order: hands off (R4), and makes durable what was received and applied.
  absl::Status Stop();

  // Makes `target` primary in this node's place, empty: the best replica. Waits for it. Errors are for people.
  absl::Status Handoff(const std::string& target) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes this node primary: by a handoff of the primary, or at once when nobody is. Waits for it. `force`: also when
  // commits that were acknowledged may be lost.
  absl::Status Promote(bool force) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- node_tools.cc ----
  // Asks each node that is known of where `database` stands, empty: all of them, and looks up what this node's log
  // says of that state. `visit` returns false to end it. Waits some seconds for a node that does not answer.
  absl::Status CompareNodes(const std::string& database,
                            const std::function<bool(const NodeComparison&)>& visit)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // On a replica: has its copy of a database fetched again.
  absl::Status Refetch(const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);
  // On a replica: has the primary import a database's file of `size` bytes. Returns the position afterwards. Ends soon
  // when `cancelled` says so, which is then undone or complete.
  absl::StatusOr<DatabasePosition> ForwardImport(const std::string& database, std::uint64_t size,
                                                 bool replace, ByteSource& file,
                                                 const std::function<bool()>& cancelled)
      ABSL_LOCKS_EXCLUDED(mutex_);

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

  // ---- node.cc ----
  absl::Status CheckOptions() const;
  absl::Status LoadState();
  absl::Status StartWithStaticLease();
  absl::Status StartWithLease();
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<Primary> primary() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<Replica> replica() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status RequestHandoff(const LeaseRecord& record) const ABSL_LOCKS_EXCLUDED(mutex_);
  void DescribeCluster(NodeStatus* status) const;
  void MaintenanceLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Maintain() ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- node_tools.cc: what ReplicationService says of them ----
  absl::Status ListPositions(const v1::ListPositionsRequest& request,
                             const std::function<bool(const v1::NodeDatabase&)>& write) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ImportDatabase(ImportServerStream& stream, v1::ImportDatabaseResponse* response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckCluster(const std::string& cluster_id) const ABSL_LOCKS_EXCLUDED(mutex_);
  // The databases that the log has, or the one that is named, with their positions.
  std::vector<DatabasePosition> LoggedDatabases(const std::string& database) const;
  absl::StatusOr<std::uint64_t> DigestInHistory(const DatabasePosition& position) const;
  bool CompareNode(const NodeComparison& node, const std::string& database,
                   const std::function<bool(const NodeComparison&)>& visit)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- node_roles.cc: RoleHost, RoleEnvironment ----
  void Follow(const echofs::Follow& primary) override ABSL_LOCKS_EXCLUDED(mutex_);
  void StopFollowing() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TakeOver(Term term) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status StopWriters(absl::Duration patience) override;
  void ResumeWriters() override;
  void StepDown(const std::string& reason) override ABSL_LOCKS_EXCLUDED(mutex_);
  LogPosition position() const override;
  LogIndex synced_index() const override;
  std::vector<FollowerProgress> followers() const override ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status WaitApplied(Replica& replica) ABSL_LOCKS_EXCLUDED(mutex_);
  // Durable when they return OK. JoinCluster leaves the role as it is.
  absl::Status SaveRole(NodeRole role) ABSL_LOCKS_EXCLUDED(saving_, mutex_);
  absl::Status JoinCluster(const std::string& cluster_id) ABSL_LOCKS_EXCLUDED(saving_, mutex_);
  absl::Status SaveState(const std::function<void(NodeState&)>& change)
      ABSL_LOCKS_EXCLUDED(saving_, mutex_);
  absl::StatusOr<PrimaryIdentity> MakeIdentity(Term term) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status OpenTerm(Term term);
  absl::Status TryStepDown() ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the replica's half, which follows nobody yet.
  absl::Status StartReplica() ABSL_LOCKS_EXCLUDED(mutex_);

  const NodeOptions options_;
  ChangeLog* const log_;
  ApplyTarget* const target_;
  Storage* const storage_;
  const std::unique_ptr<Service> service_;
  std::unique_ptr<OrphanStore> orphans_;  // set by Start
  std::unique_ptr<GrpcServer> server_;    // touched by Start and Stop alone
  std::thread maintenance_;
  std::atomic<bool> importing_ = false;  // one at a time, for each needs its size on the disk
  LogIndex synced_files_;                // of the maintenance thread: what SyncAll has made durable

  // Of the thread that changes roles.
  bool target_leads_ = false;     // the databases are a primary's
  bool writers_stopped_ = false;  // by StopWriters

  // One writer of node.json at a time, who may wait for the disk.
  absl::Mutex saving_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;    // Stop was called; the lease may still be held
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;  // every thread is to end
  NodeRole role_ ABSL_GUARDED_BY(mutex_) = NodeRole::kNone;
  NodeState state_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Primary> primary_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Replica> replica_ ABSL_GUARDED_BY(mutex_);
  std::string primary_address_ ABSL_GUARDED_BY(mutex_);
  std::string primary_id_ ABSL_GUARDED_BY(mutex_);  // as the lease says; empty when unknown
  std::string maintenance_error_ ABSL_GUARDED_BY(mutex_);
  std::string role_error_ ABSL_GUARDED_BY(mutex_);
  mutable bool ready_ ABSL_GUARDED_BY(mutex_) = false;

  std::unique_ptr<RoleDriver> driver_;  // null with a static lease; set by Start
};

}  // namespace echofs
