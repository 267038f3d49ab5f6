// Reading records out of a segment file: the common part of opening a log, seeking and reading.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/log_catalog.h"
#include "replication/log_entry.h"
#include "replication/log_segment.h"
#include "replication/storage.h"

namespace echofs {

// A file with a read-ahead buffer, so that small records cost no system call each. One thread.
class BufferedFile {
 public:
  BufferedFile(std::unique_ptr<File> file, std::string path);

  const std::string& path() const { return path_; }

  // The bytes from `offset` to `offset + size` (at most kViewSizeMax) or to `limit`, whichever
  // comes first, or fewer at the end of the file. Nothing at or after `limit` is read: it may be in
  // the making. Valid until the next call.
  static constexpr std::size_t kViewSizeMax = 4 << 10;
  absl::StatusOr<ByteView> View(std::uint64_t offset, std::size_t size, std::uint64_t limit);
  // Fills `out` from `offset` on, not beyond `limit`; returns how much.
  absl::StatusOr<std::size_t> Read(std::uint64_t offset, std::uint64_t limit, MutableByteView out);

 private:
  const std::unique_ptr<File> file_;
  const std::string path_;
  std::vector<std::uint8_t> buffer_;
  std::uint64_t buffer_offset_ = 0;
  std::size_t buffer_size_ = 0;
};

// Header of the record at `offset`, which ends at or before `limit`. DataLoss names the segment and
// offset.
absl::StatusOr<LogEntry> ReadEntryAt(BufferedFile& file, std::uint64_t offset, std::uint64_t limit);

// Reads the payload of the record `entry` at `offset` and compares its checksum. DataLoss as above.
absl::Status VerifyPayload(BufferedFile& file, const LogEntry& entry, std::uint64_t offset);

// DataLoss that names the file and the offset.
absl::Status DamagedRecord(const std::string& path, std::uint64_t offset, std::string_view what);

// A place between two records, and what the log is up to it.
struct ScanState {
  LogCatalog catalog;
  TermHistory terms;
  LogIndex last;
  Term last_term;
  std::uint64_t offset = 0;
};

// Moves `state` over the records of a segment that are whole and follow each other, up to the entry
// `until` or the offset `limit`, and tells `segment` where records are. On an error `state` is
// right before the record that caused it.
absl::Status ScanRecords(BufferedFile& file, std::uint64_t limit, LogIndex until,
                         bool verify_payloads, LogSegment* segment, ScanState* state);

}  // namespace echofs
