// The files of one database on a replica, as the mount gives them to ReplicaDatabase. Backing files
// are plain files in the data directory; lock files are opened through the mount.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/file_locks.h"
#include "fs/page_cache.h"
#include "fs/sqlite_format.h"
#include "replication/log_entry.h"
#include "replication/storage.h"

namespace echofs::fs {

// `role` is kMain, kWal or kShm, for Remove also kJournal. Called by the one thread that applies to the database, which holds
// no lock that serving a FUSE request needs: OpenLock makes the kernel send requests to this very
// process.
class ReplicaFiles {
 public:
  virtual ~ReplicaFiles() = default;

  // Opens a backing file for reading and writing; NotFound when it is missing. With `create` a
  // missing one is made, with the owner and mode of the main file, and the kernel forgets that the
  // name did not exist.
  virtual absl::StatusOr<std::unique_ptr<File>> OpenBacking(sqlite::FileRole role, bool create) = 0;
  // Inode number of an existing file in the mount; assigns one when it has none yet.
  virtual InodeNumber Inode(sqlite::FileRole role) = 0;
  // Opens an existing file through the mount. As long as the result lives, the kernel knows the
  // inode.
  virtual absl::StatusOr<std::unique_ptr<LockFile>> OpenLock(sqlite::FileRole role) = 0;

  // Makes a synced file (of TemporaryPath) the main file: sets owner and mode, renames it into
  // place, and makes the kernel forget that the name did not exist. Durable when it returns.
  virtual absl::Status Adopt(const std::string& temporary, const FileAttributes& attributes) = 0;
  // Deletes a file and makes the kernel forget its name. OK when it is missing. Durable when it
  // returns.
  virtual absl::Status Remove(sqlite::FileRole role) = 0;
  // Sets owner and mode of all existing files of the database, and in the kernel.
  virtual absl::Status SetAttributes(const FileAttributes& attributes) = 0;
  // A path for a new file in the file system of the backing files; nothing of that name exists.
  virtual std::string TemporaryPath() = 0;
  // Where backing and temporary files are. Not owned.
  virtual Storage* storage() = 0;
};

}  // namespace echofs::fs
