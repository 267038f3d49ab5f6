// Turns a captured commit into an entry of the log: hashes, drops what changed nothing, encodes, appends
// (design C4, C8, L1, L2). Knows nothing of journals and WALs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "replication/change_log.h"
#include "replication/change_set.h"

namespace echofs::fs {

// What a transaction did, before it is known whether it did anything.
struct CommitDraft {
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // afterwards
  WalPosition wal;
  FileAttributes attributes;
  // The candidates are all pages, and the old ones do not count: nothing is known of them.
  bool replaces_all = false;
  // Candidates in ascending order, none above page_count, without the lock page. Includes every page
  // between the old and the new page count. Not owned.
  PageSource* pages = nullptr;
  // Hash of a page that existed before, as it was; asked for candidates and for pages that are gone.
  std::function<absl::StatusOr<std::uint64_t>(PageNumber)> old_hash;
};

struct RecordedCommit {
  DatabasePosition position;               // after the entry
  std::vector<std::uint64_t> page_hashes;  // of the candidates
};

// Appends the entry that follows `before`. Nothing is returned when the draft changes no page and no size
// (a rollback, or a duplicate commit frame): then nothing is appended. A page-size change, or a first commit
// (before.txid 0, or dropped), takes all pages as new. Not synced. ResourceExhausted when the disk is full;
// then the log is as before.
absl::StatusOr<std::optional<RecordedCommit>> RecordCommit(ChangeLog& log, Term term,
                                                           const DatabasePosition& before,
                                                           const CommitDraft& draft);

// Appends that the database is deleted; returns the position after that. Not synced.
absl::StatusOr<DatabasePosition> RecordDrop(ChangeLog& log, Term term,
                                            const DatabasePosition& before);

}  // namespace echofs::fs
