// The start of a node: what the files and the log lack of each other (design L5).
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <limits>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "fs/commit_recorder.h"
#include "fs/database_set.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {

RecoveryContext DatabaseSet::Recovery() const {
  return {options_.storage, options_.log, options_.root, options_.mount_point};
}

absl::Status DatabaseSet::RecoverPrimary() {
  for (const DatabasePosition& position : options_.log->Positions()) {
    if (position.dropped) continue;
    ECHOFS_RETURN_IF_ERROR(RecoverPrimaryDatabase(position));
  }
  // Databases that were put there while the node was down, or whose first commit did not get into the log.
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListMainFiles(options_.root));
  for (const std::string& name : names) {
    if (IsDatabase(name) || !LooksLikeDatabase(*options_.storage, options_.root + "/" + name)) {
      continue;
    }
    DatabasePosition fresh;
    fresh.name = name;
    ECHOFS_RETURN_IF_ERROR(RecoverPrimaryDatabase(fresh));
  }
  // What was found is nowhere else once the WALs are gone.
  return options_.log->Sync(options_.log->last_index());
}

absl::Status DatabaseSet::RecoverPrimaryDatabase(const DatabasePosition& position) {
  const std::string& name = position.name;
  const std::string path = options_.root + "/" + name;
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, options_.storage->Exists(path));
  if (!exists) {
    // A name that nobody synced goes with the power; a deletion would stand in the log.
    bool made = false;
    if (options_.machine_crashed) {
      ECHOFS_ASSIGN_OR_RETURN(made, MakeFromLog(position));
    }
    return made ? absl::OkStatus() : AppendDrop(position);
  }
  ECHOFS_ASSIGN_OR_RETURN(const JournalFate fate, RecoverJournal(Recovery(), name));
  ECHOFS_RETURN_IF_ERROR(AlignWithLog(position, fate));
  return fate == JournalFate::kRolledBack ? RemoveJournal(Recovery(), name) : absl::OkStatus();
}

// Until what the log has is in the files, and what the files have in the log.
absl::Status DatabaseSet::AlignWithLog(const DatabasePosition& position, JournalFate fate) {
  const std::string& name = position.name;
  const std::string path = options_.root + "/" + name;
  if (fate == JournalFate::kRolledBack && position.txid != Txid{}) {
    // The commit may be in the log already: it was on its way out when the node stopped.
    ECHOFS_RETURN_IF_ERROR(RedoEntries(Recovery(), name, position.index.Previous(), 1).status());
  }
  const std::string wal_path = path + std::string(sqlite::kWalSuffix);
  ECHOFS_ASSIGN_OR_RETURN(const bool has_wal, options_.storage->Exists(wal_path));
  if (fate == JournalFate::kNone && !has_wal && position.txid != Txid{} &&
      !options_.machine_crashed) {
    return absl::OkStatus();  // nothing to do, and nothing to open before somebody asks for it
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, OpenMain(name));
  const std::shared_ptr<DatabaseCapture> owned = database->capture();
  DatabaseCapture& capture = *owned;
  if (fate == JournalFate::kCommitted) {
    const std::string journal_path = path + std::string(sqlite::kJournalSuffix);
    ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> journal,
                            options_.storage->Open(journal_path, {}));
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<JournalContent> content, ReadJournal(*journal));
    ECHOFS_RETURN_IF_ERROR(capture.SetFile(FileRole::kJournal, std::move(journal)));
    Failpoint("recover.take_journal.before");
    // As above it may be in the log already. Taken a second time, its pages would count twice in the digest.
    bool logged = false;
    if (position.txid != Txid{}) {
      ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t digest, capture.ScanDigest());
      logged = digest == position.digest;
    }
    if (content && !logged) ECHOFS_RETURN_IF_ERROR(capture.TakeJournal(*content));
    Failpoint("recover.take_journal.after");
    ECHOFS_RETURN_IF_ERROR(
        capture.Remove(FileRole::kJournal, [&] { return options_.storage->Remove(journal_path); }));
  }
  ECHOFS_RETURN_IF_ERROR(capture.LastWriterClosed());
  if (has_wal) {
    ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> wal, options_.storage->Open(wal_path, {}));
    ECHOFS_RETURN_IF_ERROR(capture.SetFile(FileRole::kWal, std::move(wal)));
    ECHOFS_RETURN_IF_ERROR(capture.Drain());
    Failpoint("recover.wal_log.after");
  }
  // The wal-index is rebuilt by the first connection; an old one is of no use.
  const absl::Status removed = options_.storage->Remove(path + std::string(sqlite::kShmSuffix));
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  if (position.txid == Txid{}) return absl::OkStatus();
  // A rollback restores all pages but those that were free, whose content SQLite does not journal.
  if (fate == JournalFate::kRolledBack || options_.machine_crashed)
    return VerifyAfterCrash(database);
  return absl::OkStatus();
}

