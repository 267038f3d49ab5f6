// The files of one database on a replica, in the data directory and through the mount.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "fs/page_cache.h"
#include "fs/replica_files.h"
#include "fs/writer_locks.h"

namespace echofs::fs {

struct MountReplicaFilesOptions {
  std::string database;             // path below the mount
  std::string root;                 // directory of the backing files
  std::string mount_point;          // absolute
  std::string temporary_directory;  // on the file system of `root`
  Storage* storage = nullptr;       // not owned
  PageCache* cache = nullptr;       // not owned
};

// See ReplicaFiles for threads and errors. Everything here that names the mount makes the kernel send
// requests to this process: never call it from a thread that serves them.
class MountReplicaFiles final : public ReplicaFiles {
 public:
  // `locks`: descriptors that OpenLock gives out instead of opening new ones, with what they hold.
  explicit MountReplicaFiles(MountReplicaFilesOptions options, WriterLocks locks = {})
      : options_(std::move(options)), locks_(std::move(locks)) {}

  absl::StatusOr<std::unique_ptr<File>> OpenBacking(sqlite::FileRole role, bool create) override;
  InodeNumber Inode(sqlite::FileRole role) override;
  absl::StatusOr<std::unique_ptr<LockFile>> OpenLock(sqlite::FileRole role) override;
  absl::Status Adopt(const std::string& temporary, const FileAttributes& attributes) override;
  absl::Status Remove(sqlite::FileRole role) override;
  absl::Status SetAttributes(const FileAttributes& attributes) override;
  std::string TemporaryPath() override;
  Storage* storage() override { return options_.storage; }

 private:
  std::string BackingPath(sqlite::FileRole role) const;
  std::string MountPath(sqlite::FileRole role) const;
  // Makes the kernel forget what it knows of the file's name, and of those of its missing directories.
  void ForgetName(sqlite::FileRole role);

  const MountReplicaFilesOptions options_;
  WriterLocks locks_;
};

}  // namespace echofs::fs
