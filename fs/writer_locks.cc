#include "fs/writer_locks.h"

#include <utility>

#include "fs/sqlite_format.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

absl::StatusOr<bool> Exclusive(LockFile& main) {
  return main.TryLock(LockKind::kExclusive, sqlite::kPendingByte, 2 + sqlite::kSharedSize);
}

}  // namespace

absl::StatusOr<bool> TryLockWriters(const std::string& mounted_path, bool wal_mode,
                                    WriterLocks* locks) {
  WriterLocks taken;
  ECHOFS_ASSIGN_OR_RETURN(taken.main, LockFile::Open(mounted_path));
  bool held = false;
  if (!wal_mode) {
    ECHOFS_ASSIGN_OR_RETURN(held,
                            taken.main->TryLock(LockKind::kExclusive, sqlite::kReservedByte, 1));
  } else {
    ECHOFS_ASSIGN_OR_RETURN(held, TrySharedLock(*taken.main));
    if (!held) return false;
    auto shm = LockFile::Open(mounted_path + std::string(sqlite::kShmSuffix));
    if (absl::IsNotFound(shm.status())) {
      ECHOFS_ASSIGN_OR_RETURN(held, Exclusive(*taken.main));
    } else {
      ECHOFS_RETURN_IF_ERROR(shm.status());
      taken.shm = *std::move(shm);
      ECHOFS_ASSIGN_OR_RETURN(held,
                              taken.shm->TryLock(LockKind::kShared, sqlite::kShmDeadManSwitch, 1));
      if (!held) return false;
      ECHOFS_ASSIGN_OR_RETURN(held,
                              taken.shm->TryLock(LockKind::kExclusive, sqlite::kShmWriteLock, 3));
    }
  }
  if (held) *locks = std::move(taken);
  return held;
}

}  // namespace echofs::fs
