// Orphans (design R5, D4): change sets that were committed on this node and that the cluster's history lacks.
// Before they are cut from the log they are kept here, one file for each time that the log was cut, until a
// person has looked at them: `echofs orphans`.
//
// A file `orphans/TERM-FIRST-LAST.orphans`, named by the term of its last entry and the indexes of its first
// and last one, in decimal. Layout, integers big-endian:
//
//      0  magic "ECHOORPH"                        56  term of the new primary u64
//      8  format version u32 = 1                  64  time, ms since 1970 i64
//     12  size of the new primary's id u16, 0     72  change sets and drops u64
//     16  index of the common point u64           80  size of the records u64
//     24  its term u64                            88  flags u32: 1 common point not known; 0 u32
//     32  index of the first entry u64            96  id of the new primary
//     40  index of the last entry u64             ..  XXH3_64 of everything before
//     48  term of the last entry u64              ..  records, as in the log (log_entry.h)
//
// A file appears in one step: it is written and synced under another name, renamed, and the directory is
// synced. Only then may the log be cut. After a crash in between, the log still has the entries and they are
// found here too: what is kept already, which the same term at the same index shows (L3), is not kept again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "replication/change_log.h"
#include "replication/log_match.h"
#include "replication/storage.h"

namespace echofs {

inline constexpr std::uint32_t kOrphanFormatVersion = 1;

// What is known of one file of orphans.
struct OrphanInfo {
  std::string id;      // its name without the suffix
  CommonPoint common;  // the last entry that both histories have
  LogIndex first;      // of the entries in it
  LogIndex last;
  Term term;            // of the last one
  std::string primary;  // node id of the primary whose history lacks them
  Term primary_term;
  std::int64_t kept_ms = 0;                        // since 1970
  std::uint64_t change_sets = 0;                   // drops count too
  std::uint64_t bytes = 0;                         // of the file
  std::string damage;                              // why it cannot be read; empty when it can
  std::map<std::string, std::uint64_t> databases;  // change sets of each; filled in by List
};

// Thread-safe.
class OrphanStore {
 public:
  // `directory` is made when it is first needed. Files that are damaged are no error: List tells.
  static absl::StatusOr<std::unique_ptr<OrphanStore>> Open(Storage* storage, std::string directory);

  // Keeps the log's entries after `common`, or all that it has when that is not known. Durable when it
  // returns OK. Does nothing when there are none, when they all only open terms, or when they are kept
  // already. ResourceExhausted when the disk is full; after an error nothing has changed. Reads the log
  // while it runs; nobody may append meanwhile.
  absl::Status Keep(const ChangeLog& log, const CommonPoint& common, const std::string& primary,
                    Term primary_term) ABSL_LOCKS_EXCLUDED(mutex_);

  // All files, oldest first. Reads the headers of their records.
  absl::StatusOr<std::vector<OrphanInfo>> List() ABSL_LOCKS_EXCLUDED(mutex_);
  // Change sets that are kept, in all files that can be read.
  std::uint64_t change_sets() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `visit` for each entry of one file in order, with its payload, until that returns an error or the
  // end. NotFound when there is no such file, DataLoss that names it when it is damaged: a payload is only
  // handed out when its checksum is right.
  using Visitor = std::function<absl::Status(const LogEntry& entry, ByteSource& payload)>;
  absl::Status Read(const std::string& id, const Visitor& visit) ABSL_LOCKS_EXCLUDED(mutex_);

  // Deletes one file, durably. NotFound when there is none.
  absl::Status Discard(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  OrphanStore(Storage* storage, std::string directory)
      : storage_(storage), directory_(std::move(directory)) {}

  std::string PathOf(const std::string& id) const;
  bool Has(const std::string& id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True when the entries up to (index, term), from `first` on, are in one of the files.
  bool IsKept(LogIndex first, LogIndex last, Term term) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteFile(const ChangeLog& log, OrphanInfo info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Publish(const std::string& temporary, const OrphanInfo& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Storage* const storage_;
  const std::string directory_;
  mutable absl::Mutex mutex_;                                        // held while files are written
  std::map<std::string, OrphanInfo> files_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace echofs
