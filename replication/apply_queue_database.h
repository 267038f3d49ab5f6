// The state of one database within the apply queue. Private to apply_queue*.cc.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "replication/apply_queue.h"
#include "replication/limits.h"

namespace echofs {

// Guarded by the queue's mutex, but for `reader`, which belongs to the worker that runs the
// database. That worker alone changes `local`, with the mutex held, and so may read it without.
struct ApplyQueue::Database {
  struct Waiting {
    LogEntry entry;
    std::vector<std::uint8_t> payload;
    std::uint64_t MemorySize() const { return payload.size() + kQueuedEntryOverhead; }
  };

  explicit Database(std::string database_name) : name(std::move(database_name)) {}

  // Something that NextStep can do at once.
  bool HasWork() const {
    return copy ||
           (!wants_copy && (wants_drop || !refetch_reason.empty() || !memory.empty() || in_log));
  }

  const std::string name;
  LocalPosition local;

  // What waits: first `memory`, then, with `in_log`, the entries of this database in the log from
  // `log_from` to `log_last`.
  std::deque<Waiting> memory;
  bool in_log = false;
  LogIndex log_from;
  LogIndex log_last;
  std::unique_ptr<LogReader> reader;  // stands at reader_next
  LogIndex reader_next;

  // A drop that comes before anything else; the TXID is known from the log to be this afterwards.
  Txid txid_after_drop;
  bool wants_drop = false;

  // A copy: first wanted, then (task) on its way, then ready to be installed.
  bool wants_copy = false;
  LogIndex copy_from;  // log entries from here on are needed for it
  absl::Time copy_at;  // when to start it, its place in copies_due_
  absl::Duration copy_delay;
  // The files hold orphans: how to take them back, and what to fetch for that (it may be that only a whole copy
  // will do). Until the database is in the cluster's history again.
  std::optional<RewindPlan> plan;
  std::optional<PagesWanted> rewind;
  std::shared_ptr<CopyTask> task;
  std::optional<CompletedCopy> copy;
  std::string refetch_reason;  // a copy is asked for by a person; empty: none

  DatabaseState state = DatabaseState::kOk;
  int blocked_by_pid = 0;
  std::string detail;
  absl::Time blocked_since;  // with kBlocked

  bool running = false;  // a worker has it
  bool queued = false;   // it is in ready_
  bool waiting = false;  // it is in due_, at retry_at
  bool joined = false;   // ApplyTarget::Join was done
  absl::Time retry_at;
  absl::Duration delay;
  std::optional<LogIndex> pending;  // its place in pending_
};

}  // namespace echofs
