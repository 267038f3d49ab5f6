// How far the log was synced, kept in `log/synced`: tells a torn tail from damage when the log is
// opened.
//
// Layout: magic "ECHOSYNC" · index u64 big-endian · XXH3_64 of both u64. It is written after each
// sync of the log and mostly not synced itself: after a power loss it may be too low, never too
// high.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/ids.h"
#include "replication/storage.h"

namespace echofs {

// One thread at a time.
class SyncWatermark {
 public:
  // Opens the file, which is made when missing; its directory is not synced.
  static absl::StatusOr<std::unique_ptr<SyncWatermark>> Open(Storage* storage,
                                                             const std::string& path);
  // The index that is written in the file; 0 when it has none that is whole.
  LogIndex value() const { return value_; }
  absl::Status Write(LogIndex index);
  // Write, and make it durable. Before entries are taken away, for else the file would tell of
  // them.
  absl::Status WriteDurably(LogIndex index);

 private:
  explicit SyncWatermark(std::unique_ptr<File> file) : file_(std::move(file)) {}

  const std::unique_ptr<File> file_;
  LogIndex value_;
};

}  // namespace echofs
