// Reads a rollback journal: which pages a transaction changed, and what they were before.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/sqlite_format.h"
#include "replication/storage.h"

namespace echofs::fs {

struct JournalContent {
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // of the database before the transaction
  // Page -> offset of its old content in the journal; the first record of a page counts.
  absl::flat_hash_map<PageNumber, std::uint64_t> pages;
  // Name of the super-journal, as the application saw it; empty when there is none.
  std::string super_journal;
};

// False when the journal certainly names no super-journal. In little time.
absl::StatusOr<bool> MayNameSuperJournal(const File& journal);

// Nothing when the file holds no valid journal (empty, zeroed or cut header). Reads records as SQLite does in
// a rollback: up to the first one whose checksum is wrong. Memory is in proportion to the pages named.
absl::StatusOr<std::optional<JournalContent>> ReadJournal(const File& journal);

}  // namespace echofs::fs
