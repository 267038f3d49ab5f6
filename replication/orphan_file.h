// Reading and writing one file of orphans; its layout is in orphan_store.h.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/log_scan.h"
#include "replication/orphan_store.h"

namespace echofs {

inline constexpr std::string_view kOrphanSuffix = ".orphans";

// The name without suffix that a file with this content has.
std::string OrphanId(const OrphanInfo& info);
// True for what OrphanId gives: nothing else may be put into a path.
bool IsOrphanId(std::string_view id);

// Everything before the records; `records_size` in bytes.
std::string EncodeOrphanHeader(const OrphanInfo& info, std::uint64_t records_size);

// Reads one file. One thread. Errors are DataLoss that names the file, or FailedPrecondition when a newer
// echofs wrote it.
class OrphanFile {
 public:
  static absl::StatusOr<std::unique_ptr<OrphanFile>> Open(Storage* storage,
                                                          const std::string& path);

  const OrphanInfo& info() const { return info_; }
  // The next entry, or nothing after the last one.
  absl::StatusOr<std::optional<LogEntry>> Next();
  // The payload of that entry, checked; for one pass, until Next is called again.
  absl::StatusOr<std::unique_ptr<ByteSource>> Payload();

 private:
  OrphanFile(std::unique_ptr<File> file, std::string path)
      : file_(std::move(file), std::move(path)) {}
  absl::Status ReadHeader(std::uint64_t size);

  BufferedFile file_;
  OrphanInfo info_;
  std::uint64_t end_ = 0;
  std::uint64_t next_ = 0;     // offset
  std::uint64_t current_ = 0;  // of the record that Next returned
  std::uint64_t entries_ = 0;  // that Next has returned
  std::uint64_t change_sets_ = 0;
  LogEntry entry_;
};

}  // namespace echofs
