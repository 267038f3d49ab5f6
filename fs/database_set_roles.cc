// Role changes of all databases of a node, with applications connected and working (design R4).
//
// Away from the primary's role: StopWriters takes the locks by which SQLite keeps writers out, one database after
// the other as their writers finish; after the deadline it does without. Then every capture is fenced: from that
// moment on nothing is captured, whatever an application still holds, and what was captured is in the log. Then
// BecomeReplica hands the same locks on to the ReplicaDatabase, so that at no time an application can become a
// writer. A writer that would not finish is still inside then; its commit is refused, and its database is joined
// when it has left: the apply queue tries again by a timer (Join).
//
// To the primary's role: BecomePrimary gives each database a fenced capture that knows how much of the present
// WAL is in the log, and makes that durable, while the replica's locks are still held. When the caller has made
// its role durable, ResumeWriters lifts the fences and lets go of the locks: applications write at once, on the
// connections that they have.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/time/clock.h"
#include "fs/database_set.h"
#include "fs/mount_replica_files.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// Between two looks whether writers have finished.
constexpr absl::Duration kWriterPoll = absl::Milliseconds(1);

}  // namespace

absl::StatusOr<std::vector<std::shared_ptr<Database>>> DatabaseSet::LoggedDatabases() {
  std::vector<std::shared_ptr<Database>> databases;
  for (const DatabasePosition& position : options_.log->Positions()) {
    if (position.dropped) continue;
    ECHOFS_ASSIGN_OR_RETURN(std::shared_ptr<Database> database, OpenMain(position.name));
    databases.push_back(std::move(database));
  }
  return databases;
}