// A power loss may have taken from the files what the log has: the log is the truth. By now it also has what the WAL had
// and it lacked, so that with the WAL's frames and all of its entries in the file, in this order, the file is at its end.
absl::Status DatabaseSet::VerifyAfterCrash(std::shared_ptr<Database> database) {
  const std::string name = database->name();
  std::shared_ptr<DatabaseCapture> capture = database->capture();
  ECHOFS_ASSIGN_OR_RETURN(std::uint64_t digest, capture->ScanDigest());
  if (digest == capture->position().digest) return absl::OkStatus();
  if (options_.machine_crashed) {
    // What is about to be the only copy of what the WAL had.
    ECHOFS_RETURN_IF_ERROR(options_.log->Sync(options_.log->last_index()));
    Forget(*database);
    ECHOFS_RETURN_IF_ERROR(FoldWal(Recovery(), name));
    ECHOFS_RETURN_IF_ERROR(
        RedoEntries(Recovery(), name, LogIndex{}, std::numeric_limits<int>::max()).status());
    ECHOFS_ASSIGN_OR_RETURN(database, OpenMain(name));
    capture = database->capture();
    ECHOFS_ASSIGN_OR_RETURN(digest, capture->ScanDigest());
    if (digest == capture->position().digest) return absl::OkStatus();
  }
  spdlog::warn(
      "{}: its files are not what the log says (an application that does not sync, or free pages "
      "of a transaction that was undone); all of its pages go into the log as they are",
      name);
  return capture->RecordWhole();
}

// Makes the files of a database anew, if the log has it from its beginning on.
absl::StatusOr<bool> DatabaseSet::MakeFromLog(const DatabasePosition& position) {
  ECHOFS_ASSIGN_OR_RETURN(const bool complete, LogHasAll(Recovery(), position.name));
  if (!complete) return false;
  const auto remove_files = [&]() -> absl::Status {
    for (const std::string_view suffix :
         {std::string_view(), sqlite::kJournalSuffix, sqlite::kWalSuffix, sqlite::kShmSuffix}) {
      const absl::Status removed =
          options_.storage->Remove(options_.root + "/" + position.name + std::string(suffix));
      if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    }
    return absl::OkStatus();
  };
  ECHOFS_RETURN_IF_ERROR(remove_files());
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex done, RedoEntries(Recovery(), position.name, LogIndex{},
                                                           std::numeric_limits<int>::max()));
  if (done == position.index) {
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t digest,
                            FileDigest(Recovery(), position.name, position.page_size));
    if (digest == position.digest) {
      spdlog::warn("{}: its files were lost with the machine's power, and are made from the log",
                   position.name);
      return true;
    }
  }
  ECHOFS_RETURN_IF_ERROR(remove_files());
  return false;
}

absl::Status DatabaseSet::AppendDrop(const DatabasePosition& position) {
  spdlog::warn("{}: its file is gone from {}; taken as deleted", position.name, options_.root);
  return RecordDrop(*options_.log, Term{term_.load()}, position).status();
}

absl::Status DatabaseSet::RecoverReplica() {
  for (const DatabasePosition& position : options_.log->Positions()) {
    ECHOFS_RETURN_IF_ERROR(position.dropped ? FinishDrop(position.name)
                                            : RecoverReplicaDatabase(position));
  }
  return absl::OkStatus();
}

// The node ended after the entry that deletes the database was in the log, and before all of it was applied: see
// applied_positions.h. The order is that of ReplicaDatabase::Drop.
absl::Status DatabaseSet::FinishDrop(const std::string& name) {
  if (!positions_->Get(name)) return absl::OkStatus();
  for (const std::string_view suffix :
       {std::string_view(), sqlite::kJournalSuffix, sqlite::kWalSuffix, sqlite::kShmSuffix}) {
    const std::string path = options_.root + "/" + name + std::string(suffix);
    const absl::Status removed = options_.storage->Remove(path);
    if (absl::IsNotFound(removed)) continue;
    ECHOFS_RETURN_IF_ERROR(removed);
    ECHOFS_RETURN_IF_ERROR(options_.storage->SyncDirectory(path.substr(0, path.rfind('/'))));
  }
  return positions_->Remove(name);
}

