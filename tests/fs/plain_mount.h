// A "mount" that is a plain directory: SQLite opens the very backing files. So the protocols of a
// replica run against real SQLite readers without FUSE. Readers must be other processes
// (SqliteProcess): closing a backing file here would drop the POSIX locks that SQLite has on it in
// this process.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fs/page_cache.h"
#include "fs/replica_files.h"

namespace echofs::fs {

// The kernel's copy and the backing file are one and the same, so a store into a -shm file writes
// it, and a store into the others checks that the backing file has the bytes already.
class PlainPageCache final : public PageCache {
 public:
  ~PlainPageCache() override;

  absl::Status Store(InodeNumber inode, std::uint64_t offset, ByteView bytes) override;
  absl::StatusOr<std::vector<std::uint8_t>> Retrieve(InodeNumber inode, std::uint64_t offset,
                                                     std::size_t size) override;
  absl::Status Invalidate(InodeNumber inode, std::uint64_t offset, std::uint64_t size) override;
  absl::Status InvalidateEntry(InodeNumber directory, const std::string& name) override;

  // Inode number for a file; the same path gets a new one after Forget.
  InodeNumber Number(const std::string& path, bool shm);
  void Forget(const std::string& path);

  // Called before each store into a -shm file.
  std::function<void(std::uint64_t offset, std::size_t size)> before_shm_store;
  std::function<bool()> fail_wal_sync;  // asked at each sync of a -wal file
  bool retrieve_nothing = false;        // as if the kernel had dropped its pages
  int stores_outside_shm = 0;

 private:
  struct Node {
    int descriptor = -1;
    bool shm = false;
  };
  std::map<std::string, InodeNumber> numbers_;
  std::map<InodeNumber, Node> nodes_;
};

class PlainReplicaFiles final : public ReplicaFiles {
 public:
  // The database `path`; `cache` is not owned.
  PlainReplicaFiles(std::string path, PlainPageCache* cache)
      : path_(std::move(path)), cache_(cache) {}

  absl::StatusOr<std::unique_ptr<File>> OpenBacking(sqlite::FileRole role, bool create) override;
  InodeNumber Inode(sqlite::FileRole role) override;
  absl::StatusOr<std::unique_ptr<LockFile>> OpenLock(sqlite::FileRole role) override;
  absl::Status Adopt(const std::string& temporary, const FileAttributes& attributes) override;
  absl::Status Remove(sqlite::FileRole role) override;
  absl::Status SetAttributes(const FileAttributes& attributes) override;
  std::string TemporaryPath() override;
  Storage* storage() override { return PosixStorage(); }

 private:
  std::string Path(sqlite::FileRole role) const;

  const std::string path_;
  PlainPageCache* const cache_;
  int temporaries_ = 0;
};

}  // namespace echofs::fs