absl::Status DatabaseSet::StopWriters(absl::Time deadline) {
  if (read_only()) return absl::FailedPreconditionError("this node is a replica");
  ECHOFS_ASSIGN_OR_RETURN(std::vector<std::shared_ptr<Database>> waiting, LoggedDatabases());
  while (true) {
    std::vector<std::shared_ptr<Database>> busy;
    for (const auto& database : waiting) {
      ECHOFS_ASSIGN_OR_RETURN(const bool stopped,
                              StopWriter(*database, &writer_locks_[database->name()]));
      if (!stopped) busy.push_back(database);
    }
    waiting = std::move(busy);
    if (waiting.empty() || absl::Now() >= deadline) break;
    absl::SleepFor(kWriterPoll);
  }
  for (const auto& database : waiting) {
    spdlog::warn("{}: a writer did not finish in time; its commit will be refused",
                 database->name());
    writer_locks_.erase(database->name());
  }
  writers_stopped_ = true;
  for (const auto& database : All()) {
    if (const auto capture = database->capture()) ECHOFS_RETURN_IF_ERROR(capture->Fence());
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> DatabaseSet::StopWriter(Database& database, WriterLocks* locks) {
  const auto capture = database.capture();
  if (!capture || database.removed()) return true;
  const absl::StatusOr<bool> locked =
      TryLockWriters(mount_point_ + "/" + database.name(), capture->wal_mode(), locks);
  if (absl::IsNotFound(locked.status())) return true;  // deleted just now
  ECHOFS_RETURN_IF_ERROR(locked.status());
  return *locked ? EndHotJournal(database, locks) : false;
}

// With no writer there, a valid journal is what one left that died.
absl::StatusOr<bool> DatabaseSet::EndHotJournal(Database& database, WriterLocks* locks) {
  const auto capture = database.capture();
  if (!capture->HasJournal()) return true;
  ECHOFS_ASSIGN_OR_RETURN(
      const bool alone,
      locks->main->TryLock(LockKind::kExclusive, sqlite::kPendingByte, 2 + sqlite::kSharedSize));
  if (!alone) return false;
  const ScopedUnlock pending(locks->main.get(), sqlite::kPendingByte, 1);
  const ScopedUnlock shared(locks->main.get(), sqlite::kSharedFirst, sqlite::kSharedSize);
  MountReplicaFiles files({database.name(), options_.root, mount_point_,
                           options_.temporary_directory, options_.storage, cache_});
  const absl::Status ended = capture->EndHotJournal([&]() -> absl::StatusOr<bool> {
    ECHOFS_ASSIGN_OR_RETURN(const JournalFate fate, RecoverJournal(Recovery(), database.name()));
    ECHOFS_RETURN_IF_ERROR(cache_->Invalidate(files.Inode(FileRole::kMain), 0, 0));
    return fate == JournalFate::kCommitted;
  });
  if (!ended.ok() && !absl::IsDataLoss(ended)) return ended;
  ECHOFS_RETURN_IF_ERROR(files.Remove(FileRole::kJournal));
  ECHOFS_RETURN_IF_ERROR(ended);
  return true;
}

absl::Status DatabaseSet::ResumeWriters() {
  writers_stopped_ = false;
  absl::Status result;
  for (const auto& database : All()) {
    if (const auto capture = database->capture()) capture->Unfence();
    const auto replica = database->replica();
    if (!replica) continue;
    const absl::Status closed = replica->Close();
    if (closed.ok()) {
      database->SetReplica(nullptr);
    } else {
      result = closed;  // its locks stay, and keep writers out
    }
  }
  writer_locks_.clear();
  return result;
}

absl::Status DatabaseSet::BecomeReplica() {
  ECHOFS_CHECK(writers_stopped_);
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::shared_ptr<Database>> databases,
                          LoggedDatabases());
  for (const auto& database : databases) {
    const DatabasePosition position = database->capture()->position();
    ECHOFS_RETURN_IF_ERROR(
        positions_->Set(database->name(), {position.index, position.txid, {}, {}}));
  }
  ECHOFS_RETURN_IF_ERROR(positions_->Sync());
  Failpoint("stepdown.positions.after");
  captures_ = false;
  read_only_.store(true, std::memory_order_release);
  for (const auto& database : databases) ECHOFS_RETURN_IF_ERROR(BecomeReplica(*database));
  writer_locks_.clear();
  writers_stopped_ = false;
  return absl::OkStatus();
}

absl::Status DatabaseSet::BecomeReplica(Database& database) {
  const auto held = writer_locks_.find(database.name());
  // A writer did not finish. It may have left by now, and a journal that would undo what is applied from here on: the
  // apply queue joins the database by way of OpenReplica, which ends a journal first.
  if (held == writer_locks_.end()) return absl::OkStatus();
  const DatabasePosition position = database.capture()->position();
  int blocked_by_pid = 0;
  absl::Status joined = AttachReplica(database, position, std::move(held->second), &blocked_by_pid);
  if (absl::IsUnavailable(joined)) {
    // The capture stays, fenced, and refuses what its writer wants to commit.
    spdlog::warn("{}: process {} is in the way of this node's becoming a replica", database.name(),
                 blocked_by_pid);
    return absl::OkStatus();
  }
  return joined;
}

absl::Status DatabaseSet::BecomePrimary(Term term) {
  if (!read_only()) {  // it started as one
    SetTerm(term);
    return absl::OkStatus();
  }
  std::vector<std::shared_ptr<Database>> databases;
  for (const DatabasePosition& logged : options_.log->Positions()) {
    if (logged.dropped) continue;
    const auto database = Find(logged.name);
    const auto replica = database ? database->replica() : nullptr;
    if (!replica || replica->position().index != logged.index || !replica->status().stopped.ok()) {
      return absl::FailedPreconditionError(fmt::format(
          "this node cannot become the primary: it has no complete copy of {}", logged.name));
    }
    databases.push_back(database);
  }
  SetTerm(term);
  for (const auto& database : databases) ECHOFS_RETURN_IF_ERROR(BecomePrimary(*database));
  ECHOFS_RETURN_IF_ERROR(positions_->Sync());
  Failpoint("takeover.positions.after");
  writers_stopped_ = true;
  captures_ = true;
  read_only_.store(false, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status DatabaseSet::BecomePrimary(Database& database) {
  const auto replica = database.replica();
  DatabasePosition position = replica->position();
  position.wal = replica->WalEnd();
  ECHOFS_RETURN_IF_ERROR(
      positions_->Set(database.name(), {position.index, position.txid, {}, position.wal}));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<DatabaseCapture> capture,
                          NewCapture(database.name(), position));
  // All that is there: applications may have it open already. A journal is from an earlier time as the primary
  // (PERSIST).
  const std::string path = options_.root + "/" + database.name();
  for (const auto& [role, suffix] : {std::pair(FileRole::kWal, sqlite::kWalSuffix),
                                     std::pair(FileRole::kJournal, sqlite::kJournalSuffix)}) {
    absl::StatusOr<std::unique_ptr<File>> file =
        options_.storage->Open(path + std::string(suffix), {});
    if (absl::IsNotFound(file.status())) continue;
    ECHOFS_RETURN_IF_ERROR(file.status());
    ECHOFS_RETURN_IF_ERROR(capture->SetFile(role, *std::move(file)));
  }
  ECHOFS_RETURN_IF_ERROR(capture->Fence());
  database.SetCapture(capture);
  return absl::OkStatus();
}

}  // namespace echofs::fs
