// SQLite's locks by which the daemon keeps applications from writing a database, taken through the mount (design
// R4). Applications that want to write wait for them with their busy timeout, as for another writer.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/file_locks.h"

namespace echofs::fs {

// Destruction lets writers in again.
struct WriterLocks {
  std::unique_ptr<LockFile> main;
  std::unique_ptr<LockFile> shm;  // null without a wal-index
};

// Tries once. With a wal-index: SHARED on the database, the dead man's switch shared, and WRITE, CKPT and RECOVER, as a
// replica holds them (A1): a checkpoint or recovery that goes on ends soon. In WAL mode without one nobody has the
// database open, and EXCLUSIVE keeps it so. In rollback modes RESERVED. False when an application holds what is
// needed. `mounted_path` names the database in the mount. Not for threads that serve requests.
absl::StatusOr<bool> TryLockWriters(const std::string& mounted_path, bool wal_mode,
                                    WriterLocks* locks);

}  // namespace echofs::fs
