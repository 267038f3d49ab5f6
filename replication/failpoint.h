// Failpoints: named places before and after the durable steps of a node, where a test kills the daemon to see what a
// crash there leaves behind (tests/crash). They are in every build; unarmed, one costs a relaxed load of a bool.
//
// A call site says Failpoint("area.step.before") or Failpoint("area.step.after"). A name that the table lacks does not
// compile; that every name of the table is reached is what tests/crash/failpoints_test.py checks, name by name.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <string_view>

#include "absl/status/status.h"

namespace echofs {

// For tests only: NAME kills the daemon at the first hit of the point, NAME:K at its K-th.
inline constexpr char kFailpointVariable[] = "ECHOFS_FAILPOINT";

inline constexpr auto kFailpointNames = std::to_array<std::string_view>({
    // Transactions of applications on the primary (fs/database_capture*.cc, replication/commit_acks.cc).
    "commit.page_write.after",
    "commit.journal_log.before",
    "commit.journal_log.after",
    "commit.journal_end.before",  // by removing, truncating or overwriting it
    "commit.journal_end.after",
    "commit.wal_write.before",
    "commit.wal_write.after",
    "commit.wal_capture.after",
    "commit.wal_log.before",
    "commit.wal_log.after",
    "commit.wal_sync.before",
    "commit.wal_sync.after",
    "commit.ack.before",
    "commit.ack.after",
    "drop.log.after",
    "drop.unlink.after",
    // Checkpoints of applications on the primary, and new starts of their WAL.
    "checkpoint.log_sync.after",
    "checkpoint.main_sync.after",
    "checkpoint.page_write.after",
    "checkpoint.wal_restart.before",
    "checkpoint.wal_restart.after",
    "checkpoint.wal_truncate.before",
    "checkpoint.wal_truncate.after",
    "checkpoint.wal_remove.before",
    "checkpoint.wal_remove.after",
    // The log of a node (replication/change_log*.cc, log_entry_writer.cc).
    "log.append.before",
    "log.append.after",
    "log.header.before",  // a record larger than the buffer: all but its header is there
    "log.sync.before",
    "log.sync.after",
    "log.watermark.after",
    "log.create.before",
    "log.create.after",
    "log.roll.before",
    "log.roll_rename.before",
    "log.roll_rename.after",
    "log.roll.after",
    "log.retain.before",
    "log.retain.after",
    "log.cut.before",
    "log.cut_watermark.after",
    "log.cut_file.before",
    "log.cut.after",
    "log.reset.before",
    "log.reset_rename.after",
    "log.reset_watermark.after",
    "log.reset_segments.after",
    "log.reset.after",
    "log.open_cut.before",
    "log.open_cut.after",
    // What a replica receives and applies (fs/replica_database*.cc, wal_apply*.cc, journal_apply.cc).
    "apply.receive_ack.before",
    "apply.receive_ack.after",
    "apply.wal_write.before",
    "apply.wal_write.after",
    "apply.wal_publish.before",
    "apply.wal_publish.after",
    "apply.pages.before",
    "apply.page_run.after",
    "apply.pages.after",
    "apply.position.before",
    "apply.position.after",
    "apply.new_file.after",
    "apply.leave_wal.before",
    "apply.leave_wal.after",
    "apply.drop.before",
    "apply.drop_main.after",
    "apply.drop.after",
    "apply.checkpoint.before",
    "apply.checkpoint_wal.after",
    "apply.checkpoint_pages.after",
    "apply.checkpoint.after",
    "apply.wal_restart.before",
    "apply.wal_restart.after",
    "apply.sync_files.before",
    "apply.sync_files.after",
    "apply.sync_positions.after",
    // First copies of databases (replication/database_copy.cc, fs/replica_database_install.cc).
    "copy.pages.after",
    "copy.sync.before",
    "copy.sync.after",
    "copy.rename.before",
    "copy.rename.after",
    "copy.position.before",
    "copy.position.after",
    // Going back to the cluster's history (replication/log_rewind.cc, orphan_store.cc).
    "rewind.orphans_write.before",
    "rewind.orphans_rename.before",
    "rewind.orphans_rename.after",
    "rewind.keep.after",
    "rewind.forget.after",
    "rewind.install.before",
    "rewind.position.before",
    "rewind.position.after",
    // Recovery at start (fs/recovery.cc, database_set_recovery.cc).
    "recover.rollback.before",
    "recover.rollback_sync.after",
    "recover.rollback.after",
    "recover.take_journal.before",
    "recover.take_journal.after",
    "recover.wal_log.after",
    "recover.redo.before",
    "recover.redo.after",
    "recover.fold.before",
    "recover.fold_sync.after",
    "recover.fold.after",
    "recover.position.before",
    "recover.position.after",
    "recover.as_replica.after",
    // node.json (replication/node_state.cc).
    "state.write.before",
    "state.rename.before",
    "state.rename.after",
    // Calls of the lease (replication/role_driver.cc).
    "lease.acquire.before",
    "lease.acquire.after",
    "lease.renew.before",
    "lease.renew.after",
    "lease.in_sync.before",
    "lease.in_sync.after",
    "lease.transfer.before",
    "lease.transfer.after",
    "lease.release.before",
    "lease.release.after",
    // Role changes (replication/node_roles.cc, fs/database_set_roles.cc).
    "takeover.become_primary.before",
    "takeover.positions.after",
    "takeover.become_primary.after",
    "takeover.open_term.after",
    "takeover.save_role.after",
    "takeover.resume.after",
    "stepdown.stop_writers.before",
    "stepdown.stop_writers.after",
    "stepdown.positions.after",
    "stepdown.become_replica.after",
    "stepdown.replica.after",
});

// A name of the table.
class FailpointName {
 public:
  // Implicit: a literal is the argument.
  consteval FailpointName(const char* name) : index_(IndexOf(name)) {}
  std::size_t index() const { return index_; }

 private:
  static constexpr std::size_t IndexOf(std::string_view name) {
    for (std::size_t i = 0; i < kFailpointNames.size(); ++i) {
      if (kFailpointNames[i] == name) return i;
    }
    throw "this name is not in kFailpointNames";  // at compile time
  }

  std::size_t index_;
};

namespace failpoint {

inline std::atomic<bool> armed = false;
void Hit(std::size_t index);

}  // namespace failpoint

// Ends the process by SIGKILL, with a line on stderr, when this point is armed and it is its turn. Any thread.
inline void Failpoint(FailpointName name) {
  if (failpoint::armed.load(std::memory_order_relaxed)) [[unlikely]]
    failpoint::Hit(name.index());
}

// Arms what the variable says; nothing when it is not set or empty. To be called once, while the process has one
// thread. InvalidArgument when there is no such point, or K is not a number above 0.
absl::Status ArmFailpointFromEnvironment();

}  // namespace echofs
