// What a running node tells the commands about itself and does for them: `echofs status`,
// `databases`, `log`, `handoff`, `promote`. Plain structs; the daemon implements AdminSource, and
// the admin client returns the same structs at the other end.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/apply_queue.h"
#include "replication/ids.h"
#include "replication/orphan_store.h"

namespace echofs::cmd {

struct DatabaseInfo {
  std::string name;
  Txid txid;
  std::uint64_t digest = 0;
  std::uint32_t pages = 0;
  std::uint32_t page_size = 0;  // bytes
  std::string journal_mode;     // "wal", "delete" (any rollback mode)
  std::string state;            // "ok", "copying", "blocked", "stopped"
  LogIndex applied_index;
  int blocked_by_pid = 0;  // 0: not blocked, or not known by whom
  std::uint64_t blocked_for_ms = 0;
  // Progress of a first copy; both 0 when there is none.
  std::uint64_t copy_pages_done = 0;
  std::uint64_t copy_pages = 0;
  std::string detail;  // why the state is not "ok"
};

struct ReplicaInfo {
  std::string node;
  std::string address;
  LogIndex acked_index;
  std::uint64_t lag_ms = 0;
  bool in_sync = false;
};

// A node of the cluster, as the lease service knows it.
struct NodeInfo {
  std::string node;
  std::string address;
  bool candidate = false;
  bool primary = false;
  bool in_sync = false;
  // Of its log: as it said some seconds ago, for the primary's replicas what they acknowledged.
  LogIndex log_index;
  Term log_term;
  std::optional<std::uint64_t> lag_ms;  // as the primary knows it
};

struct NodeStatus {
  std::string node;
  std::string role;  // "primary", "replica" or "candidate"
  bool ready = false;
  Term term;
  std::string primary;  // name of the primary, empty when unknown
  LogIndex log_index;
  Term log_term;
  std::vector<std::string> in_sync;
  std::vector<DatabaseInfo> databases;
  std::vector<ReplicaInfo> replicas;
  std::vector<NodeInfo> nodes;  // empty with a static lease
  std::string cluster_id;
  std::string last_error;  // what keeps this node from doing its work, empty when nothing does
  LogIndex log_first_index;
  std::uint64_t log_size_bytes = 0;
  std::uint64_t orphans = 0;  // change sets that the cluster's history lacks
  RewindStats rewinds;        // since the start
  std::string http;           // host:port of the HTTP server; empty without one
  // Filled in by the admin server.
  std::string version;
  std::uint64_t pid = 0;
};

// Who is the primary after a handoff or a promotion.
struct PrimaryInfo {
  std::string node;
  Term term;
};

// One entry of the log that belongs to a database.
struct ChangeSetSummary {
  LogIndex index;
  Term term;
  Txid txid;
  std::string kind;               // "change", "drop"
  std::int64_t timestamp_ms = 0;  // since 1970
  std::uint32_t pages = 0;        // in the change set
  std::uint64_t bytes = 0;        // of its encoding
  std::uint32_t page_count = 0;   // of the database afterwards
  std::uint64_t digest = 0;       // afterwards
};

// Which of a database's change sets are wanted.
struct ChangeSetRange {
  Txid from;                // zero: from the oldest that the log holds
  std::uint64_t limit = 0;  // at most so many, the newest if `from` is zero; 0: all
};

// Thread-safe; called on threads of the admin server.
class AdminSource {
 public:
  virtual ~AdminSource() = default;

  virtual NodeStatus Status() = 0;
  virtual std::vector<DatabaseInfo> Databases() = 0;
  // Paths below the mount of the files that stay on this node.
  virtual std::vector<std::string> LocalFiles() = 0;
  // Calls `visit` for the database's entries that the log still holds, oldest first, until it
  // returns false. NotFound when there is no such database.
  virtual absl::Status ChangeSets(const std::string& database, const ChangeSetRange& range,
                                  const std::function<bool(const ChangeSetSummary&)>& visit) = 0;
  // Makes `to` the primary in this node's place, empty: the best replica; returns when it is.
  virtual absl::StatusOr<PrimaryInfo> Handoff(const std::string& to) = 0;
  // Makes this node the primary; returns when it is. `force`: also when commits that were
  // acknowledged may be lost.
  virtual absl::StatusOr<PrimaryInfo> Promote(bool force) = 0;
  // The node's orphans; outlives the source.
  virtual OrphanStore* Orphans() = 0;
};

}  // namespace echofs::cmd
