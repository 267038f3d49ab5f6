// What a running node tells the commands about itself: `echofs status`, `databases`, `log`. Plain
// structs; the daemon implements AdminSource, and the admin client returns the same structs at the
// other end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
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
  std::string cluster_id;
  std::string last_error;  // what keeps this node from doing its work, empty when nothing does
  LogIndex log_first_index;
  std::uint64_t log_size_bytes = 0;
  std::uint64_t orphans = 0;  // change sets that the cluster's history lacks
  RewindStats rewinds;        // since the start
  // Filled in by the admin server.
  std::string version;
  std::uint64_t pid = 0;
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
  virtual absl::Status ChangeSets(const std::string& database,
                                  const std::function<bool(const ChangeSetSummary&)>& visit) = 0;
  // The node's orphans; outlives the source.
  virtual OrphanStore* Orphans() = 0;
};

}  // namespace echofs::cmd
