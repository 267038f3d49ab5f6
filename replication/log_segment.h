// A segment: one file of the log, named by the index of its first entry, "%016x.seg".
//
// Layout, integers big-endian:
//
//     0  magic "ECHOLOG1"
//     8  format version u32 = 2
//    12  number of known terms before the first record u32, at most 1000; 0 in version 1
//    16  base index u64: the entry before the first one
//    24  base term u64: the term of that entry
//    32  base index of the segment before this one u64; all ones when there was none
//    40  size of the segment before this one u64, bytes
//    48  time of creation, ms since 1970 i64
//    56  catalog size u64
//    64  catalog (log_catalog.h): the databases after the base entry
//    ..  terms (log_match.h), ascending: term u64, index of its first entry u64, each
//    ..  XXH3_64 of everything before
//    ..  records (log_entry.h), one after the other
//
// Of a segment of version 1 only the base term is known: its history of terms begins there.
//
// The link to the segment before shows a missing, foreign or shortened one without reading it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "replication/ids.h"
#include "replication/log_catalog.h"
#include "replication/log_match.h"
#include "replication/storage.h"

namespace echofs {

inline constexpr std::uint32_t kSegmentFormatVersion = 2;
inline constexpr std::uint32_t kSegmentFormatVersionMin = 1;  // that can be read
inline constexpr std::uint64_t kNoPreviousSegment = ~std::uint64_t{0};

struct SegmentHeader {
  LogIndex base;
  Term base_term;
  std::uint64_t previous_base = kNoPreviousSegment;
  std::uint64_t previous_size = 0;  // bytes
  std::int64_t created_ms = 0;      // since 1970
};

std::string SegmentFileName(LogIndex base);
// The base of the segment with this file name; false when it is not the name of a segment.
bool ParseSegmentFileName(std::string_view name, LogIndex* base);

// Writes a segment without records to `path` (durable but for its directory entry) and returns the
// open file. `data_start` receives the offset of the first record.
absl::StatusOr<std::unique_ptr<File>> WriteSegmentFile(Storage* storage, const std::string& path,
                                                       const SegmentHeader& header,
                                                       const LogCatalog& catalog,
                                                       const TermHistory& terms,
                                                       std::uint64_t* data_start);

struct SegmentStart {
  SegmentHeader header;
  LogCatalog catalog;
  TermHistory terms;  // up to the base
  std::uint64_t data_start = 0;
};
// Reads and checks what is before the records. DataLoss names `path`; FailedPrecondition when a
// newer version of echofs wrote it.
absl::StatusOr<SegmentStart> ReadSegmentStart(const File& file, const std::string& path);

// What is known in memory of one segment: where some of its records are, one about every 64 KiB.
// Thread-safe. When entries are truncated, a new object takes the place of this one, so that a
// reader that still scans the old file adds its points where nobody looks for them.
class LogSegment {
 public:
  struct Point {
    LogIndex index;
    std::uint64_t offset = 0;
  };

  LogSegment(std::string path, const SegmentHeader& header, std::uint64_t data_start);
  // The same segment, without what lies after `last`.
  std::shared_ptr<LogSegment> CutAfter(LogIndex last) const;

  const std::string& path() const { return path_; }
  const SegmentHeader& header() const { return header_; }
  LogIndex base() const { return header_.base; }
  std::uint64_t data_start() const { return data_start_; }

  // Tells that the record `index` starts at `offset`.
  void AddPoint(LogIndex index, std::uint64_t offset) ABSL_LOCKS_EXCLUDED(mu_);
  // The last known record start that is not after `index`.
  Point Nearest(LogIndex index) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string path_;
  const SegmentHeader header_;
  const std::uint64_t data_start_;
  // No point is wanted before this offset: keeps the mutex out of most appends.
  std::atomic<std::uint64_t> next_point_;
  mutable absl::Mutex mu_;
  std::vector<Point> points_ ABSL_GUARDED_BY(mu_);  // ascending
};

}  // namespace echofs
