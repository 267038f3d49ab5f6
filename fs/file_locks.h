// SQLite's byte-range locks, taken as open file description (OFD) locks. In the mount the file is
// opened through the mount itself, where the kernel keeps the locks (design section 1): they
// conflict with the application's POSIX locks exactly as another process's would, also inside one
// process.
//
// Nothing here ever waits: apply never waits for an application (A3, A4).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echofs::fs {

enum class LockKind { kShared, kExclusive };

// One descriptor that is used for locks only. Closing it (destruction) releases its locks.
// Thread-safe as far as the kernel is; who holds what is the caller's matter.
class LockFile {
 public:
  // Opens `path` for reading and writing. NotFound, or Internal with errno's text.
  static absl::StatusOr<std::unique_ptr<LockFile>> Open(const std::string& path);
  // Takes ownership of an open descriptor.
  explicit LockFile(int descriptor) : descriptor_(descriptor) {}
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  // Locks bytes [offset, offset + length): all of them or, when any is held by somebody else in a
  // conflicting way, none; then false. A range that this object already holds changes to `kind`,
  // and keeps its old kind when that fails.
  absl::StatusOr<bool> TryLock(LockKind kind, std::uint64_t offset, std::uint64_t length);
  absl::Status Unlock(std::uint64_t offset, std::uint64_t length);

  // Process that holds a lock which conflicts with `kind` on the range; 0 when there is none or it
  // is not known (an OFD lock has no owner). Only a hint: it may be gone by now.
  int ConflictingPid(LockKind kind, std::uint64_t offset, std::uint64_t length) const;

 private:
  const int descriptor_;
};

// SQLite's SHARED on a database file; false while somebody is PENDING or EXCLUSIVE.
absl::StatusOr<bool> TrySharedLock(LockFile& main);

// Unlocks a range at the end of a scope.
class ScopedUnlock {
 public:
  ScopedUnlock(LockFile* file, std::uint64_t offset, std::uint64_t length)
      : file_(file), offset_(offset), length_(length) {}
  ~ScopedUnlock() { file_->Unlock(offset_, length_).IgnoreError(); }
  ScopedUnlock(const ScopedUnlock&) = delete;
  ScopedUnlock& operator=(const ScopedUnlock&) = delete;

 private:
  LockFile* const file_;
  const std::uint64_t offset_;
  const std::uint64_t length_;
};

// The lock states of a SQLite connection on a database file (os_unix.c): SHARED, RESERVED, PENDING,
// EXCLUSIVE over the bytes at 1 GiB. One thread at a time. Does not own the file.
class DatabaseLock {
 public:
  explicit DatabaseLock(LockFile* file) : file_(file) {}
  ~DatabaseLock() { UnlockAll().IgnoreError(); }
  DatabaseLock(const DatabaseLock&) = delete;
  DatabaseLock& operator=(const DatabaseLock&) = delete;

  // See TrySharedLock.
  absl::StatusOr<bool> TryShared() { return TrySharedLock(*file_); }
  // RESERVED: no application can become a writer in a rollback mode (A1).
  absl::StatusOr<bool> TryReserved();

  enum class Pending { kKeep, kDrop };
  struct Attempt {
    bool held = false;
    int blocked_by_pid = 0;  // when not held; 0 when unknown
  };
  // PENDING, which keeps new readers out, then EXCLUSIVE. Says what becomes of PENDING when readers
  // are still there: kKeep so that new readers cannot starve this connection (A4), or kDrop.
  absl::StatusOr<Attempt> TryExclusive(Pending pending);

  // Back to SHARED alone, or to RESERVED alone, from any state that includes them; without a moment
  // in which nothing is held.
  absl::Status DowngradeToShared();
  absl::Status DowngradeToReserved();
  // Gives PENDING back, after TryExclusive with kKeep did not get the rest.
  absl::Status DropPending();
  absl::Status UnlockAll();

 private:
  LockFile* const file_;
  bool pending_ = false;
};

}  // namespace echofs::fs
