// Brings the files of the databases and the log into line at a start (design L5), before the mount serves
// anybody. Its work is in proportion to the tail - one journal, one WAL, a few log entries a database - but
// after a crash of the machine, when digests are verified by a scan.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/applied_positions.h"
#include "replication/change_log.h"
#include "replication/storage.h"

namespace echofs::fs {

struct RecoveryContext {
  Storage* storage = nullptr;
  ChangeLog* log = nullptr;
  std::string root;  // directory of the backing files
  // Where this daemon's mount is, absolute. Nothing below it is ever looked at: the mount does not serve anybody yet, so
  // that a look at a super-journal by its name there would never return, and neither would the start.
  std::string mount_point{};
};

// Names of the regular files below the root that are not -journal, -wal, -shm or super-journals; sorted.
absl::StatusOr<std::vector<std::string>> ListMainFiles(const std::string& root);
// True when the file starts with SQLite's magic.
bool LooksLikeDatabase(Storage& storage, const std::string& path);

enum class JournalFate {
  kNone,        // there was no hot journal
  kRolledBack,  // the transaction is undone, durably; the journal is still there
  kCommitted,   // its super-journal is gone: the transaction counts; the journal is still there
};
// Deals with the rollback journal that a crash left, as the next SQLite connection would. The super-journal's
// name is the one that the application saw: in this mount, it is looked for at its place below the root; else under its
// name, and by its longest part that exists below the root.
//
// The log may have the transaction that is undone: its journal was on its way out. Nothing but the journal says so. It is
// therefore removed by the caller, and last: when the file has again what the log has, or the log what the file
// has. A crash before that finds the journal, and all is done once more.
absl::StatusOr<JournalFate> RecoverJournal(const RecoveryContext& context,
                                           const std::string& database);
// Durably; OK when there is none.
absl::Status RemoveJournal(const RecoveryContext& context, const std::string& database);

// Writes the pages of all entries of `database` after `after`, at most `count` of them, into its file, which
// has no WAL. It does not matter whether the file holds them already. Returns the index of the last one, or
// `after` when there was none.
absl::StatusOr<LogIndex> RedoEntries(const RecoveryContext& context, const std::string& database,
                                     LogIndex after, int count);

// Whether RedoEntries makes the database from nothing: the first entry that the log has of it is its first one.
absl::StatusOr<bool> LogHasAll(const RecoveryContext& context, const std::string& database);

// Puts the committed frames of a WAL into the database file, synced, and removes -wal and -shm, durably. With `end`, after
// a power loss on a replica: its WAL may have got to the disk before the log did, so nothing is taken from it that lies
// behind the last state with the digest of `end`, if there is one. That reads the whole database.
absl::Status FoldWal(const RecoveryContext& context, const std::string& database,
                     const DatabasePosition* end = nullptr);

// Digest of a database file without WAL, by reading it.
absl::StatusOr<std::uint64_t> FileDigest(const RecoveryContext& context,
                                         const std::string& database, std::uint32_t page_size);

}  // namespace echofs::fs