// The files hold the applied entry, or the next one, or a part of it: see applied_positions.h. After a power loss they
// hold the synced entry and some of what followed, up to the log's end, in any order, but for a WAL that goes beyond it
// (ReplicaDatabaseOptions::sync_log).
//
// A rollback journal is that of a writer which would not finish when this node became a replica: nothing has been applied
// since (database_set_roles.cc), and the entry that the node stood at may be undone with it. It is gone before anybody
// could take it for hot, once this node leads, and put the pages of an old state among those of a new one.
absl::Status DatabaseSet::RecoverReplicaDatabase(const DatabasePosition& position) {
  const std::string& name = position.name;
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, options_.storage->Exists(options_.root + "/" + name));
  JournalFate fate = JournalFate::kNone;
  if (exists) {
    ECHOFS_ASSIGN_OR_RETURN(fate, RecoverJournal(Recovery(), name));
  }
  ECHOFS_RETURN_IF_ERROR(AlignReplicaWithLog(position, fate));
  return RemoveJournal(Recovery(), name);
}

absl::Status DatabaseSet::AlignReplicaWithLog(const DatabasePosition& position, JournalFate fate) {
  const std::string& name = position.name;
  const std::optional<fs::AppliedPosition> applied = positions_->Get(name);
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, options_.storage->Exists(options_.root + "/" + name));
  if (!applied || !exists) return GiveUpReplica(position);
  const bool doubtful = options_.machine_crashed || fate != JournalFate::kNone;
  LogIndex from = options_.machine_crashed ? applied->synced_index : applied->index;
  if (fate != JournalFate::kNone) from = std::min(from, applied->index.Previous());
  if (from.Next() < options_.log->first_index() && from < position.index) {
    return GiveUpReplica(position);  // but one that is younger than the log is all in it
  }
  ECHOFS_RETURN_IF_ERROR(FoldWal(Recovery(), name, options_.machine_crashed ? &position : nullptr));
  int count = 1;
  if (doubtful || !options_.read_only) count = std::numeric_limits<int>::max();
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex done, RedoEntries(Recovery(), name, from, count));
  const absl::StatusOr<DatabasePosition> reached = PositionAt(name, done);
  if (!reached.ok()) return GiveUpReplica(position);
  if (doubtful) {
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t digest,
                            FileDigest(Recovery(), name, reached->page_size));
    if (digest != reached->digest) return GiveUpReplica(position);
  }
  Failpoint("recover.position.before");
  ECHOFS_RETURN_IF_ERROR(positions_->Set(name, done, reached->txid));
  Failpoint("recover.position.after");
  return absl::OkStatus();
}

// The files are not what the log says, or are not there: they are made from the log where that can have come from a
// power loss, else copied from the primary.
absl::Status DatabaseSet::GiveUpReplica(const DatabasePosition& position) {
  if (options_.machine_crashed) {
    ECHOFS_ASSIGN_OR_RETURN(const bool made, MakeFromLog(position));
    if (made) return positions_->Set(position.name, position.index, position.txid);
  }
  return positions_->Remove(position.name);
}

absl::Status DatabaseSet::FinishAsPrimary() {
  if (!options_.was_replica) return absl::OkStatus();
  for (const DatabasePosition& position : options_.log->Positions()) {
    if (position.dropped) continue;
    const std::optional<fs::AppliedPosition> applied = positions_->Get(position.name);
    if (!applied || applied->index != position.index) {
      return absl::FailedPreconditionError(
          fmt::format("this node cannot become the primary: it has no complete copy of {}. Start "
                      "it as a replica of a node "
                      "that has one, and let it finish",
                      position.name));
    }
  }
  return absl::OkStatus();
}

absl::Status DatabaseSet::FinishAsReplica() {
  if (options_.was_replica) return absl::OkStatus();
  // It was the primary: its files hold all that is in its log.
  for (const DatabasePosition& position : options_.log->Positions()) {
    if (position.dropped) continue;
    if (const auto database = Find(position.name)) Forget(*database);
    // Not a hot one, which RecoverPrimary has dealt with; but an application could write into it, and make it one, sooner
    // than this node has the locks.
    ECHOFS_RETURN_IF_ERROR(RemoveJournal(Recovery(), position.name));
    ECHOFS_RETURN_IF_ERROR(FoldWal(Recovery(), position.name));
    ECHOFS_RETURN_IF_ERROR(positions_->Set(position.name, position.index, position.txid));
    Failpoint("recover.as_replica.after");
  }
  return absl::OkStatus();
}

}  // namespace echofs::fs
