// The -shm of a database that SQLite has open in this process, for RepairWalIndex: the file itself is the
// kernel's copy.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fs/page_cache.h"
#include "fs/wal_index_repair.h"
#include "replication/status_macros.h"

namespace echofs::fs {

class ShmFile final : public PageCache {
 public:
  explicit ShmFile(const std::string& database) : path_(database + "-shm") {}

  absl::Status Store(InodeNumber, std::uint64_t offset, ByteView bytes) override {
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, PosixStorage()->Open(path_, {}));
    return file->WriteAt(offset, bytes);
  }
  absl::StatusOr<std::vector<std::uint8_t>> Retrieve(InodeNumber, std::uint64_t offset,
                                                     std::size_t size) override {
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, PosixStorage()->Open(path_, {}));
    std::vector<std::uint8_t> bytes(size);
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, offset, bytes));
    return bytes;
  }
  absl::Status Invalidate(InodeNumber, std::uint64_t, std::uint64_t) override {
    return absl::OkStatus();
  }
  absl::Status InvalidateEntry(InodeNumber, const std::string&) override {
    return absl::OkStatus();
  }

  // What the mount does before it tells this process of an error.
  absl::Status Repair(DatabaseCapture* capture) {
    return RepairWalIndex({capture, this, PosixStorage(), path_, path_, getpid()});
  }

 private:
  const std::string path_;
};

}  // namespace echofs::fs
